"""Update plans through the Automation API: `Stack.preview(plan=…)`, `Stack.up(plan=…)`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.automation.errors import CommandError

from tests.fakes.scenario import Thing


def program() -> None:
    thing = Thing("web", {"size": pulumi.Config().get_int("size") or 1, "token": pulumi.Output.secret("hush")})
    pulumi.export("address", thing.address)


def test_same_program_keeps_to_its_plan(place: Any, tmp_path: Path) -> None:
    stack, path = place.stack(program), str(tmp_path / "plan.json")
    stack.preview(plan=path)
    assert not place.cloud.things
    text = Path(path).read_text()
    assert "hush" not in text and json.loads(text)["manifest"]["version"].startswith("v3.")
    result = stack.up(plan=path)
    assert result.outputs["address"].value and len(place.cloud.things) == 1
    history = next((place.state / "history" / "golden" / "dev").glob("*.history.json"))
    assert json.loads(history.read_text())["environment"]["updatePlan"] == "true"


def test_other_inputs_change_nothing(place: Any, tmp_path: Path) -> None:
    stack, path = place.stack(program), str(tmp_path / "plan.json")
    stack.up()
    stack.preview(plan=path)
    before = stack.export_stack().deployment["resources"]
    stack.set_config("size", pulumi.automation.ConfigValue("2"))
    with pytest.raises(CommandError, match=r"violates plan: properties changed: =~size\[\{1\}|=~size\[\{2\}\]"):
        stack.up(plan=path)
    assert stack.export_stack().deployment["resources"] == before
    assert [t.properties["size"] for t in place.cloud.things.values()] == [1]


def test_plan_of_another_stack_does_nothing(place: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    place.stack(program).preview(plan=path)
    with pytest.raises(CommandError, match="is the plan of another stack"):
        place.stack(program, "other").up(plan=path)
    assert not place.cloud.things


def test_damaged_secret_in_a_plan_says_so(place: Any, tmp_path: Path) -> None:
    stack, path = place.stack(program), tmp_path / "plan.json"
    stack.preview(plan=str(path))
    damaged = path.read_text().replace('"ciphertext": "v1:', '"ciphertext": "v1:AAAA')
    path.write_text(damaged)
    with pytest.raises(CommandError, match=r"decrypt|ciphertext"):
        stack.up(plan=str(path))
    assert not place.cloud.things


def test_failed_preview_leaves_no_plan(place: Any, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"

    def failing() -> None:
        raise ValueError("a bad program")

    with pytest.raises(CommandError, match="a bad program"):
        place.stack(failing).preview(plan=str(path))
    assert not path.exists()


def test_shown_secrets_are_read_back(place: Any, tmp_path: Path) -> None:
    stack, path = place.stack(program), tmp_path / "plan.json"
    place.execute(program, "preview", "--save-plan", str(path), "--show-secrets")
    assert "hush" in path.read_text()
    stack.up(plan=str(path))
    assert len(place.cloud.things) == 1
