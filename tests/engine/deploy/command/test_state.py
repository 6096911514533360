"""`state …`, `stack rename | graph | change-secrets-provider`: edits by hand are whole and sound, or refused."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from pulumi.automation.errors import CommandError

from tests.fakes.scenario import Group, Thing

ROOT = "urn:pulumi:dev::golden::pulumi:pulumi:Stack::golden-dev"
GROUP = "urn:pulumi:dev::golden::fake:index:Group::group"
WEB = "urn:pulumi:dev::golden::fake:index:Group$fake:index:Thing::web"
SHIELDED = "urn:pulumi:dev::golden::fake:index:Thing::shielded"
LEAF = "urn:pulumi:dev::golden::fake:index:Thing::leaf"


def program() -> None:
    group = Group("group")
    web = Thing("web", {"size": 1, "token": pulumi.Output.secret("hush")}, pulumi.ResourceOptions(parent=group))
    shielded = Thing("shielded", {"of": web.address}, pulumi.ResourceOptions(protect=True))
    Thing("leaf", {"size": 2}, pulumi.ResourceOptions(depends_on=[shielded]))
    pulumi.export("token", pulumi.Output.secret("hush"))


@pytest.fixture
def stack(place: Any) -> Any:
    made = place.stack(program)
    made.up()
    return made


def resources(place: Any, stack: str = "dev") -> dict[str, dict[str, Any]]:
    exported = json.loads(place.run("stack", "export", "--stack", stack).stdout)
    return {r["urn"]: r for r in exported["deployment"]["resources"]}


def state(place: Any, *args: str) -> str:
    return str(place.run("state", *args, "--yes", "--stack", "dev").stdout)


def test_delete_forgets_a_resource_and_leaves_the_cloud_alone(place: Any, stack: Any) -> None:
    things = len(place.cloud.things)
    assert state(place, "delete", LEAF) == "Resource deleted"
    assert LEAF not in resources(place) and SHIELDED in resources(place)
    assert len(place.cloud.things) == things


def test_delete_refuses_what_others_need(place: Any, stack: Any) -> None:
    before = resources(place)
    with pytest.raises(CommandError) as caught:
        state(place, "delete", WEB)
    said = str(caught.value)
    assert "can't be safely deleted because the following resources depend on it" in said
    assert SHIELDED in said and LEAF in said and "--target-dependents" in said
    with pytest.raises(CommandError, match="is protected"):
        state(place, "delete", WEB, "--target-dependents")
    assert resources(place) == before


def test_delete_with_dependents_and_force(place: Any, stack: Any) -> None:
    state(place, "delete", WEB, "--target-dependents", "--force")
    assert {u.rpartition("::")[2] for u in resources(place)} == {"golden-dev", "group", "default_1_2_3"}


def test_edits_need_consent_and_a_known_urn(place: Any, stack: Any) -> None:
    with pytest.raises(CommandError, match="--yes must be passed"):
        place.run("state", "delete", LEAF, "--stack", "dev")
    with pytest.raises(CommandError, match='No such resource "urn:x"'):
        state(place, "delete", "urn:x")
    with pytest.raises(CommandError, match="either URNs or --all"):
        state(place, "unprotect")


def test_unprotect_and_protect(place: Any, stack: Any) -> None:
    assert state(place, "unprotect", SHIELDED) == "1 resources unprotected"
    assert not any(r.get("protect") for r in resources(place).values())
    assert state(place, "protect", "--all") == "All resources protected"
    assert all(r.get("protect") for r in resources(place).values())
    assert state(place, "unprotect", "--all") == "All resources unprotected"
    stack.destroy()
    assert not place.cloud.things


def test_tainted_resource_is_replaced_once(place: Any, stack: Any) -> None:
    assert state(place, "taint", LEAF, WEB) == "2 resources tainted"
    assert {u for u, r in resources(place).items() if r.get("taint")} == {LEAF, WEB}
    assert state(place, "untaint", WEB) == "1 resources untainted"
    done = stack.up()
    assert done.summary.resource_changes == {"same": 4, "replace": 1}
    assert not any(r.get("taint") for r in resources(place).values())
    state(place, "taint", LEAF)
    assert state(place, "untaint", "--all") == "All resources untainted"
    assert set(stack.up().summary.resource_changes or {}) == {"same"}
    with pytest.raises(CommandError, match="either URNs or --all"):
        state(place, "taint")


def test_rename_moves_every_reference(place: Any, stack: Any) -> None:
    state(place, "rename", SHIELDED, "armoured")
    renamed = SHIELDED.replace("shielded", "armoured")
    found = resources(place)
    assert SHIELDED not in found and found[LEAF]["dependencies"] == [renamed]
    with pytest.raises(CommandError, match="exists already"):
        state(place, "rename", renamed, "leaf")
    default = next(u for u in found if "pulumi:providers" in u)
    state(place, "rename", default, "other")
    assert all("::other::" in r["provider"] for r in resources(place).values() if "Thing" in r["type"])


def test_renamed_stack_is_the_same_stack(place: Any, stack: Any) -> None:
    place.run("stack", "tag", "set", "team", "blue", "--stack", "dev")
    assert place.run("stack", "rename", "prod", "--stack", "dev").stdout == "Renamed dev to prod"
    found = resources(place, "prod")
    assert all(u.startswith("urn:pulumi:prod::golden::") for u in found)
    assert found[WEB.replace(":dev:", ":prod:")]["parent"] == GROUP.replace(":dev:", ":prod:")
    assert "urn:pulumi:prod::golden::pulumi:pulumi:Stack::golden-prod" in found
    assert place.run("stack", "tag", "get", "team", "--stack", "prod").stdout == "blue"
    assert len(json.loads(place.run("stack", "history", "--json", "--stack", "prod").stdout)) == 1
    assert [s["name"] for s in json.loads(place.run("stack", "ls", "--json").stdout)] == ["prod"]
    again = place.stack(program, "prod").up()
    assert set(again.summary.resource_changes or {}) == {"same"}
    place.stack(program, "dev")
    with pytest.raises(CommandError, match="already exists"):
        place.run("stack", "rename", "dev", "--stack", "prod")


def test_graph_draws_parents_and_dependencies(place: Any, stack: Any) -> None:
    place.run("stack", "graph", "g.dot", "--short-node-name", "--stack", "dev")
    lines = (place.root / "work" / "g.dot").read_text().splitlines()
    assert lines[0] == "strict digraph {" and lines[-1] == "}"
    numbers = {line.split('"')[1]: line.split()[0] for line in lines if "[label=" in line}
    assert set(numbers) == {"golden-dev", "group", "default_1_2_3", "web", "shielded", "leaf"}
    assert f'    {numbers["group"]} -> {numbers["web"]} [color = "#AA6639"];' in lines
    assert f'    {numbers["web"]} -> {numbers["shielded"]} [color = "#246C60", label = "of"];' in lines
    assert f'    {numbers["shielded"]} -> {numbers["leaf"]} [color = "#246C60"];' in lines


def test_new_passphrase_opens_everything_and_the_old_one_nothing(place: Any, stack: Any) -> None:
    place.run("config", "set", "key", "mine", "--secret", "--stack", "dev")
    place.run("config", "set", "deep.inner", "yours", "--secret", "--path", "--stack", "dev")
    with pytest.raises(CommandError, match="PULUMI_CONFIG_PASSPHRASE_NEW"):
        place.run("stack", "change-secrets-provider", "passphrase", "--stack", "dev")
    change = ("stack", "change-secrets-provider", "passphrase", "--stack", "dev")
    place.run(*change, env={"PULUMI_CONFIG_PASSPHRASE_NEW": "y"})
    with pytest.raises(CommandError, match="incorrect passphrase"):
        place.run("stack", "output", "--show-secrets", "--stack", "dev")
    place.passphrase = "y"
    assert place.run("stack", "output", "token", "--show-secrets", "--stack", "dev").stdout == "hush"
    assert place.run("config", "get", "key", "--stack", "dev").stdout == "mine"
    assert place.run("config", "get", "deep.inner", "--path", "--stack", "dev").stdout == "yours"
    assert set(place.stack(program).up().summary.resource_changes or {}) == {"same"}
    with pytest.raises(CommandError, match="awskms"):
        place.run("stack", "change-secrets-provider", "awskms://k", "--stack", "dev")


def pend(place: Any) -> None:
    """Make the stack one whose create of `leaf` was begun and not seen to end."""
    exported = json.loads(place.run("stack", "export", "--stack", "dev").stdout)
    leaf = next(r for r in exported["deployment"]["resources"] if r["urn"] == LEAF)
    exported["deployment"]["resources"].remove(leaf)
    begun = {k: v for k, v in leaf.items() if k not in ("id", "outputs")}
    exported["deployment"]["pending_operations"] = [{"resource": begun, "type": "creating"}]
    file = place.root / "pending.json"
    file.write_text(json.dumps(exported))
    place.run("stack", "import", "--file", str(file), "--stack", "dev")


def pending(place: Any) -> list[Any]:
    exported = json.loads(place.run("stack", "export", "--stack", "dev").stdout)
    return list(exported["deployment"].get("pending_operations", []))


def test_cleared_pending_creates_are_named_not_just_forgotten(place: Any, stack: Any) -> None:
    pend(place)
    done = place.run("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", "dev")
    assert LEAF in done.stderr and "still there" in done.stderr and "--import-pending-creates" in done.stderr
    assert not pending(place) and LEAF not in resources(place)


def test_imported_pending_create_is_the_resource(place: Any, stack: Any) -> None:
    id = resources(place)[LEAF]["id"]
    pend(place)
    refresh = ("refresh", "--yes", "--skip-preview", "--stack", "dev", "--import-pending-creates")
    with pytest.raises(CommandError, match="no create of urn:x is pending"):
        place.run(*refresh, "urn:x 1")
    place.run(*refresh, f"{LEAF} {id}")
    assert not pending(place) and resources(place)[LEAF]["id"] == id
    assert set(stack.up().summary.resource_changes or {}) == {"same"}


def test_stack_shows_resources_and_outputs(place: Any, stack: Any) -> None:
    said = place.run("stack", "--show-ids", "--stack", "dev").stdout.splitlines()
    assert said[0] == "Current stack is dev:" and "Current stack resources (6):" in said
    tree = [line.split() for line in said if "─ fake:index:" in line]
    assert ["├─", "fake:index:Group", "group"] in tree and ["│", "└─", "fake:index:Thing", "web"] in tree
    assert said[-1].split() == ["token", "[secret]"]
    assert place.run("stack", "--show-name", "--stack", "dev").stdout == "dev"
    with pytest.raises(CommandError, match="pulumi stack webhook"):
        place.run("stack", "webhook", "--stack", "dev")
