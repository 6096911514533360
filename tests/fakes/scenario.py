"""Runs unmodified Pulumi programs through the SDK's own language server against the in-process engine.

After every update it checks what must hold after any: sound snapshots at every journal position, replay = result.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import pulumi
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc

from engine.deploy.journal import Journal, JournalEntry, Replay, replay
from engine.deploy.program import ProgramSource
from engine.deploy.resource import ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.source import LanguageRuntimeSource
from engine.deploy.update import UpdateMode, UpdateOptions, UpdateResult, run_update
from engine.deploy.update_target import UpdateTarget
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from tests.fakes.provider import FakeProviders, InMemoryCloud

Program = Callable[[], Any]


class Thing(pulumi.CustomResource):
    """A resource of the fake provider, as a generated SDK would declare it."""

    address: pulumi.Output[str]

    def __init__(
        self, name: str, props: Mapping[str, Any] | None = None, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        version = pulumi.ResourceOptions(version="1.2.3")
        super().__init__(
            "fake:index:Thing", name, {"address": None, **(props or {})}, pulumi.ResourceOptions.merge(version, opts)
        )


class Group(pulumi.ComponentResource):
    """A component."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fake:index:Group", name, {}, opts)


class Account(pulumi.ProviderResource):
    """An explicit provider."""

    def __init__(self, name: str, props: Mapping[str, Any] | None = None, opts: Any = None) -> None:
        version = pulumi.ResourceOptions(version="1.2.3")
        super().__init__("fake", name, dict(props or {}), pulumi.ResourceOptions.merge(version, opts))


class EngineLoop:
    """The one event loop all updates run on, in a thread of its own, as in production."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], timeout_seconds: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def start(self, work: Coroutine[Any, Any, Any]) -> futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()


@dataclass
class ListJournal:
    """Keeps entries; `fail_at` raises at an entry, as a full disk or a lost lease would."""

    entries: list[JournalEntry] = field(default_factory=list)
    fail_at: int = -1
    error: BaseException | None = None
    disk: Journal | None = None

    def append(self, entry: JournalEntry) -> None:
        if self.error is not None and len(self.entries) == self.fail_at:
            raise self.error
        assert entry.sequence == len(self.entries), "a gap in the journal"
        self.entries.append(entry)
        if self.disk is not None:
            self.disk.append(entry)


@dataclass
class ListSink:
    events: list[dict[str, Any]] = field(default_factory=list)

    def emit(self, event: dict[str, Any]) -> None:
        assert event["sequence"] == len(self.events)
        self.events.append(event)


@dataclass
class Cancel:
    level: int = 0


@dataclass
class Run:
    """One update that has ended."""

    result: UpdateResult
    events: list[dict[str, Any]]
    entries: list[JournalEntry]

    @property
    def ops(self) -> dict[str, list[str]]:
        """Resource name → operations begun, in order."""
        found: dict[str, list[str]] = {}
        for event in self.events:
            if "resourcePreEvent" in event:
                metadata = event["resourcePreEvent"]["metadata"]
                found.setdefault(metadata["urn"].rpartition("::")[2], []).append(metadata["op"])
        return found

    @property
    def order(self) -> list[tuple[str, str]]:
        """(operation, resource name) in the order they began."""
        return [
            (e["resourcePreEvent"]["metadata"]["op"], e["resourcePreEvent"]["metadata"]["urn"].rpartition("::")[2])
            for e in self.events
            if "resourcePreEvent" in e
        ]

    @property
    def errors(self) -> str:
        return "\n".join(
            e["diagnosticEvent"]["message"]
            for e in self.events
            if e.get("diagnosticEvent", {}).get("severity") == "error"
        )

    def state(self, name: str) -> ResourceState:
        live = [s for s in self.result.snapshot.resources if s.urn.endswith(f"::{name}") and not s.delete]
        assert len(live) == 1, f"{name}: {[s.urn for s in self.result.snapshot.resources]}"
        return live[0]

    def has(self, name: str) -> bool:
        return any(s.urn.endswith(f"::{name}") for s in self.result.snapshot.resources)

    def metadata(self, name: str, kind: str = "resourcePreEvent") -> list[dict[str, Any]]:
        return [e[kind]["metadata"] for e in self.events if kind in e and e[kind]["metadata"]["urn"].endswith(name)]


@contextmanager
def language_server(program: Program) -> Iterator[str]:
    """The SDK's own server for inline programs, as the Automation API starts it."""
    pool = futures.ThreadPoolExecutor(max_workers=4)
    server = grpc.server(pool)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
    port = server.add_insecure_port("127.0.0.1:0")
    with closed_loops():
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(60)
            pool.shutdown()


@contextmanager
def closed_loops() -> Iterator[None]:
    """The SDK leaves its event loop unclosed when a pending task of a failed program ends in an error: close it."""
    made: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def remember() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    try:
        with mock.patch.object(asyncio, "new_event_loop", remember):
            yield
    finally:
        for loop in made:
            if not loop.is_running():
                loop.close()


@dataclass
class Scenario:
    """A stack of the fake provider and the updates it goes through."""

    engine: EngineLoop
    cloud: InMemoryCloud = field(default_factory=InMemoryCloud)
    config: dict[str, str] = field(default_factory=dict)
    secret_keys: frozenset[str] = frozenset()
    snapshot: Snapshot = field(default_factory=Snapshot)
    cancel: Cancel = field(default_factory=Cancel)
    fence: Any = field(default_factory=NoFence)
    journal_error: tuple[int, BaseException] | None = None
    project: str = "lab"
    stack: str = "dev"
    providers: Any = None
    stacks: Any = None
    last_entries: list[JournalEntry] = field(default_factory=list)
    disk: Journal | None = None  # written as well, after the list

    def up(self, program: Program, **options: Any) -> Run:
        return self._run(UpdateMode.UP, program, **options)

    def preview(self, program: Program, **options: Any) -> Run:
        return self._run(UpdateMode.PREVIEW, program, **options)

    def refresh(self, program: Program | None = None, **options: Any) -> Run:
        return self._run(UpdateMode.REFRESH, program, **options)

    def destroy(self, program: Program | None = None, **options: Any) -> Run:
        return self._run(UpdateMode.DESTROY, program, **options)

    def _run(self, mode: UpdateMode, program: Program | None, **options: Any) -> Run:
        if program is None:
            return self.engine.run(self.update(mode, None, **options))
        with language_server(program) as address:
            return self.engine.run(self.update(mode, address, **options))

    async def update(
        self, mode: UpdateMode, address: str | None, *, source: ProgramSource | None = None, **options: Any
    ) -> Run:
        """One update; the scenario's snapshot becomes its result."""
        if address:
            source = LanguageRuntimeSource(address, Path("/"))
        base = self.snapshot
        journal, sink = ListJournal(), ListSink()
        if self.journal_error:
            journal.fail_at, journal.error = self.journal_error
        self.last_entries, journal.disk = journal.entries, self.disk
        target = UpdateTarget(self.project, self.stack, self.config, self.secret_keys)
        result = await run_update(
            target,
            UpdateOptions(mode, **options),
            base=base,
            source=source,
            providers=self.providers or FakeProviders(self.cloud),
            journal=journal,
            events=sink,
            fence=self.fence,
            clock=SystemClock(),
            cancellation=self.cancel,
            stacks=self.stacks,
        )
        check_run(UpdateMode.PREVIEW if options.get("dry_run") else mode, base, journal.entries, result)
        self.snapshot = result.snapshot
        return Run(result, sink.events, journal.entries)


def check_run(mode: UpdateMode, base: Snapshot, entries: list[JournalEntry], result: UpdateResult) -> None:
    """What holds after every update."""
    if mode is UpdateMode.PREVIEW:
        assert not entries, "a preview wrote to the journal"
        assert result.snapshot == base
        return
    growing = Replay(base)
    growing.snapshot().verify_integrity()
    for entry in entries:
        growing.add(entry)
        growing.snapshot().verify_integrity()
    assert replay(base, entries) == result.snapshot, "the result is not the journal's replay"
