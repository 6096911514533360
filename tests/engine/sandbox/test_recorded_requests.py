"""Every request the official DigitalOcean provider was recorded to make is answered, in order and in shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RECORDING = (
    Path(__file__).resolve().parents[3].parent / "shared/reference/pulumi/recordings/do-requests.json"
)  # fmt: skip
NOT_DOCUMENTED = {"floating_ip", "error_message"}
"""Keys of the recorded stand-in's answers that DigitalOcean's document does not require."""


class Names:
    """Recorded ids → ours, learned from answers side by side."""

    def __init__(self) -> None:
        self._pairs: dict[str, str] = {}

    def learn(self, recorded: Any, ours: Any) -> None:
        if isinstance(recorded, dict) and isinstance(ours, dict):
            for key in recorded.keys() & ours.keys():
                if key in ("id", "ip", "fingerprint") and recorded[key] != ours[key]:
                    self._pairs[str(recorded[key])] = str(ours[key])
                self.learn(recorded[key], ours[key])
        elif isinstance(recorded, list) and isinstance(ours, list):
            for each in zip(recorded, ours, strict=False):
                self.learn(*each)

    def translate(self, text: str) -> str:
        for recorded, ours in self._pairs.items():
            text = text.replace(recorded, ours)
        return text


def assert_same_shape(recorded: Any, ours: Any, where: str) -> None:
    """Whatever the official provider read is there, with its type."""
    if recorded is None or ours is None:
        return
    if isinstance(recorded, dict):
        assert isinstance(ours, dict), where
        for key in recorded.keys() - NOT_DOCUMENTED:
            assert key in ours, f"{where}: {key} is missing"
            assert_same_shape(recorded[key], ours[key], f"{where}.{key}")
    elif isinstance(recorded, list):
        assert isinstance(ours, list), where
        for one, other in zip(recorded, ours, strict=False):
            assert_same_shape(one, other, where)
    elif isinstance(recorded, bool | str):
        assert type(ours) is type(recorded), f"{where}: {ours!r} for {recorded!r}"
    else:
        assert isinstance(ours, int | float), f"{where}: {ours!r} for {recorded!r}"


async def test_official_providers_requests_are_all_answered(client, cloud, clock):
    if not RECORDING.exists():
        pytest.skip(f"the recordings of the official provider are not at {RECORDING}")
    cloud.timings.boot_seconds = 5
    names, asked = Names(), 0
    for step in json.loads(RECORDING.read_text()):
        now = 0.0
        for one in step["requests"]:
            clock.advance(max(0.0, one["t"] - now))
            now = one["t"]
            where = f"{step['step']}: {one['method']} {one['path']}"
            body = json.loads(names.translate(json.dumps(one["body"]))) if one["body"] else None
            answer = await client.request(one["method"], names.translate(one["path"]), json=body)
            assert answer.status_code == one["status"], f"{where}: {answer.text}"
            if one["response"] and answer.is_success:
                names.learn(one["response"], answer.json())
                assert_same_shape(one["response"], answer.json(), where)
            asked += 1
    assert asked == 84
    account = next(iter(cloud.accounts.values()))
    left = {kind.kind: list(table) for kind, table in account.assets.items() if table}
    assert not account.droplets and not account.firewalls and not account.keys and list(left) == ["project"]
    assert [p["name"] for p in (await client.get("/v2/projects")).json()["projects"]] == [account.name]
