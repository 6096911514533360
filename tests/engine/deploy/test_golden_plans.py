"""Update plans, compared with those the official engine (3.260) wrote for the same program.

`golden/plans.json` has both without seeds, times, ids and the texts of secrets.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pulumi

from engine.deploy.checkpoint import CheckpointCodec
from engine.deploy.plan_file import dump_plan
from engine.model.clock import SystemClock
from tests.fakes.scenario import Program, Scenario

GOLDEN = Path(__file__).parent / "golden" / "plans.json"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Group(pulumi.ComponentResource):
    def __init__(self, name: str, props: Any = None, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lab:index:Group", name, props or {}, opts)


def program(step: int) -> Program:
    def run() -> None:
        token = pulumi.Output.secret("hush")
        outer = Group("outer", {"size": step, "tags": {"a": [1, 1.5, True]}, "token": token})
        options = pulumi.ResourceOptions(parent=outer, aliases=[pulumi.Alias(name="old")], protect=True)
        inner = Group("inner", {"same": 1}, options)
        inner.register_outputs({"size": step, "token": pulumi.Output.secret(f"hush{step}")})
        kept = pulumi.Stash("kept", input={"n": step}, opts=pulumi.ResourceOptions(ignore_changes=["nothing"]))
        if step == 1:
            Group("gone", {"only": "once"})
        pulumi.export("step", step)
        pulumi.export("kept", kept.output)

    return run


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        if "plaintext" in value or "ciphertext" in value:
            return "SECRET"
        return {k: comparable(v) for k, v in value.items() if k not in ("seed", "time", "config")}
    if isinstance(value, list):
        return [comparable(v) for v in value]
    return _UUID.sub("ID", value) if isinstance(value, str) else value


def planned(scenario: Scenario, step: int) -> Any:
    plan = scenario.preview(program(step), generate_plan=True).result.plan
    assert plan is not None
    data = dump_plan(plan, CheckpointCodec(None), config={}, now=SystemClock().now(), show_secrets=True)
    return comparable(json.loads(json.dumps(data)))


def test_plans_are_the_official_engines(scenario: Scenario) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert planned(scenario, 1) == golden["created"]
    run = scenario.up(program(1))
    assert run.result.succeeded, run.errors
    assert planned(scenario, 2) == golden["updated"]


def test_order_of_members_is_the_official_engines(scenario: Scenario) -> None:
    assert json.dumps(planned(scenario, 1)) == json.dumps(json.loads(GOLDEN.read_text())["created"])
