"""`stack change-secrets-provider` that dies anywhere: all is under the old passphrase or all under the new one.

A power cut is simulated: from one change of the file system on, none happens any more, not even cleaning up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pulumi
import pytest
from pulumi.automation.errors import CommandError

from tests.fakes.scenario import Thing

CHANGE = ("stack", "change-secrets-provider", "passphrase", "--stack", "dev")
NEW = {"PULUMI_CONFIG_PASSPHRASE_NEW": "y"}
_CHANGES = ("replace", "rename", "unlink", "link")


class PowerCutError(Exception):
    """Nothing is durable from here on."""


class DeadExecutor:
    """A fence that knows that the executor of the cut command is dead."""

    token = 1

    def check(self) -> None:
        pass

    def holder_is_dead(self, lock_owner: str) -> bool:
        return lock_owner == "doomed"


def program() -> None:
    Thing("web", {"token": pulumi.Output.secret("hush")})
    pulumi.export("token", pulumi.Output.secret("hush"))


@contextmanager
def power_cut(at: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let so many changes of the file system happen; yields what was asked for."""
    asked: list[str] = []

    def cutting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            asked.append(f"{name} {args}")
            if len(asked) > at:
                raise PowerCutError(asked[-1])
            return real(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(os, name, cutting(name, getattr(os, name)))
        yield asked


def readable_under(place: Any, passphrase: str) -> bool:
    """Whether this passphrase opens configuration and checkpoint; False: it opens neither."""
    place.passphrase = passphrase
    opened = []
    for line in (("config", "get", "key"), ("stack", "output", "token", "--show-secrets")):
        try:
            command = place.command(fence=DeadExecutor(), executor="reader")
            opened.append(place.run(*line, "--stack", "dev", command=command).stdout)
        except CommandError as err:
            assert "incorrect passphrase" in str(err)
    assert opened in ([], ["mine", "hush"]), f"half of it: {opened}"
    return bool(opened)


@pytest.fixture
def stack(place: Any) -> Any:
    made = place.stack(program)
    place.run("config", "set", "key", "mine", "--secret", "--stack", "dev")
    made.up()
    return made


def test_every_cut_leaves_all_old_or_all_new(place: Any, stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: list[str] = []
    current, cut = "x", 0
    while cut < 60:
        place.passphrase = current
        target = "y" if current == "x" else "x"
        changing = place.command(fence=DeadExecutor(), executor="doomed")
        with power_cut(cut, monkeypatch) as asked:
            try:
                place.run(*CHANGE, env={"PULUMI_CONFIG_PASSPHRASE_NEW": target}, command=changing)
            except PowerCutError:
                pass
            except OSError as err:
                raise AssertionError(asked) from err
        whole = len(asked) <= cut
        old, new = readable_under(place, current), readable_under(place, target)
        assert old != new, f"cut {cut}: under both or none, after {asked}"
        verdicts.append(current if old else target)
        current = current if old else target
        if whole:
            break
        cut += 1
    assert whole and cut > 3, "the change has several steps and an end"
    assert len(set(verdicts)) == 2
    place.passphrase = current
    assert set(place.stack(program, command=place.command(fence=DeadExecutor())).up().summary.resource_changes) == {
        "same"
    }


def test_undecided_change_does_not_hold_up_anything(place: Any, stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits beside the configuration counts for nothing until the checkpoint says so."""
    work = place.root / "work"
    waiting = work / ".Pulumi.dev.next.yaml"
    waiting.write_text((work / "Pulumi.dev.yaml").read_text().replace("encryptionsalt: v1:", "encryptionsalt: v1:x"))
    assert place.run("config", "get", "key", "--stack", "dev").stdout == "mine"
    place.run("config", "set", "other", "1", "--stack", "dev")
    place.run(*CHANGE, env=NEW)
    place.passphrase = "y"
    assert place.run("config", "get", "key", "--stack", "dev").stdout == "mine"
    assert json.loads(place.run("config", "--json", "--stack", "dev").stdout)["golden:other"]["value"] == "1"
    assert not waiting.exists()
