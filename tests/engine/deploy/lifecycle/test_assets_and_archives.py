"""Files, texts and archives as inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from engine.deploy.assets import AssetError, with_hashes
from engine.deploy.checkpoint import CheckpointCodec
from engine.deploy.property import Archive, Asset
from tests.fakes.scenario import Scenario, Thing


def program(value: Any) -> Any:
    return lambda: (Thing("a", {"content": value()}), None)[1]


def test_text(scenario: Scenario) -> None:
    run = scenario.up(program(lambda: pulumi.StringAsset("hello")))
    assert run.result.succeeded, run.errors
    digest = hashlib.sha256(b"hello").hexdigest()
    assert run.state("a").inputs["content"] == Asset({"text": "hello", "hash": digest})
    assert scenario.up(program(lambda: pulumi.StringAsset("hello"))).entries == []
    assert scenario.up(program(lambda: pulumi.StringAsset("bye"))).ops["a"] == ["update"]


def test_events_carry_no_texts(scenario: Scenario) -> None:
    """They are files of any size; an archive's as well, and of the old state too."""

    def texts(word: str) -> Any:
        return program(lambda: [pulumi.StringAsset(word), pulumi.AssetArchive({"x": pulumi.StringAsset(word)})])

    scenario.up(texts("hello"))
    run = scenario.up(texts("bye"))
    assert run.ops["a"] == ["update"], run.errors
    shown = json.dumps(run.events)
    assert "hello" not in shown and "bye" not in shown and shown.count("<contents elided>") >= 4


def test_changed_file_is_an_update(scenario: Scenario, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    scenario.up(program(lambda: pulumi.FileAsset(str(file))))
    assert scenario.up(program(lambda: pulumi.FileAsset(str(file)))).ops["a"] == ["same"]
    file.write_bytes(b"two")
    run = scenario.up(program(lambda: pulumi.FileAsset(str(file))))
    assert run.ops["a"] == ["update"]
    assert run.state("a").inputs["content"].fields["hash"] == hashlib.sha256(b"two").hexdigest()


def test_archive_and_its_checkpoint_form(scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"bb")
    (tmp_path / "a").write_bytes(b"a")

    def archive() -> Any:
        return pulumi.AssetArchive({"x": pulumi.StringAsset("text"), "dir": pulumi.FileArchive(str(tmp_path))})

    run = scenario.up(program(archive))
    assert run.result.succeeded, run.errors
    assert scenario.up(program(archive)).entries == []
    state = run.state("a")
    assert isinstance(state.inputs["content"], Archive)
    codec = CheckpointCodec(None)
    stored = codec.dump_resource(state)["inputs"]["content"]
    assert set(stored) == {"4dabf18193072939515e22adb298388d", "assets", "hash"}
    assert stored["assets"]["x"]["text"] == "text" and len(stored["hash"]) == 64


@pytest.mark.parametrize(
    ("names", "digest"),
    [
        (["a", "sub/b"], "1b9fb727b3014e804f5f10bf5207be8eb007d44fd94c08bbfc9fc092dadcec2b"),
        (
            [f"{'d' * 50}/{'e' * 51}/{'f' * 20}"],
            "42df9ca6b8b3566098a32204521ed11a8a8e5e41f5ae85161dadf97c1a25e564",
        ),
        (["\u00fc"], "23f2d6654f224e4f76f4af0329899f1bec4a1fac78e55d699360edc7d5678710"),
        (["x" * 120], "7f783f6be6f3bf9de13103d85e909d76cd749b58f692610c32bc16ebc3d863c3"),
    ],
)
def test_hash_of_an_archive_is_that_of_the_tar_go_writes(tmp_path: Path, names: list[str], digest: str) -> None:
    """The digests are of what Go's archive/tar wrote for these names, mode 0600, content "a"."""
    found = with_hashes(Archive({"assets": {n: Asset({"text": "a"}) for n in names}}), tmp_path)
    assert found.fields["hash"] == digest


def test_folder_is_walked_in_order_without_bookkeeping(tmp_path: Path) -> None:
    for folder in ("sub", ".pulumi"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "b").write_bytes(b"a")
    (tmp_path / "a").write_bytes(b"a")
    found = with_hashes(Archive({"path": "."}), tmp_path)
    assert found.fields["hash"] == "1b9fb727b3014e804f5f10bf5207be8eb007d44fd94c08bbfc9fc092dadcec2b"


def test_archive_file_is_hashed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"zip")
    found = with_hashes(Archive({"path": "x.zip"}), tmp_path)
    assert found.fields["hash"] == hashlib.sha256(b"zip").hexdigest()


@pytest.mark.parametrize("value", [Asset({"path": "nope"}), Archive({"path": "nope"}), Asset({"uri": "https://x/y"})])
def test_what_cannot_be_read(tmp_path: Path, value: Any) -> None:
    with pytest.raises(AssetError):
        with_hashes({"x": [value]}, tmp_path)


def test_missing_file_fails_the_resource(scenario: Scenario) -> None:
    run = scenario.up(program(lambda: pulumi.FileAsset("/nope/file")))
    assert not run.result.succeeded
    assert "fake:index:Thing resource 'a': failed to open asset file '/nope/file'" in run.errors
