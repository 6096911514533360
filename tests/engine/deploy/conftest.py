"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.scenario import EngineLoop, Scenario


@pytest.fixture(scope="session")
def engine_loop() -> Iterator[EngineLoop]:
    loop = EngineLoop()
    yield loop
    loop.close()


@pytest.fixture
def scenario(engine_loop: EngineLoop) -> Scenario:
    return Scenario(engine_loop)
