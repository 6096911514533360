"""One stack, worked on by the two engines in turn: whoever comes next finds nothing to do."""

from __future__ import annotations

from collections.abc import Callable

import pulumi
import pytest
from pulumi import ResourceOptions

from tests.fakes.cells import Block, Cell, Keeper, folder
from tests.fakes.twins import Twin

pytestmark = pytest.mark.integration  # minutes

TURNS = 10


def components(step: int) -> None:
    block = Block("block", 2, text="x")
    Block("inner", 1, ResourceOptions(parent=block, protect=False))
    Cell("old", ResourceOptions(aliases=[pulumi.Alias(name="older")]))
    pulumi.export("urn", block.urn)


def values(step: int) -> None:
    key = pulumi.Output.secret("hush")
    a = Cell("a", text=key, keyed=True, map={"deep": [key, 2, None, 1.5], "empty": {}}, list=[])
    Cell("b", ResourceOptions(additional_secret_outputs=["serial"], depends_on=[a]), text=a.serial, unicode="ünï <&>")
    Cell("refer", cell=a, big=12345678901)
    pulumi.export("key", key)
    pulumi.export("resource", a)
    pulumi.export("numbers", [1, 1.0, 1.5, -3, 1e21, True, None])


def options(step: int) -> None:
    keeper = Keeper("keeper", folder=folder(), token=pulumi.Output.secret("t"), zone="a")
    whole = Cell("whole", ResourceOptions(provider=keeper, retain_on_delete=False, replacement_trigger=[1, "two"]))
    times = pulumi.CustomTimeouts(create="1m30s", delete="1h")
    Cell("part", ResourceOptions(deleted_with=whole, custom_timeouts=times, ignore_changes=["text"]), text=str(step))
    Cell("got", ResourceOptions(id=whole.id))
    Cell("dbr", ResourceOptions(delete_before_replace=True, replace_on_changes=["map"], replace_with=[whole]), map={})


@pytest.mark.parametrize("first", [0, 1], ids=["official first", "embedded first"])
@pytest.mark.parametrize("program", [components, values, options])
def test_nothing_to_do_for_whoever_comes_next(
    twin: Callable[..., Twin], program: Callable[[int], None], first: int
) -> None:
    sides = [twin("official", program, where="one"), twin("embedded", program, where="other")]
    engines, place = [side.engine for side in sides], sides[0]

    def turn(number: int, line: str) -> tuple[int, dict[str, int], str]:
        place.engine = engines[number % 2]
        deed = place.do(line)
        changes = next((e["summaryEvent"]["resourceChanges"] for e in deed.events if "summaryEvent" in e), {})
        return deed.code, changes, deed.stdout + deed.stderr

    code, made, said = turn(first, "up 0")
    assert code == 0 and set(made) == {"create"}, said
    for number in range(first + 1, first + 1 + TURNS):
        code, changes, said = turn(number, "up 0 --expect-no-changes")
        assert code == 0 and set(changes) == {"same"}, f"turn {number}: {changes}\n{said}"
    code, changes, said = turn(first + 1, "refresh --expect-no-changes")
    assert code == 0, said
    code, changes, said = turn(first, "destroy")
    assert code == 0, said
    left = {path.name for path in (place.root / "cells").iterdir() if not path.name.endswith("-gone")}
    assert left <= {"part-0"}, "only what is deleted with another is not deleted itself"
