"""One Idempotency-Key used by two requests at the same moment, on PostgreSQL, where transactions really overlap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from api.deps import Deps
from api.routers.deployments import create_deployment
from api.schemas.deployments import DeploymentCreate
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.access import Principal
from engine.model.errors import Conflict
from engine.store import deployments, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from tests.fakes.clock import FakeClock
from tests.fakes.rows import org_row

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def database(new_postgres_url: Callable[[], str]) -> Iterator[Database]:
    database = Database(new_postgres_url())
    yield database
    database.close()


@pytest.mark.parametrize("replicas", [(1, 1), (1, 2)])
def test_two_requests_with_one_key_at_the_same_time_make_one_deployment(
    database: Database, replicas: tuple[int, int]
) -> None:
    clock = FakeClock()
    with database.write() as session:
        orgs.insert(session, org_row(clock.now()))
    unused: Any = None
    deps = Deps(
        database=database, hasher=KeyHasher(SECRET), sealer=Sealer(SECRET), clock=clock, new_id=ids.new_id,
        public_url="http://yard.test", logs=unused, stacks=unused, identity=unused, storage=unused,
    )  # fmt: skip
    both_are_here = threading.Barrier(2)
    met: set[int] = set()

    def before_execute(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        locks = "FROM orgs" in statement and statement.endswith("FOR UPDATE")  # where one has to wait for the other
        if locks and threading.get_ident() not in met:
            met.add(threading.get_ident())
            both_are_here.wait(timeout=60)

    def request(count: int) -> str | Conflict:
        body = DeploymentCreate(
            name="prod", model_id="llama-3.3-70b-instruct", gpu_type="h100", region="nyc2", replicas=count
        )
        try:
            return create_deployment(body, Principal("org_1"), deps, "order-7").id
        except Conflict as err:
            return err

    event.listen(database.engine, "before_cursor_execute", before_execute)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(request, replicas))
    with database.read() as session:
        rows = deployments.list_for_org(session, "org_1")
    accepted = [answer for answer in answers if isinstance(answer, str)]
    assert len(rows) == 1 and set(accepted) == {rows[0].id}
    assert len(accepted) == (2 if replicas[0] == replicas[1] else 1)
