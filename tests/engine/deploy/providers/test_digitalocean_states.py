"""The provider's inputs, outputs and requests beside recordings of the official provider, key by key."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from engine.deploy.property import PropertyMap, Secret
from engine.deploy.provider import ProviderError
from engine.deploy.providers.digitalocean import DigitalOceanProvider
from engine.model.budget import Unlimited
from tests.fakes.clock import FakeClock

TYPES = {
    "Droplet": "digitalocean:index/droplet:Droplet",
    "SshKey": "digitalocean:index/sshKey:SshKey",
    "Firewall": "digitalocean:index/firewall:Firewall",
    "Tag": "digitalocean:index/tag:Tag",
    "Vpc": "digitalocean:index/vpc:Vpc",
    "Volume": "digitalocean:index/volume:Volume",
    "VolumeAttachment": "digitalocean:index/volumeAttachment:VolumeAttachment",
    "ReservedIp": "digitalocean:index/reservedIp:ReservedIp",
    "ReservedIpAssignment": "digitalocean:index/reservedIpAssignment:ReservedIpAssignment",
    "Project": "digitalocean:index/project:Project",
    "ProjectResources": "digitalocean:index/projectResources:ProjectResources",
    "Domain": "digitalocean:index/domain:Domain",
    "DnsRecord": "digitalocean:index/dnsRecord:DnsRecord",
}
ATTACHMENTS = ("VolumeAttachment", "ReservedIpAssignment")


class Replay:
    """Answers requests as recorded in one step, and keeps what was asked.

    Each change is answered once; after it a look sees what the recorded one after that change saw.
    """

    def __init__(self, requests: list[dict[str, Any]], step: str) -> None:
        self._recorded = [r for r in requests if r["step"] == step]
        self._used: set[int] = set()
        self._now = -1
        self.asked: list[tuple[str, str, Any]] = []

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.path, body))
        found = [i for i in range(len(self._recorded)) if i not in self._used and self._is(i, request)]
        assert found, f"the official provider did not ask {request.method} {request.url.path}"
        place = next((i for i in found if i > self._now), found[-1])
        if request.method != "GET":
            self._used.add(place)
            self._now = place
        return httpx.Response(self._recorded[place]["status"], json=self._recorded[place]["response"])

    def _is(self, place: int, request: httpx.Request) -> bool:
        recorded = self._recorded[place]
        return (recorded["method"], without_query(recorded["path"])) == (request.method, request.url.path)


def without_query(path: str) -> str:
    return path.split("?")[0]


def official_requests(requests: list[dict[str, Any]], step: str) -> list[tuple[str, str, Any]]:
    """What the official provider asked in a step, without its looks at actions that were completed at once."""
    of_step = [(r["method"], without_query(r["path"]), sortable(r["body"])) for r in requests if r["step"] == step]
    return [r for r in of_step if not (r[0] == "GET" and "/actions/" in r[1])]


async def provider_of(replay: Replay) -> DigitalOceanProvider:
    provider = DigitalOceanProvider(
        environment={"DIGITALOCEAN_ACCESS_TOKEN": "tok"},
        budget=Unlimited(),
        clock=FakeClock(),
        api_endpoint="http://127.0.0.1",
        transport=replay.transport(),
    )
    await provider.configure({})
    return provider


def program_inputs(inputs: PropertyMap) -> PropertyMap:
    """What the program said: recorded inputs without what the provider filled in (names stay: they are random)."""
    filled = [name for name in inputs["__defaults"] if name != "name"]
    return {k: without_defaults(v) for k, v in inputs.items() if k != "__defaults" and k not in filled}


def without_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_defaults(v) for k, v in value.items() if k != "__defaults"}
    return [without_defaults(v) for v in value] if isinstance(value, list) else value


CREATED = [
    ("up", "up", "Droplet"),
    ("up", "up", "SshKey"),
    ("up", "up", "Firewall"),
    ("up", "up", "Tag"),
    ("gpu", "gpu-up", "Droplet"),
    ("without-tags", "without-tags", "Droplet"),
    *(("up", "up", kind) for kind in list(TYPES)[4:]),
]


@pytest.mark.parametrize(("state", "step", "kind"), CREATED)
async def test_create_writes_the_recorded_state(golden: dict[str, Any], state: str, step: str, kind: str) -> None:
    recorded, type_ = golden["states"][state][kind], TYPES[kind]
    replay = Replay(golden["requests"], step)
    provider = await provider_of(replay)
    urn = f"urn:pulumi:dev::g2do::{type_}::x"
    # The chosen name is given as one that was filled in before, because the recording's is random.
    named = {k: v for k, v in program_inputs(recorded["inputs"]).items() if k not in recorded["inputs"]["__defaults"]}
    checked = await provider.check(urn, type_, recorded["inputs"], named, b"seed")
    assert not checked.failures
    assert checked.inputs == recorded["inputs"]
    timeout = 40 if state == "without-tags" else 0
    created = await provider.create(urn, type_, checked.inputs, timeout, preview=False)
    assert unmade(kind, created.id) == unmade(kind, recorded["id"])
    assert created.outputs | {"id": ""} == recorded["outputs"] | {"id": ""}
    assert created.outputs["id"] == created.id
    await provider.close()


def unmade(kind: str, id: str) -> str:
    """An attachment's id is made up: of what and where, the moment (18 digits) and a running number (8)."""
    if kind not in ATTACHMENTS:
        return id
    what, moment = id.rsplit("-", 1)
    assert len(moment) == 26
    assert moment[:18].isdigit()
    return what


@pytest.mark.parametrize(("state", "step", "kind"), CREATED)
async def test_create_sends_the_recorded_body(golden: dict[str, Any], state: str, step: str, kind: str) -> None:
    recorded, type_ = golden["states"][state][kind], TYPES[kind]
    replay = Replay(golden["requests"], step)
    provider = await provider_of(replay)
    await provider.create(f"urn:x::{type_}::x", type_, recorded["inputs"], 0, preview=False)
    posts = [(path, sortable(body)) for method, path, body in replay.asked if method == "POST"]
    path = posts[0][0]
    official = [r for r in official_requests(golden["requests"], step) if r[:2] == ("POST", path)]
    assert posts == [(path, official[0][2])]
    await provider.close()


def sortable(body: Any) -> Any:
    """Rules and resources are sent in the order of an inner hash; any order says the same."""
    if isinstance(body, dict):
        return {k: sorted(v, key=json.dumps) if k.endswith("rules") or k == "resources" else v for k, v in body.items()}
    return body


UPDATED = [
    ("firewall-rule", "up-firewall-rule", "Firewall"),
    ("key-rename", "up-key-rename", "SshKey"),
    ("vpc-description", "up-vpc-description", "Vpc"),
    ("volume-resize", "up-volume-resize", "Volume"),
    ("project-description", "up-project-description", "Project"),
    ("record-ttl", "up-record-ttl", "DnsRecord"),
]
LAST_UPDATE = {kind: state for state, _, kind in UPDATED}


@pytest.mark.parametrize(("state", "step", "kind"), UPDATED)
async def test_update_in_place_writes_the_recorded_state(
    golden: dict[str, Any], state: str, step: str, kind: str
) -> None:
    old, new, type_ = golden["states"]["up"][kind], golden["states"][state][kind], TYPES[kind]
    replay = Replay(golden["requests"], step)
    provider = await provider_of(replay)
    urn = f"urn:x::{type_}::x"
    found = await provider.diff(urn, type_, old["id"], old["inputs"], old["outputs"], new["inputs"], ())
    assert found.changes and not found.replace_keys
    outputs = await provider.update(
        urn, type_, old["id"], old["inputs"], old["outputs"], new["inputs"], 0, (), preview=False
    )
    assert outputs == new["outputs"]
    assert [(m, p, sortable(b)) for m, p, b in replay.asked] == official_requests(golden["requests"], step)
    await provider.close()


async def test_a_changed_firewall_rule_is_named_as_recorded(golden: dict[str, Any]) -> None:
    old, new = golden["states"]["up"]["Firewall"], golden["states"]["firewall-rule"]["Firewall"]
    provider = await provider_of(Replay([], ""))
    found = await provider.diff("u", TYPES["Firewall"], "i", old["inputs"], old["outputs"], new["inputs"], ())
    assert found.changed_keys == ["inboundRules"]
    kinds = {path: d.kind.value for path, d in found.detailed_diff.items()}
    assert kinds == {"inboundRules[1]": "add", "inboundRules[2]": "delete"}


async def test_rename_and_tag_send_the_recorded_requests(golden: dict[str, Any]) -> None:
    old = golden["states"]["gpu"]["Droplet"]
    replay = Replay(golden["requests"], "gpu-up-rename+tag")
    provider = await provider_of(replay)
    new_inputs = {**old["inputs"], "name": "web2", "tags": ["lab", "b"]}
    type_ = TYPES["Droplet"]
    outputs = await provider.update(
        "u", type_, old["id"], old["inputs"], old["outputs"], new_inputs, 0, (), preview=False
    )
    official = [r for r in golden["requests"] if r["step"] == "gpu-up-rename+tag"]
    assert replay.asked == [(r["method"], r["path"], r["body"]) for r in official]
    assert outputs["name"] == "web2"
    assert outputs["__meta"] == old["outputs"]["__meta"]
    await provider.close()


@pytest.mark.parametrize("kind", TYPES)
async def test_refresh_writes_the_recorded_state(golden: dict[str, Any], kind: str) -> None:
    before = golden["states"][LAST_UPDATE.get(kind, "up")][kind]
    after, type_ = golden["states"]["refreshed"][kind], TYPES[kind]
    provider = await provider_of(Replay(golden["requests"], "refresh"))
    read = await provider.read("u", type_, before["id"], before["inputs"], before["outputs"])
    assert read.id == after["id"]
    assert read.outputs == after["outputs"]
    assert read.inputs == after["inputs"]
    again = await provider.diff("u", type_, read.id, read.inputs, read.outputs, before["inputs"], ())
    assert again.changes is False
    await provider.close()


async def test_refresh_turns_absent_tags_into_an_empty_list(golden: dict[str, Any]) -> None:
    before, after = (golden["states"][s]["Droplet"] for s in ("without-tags", "refreshed-without-tags"))
    provider = await provider_of(Replay(golden["requests"], "without-tags"))
    read = await provider.read("u", TYPES["Droplet"], before["id"], before["inputs"], before["outputs"])
    assert read.outputs["tags"] == [] == after["outputs"]["tags"]
    assert read.outputs["__pulumi_raw_state_delta"] == after["outputs"]["__pulumi_raw_state_delta"]
    await provider.close()


async def test_provider_inputs_are_checked_as_recorded(golden: dict[str, Any]) -> None:
    recorded = golden["states"]["provider"]["inputs"]
    provider = await provider_of(Replay([], ""))
    news = {
        "apiEndpoint": recorded["apiEndpoint"],
        "httpRetryMax": 0.0,
        "token": "fake-token",
        "version": recorded["version"],
    }
    checked = await provider.check_config("u", {}, news)
    assert checked.inputs == recorded
    assert checked.inputs["token"] == Secret("fake-token")


async def test_the_environments_token_stays_out_of_state() -> None:
    provider = await provider_of(Replay([], ""))
    checked = await provider.check_config("u", {}, {})
    assert checked.inputs == {"__internal": {}}


DELETED = {
    "VolumeAttachment": ["POST"],
    "ReservedIpAssignment": ["GET", "POST"],
    "DnsRecord": ["DELETE"],
    "Domain": ["DELETE"],
    "ProjectResources": ["GET", "GET", "POST"],
    "Volume": ["DELETE"],
    "Vpc": ["DELETE"],
    "ReservedIp": ["DELETE"],
    "Project": ["GET", "POST", "DELETE"],
}


@pytest.mark.parametrize(("kind", "methods"), DELETED.items())
async def test_delete_sends_the_recorded_requests(golden: dict[str, Any], kind: str, methods: list[str]) -> None:
    state, type_ = golden["states"]["refreshed"][kind], TYPES[kind]
    replay = Replay(golden["requests"], "destroy")
    provider = await provider_of(replay)
    await provider.delete("u", type_, state["id"], state["inputs"], state["outputs"], 0)
    assert [method for method, _, _ in replay.asked] == methods
    official = official_requests(golden["requests"], "destroy")
    assert all((m, p, sortable(b)) in official for m, p, b in replay.asked)
    await provider.close()


async def test_a_shrinking_volume_is_refused_in_the_recorded_words(golden: dict[str, Any]) -> None:
    old = golden["states"]["refreshed"]["Volume"]
    replay = Replay([], "")
    provider = await provider_of(replay)
    smaller = {**old["inputs"], "size": 5}
    with pytest.raises(ProviderError) as error:
        await provider.diff("u", TYPES["Volume"], old["id"], old["inputs"], old["outputs"], smaller, ())
    assert str(error.value) == "1 error occurred:\n\t* volumes `size` can only be expanded and not shrunk\n\n"
    assert replay.asked == []
