"""Every state the official engine was recorded with must survive load and save unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.checkpoint import (
    CheckpointCodec,
    CheckpointError,
    new_magic,
    parse_versioned,
    verified,
    versioned,
)
from engine.deploy.property import Secret
from engine.deploy.resource import ResourceState
from engine.deploy.secrets import KeyCache, PassphraseSecrets, SecretsError
from engine.deploy.snapshot import Snapshot

REFERENCE = Path(__file__).parents[3].parent / "shared" / "reference" / "pulumi"
STATES = sorted([*REFERENCE.glob("state-*.json"), *REFERENCE.glob("recordings/*-state-*.json")])
KEYS = KeyCache()
DROPLET = "urn:pulumi:dev::p::digitalocean:index/droplet:Droplet::w"


@pytest.fixture
def secrets() -> PassphraseSecrets:
    return PassphraseSecrets(b"k" * 32, "v1:c2FsdHNhbHQ=:v1:x:y")


def same_text(loaded: dict[str, Any], saved: dict[str, Any]) -> None:
    assert json.dumps(loaded) == json.dumps(saved)  # also the order of members


@pytest.mark.skipif(not STATES, reason="the recordings in ../shared/reference are absent")
@pytest.mark.parametrize("path", STATES, ids=lambda p: p.name)
def test_recorded_state_survives_load_and_save(path: Path) -> None:
    deployment = parse_versioned(path.read_text(), path.name, "deployment")
    salt = deployment["secrets_providers"]["state"]["salt"]
    codec = CheckpointCodec(PassphraseSecrets.open("x", salt, KEYS) if "-encrypted" in path.name else None)
    loaded = codec.load(deployment)
    verified(loaded.snapshot, path.name)
    same_text(deployment, codec.dump(loaded, show_secrets="-encrypted" not in path.name))


@pytest.mark.skipif(not STATES, reason="the recordings in ../shared/reference are absent")
def test_encrypted_and_shown_states_hold_the_same_values() -> None:
    shown = parse_versioned((REFERENCE / "recordings/do-state-up.json").read_text(), "shown", "deployment")
    sealed = parse_versioned((REFERENCE / "recordings/do-state-up-encrypted.json").read_text(), "sealed", "deployment")
    salt = sealed["secrets_providers"]["state"]["salt"]
    opened = CheckpointCodec(PassphraseSecrets.open("x", salt, KEYS)).load(sealed)
    assert opened.snapshot.resources == CheckpointCodec(None).load(shown).snapshot.resources


@pytest.mark.skipif(not STATES, reason="the recordings in ../shared/reference are absent")
def test_pending_operations_survive_load_and_save() -> None:
    recording = json.loads((REFERENCE / "recordings/fail-engine-killed.json").read_text())
    deployment = recording["states"]["after-kill"]["deployment"]
    codec = CheckpointCodec(PassphraseSecrets.open("x", deployment["secrets_providers"]["state"]["salt"], KEYS))
    loaded = codec.load(deployment)
    assert [(o.type, o.resource.id) for o in loaded.snapshot.pending_operations] == [("creating", "")]
    assert codec.dump(loaded, show_secrets='"plaintext"' in json.dumps(deployment)) == deployment


def test_magic_is_that_of_the_recordings() -> None:
    assert new_magic("v3.260.0") == "7dff0d166258e7f1d265e8e044021ea087795d58a0c6415ab6fe8b7c790e447f"


def test_unchanged_secret_keeps_its_ciphertext(secrets: PassphraseSecrets) -> None:
    state = ResourceState(DROPLET, "t:i:T", True, id="1", inputs={"a": Secret("one"), "b": [Secret({"x": 2})]})
    first = CheckpointCodec(secrets).dump_resource(state)
    codec = CheckpointCodec(secrets)
    loaded = codec.load_resource(first)
    assert loaded == state
    assert codec.dump_resource(loaded) == first
    changed = codec.dump_resource(replace(loaded, inputs={**loaded.inputs, "a": Secret("two")}))
    assert changed["inputs"]["a"] != first["inputs"]["a"]
    assert changed["inputs"]["b"] == first["inputs"]["b"]


def test_unknown_members_are_kept(secrets: PassphraseSecrets) -> None:
    data = {"urn": DROPLET, "custom": True, "id": "1", "type": "t:i:T", "taint": True, "future": {"a": 1}}
    codec = CheckpointCodec(secrets)
    assert list(codec.dump_resource(codec.load_resource(data))) == ["urn", "custom", "id", "type", "taint", "future"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"version": 3, "deploy', "not complete JSON"),
        ('{"version": 9, "deployment": {}}', "newer"),
        ('{"version": 2, "deployment": {}}', "older"),
        ('{"version": 4, "features": ["views"], "deployment": {}}', "views"),
        ("[]", "not a Pulumi deployment"),
    ],
)
def test_bad_envelope_is_refused_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        parse_versioned(text, "dev.json", "deployment")
    assert "STACKYARD_PULUMI=cli" in str(caught.value) or "restore" in str(caught.value)


def test_envelope_names_the_features_a_reader_must_know() -> None:
    plain = ResourceState("urn:pulumi:dev::p::t::a", "t", False)
    assert versioned("deployment", {}, [plain])["version"] == 3
    special = plain.with_(hooks={"AfterCreate": ("say",)}, replace_with=(plain.urn,))
    envelope = versioned("deployment", {}, [plain, special])
    assert (envelope["version"], envelope["features"]) == (4, ["hooks", "replaceWith"])
    parse_versioned(json.dumps(envelope), "dev.json", "deployment")


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ([ResourceState(DROPLET, "t", True, id="1"), ResourceState(DROPLET, "t", True, id="2")], "duplicate"),
        ([ResourceState(DROPLET, "t", True, id="1", parent="urn:pulumi:dev::p::a::gone")], "unknown parent"),
    ],
)
def test_broken_snapshot_is_refused(resources: list[ResourceState], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        verified(Snapshot(resources), "dev.json")


def test_altered_magic_is_refused(secrets: PassphraseSecrets) -> None:
    with pytest.raises(CheckpointError, match="magic"):
        CheckpointCodec(secrets).load({"manifest": {"time": "t", "magic": "00", "version": "v3.260.0"}})


def test_secret_without_passphrase_is_refused(secrets: PassphraseSecrets) -> None:
    data = CheckpointCodec(secrets).dump_resource(ResourceState(DROPLET, "t", True, id="1", inputs={"a": Secret(1)}))
    with pytest.raises(SecretsError, match="PULUMI_CONFIG_PASSPHRASE"):
        CheckpointCodec(None).load_resource(data)


def test_another_secrets_provider_is_refused(secrets: PassphraseSecrets) -> None:
    with pytest.raises(CheckpointError, match="change-secrets-provider"):
        CheckpointCodec(secrets).load({"secrets_providers": {"type": "cloud", "state": {}}})
