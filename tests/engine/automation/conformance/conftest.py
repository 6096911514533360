"""Twin folders for both engines; without `pulumi` on PATH the tests here are skipped by name."""

from __future__ import annotations

import gc
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest

from engine.deploy.command import EngineLoop
from engine.deploy.secrets import PassphraseSecrets, new_salt
from tests.fakes import cells_plugin
from tests.fakes.agreement import Reading, differences
from tests.fakes.twins import Twin, embedded, official

Conform = Callable[..., None]


LEFT_BY_THE_SDK = (
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
"""An inline program that the official engine turns away leaves its outputs behind, in this process."""


@pytest.hookimpl(trylast=True)  # after pytest has set its own hook
def pytest_configure(config: pytest.Config) -> None:
    """Coroutines of such a program are nobody's failure, whenever they are collected, also after the last test."""
    sdk, report = str(Path(pulumi.__file__).parent), sys.unraisablehook

    def report_others(found: Any) -> None:
        if not (inspect.iscoroutine(found.object) and found.object.cr_code.co_filename.startswith(sdk)):
            report(found)

    def collect_the_last() -> None:
        for _ in range(5):  # as pytest does: one round's finalizers leave garbage for the next
            gc.collect()
        sys.unraisablehook = report

    sys.unraisablehook = report_others
    config.add_cleanup(collect_the_last)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        for rule in LEFT_BY_THE_SDK:
            item.add_marker(pytest.mark.filterwarnings(rule))
        if shutil.which("pulumi") is None:
            item.add_marker(pytest.mark.skip(reason="the official `pulumi` is not on PATH"))


@pytest.fixture(scope="session")
def salt(command_loop: EngineLoop) -> str:
    return new_salt("x", command_loop.keys)


@pytest.fixture(scope="session")
def plugin_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pulumi-home")
    cells_plugin.install(home, ("1.0.0", "1.1.0"))
    return home


@pytest.fixture
def twin(tmp_path: Path, command_loop: EngineLoop, plugin_home: Path, salt: str) -> Callable[..., Twin]:
    engines = {"official": official, "embedded": embedded(command_loop, salt)}

    def make(side: str, program: Any, *, where: str = "", **options: Any) -> Twin:
        return Twin(tmp_path / (where or side), engines[side], plugin_home, salt, program, **options)

    return make


@pytest.fixture
def conform(twin: Callable[..., Twin], command_loop: EngineLoop, salt: str) -> Conform:
    """Runs a scenario through both engines and fails with every difference."""
    decrypt = PassphraseSecrets.open("x", salt, command_loop.keys).decrypt

    def run(program: Any, lines: tuple[str, ...], known: tuple[str, ...], **options: Any) -> None:
        sides = [twin(side, program, **options) for side in ("official", "embedded")]
        found = []
        for number, line in enumerate(lines):
            views = [Reading(side.root, decrypt).of(side.do(line)) for side in sides]
            found += [
                f"{number} `{line}` {where}\n    official: {_short(one)}\n    embedded: {_short(other)}"
                for where, one, other in differences(*views)
                if not any(re.search(part, f"{line} {where}") for part in known)
            ]
            if found and views[0]["code"] != views[1]["code"]:
                break  # what comes after it only follows from it
        if found:
            pytest.fail(f"{len(found)} differences\n" + "\n".join(found), pytrace=False)

    return run


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) < 600 else f"{text[:600]} …"
