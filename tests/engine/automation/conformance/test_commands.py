"""Command lines that run no update, through both engines: what they print, store and answer."""

from __future__ import annotations

from collections.abc import Callable

import pulumi
import pytest
from pulumi import ResourceOptions

from tests.fakes.cells import Cell
from tests.fakes.twins import Scenario

pytestmark = pytest.mark.integration  # minutes


def program(step: int) -> None:
    a = Cell("a", text="x")
    b = Cell("b", ResourceOptions(protect=True, parent=a), text=pulumi.Output.secret("hush"))
    Cell("c", ResourceOptions(depends_on=[b]))
    pulumi.export("serial", a.serial)
    pulumi.export("hidden", b.serial.apply(lambda serial: pulumi.Output.secret(serial)))


SCENARIOS = {
    name: Scenario(
        program,
        tuple(f"{line} --stack dev" if "up" not in line.split() else line for line in lines),
        ("stack --show-urns --show-ids --stack dev /output", "nowhere.json"),
    )
    for name, lines in {
        "config": (
            "config set plain 1",
            "config set other:plain text",
            "config set --secret key hush",
            "config set --path list[0] x",
            "config set --path list[1] y",
            "config set --path map.deep.er v",
            "config set --path --secret map.hidden w",
            "config get plain",
            "config get key",
            "config get --path map.deep.er",
            "config get --path list",
            "config get nothing",
            "config",
            "config --show-secrets",
            "config --json",
            "config rm --path list[0]",
            "config rm --path map.deep",
            "config rm plain",
            "config rm nothing",
            "config --json --show-secrets",
        ),
        "state": (
            "up 0",
            "state delete urn:pulumi:dev::golden::a:b:C::d --yes",
            "state delete @a --yes",
            "state delete @b --yes",
            "state unprotect @b --yes",
            "state rename @a z --yes",
            "state protect @z --yes",
            "state unprotect --all --yes",
            "state delete @c --yes",
            "state delete @z --target-dependents --yes",
            "state delete @nothing --yes",
        ),
        "stack": (
            "up 0",
            "stack --show-urns --show-ids",
            "stack output",
            "stack output serial",
            "stack output hidden",
            "stack output --json --show-secrets",
            "stack output nothing",
            "stack tag set colour blue",
            "stack tag get colour",
            "stack tag get nothing",
            "stack tag rm colour",
            "stack history --json",
            "stack export",
            "stack export --show-secrets",
            "stack export --file exported.json",
            "stack import --file exported.json",
            "stack import --file nowhere.json",
            "stack rm --yes",
            "stack rename later",
        ),
    }.items()
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_engines_say_the_same(conform: Callable[..., None], name: str) -> None:
    found = SCENARIOS[name]
    conform(found.program, found.lines, found.known)
