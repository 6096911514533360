"""The process that dispatches is killed at every step of a job's life; what it had accepted ends once."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import select, text

from engine.model.errors import StackyardError
from engine.store.job_tables import JobRow
from engine.store.ledger_tables import UsageRecordRow
from tests.fakes.handler_server import HandlerServer, Reply, echo
from tests.fakes.job_yard import SECONDS, SECRET, Yard


class Gateway:
    """A gateway of its own process; ended by its pid."""

    def __init__(self, yard: Yard, port: int) -> None:
        command = [sys.executable, "-m", "engine.proof.jobs_gateway", yard.database.url, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(SECRET.hex().encode() + b"\n")
        self._process.stdin.close()
        yard.url = f"http://127.0.0.1:{port}"

        def serves() -> bool:
            assert self._process.poll() is None
            try:
                return httpx.get(f"{yard.url}/healthz", timeout=2, verify=False).status_code == 200
            except httpx.HTTPError:
                return False

        yard.until(serves)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)


@pytest.fixture
def gateway(empty_yard: Yard) -> Iterator[Callable[[], Gateway]]:
    made: list[Gateway] = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start() -> Gateway:
        made.append(Gateway(empty_yard, port))
        return made[-1]

    yield start
    for one in made:
        one.kill()


@contextmanager
def nobody_writes(yard: Yard) -> Iterator[None]:
    """Hold what every write about jobs needs."""
    with pytest.raises(StackyardError, match="give up"), yard.database.write() as session:
        session.connection()  # SQLite lets one process write at a time
        if not yard.database.is_sqlite:
            session.connection().execute(text("LOCK TABLE jobs IN EXCLUSIVE MODE"))
        yield
        raise StackyardError("give up")  # it changed nothing


def test_killed_at_every_step_no_job_is_lost_and_each_ends_once(
    empty_yard: Yard, server: HandlerServer, gateway: Callable[[], Gateway]
) -> None:
    yard = empty_yard
    begun, release = threading.Event(), threading.Event()
    server.answer = lambda body: _held(body, begun, release)
    yard.add_handler(server, max_attempts=5)

    # while a handler works on one, the next waits, and a third is being accepted: nobody was told that it is
    first = gateway()
    running = yard.run(job_input="running")
    assert begun.wait(SECONDS)
    waiting = yard.run(job_input="waiting")
    with nobody_writes(yard):
        submitting = threading.Thread(target=_submit_in_vain, args=(yard,))
        submitting.start()
        submitting.join(0.3)
        first.kill()
        submitting.join(SECONDS)
    assert yard.row(running).state == "running" and yard.row(waiting).state == "queued"
    release.set()

    # while an end is being written
    second = gateway()
    yard.until(lambda: {yard.row(running).state, yard.row(waiting).state} == {"succeeded"})
    begun.clear()
    release.clear()
    ending = yard.run(job_input="ending")
    assert begun.wait(SECONDS)
    before = server.answered
    with nobody_writes(yard):
        release.set()
        yard.until(lambda: server.answered > before)
        second.kill()
    server.answer = echo
    gateway()
    job = yard.ended(ending)
    assert job["output"] == {"echo": "ending"} and job["attempts"] == 2
    assert (yard.get(running)["attempts"], yard.get(waiting)["attempts"]) == (2, 1)

    with yard.database.read() as session:
        rows = session.execute(select(JobRow)).scalars().all()
        used = session.execute(select(UsageRecordRow)).scalars().all()
    assert {row.id: row.state for row in rows} == dict.fromkeys((running, waiting, ending), "succeeded")
    of_jobs = Counter(record.source_id.split(":")[1] for record in used if record.source_id.startswith("job:"))
    assert of_jobs == {running: 1, waiting: 1, ending: 1}, "each is in the books once"


def _submit_in_vain(yard: Yard) -> None:
    with pytest.raises(httpx.HTTPError):
        yard.run(job_input="in vain")


def _held(body: dict[str, object], begun: threading.Event, release: threading.Event) -> Reply:
    begun.set()
    release.wait(SECONDS)
    return echo(body)
