"""An `Identity` per test, on SQLite or whatever database the run chose, and two databases where that matters."""

from __future__ import annotations

import pytest

from engine.identity.context import Identity
from engine.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.identity import Promotions, ReadableMail, ReadableSms, identity_for_tests


@pytest.fixture
def mail() -> ReadableMail:
    return ReadableMail()


@pytest.fixture
def sms() -> ReadableSms:
    return ReadableSms()


@pytest.fixture
def promotions() -> Promotions:
    return Promotions()


@pytest.fixture
def identity(
    database: Database, clock: FakeClock, mail: ReadableMail, sms: ReadableSms, promotions: Promotions
) -> Identity:
    return identity_for_tests(database, clock, mail=mail, sms=sms, promotions=promotions)
