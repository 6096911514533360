"""Verbs that look at stacks: past deployments, history, outputs for shells, `about`, `whoami`, selecting."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pulumi
import pytest
from pulumi.automation import CommandResult
from pulumi.automation.errors import CommandError

from engine.deploy.command import EmbeddedPulumi
from engine.model.clock import SystemClock
from tests.fakes.provider import FakeProviders
from tests.fakes.scenario import Thing


def sized(size: int) -> Any:
    def program() -> None:
        Thing("web", {"size": size, "token": pulumi.Output.secret(f"hush{size}")})
        pulumi.export("size", size)
        pulumi.export("words", "it's $HOME")
        pulumi.export("token", pulumi.Output.secret("hush"))

    return program


@pytest.fixture
def stack(place: Any) -> Any:
    place.stack(sized(1)).up(message="the first")
    made = place.stack(sized(2))
    made.up()
    return made


def web_of(document: str) -> dict[str, Any]:
    resources = json.loads(document)["deployment"]["resources"]
    return next(dict(r) for r in resources if r["urn"].endswith("::web"))


def test_export_of_a_version_is_the_deployment_of_that_update(place: Any, stack: Any) -> None:
    first = place.run("stack", "export", "--version", "1", "--show-secrets", "--stack", "dev").stdout
    assert web_of(first)["inputs"]["size"] == 1 and '"hush1"' in json.loads(json.dumps(first)).replace('\\"', '"')
    assert web_of(place.run("stack", "export", "--version", "2", "--stack", "dev").stdout)["inputs"]["size"] == 2
    for wrong in ("0", "3", "9"):
        with pytest.raises(CommandError, match=f"no version {wrong}: there are 1 to 2"):
            place.run("stack", "export", "--version", wrong, "--stack", "dev")
    with pytest.raises(CommandError, match="must be a number"):
        place.run("stack", "export", "--version", "latest", "--stack", "dev")


def test_exported_version_can_be_imported(place: Any, stack: Any) -> None:
    file = place.root / "work" / "first.json"
    place.run("stack", "export", "--version", "1", "--file", "first.json", "--stack", "dev")
    place.run("stack", "import", "--file", "first.json", "--stack", "dev")
    assert web_of(file.read_text())["inputs"]["size"] == 1
    assert web_of(place.run("stack", "export", "--stack", "dev").stdout)["inputs"]["size"] == 1


def test_history_numbers_updates_as_export_does(place: Any, stack: Any) -> None:
    lines = place.run("stack", "history", "--stack", "dev").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [["2", "update", "succeeded"], ["1", "update", "succeeded"]]
    assert ("the first" in lines[1] and "ago" in lines[0]) or "now" in lines[0]
    (second,) = place.run("stack", "history", "--page-size", "1", "--page", "2", "--stack", "dev").stdout.splitlines()
    assert second.split()[0] == "1"
    full = place.run("stack", "history", "--full-dates", "--stack", "dev").stdout
    assert all("T" in line.split()[3] for line in full.splitlines())


def test_outputs_for_a_shell_are_what_a_shell_reads(place: Any, stack: Any) -> None:
    script = place.run("stack", "output", "--shell", "--show-secrets", "--stack", "dev").stdout
    said = subprocess.run(["sh", "-c", f'{script}\necho "$size|$words|$token"'], capture_output=True, text=True)
    assert said.stdout == "2|it's $HOME|hush\n"
    assert place.run("stack", "output", "words", "--shell", "--stack", "dev").stdout.startswith("words=")
    with pytest.raises(CommandError, match="only one of --json and --shell"):
        place.run("stack", "output", "--shell", "--json", "--stack", "dev")


def test_about_says_where_and_what(place: Any, stack: Any) -> None:
    document = json.loads(place.run("about", "--json", "--stack", "dev").stdout)
    assert document["currentStack"]["fullyQualifiedName"] == "organization/golden/dev"
    assert document["backend"]["url"].startswith("file://") and document["errors"] == []
    assert "pulumi" in {row["name"] for row in document["dependencies"]}
    assert document["cliAbout"]["version"].startswith("v3.")
    text = place.run("about", "--stack", "dev").stdout
    assert "Found 3 resources, 0 pending operations" in text and "hush" not in text


def test_about_tells_also_where_something_is_wrong(place: Any) -> None:
    done = place.workspace(lambda: None)
    said = done.pulumi_command.run(["about", "--stack", "nowhere"], done.work_dir, dict(done.env_vars))
    assert "Failed to get information about the current stack: no stack named 'nowhere' found" in said.stderr
    assert "Host" in said.stdout


def test_whoami(place: Any) -> None:
    assert place.run("whoami").stdout == "somebody"
    assert json.loads(place.run("whoami", "-v", "--json").stdout)["user"] == "somebody"
    assert "Backend URL: file://" in place.run("whoami", "--verbose").stdout


def test_select_and_unselect(place: Any, stack: Any) -> None:
    place.run("stack", "select", "-c", "prod", "--secrets-provider", "default")
    assert place.run("stack", "--show-name").stdout == "prod"
    assert "prod*" in place.run("stack", "ls").stdout
    assert place.run("stack", "unselect").stderr == "Stack was unselected"
    assert place.run("stack", "unselect").stderr == ""
    with pytest.raises(CommandError, match="no stack selected"):
        place.run("stack", "--show-name")


def test_init_can_copy_configuration(place: Any, stack: Any) -> None:
    place.run("config", "set", "color", "red", "--stack", "dev")
    place.run("config", "set", "key", "mine", "--secret", "--stack", "dev")
    place.run("stack", "init", "prod", "--copy-config-from", "dev", "--yes")
    assert place.run("config", "get", "key", "--stack", "prod").stdout == "mine"
    assert place.run("config", "get", "color", "--stack", "prod").stdout == "red"
    with pytest.raises(CommandError, match="no stack named 'nowhere'"):
        place.run("stack", "init", "late", "--copy-config-from", "nowhere")
    assert "late" not in place.run("stack", "ls").stdout


def test_stacks_are_listed_by_tag(place: Any, stack: Any) -> None:
    place.run("stack", "init", "prod")
    place.run("stack", "tag", "set", "team", "blue", "--stack", "prod")

    def listed(*flags: str) -> list[str]:
        return [row["name"] for row in json.loads(place.run("stack", "ls", "--json", *flags).stdout)]

    assert listed() == ["dev", "prod"] and listed("--tag", "team") == listed("-t", "team=blue") == ["prod"]
    assert listed("--tag", "team=red") == []


def test_state_delete_takes_many_or_all(place: Any, stack: Any) -> None:
    web = "urn:pulumi:dev::golden::fake:index:Thing::web"
    with pytest.raises(CommandError, match="either URNs or --all"):
        place.run("state", "delete", web, "--all", "--yes", "--stack", "dev")
    assert place.run("state", "rm", "--all", "--yes", "--stack", "dev").stdout == "All resources deleted"
    assert place.cloud.things and "resources" not in json.loads(
        place.run("stack", "export", "--stack", "dev").stdout
    ).get("deployment", {})


def piped(place: Any, text: str | None, *args: str) -> CommandResult:
    """One command line with something on its standard input."""
    workspace = place.workspace(lambda: None)
    command = EmbeddedPulumi(
        providers=FakeProviders(place.cloud),
        clock=SystemClock(),
        environment={"HOME": str(place.root / "home")},
        passphrase_salt=place.salt,
        loop=place.loop,
        piped=lambda: text,
    )
    return command.execute([*args, "--stack", "dev"], workspace.work_dir, dict(workspace.env_vars))


def test_values_and_deployments_come_from_standard_input(place: Any, stack: Any) -> None:
    assert piped(place, "two\nlines\n", "config", "set", "--secret", "key").code == 0
    assert place.run("config", "get", "key", "--stack", "dev").stdout == "two\nlines"
    assert piped(place, "raw\n", "config", "set", "key", "--raw").code == 0
    assert json.loads(place.run("config", "--json", "--stack", "dev").stdout)["golden:key"]["value"] == "raw\n"
    first = place.run("stack", "export", "--version", "1", "--stack", "dev").stdout
    assert piped(place, first, "stack", "import").code == 0
    assert web_of(place.run("stack", "export", "--stack", "dev").stdout)["inputs"]["size"] == 1
    for verb in (("stack", "import"), ("config", "set", "key")):
        refused = piped(place, None, *verb)
        assert refused.code == 2 and "standard input" in refused.stderr


def test_graph_begins_with_a_fragment_that_is_given(place: Any, stack: Any) -> None:
    place.run("stack", "graph", "g.dot", "--dot-fragment", "rankdir=LR;", "--stack", "dev")
    assert (place.root / "work" / "g.dot").read_text().splitlines()[1] == "rankdir=LR;"
