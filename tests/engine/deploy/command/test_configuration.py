"""`pulumi config`: what goes in comes out, files stay as people wrote them, unchanged secrets keep their ciphertext."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pulumi import automation
from pulumi.automation.errors import CommandError

Value = automation.ConfigValue


def program() -> None:
    return None


@pytest.fixture
def stack(place: Any) -> automation.Stack:
    return automation.Stack.create("dev", place.workspace(program))


def text(place: Any) -> str:
    return str((place.root / "work" / "Pulumi.dev.yaml").read_text())


def write(place: Any, config: str) -> None:
    path = place.root / "work" / "Pulumi.dev.yaml"
    path.write_text(path.read_text() + config)


def test_values_round_trip(place: Any, stack: automation.Stack) -> None:
    tricky = {
        "a": "yes",
        "b": "5",
        "c": "x: y # z",
        "d": "-----BEGIN\nline\n-----END\n",
        "e": "",
        "f": "żółć 'q' \"p\"",
    }
    stack.set_all_config({k: Value(v) for k, v in tricky.items()})
    stack.set_all_config({f"s{k}": Value(v, secret=True) for k, v in tricky.items()})
    found = stack.get_all_config()
    assert {k: v.value for k, v in found.items() if not v.secret} == {f"golden:{k}": v for k, v in tricky.items()}
    assert {k: v.value for k, v in found.items() if v.secret} == {f"golden:s{k}": v for k, v in tricky.items()}
    assert "BEGIN" not in "".join(line for line in text(place).split("\n") if "secure" in line)


def test_unquoted_scalars_are_read_as_the_official_engine_reads_them(place: Any, stack: automation.Stack) -> None:
    write(place, "config:\n  golden:a: 0x10\n  golden:b: true\n  golden:c: 1.50\n")
    assert {k: v.value for k, v in stack.get_all_config().items()} == {
        "golden:a": "0x10", "golden:b": "true", "golden:c": "1.50",
    }  # fmt: skip


def test_comments_and_order_stay(place: Any, stack: automation.Stack) -> None:
    write(place, "# the region\nconfig:\n  # near us\n  golden:z: nyc2  # really\n  golden:a: '1'\n")
    stack.set_config("m", Value("2"))
    after = text(place)
    assert "# the region" in after and "# near us" in after and "nyc2  # really" in after
    assert after.index("golden:z") < after.index("golden:a") < after.index("golden:m")


def test_unchanged_values_leave_the_file_alone(place: Any, stack: automation.Stack) -> None:
    values = {"golden:a": Value("1"), "golden:t": Value("hush", secret=True)}
    stack.set_all_config(values)
    before = text(place)
    stack.set_all_config(values)
    assert text(place) == before
    stack.set_all_config({**values, "golden:a": Value("2")})
    secure = [line for line in before.split("\n") if "secure" in line]
    assert secure == [line for line in text(place).split("\n") if "secure" in line]


def test_paths_reach_into_objects(place: Any, stack: automation.Stack) -> None:
    stack.set_config("net.ports[0]", Value("80"), path=True)
    stack.set_config("net.ports[1]", Value("443"), path=True)
    stack.set_config("net.tls", Value("true"), path=True)
    stack.set_config('net["a.b"]', Value("x"), path=True)
    stack.set_config("net.key", Value("hush", secret=True), path=True)
    value = stack.get_all_config()["golden:net"]
    assert value.secret
    assert json.loads(value.value) == {"ports": [80, 443], "tls": True, "a.b": "x", "key": "hush"}
    assert stack.get_config("net.ports[1]", path=True).value == "443"
    stack.remove_config("net.ports[0]", path=True)
    assert json.loads(stack.get_all_config()["golden:net"].value)["ports"] == [443]
    assert "hush" not in text(place)
    with pytest.raises(CommandError, match="not an index"):
        stack.set_config("net.ports[7]", Value("1"), path=True)


def test_removing_keys(stack: automation.Stack) -> None:
    stack.set_all_config({k: Value("1") for k in ("a", "b", "c")})
    stack.remove_config("a")
    stack.remove_all_config(["b", "golden:c", "absent"])
    assert stack.get_all_config() == {}
    with pytest.raises(CommandError, match="'a' not found"):
        stack.get_config("a")


def test_json_in_and_out(stack: automation.Stack) -> None:
    values = {"golden:a": {"value": "1", "secret": False}, "golden:b": {"value": "s", "secret": True}}
    stack.set_all_config_json(json.dumps(values))
    found = stack.get_all_config()
    assert (found["golden:a"].value, found["golden:b"].value, found["golden:b"].secret) == ("1", "s", True)


def test_secrets_are_hidden_unless_asked_for(place: Any, stack: automation.Stack) -> None:
    stack.set_config("t", Value("hush", secret=True))
    assert "hush" not in place.run("config", "--stack", "dev").stdout
    assert json.loads(place.run("config", "--json", "--stack", "dev").stdout) == {"golden:t": {"secret": True}}


@pytest.mark.parametrize("key", ["a:b:c", ":b", "a:"])
def test_bad_keys_are_refused(stack: automation.Stack, key: str) -> None:
    with pytest.raises(CommandError, match="configuration key"):
        stack.set_config(key, Value("1"))


def test_broken_file_says_where(place: Any, stack: automation.Stack) -> None:
    write(place, "config: [1, 2\n")
    with pytest.raises(CommandError, match=r"Pulumi\.dev\.yaml is not valid YAML"):
        stack.get_all_config()


def test_configuration_folder_of_the_project(place: Any, stack: automation.Stack) -> None:
    project = place.root / "work" / "Pulumi.yaml"
    project.write_text("name: golden\nruntime: python\nstackConfigDir: settings\n")
    workspace = stack.workspace
    workspace.pulumi_command.run(["config", "set", "a", "1"], workspace.work_dir, workspace.env_vars)
    assert "golden:a" in (place.root / "work" / "settings" / "Pulumi.dev.yaml").read_text()


def test_refresh_takes_the_configuration_of_the_last_update(place: Any, stack: automation.Stack) -> None:
    stack.set_all_config({"a": Value("1"), "t": Value("hush", secret=True)})
    stack.up()
    (place.root / "work" / "Pulumi.dev.yaml").unlink()
    stack.refresh_config()
    found = stack.get_all_config()
    assert (found["golden:a"].value, found["golden:t"].value) == ("1", "hush")


def test_types_of_set_values(place: Any, stack: automation.Stack) -> None:
    for type_, given in (("int", "5"), ("bool", "true"), ("float", "1.5"), ("string", "7")):
        place.run("config", "set", type_, given, "--type", type_, "--stack", "dev")
        place.run("config", "set", f"o.{type_}[0]", given, "--type", type_, "--path", "--stack", "dev")
    written = text(place)
    assert "golden:int: 5\n" in written and "golden:bool: true\n" in written and "golden:float: 1.5\n" in written
    assert "golden:string: '7'\n" in written
    shown = place.run("config", "get", "o", "--json", "--stack", "dev").stdout
    assert json.loads(shown)["objectValue"] == {"bool": [True], "float": [1.5], "int": [5], "string": ["7"]}
    for wrong in (("x", "int"), ("yes", "bool"), ("1", "object")):
        with pytest.raises(CommandError, match="--type"):
            place.run("config", "set", "k", wrong[0], "--type", wrong[1], "--stack", "dev")


def test_copied_configuration_opens_in_the_other_stack(place: Any, stack: automation.Stack) -> None:
    stack.set_all_config({"plain": Value("1"), "hidden": Value("hush", secret=True)})
    place.run("config", "set", "deep.token", "inner", "--secret", "--path", "--stack", "dev")
    place.run("config", "set", "deep.size", "3", "--path", "--stack", "dev")
    other = automation.Stack.create("other", place.workspace(program))
    place.run("config", "cp", "hidden", "--dest", "other", "--stack", "dev")
    assert {k: v.value for k, v in other.get_all_config().items()} == {"golden:hidden": "hush"}
    place.run("config", "cp", "--dest", "other", "--stack", "dev")
    theirs, ours = other.get_all_config(), stack.get_all_config()
    assert {k: (v.value, v.secret) for k, v in theirs.items()} == {k: (v.value, v.secret) for k, v in ours.items()}
    copied = (place.root / "work" / "Pulumi.other.yaml").read_text()
    assert "inner" not in copied and "size: 3" in copied
    with pytest.raises(CommandError, match="same"):
        place.run("config", "cp", "--dest", "dev", "--stack", "dev")
    with pytest.raises(CommandError, match="Pulumi ESC"):
        place.run("config", "env", "add", "e", "--stack", "dev")
