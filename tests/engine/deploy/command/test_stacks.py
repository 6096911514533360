"""Making, choosing, moving and removing stacks; what is refused, and that a refusal writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation
from pulumi.automation.errors import CommandError, StackAlreadyExistsError, StackNotFoundError

from tests.fakes.scenario import Thing


def program() -> None:
    Thing("web", {"size": 1})


def snapshot(root: Path) -> dict[str, bytes]:
    return {p.as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_absent_and_present_stacks_raise_the_sdks_errors(place: Any) -> None:
    workspace = place.workspace(program)
    with pytest.raises(StackNotFoundError):
        workspace.select_stack("dev")
    workspace.create_stack("dev")
    with pytest.raises(StackAlreadyExistsError):
        workspace.create_stack("dev")
    workspace.select_stack("organization/golden/dev")
    assert [s.name for s in workspace.list_stacks()] == ["dev"]


def test_new_stack_uses_the_installations_salt(place: Any) -> None:
    place.stack(program)
    assert f"encryptionsalt: {place.salt}" in (place.root / "work" / "Pulumi.dev.yaml").read_text()


def test_selected_stack_is_the_default_of_later_commands(place: Any) -> None:
    place.stack(program)
    place.stack(program, "other")
    assert [(s.name, s.current) for s in place.workspace().list_stacks()] == [("dev", False), ("other", True)]
    place.run("config", "set", "a", "1")
    assert "golden:a" in (place.root / "work" / "Pulumi.other.yaml").read_text()
    place.run("stack", "rm", "--yes", "other")
    with pytest.raises(CommandError, match="no stack selected"):
        place.run("config")


def test_stack_with_resources_is_not_removed(place: Any) -> None:
    stack = place.stack(program)
    stack.up()
    with pytest.raises(CommandError, match="still has resources; removal rejected"):
        stack.workspace.remove_stack("dev")
    stack.destroy(remove=True)
    assert place.workspace().list_stacks() == []


def test_export_and_import_carry_a_stack_over(place: Any) -> None:
    stack = place.stack(program)
    stack.up()
    state = stack.export_stack()
    other = place.stack(program, "other")
    with pytest.raises(CommandError, match="not of stack 'other'"):
        other.import_stack(state)
    stack.import_stack(state)
    assert stack.export_stack().deployment["resources"] == state.deployment["resources"]
    assert stack.up().summary.resource_changes == {"same": 2}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(version=99), "newer"),
        (lambda d: d["deployment"]["resources"].append(d["deployment"]["resources"][0]), "duplicate"),
        (lambda d: d["deployment"]["resources"][-1].update(parent="urn:pulumi:dev::golden::x::y"), "unknown parent"),
        (lambda d: d["deployment"]["resources"][-1].pop("urn"), "breaks Pulumi's format"),
    ],
)
def test_broken_import_writes_nothing(place: Any, tmp_path: Path, change: Any, says: str) -> None:
    stack = place.stack(program)
    stack.up()
    data = dict(vars(stack.export_stack()))
    change(data)
    before = snapshot(place.root / "backend")
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(data))
    with pytest.raises(CommandError, match=says):
        place.run("stack", "import", "--file", str(file), "--stack", "dev")
    assert snapshot(place.root / "backend") == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "not complete JSON"),
        (lambda text: text.replace('"version":3', '"version":7', 1), "newer"),
        (lambda text: text.replace('"type":"passphrase"', '"type":"service"', 1), "change-secrets-provider"),
        (lambda text: text.replace("v3.260.0", "v3.261.0"), "magic"),
    ],
)
def test_damaged_checkpoint_stops_every_verb_and_is_left_alone(place: Any, damage: Any, says: str) -> None:
    stack = place.stack(program)
    stack.up()
    path = place.state / "stacks/golden/dev.json"
    path.write_text(damage(path.read_text()))
    before = snapshot(place.root / "backend")
    for operation in (stack.up, stack.preview, stack.refresh, stack.destroy, stack.export_stack):
        with pytest.raises(CommandError, match=says):
            operation()
    assert snapshot(place.root / "backend") == before
    assert len(place.cloud.things) == 1


def test_wrong_passphrase_stops_every_verb_and_writes_nothing(place: Any) -> None:
    stack = place.stack(program)
    stack.set_config("secret", automation.ConfigValue("s", secret=True))
    stack.up()
    before = snapshot(place.root / "backend")
    place.passphrase = "another"
    stack = automation.Stack.select("dev", place.workspace(program))
    for operation in (stack.up, stack.preview, stack.destroy, stack.outputs, stack.get_all_config):
        with pytest.raises(CommandError, match="incorrect passphrase"):
            operation()
    assert snapshot(place.root / "backend") == before


def test_missing_passphrase_says_what_to_set(place: Any) -> None:
    workspace = place.workspace(program)
    workspace.env_vars = {k: v for k, v in workspace.env_vars.items() if "PASSPHRASE" not in k}
    with pytest.raises(CommandError, match="PULUMI_CONFIG_PASSPHRASE_FILE"):
        workspace.create_stack("dev")


def test_passphrase_may_come_from_a_file(place: Any, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("x\n")
    workspace = place.workspace(program)
    variables = {k: v for k, v in workspace.env_vars.items() if "PASSPHRASE" not in k}
    workspace.env_vars = {**variables, "PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    workspace.create_stack("dev")


def test_stack_made_elsewhere_keeps_its_own_salt(place: Any) -> None:
    own = place.salt
    place.salt = ""
    stack = place.stack(program)
    stack.set_config("secret", automation.ConfigValue("s", secret=True))
    stack.up()
    foreign = stack.export_stack().deployment["secrets_providers"]["state"]["salt"]
    assert foreign != own
    place.salt = own
    (place.root / "work" / "Pulumi.dev.yaml").unlink()  # another machine: only the backend is shared
    again = place.stack(program)
    again.set_config("secret", automation.ConfigValue("t", secret=True))
    again.up()
    assert again.export_stack().deployment["secrets_providers"]["state"]["salt"] == foreign


def test_tags(place: Any) -> None:
    stack = place.stack(program)
    stack.set_tag("team", "red")
    assert (stack.get_tag("team"), stack.list_tags()) == ("red", {"team": "red"})
    stack.remove_tag("team")
    with pytest.raises(CommandError, match="'team' not found"):
        stack.get_tag("team")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["preview", "--import-file", "f"], "--import-file"),
        (["config", "env", "add", "e"], "pulumi config"),
        (["new", "python"], "pulumi new"),
        (["stack", "init", "b", "--secrets-provider", "awskms://k"], "awskms"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(place: Any, args: list[str], named: str) -> None:
    place.stack(program)
    with pytest.raises(CommandError) as caught:
        place.run(*args)
    assert named in str(caught.value)
    assert "STACKYARD_PULUMI=cli" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"), [("gs://bucket", "only file://"), ("file:///does/not/exist", "create it first")]
)
def test_unusable_backend_says_why(place: Any, url: str, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        place.workspace(program, env={"PULUMI_BACKEND_URL": url}).create_stack("dev")


def test_version_whoami_and_plugins(place: Any) -> None:
    workspace = place.workspace(program)
    assert place.run("version").stdout == "v3.260.0"
    assert workspace.pulumi_version == "3.260.0"
    assert workspace.who_am_i().user == "somebody"
    assert workspace.list_plugins() == []


def test_events_reach_a_file(place: Any, tmp_path: Path) -> None:
    stack = place.stack(program)
    stack.up()
    log = tmp_path / "events"
    place.run("destroy", "--yes", "--skip-preview", "--event-log", str(log), "--stack", "dev")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["sequence"] for e in events] == list(range(len(events)))
    assert "preludeEvent" in events[0]
    assert "cancelEvent" in events[-1]


def test_listeners_get_lines_as_they_come(place: Any) -> None:
    lines: list[str] = []
    result = place.stack(program).up(on_output=lines.append)
    assert "\n".join(lines) == result.stdout
    assert any("web created" in line for line in lines)


def test_expect_no_changes_fails_where_there_are(place: Any) -> None:
    stack = place.stack(program)
    with pytest.raises(CommandError, match="no changes were expected"):
        stack.up(expect_no_changes=True)
    stack.up()
    stack.up(expect_no_changes=True, message="again", parallel=4)
    assert stack.info().message == "again"


def test_stack_reference_reads_another_stacks_outputs(place: Any) -> None:
    def source() -> None:
        pulumi.export("address", "10.0.0.1")
        pulumi.export("token", pulumi.Output.secret("hush"))

    def reader() -> None:
        other = pulumi.StackReference("organization/golden/network")
        pulumi.export("address", other.get_output("address"))
        pulumi.export("token", other.get_output("token"))

    place.stack(source, "network").up()
    outputs = place.stack(reader).up().outputs
    assert (outputs["address"].value, outputs["address"].secret) == ("10.0.0.1", False)
    assert (outputs["token"].value, outputs["token"].secret) == ("hush", True)


def test_reference_to_an_absent_stack_names_it(place: Any) -> None:
    stack = place.stack(lambda: pulumi.StackReference("organization/golden/nowhere"))
    with pytest.raises(CommandError, match="organization/golden/nowhere"):
        stack.up()
