"""Policy packs over the Analyzer contract, written with the SDK's own `pulumi_policy`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.folder import Folder

PACK = """
import os
from pulumi_policy import (
    EnforcementLevel, PolicyConfigSchema, PolicyPack, ResourceValidationPolicy, StackValidationPolicy
)

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "started"), "a") as file:
    file.write(f"{os.getpid()} {os.environ.get('PULUMI_STACK')}\\n")

def size(args, report):
    limit = args.get_config()["limit"]
    if args.resource_type == "fake:index:Thing" and args.props.get("size", 0) > limit:
        report(f"{int(args.props['size'])} is more than {int(limit)}")

def name(args):
    if args.resource_type == "fake:index:Thing" and "owner" not in args.props:
        return {**args.props, "owner": "lab"}

def count(args, report):
    things = [r for r in args.resources if r.resource_type == "fake:index:Thing"]
    if len(things) > 2:
        report(f"{len(things)} things", min(r.urn for r in things))

def broken(args, report):
    if args.name == "explode":
        raise ValueError("the rule itself is wrong")

PolicyPack("lab", enforcement_level=EnforcementLevel.MANDATORY, policies=[
    ResourceValidationPolicy("size", "Things are small.", size,
        config_schema=PolicyConfigSchema({"limit": {"type": "integer", "default": 5}})),
    ResourceValidationPolicy("owned", "Things have an owner.", remediate=name,
        enforcement_level=EnforcementLevel.REMEDIATE),
    ResourceValidationPolicy("sound", "Rules work.", broken),
    StackValidationPolicy("few", "There are few things.", count),
])
"""


@pytest.fixture
def reviewed(started: Callable[..., Folder]) -> Callable[..., Folder]:
    """A project of things and the lab pack beside it; the program's text makes the things."""

    def start(program: str, *, warm: bool = False) -> Folder:
        folder = started(f"from thing import Thing\n{program}")
        pack = folder.root / "pack"
        pack.mkdir()
        (pack / "__main__.py").write_text(PACK)
        lines = ["runtime: python", "version: 1.2.3", *(["readsEnvironment: false"] if warm else [])]
        (pack / "PulumiPolicy.yaml").write_text("\n".join(lines) + "\n")
        return folder

    return start


def configured(folder: Folder, **settings: Any) -> list[str]:
    (folder.root / "config.json").write_text(json.dumps(settings))
    return ["--policy-pack", "../pack", "--policy-pack-config", "../config.json"]


def events(folder: Folder, *flags: str, fails: bool = False) -> list[dict[str, Any]]:
    log = folder.root / "events"
    log.unlink(missing_ok=True)
    (folder.up_fails if fails else folder.up)("--event-log", str(log), *flags)
    return [json.loads(line) for line in log.read_text().splitlines()]


def starts(folder: Folder) -> list[str]:
    return (folder.root / "pack" / "started").read_text().splitlines()


def test_mandatory_violation_keeps_the_resource_from_being_made(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('big', {'size': 9})\n")
    seen = events(folder, "--policy-pack", "../pack", fails=True)
    (violation,) = [e["policyEvent"] for e in seen if "policyEvent" in e]
    assert violation["resourceUrn"].endswith("fake:index:Thing::big")
    assert violation["message"] == "Things are small.\n9 is more than 5\n"
    assert (violation["policyName"], violation["policyPackName"]) == ("size", "lab")
    assert (violation["policyPackVersion"], violation["enforcementLevel"]) == ("1.2.3", "mandatory")
    summary = next(e["summaryEvent"] for e in seen if "summaryEvent" in e)
    assert summary["PolicyPacks"] == {"lab|local|../pack": "1.2.3"}
    checked = [e["policyAnalyzeSummaryEvent"] for e in seen if "policyAnalyzeSummaryEvent" in e]
    assert checked[-1]["failed"] == ["size"] and "sound" in checked[-1]["passed"]
    assert not folder.cloud.things
    text = folder.up_fails("--policy-pack", "../pack")
    assert "❌ lab@v1.2.3" in text and "- [mandatory]  size  (fake:index:Thing: big)" in text
    assert "9 is more than 5" in text


def test_preview_tells_of_all_violations_and_fails(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('big', {'size': 9})\nThing('bigger', {'size': 10})\n")
    with pytest.raises(Exception, match="preview failed") as caught:
        folder.run("preview", "--stack", "dev", "--policy-pack", "../pack")
    assert "9 is more than 5" in str(caught.value) and "10 is more than 5" in str(caught.value)


def test_advisory_violation_is_told_and_the_update_goes_on(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('big', {'size': 9})\n")
    text = folder.up(*configured(folder, size="advisory"))
    assert "- [advisory]  size  (fake:index:Thing: big)" in text and "2 created" in text


def test_disabled_policy_says_nothing(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('big', {'size': 9})\n")
    text = folder.up(*configured(folder, all="disabled"))
    assert "✅ lab@v1.2.3" in text and "size" not in text


def test_configuration_reaches_the_policy(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('big', {'size': 9})\n")
    folder.up(*configured(folder, size={"limit": 9}))
    assert "9 is more than 8" in folder.up_fails(
        *configured(folder, size={"limit": 8, "enforcementLevel": "mandatory"})
    )


def test_remediation_changes_the_inputs(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('a', {'size': 1})\n")
    seen = events(folder, "--policy-pack", "../pack")
    (remediation,) = [e["policyRemediationEvent"] for e in seen if "policyRemediationEvent" in e]
    assert (remediation["policyName"], remediation["color"]) == ("owned", "raw")
    assert "owner" not in remediation["before"] and remediation["after"]["owner"] == "lab"
    (thing,) = folder.cloud.things.values()
    assert thing.properties["owner"] == "lab"
    assert "2 unchanged" in folder.up("--policy-pack", "../pack")


def test_stack_policy_sees_all_resources_at_the_end(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("for n in 'abc':\n    Thing(n)\n")
    text = folder.up_fails("--policy-pack", "../pack")
    assert "- [mandatory]  few  (fake:index:Thing: a)" in text and "3 things" in text
    assert len(folder.cloud.things) == 3, "a stack policy speaks when the resources are there"


def test_rule_that_breaks_fails_the_update_by_name(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('explode')\n")
    text = folder.up_fails("--policy-pack", "../pack")
    assert "policy pack 'lab' failed in Analyze" in text and "the rule itself is wrong" in text


def test_pack_that_reads_the_environment_starts_for_every_update(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('a')\n")
    folder.up("--policy-pack", "../pack")
    folder.up("--policy-pack", "../pack")
    assert [line.split()[1] for line in starts(folder)] == ["dev", "dev"]
    assert not any(Path(f"/proc/{line.split()[0]}").exists() for line in starts(folder))


def test_pack_that_reads_none_is_kept_warm_for_each_configuration(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('big', {'size': 9})\n", warm=True)
    folder.up_fails("--policy-pack", "../pack")
    folder.up_fails("--policy-pack", "../pack")
    assert [line.split()[1] for line in starts(folder)] == ["None"]
    folder.up(*configured(folder, size="advisory"))
    assert len(starts(folder)) == 2
    folder.up_fails("--policy-pack", "../pack")
    assert len(starts(folder)) == 2


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"size": "strict"}, "'strict' is no enforcement level"),
        ({"size": {"limit": "many"}}, "size: limit: 'many' is not of type 'integer'"),
        ({"shape": "mandatory"}, "has no policy 'shape' to configure"),
        ({"size": 3}, "must be an enforcement level or an object"),
    ],
)
def test_wrong_configuration_is_refused(
    reviewed: Callable[..., Folder], settings: dict[str, Any], complaint: str
) -> None:
    folder = reviewed("Thing('a')\n")
    assert complaint in folder.up_fails(*configured(folder, **settings))
    assert not folder.cloud.things


def test_missing_pack_is_named(reviewed: Callable[..., Folder]) -> None:
    folder = reviewed("Thing('a')\n")
    assert "the policy pack '../gone' has no PulumiPolicy.yaml" in folder.up_fails("--policy-pack", "../gone")
    (folder.root / "pack" / "__main__.py").write_text("import there_is_no_such_module\n")
    assert "No module named 'there_is_no_such_module'" in folder.up_fails("--policy-pack", "../pack")
