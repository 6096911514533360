"""Which pulumi is chosen, and what is said when the one asked for is absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from pulumi.automation import PulumiCommand

from engine.automation.choice import choose_command
from engine.model.errors import StackError
from engine.model.fence import Fence, NoFence


def embedded(fence: Fence) -> PulumiCommand | None:
    return None


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pulumi"
    path.write_text("#!/bin/sh\necho v3.260.0\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def test_auto_without_a_binary_is_the_embedded_engine(tmp_path: Path) -> None:
    assert choose_command("auto", embedded=embedded, environment={"PATH": str(tmp_path)}) is embedded


@pytest.mark.parametrize("mode", ["auto", "cli"])
def test_binary_on_path_is_used(binary: Path, mode: str) -> None:
    chosen = choose_command(mode, embedded=embedded, environment={"PATH": str(binary.parent)})
    command = chosen(NoFence())
    assert command is not None
    assert (command.command, str(command.version)) == (str(binary), "3.260.0")


def test_embedded_when_asked_for_even_with_a_binary(binary: Path) -> None:
    assert choose_command("embedded", embedded=embedded, environment={"PATH": str(binary.parent)}) is embedded


def test_cli_without_a_binary_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="STACKYARD_PULUMI=embedded"):
        choose_command("cli", embedded=embedded, environment={"PATH": str(tmp_path)})


def test_unusable_binary_says_why(binary: Path) -> None:
    binary.write_text("#!/bin/sh\necho v2.0.0\n")
    with pytest.raises(StackError, match="Minimum version"):
        choose_command("cli", embedded=embedded, environment={"PATH": str(binary.parent)})


def test_unknown_mode_names_the_choices() -> None:
    with pytest.raises(StackError, match="auto, embedded or cli"):
        choose_command("both", embedded=embedded, environment={})
