"""The gateway in numbers, beside LiteLLM, nginx and a bare ASGI proxy where they are: one run, one upstream.

The proxy that is measured has a core of its own; the load and the upstream, which are here, share another. Every figure
is the median of rounds that take turns, so what else the machine does falls on all alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop

from engine.model.clock import Clock
from engine.model.errors import Unavailable
from engine.proof import gateway_peers, gateway_yard
from engine.proof.bench_autoscaler import autoscaler_pass
from engine.proof.bench_jobs import Found, free_ports
from engine.proof.gateway_peers import Peer
from engine.proof.gateway_yard import Yard
from engine.proof.http_load import request
from engine.proof.installation import Child
from engine.proof.memory import MIB, peak_memory
from engine.proof.paced_load import Streams, Target, at_rate, most_per_second, percentile_ms
from engine.store import deployments

LIMITS: Mapping[str, float] = {
    "gateway_added_p50_ms": 1.0, "gateway_added_p99_ms": 6.0, "gateway_added_p50_updating_ms": 1.0,
    "gateway_added_p99_updating_ms": 6.0, "ttft_added_p99_ms": 10.0, "stream_kib": 120.0, "big_prompt_mib": 128.0,
    "wake_trigger_ms": 250.0, "autoscaler_5000_s": 2.0,
}  # fmt: skip
"""What is promised, each from above."""

PEER_RATIO = 25.0
"""Of LiteLLM's requests a second, at least."""

_START_SECONDS = 90.0
_CHAT: Mapping[str, Any] = {
    "model": "bench", "temperature": 0.2,
    "messages": [{"role": "system", "content": "You answer in one sentence."},
                 {"role": "user", "content": "What does gradient descent do? " * 8}],
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much is measured, and how long."""

    rounds: int = 3
    connections: int = 64
    most_seconds: float = 2.5
    paced_seconds: float = 3.0
    streams: int = 500
    stream_tokens: int = 40
    pace_seconds: float = 0.1
    stream_seconds: float = 4.0
    updates_per_second: float = 10.0
    prompt_bytes: int = 32 * MIB
    deployments: int = 5000


@dataclass
class _Bench:
    """Everything that runs, and what was found so far."""

    size: Size
    clock: Clock
    yard: Yard
    gateway: Child
    gateway_port: int
    upstream_port: int
    peers: Sequence[Peer]
    folder: Path
    found: dict[str, Found] = field(default_factory=dict)

    def target(self, name: str, **more: Any) -> Target:
        """A chat request to the gateway, to a peer, or straight to the upstream (`direct`)."""
        body = json.dumps({**_CHAT, **more}).encode()
        port, path, headers = self.upstream_port, "/v1/chat/completions", {}
        if name == "gateway":
            port, path = self.gateway_port, self.yard.path(self.yard.awake)
            headers = {"authorization": f"Bearer {self.yard.key}"}
        elif peer := next((p for p in self.peers if p.name == name), None):
            port, path, headers = peer.port, peer.path, dict(peer.headers)
        sent = [("content-type", "application/json"), *headers.items()]
        return Target(port, request("POST", path, sent, body))

    def child(self, name: str) -> Child | None:
        """The process of the gateway or of a peer; None for the upstream."""
        children = {peer.name: peer.child for peer in self.peers} | {"gateway": self.gateway}
        return children.get(name)

    @property
    def running(self) -> list[str]:
        return [peer.name for peer in self.peers if peer.child is not None]


def run(clock: Clock, size: Size, *, litellm_python: str = "") -> dict[str, Found]:
    """All figures; what could not be measured says why."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stackyard-bench-gateway-")))
        bench = _start(stack, folder, clock, size, litellm_python)
        gc.collect()
        gc.freeze()  # the load's own collections would be measured as the proxies' slowest answers
        stack.callback(gc.unfreeze)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for measure in (_most, _added, _added_while_updating, _streams, _big_prompt, _wake):
                runner.run(measure(bench))
    bench.found["autoscaler_5000_s"] = Found(autoscaler_pass(deployments=size.deployments), "s of CPU")
    return bench.found


def to_json(found: Mapping[str, Found]) -> dict[str, Any]:
    """As `--json` prints it; `gateway_rps` is held to LiteLLM's."""
    shown = {name: one.to_json(LIMITS.get(name)) for name, one in found.items()}
    rps = shown.get("gateway_rps", {})
    if "ratio" in rps:
        rps |= {"limit": PEER_RATIO * rps["peer_value"], "held": rps["ratio"] >= PEER_RATIO}
    return shown


def _start(stack: ExitStack, folder: Path, clock: Clock, size: Size, litellm_python: str) -> _Bench:
    """Upstream, gateway and peers, each where it belongs, and each answering."""
    plain, tls, gateway, *others = free_ports(6)
    yard = gateway_yard.prepare(folder / "yard", tls, clock)
    stack.callback(yard.database.close)
    load_core, proxy_core = _cores()
    stack.enter_context(_pinned(load_core))
    upstream = subprocess.Popen(
        [sys.executable, "-m", "engine.proof.fake_openai", *map(str, (plain, tls, size.stream_tokens)),
         str(size.pace_seconds)], stdin=subprocess.PIPE,
    )  # fmt: skip
    stack.callback(upstream.wait, 30)
    stack.callback(upstream.terminate)
    assert upstream.stdin is not None
    upstream.stdin.write(json.dumps(asdict(yard.identity)).encode() + b"\n")
    upstream.stdin.close()
    with _pinned(proxy_core):  # children inherit it
        child = gateway_yard.start(yard, gateway)
        stack.callback(child.stop)
        peers = [
            gateway_peers.bare(folder, others[0], plain),
            gateway_peers.nginx(folder, others[1], plain),
            gateway_peers.litellm(folder, others[2], plain, litellm_python),
        ]
        for peer in peers:
            if peer.child is not None:
                stack.callback(peer.child.stop)
    bench = _Bench(size, clock, yard, child, gateway, plain, peers, folder)
    for name in ("direct", "gateway", *bench.running):
        asyncio.run(_wait_ready(bench, name))
    return bench


async def _wait_ready(bench: _Bench, name: str) -> None:
    """Until it answers a chat request."""
    target, failure = bench.target(name), ""
    deadline = bench.clock.monotonic() + _START_SECONDS
    while bench.clock.monotonic() < deadline:
        if child := bench.child(name):
            child.require_alive()
        try:
            await at_rate(target, bench.clock, per_second=20, connections=1, seconds=0.2)
            return
        except (OSError, Unavailable) as err:
            failure = str(err)
            await bench.clock.sleep(0.2)
    raise Unavailable(f"{name} was not ready within {_START_SECONDS:.0f} s: {failure}")


async def _most(bench: _Bench) -> None:
    """Requests a second on one core, the peers' and the load's own, and the CPU that each takes for a request."""
    size, names = bench.size, ("gateway", "direct", *bench.running)
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    for name in names:  # what is imported or connected at the first requests is not measured
        await most_per_second(bench.target(name), bench.clock, connections=size.connections, seconds=1)
    for _ in range(size.rounds):
        for name in names:
            before = _cpu_seconds(bench.child(name))
            rate = await most_per_second(bench.target(name), bench.clock, connections=size.connections,
                                         seconds=size.most_seconds)  # fmt: skip
            rates[name].append(rate)
            answers = max(1.0, rate * size.most_seconds)
            costs[name].append((_cpu_seconds(bench.child(name)) - before) * 1e6 / answers)
    rps = {name: statistics.median(rounds) for name, rounds in rates.items()}
    cpu_us = {name: statistics.median(rounds) for name, rounds in costs.items()}
    extra: dict[str, Any] = {"cpu_us": round(cpu_us["gateway"]), "upstream_alone_rps": round(rps["direct"])}
    for peer in bench.peers:
        if peer.name in rps:
            extra |= {f"{peer.name}_rps": round(rps[peer.name]), f"{peer.name}_cpu_us": round(cpu_us[peer.name]),
                      f"ratio_to_{peer.name}": round(rps["gateway"] / rps[peer.name], 3)}  # fmt: skip
        else:
            extra[f"{peer.name}_reason"] = peer.reason
    extra["load_average"] = round(os.getloadavg()[0], 1)
    bench.found["gateway_rps"] = Found(rps["gateway"], "req/s", peer="litellm", peer_value=rps.get("litellm") or None,
                                       extra=extra)  # fmt: skip


async def _added(bench: _Bench) -> None:
    """What the gateway adds to an answer at half of what it can do, and what the fast proxies add at that rate."""
    names = ["gateway", *(name for name in bench.running if name != "litellm")]
    p50, p99 = await _paced(bench, names)
    for label, added in (("p50", p50), ("p99", p99)):
        others = {f"{name}_ms": round(value, 3) for name, value in added.items() if name not in ("gateway", "direct")}
        bench.found[f"gateway_added_{label}_ms"] = Found(
            added["gateway"], "ms",
            extra={"at_per_second": round(_half(bench)), "direct_ms": round(added["direct"], 3)} | others,
        )  # fmt: skip


async def _added_while_updating(bench: _Bench) -> None:
    """The same while another process runs stack updates on whatever core is free."""
    count_file = bench.folder / "updates.count"
    with _pinned(frozenset(range(os.cpu_count() or 1))):
        command = [sys.executable, "-m", "engine.proof.stack_updates", str(bench.folder / "updates"),
                   str(bench.size.updates_per_second), str(count_file)]  # fmt: skip
        updates = Child("updates", command, bench.folder / "updates.log", os.environ)
    try:
        while _count(count_file) < bench.size.updates_per_second:
            updates.require_alive()
            await bench.clock.sleep(0.1)
        began, before = bench.clock.monotonic(), _count(count_file)
        p50, p99 = await _paced(bench, ["gateway"])
        per_second = (_count(count_file) - before) / (bench.clock.monotonic() - began)
    finally:
        updates.stop()
    extra = {"updates_per_second": round(per_second, 1), "at_per_second": round(_half(bench))}
    bench.found["gateway_added_p50_updating_ms"] = Found(p50["gateway"], "ms", extra=extra)
    bench.found["gateway_added_p99_updating_ms"] = Found(p99["gateway"], "ms", extra=extra)


async def _paced(bench: _Bench, names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Median and p99 in ms that each adds to the upstream's own answer at the same rate; `direct` is that answer's."""
    size, rate = bench.size, _half(bench)
    taken: dict[str, list[Sequence[float]]] = {name: [] for name in ("direct", *names)}
    for _ in range(size.rounds):
        for name, rounds in taken.items():
            rounds.append(await at_rate(bench.target(name), bench.clock, per_second=rate, connections=size.connections,
                                        seconds=size.paced_seconds))  # fmt: skip

    def added(percent: int) -> dict[str, float]:
        medians = {n: statistics.median(percentile_ms(one, percent) for one in rounds) for n, rounds in taken.items()}
        return {name: value - (medians["direct"] if name != "direct" else 0) for name, value in medians.items()}

    return added(50), added(99)


def _half(bench: _Bench) -> float:
    return (bench.found["gateway_rps"].value or 0) / 2


async def _streams(bench: _Bench) -> None:
    """First events and memory with hundreds of event streams open, each opened anew when it ended."""
    size, first = bench.size, {}
    process = psutil.Process(bench.gateway.pid)
    before = process.memory_info().rss
    most = 0
    for name in ("gateway", "direct"):
        streams = Streams(bench.target(name, stream=True), bench.clock, count=size.streams,
                          spread_seconds=size.stream_tokens * size.pace_seconds)  # fmt: skip
        await streams.open()
        rounds = []
        for _ in range(size.rounds):
            rounds.append(await streams.first_bytes(size.stream_seconds))
            most = max(most, process.memory_info().rss) if name == "gateway" else most
        await streams.close()
        first[name] = {p: statistics.median(percentile_ms(one, p) for one in rounds) for p in (50, 99)}
    per_second = size.streams / size.pace_seconds
    extra = {"p50_added_ms": round(first["gateway"][50] - first["direct"][50], 3), "streams": size.streams,
             "direct_ms": round(first["direct"][99], 3), "events_per_second": round(per_second)}  # fmt: skip
    bench.found["ttft_added_p99_ms"] = Found(first["gateway"][99] - first["direct"][99], "ms", extra=extra)
    bench.found["stream_kib"] = Found(max(0, most - before) / 1024 / size.streams, "KiB")


async def _big_prompt(bench: _Bench) -> None:
    """What one prompt of the largest size takes beside the gateway's memory as it is."""
    filled = bench.target("gateway", pad="")
    pad = bench.size.prompt_bytes - int(filled.request.partition(b"content-length: ")[2].split(b"\r\n")[0])
    target = bench.target("gateway", pad="x" * pad)
    before = psutil.Process(bench.gateway.pid).memory_info().rss / MIB
    with peak_memory([bench.gateway.pid]) as peak:
        for _ in range(bench.size.rounds):
            await at_rate(target, bench.clock, per_second=10, connections=1, seconds=0.1)
    bench.found["big_prompt_mib"] = Found(max(0.0, peak() - before), "MiB")


async def _wake(bench: _Bench) -> None:
    """From the first request to a sleeping deployment until its row says that it is awake."""
    url = f"http://127.0.0.1:{bench.gateway_port}{bench.yard.path(bench.yard.asleep)}"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {bench.yard.key}"}, timeout=30) as client:
        began = bench.clock.now()
        asking = asyncio.create_task(client.post(url, json=dict(_CHAT)))
        while (awake := await asyncio.to_thread(_awake_since, bench.yard)) is None and not asking.done():
            if bench.clock.now() - began > timedelta(seconds=10):
                break
            await bench.clock.sleep(0.01)
        awake = awake or await asyncio.to_thread(_awake_since, bench.yard)
        reason = f"answered {asking.result().status_code}" if asking.done() else "not woken within 10 s"
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
            await asking
    took = (awake - began) / timedelta(milliseconds=1) if awake else None
    bench.found["wake_trigger_ms"] = Found(took, "ms", "" if awake else f"the request did not wake it: {reason}")


def _awake_since(yard: Yard) -> Any:
    with yard.database.read() as session:
        row = deployments.get(session, yard.asleep)
        return row.awake_since if row else None


def _cpu_seconds(child: Child | None) -> float:
    """What a process and its children have used so far; 0 for none."""
    if child is None:
        return 0.0
    process = psutil.Process(child.pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _count(path: Path) -> int:
    text = path.read_text() if path.exists() else ""
    return int(text) if text else 0


def _cores() -> tuple[frozenset[int], frozenset[int]]:
    """Where load and upstream run, and where the proxies; the same where there is one core only."""
    cores = sorted(os.sched_getaffinity(0))
    return frozenset(cores[:-1] or cores), frozenset(cores[-1:])


@contextmanager
def _pinned(cores: frozenset[int]) -> Iterator[None]:
    """This thread, and what it starts meanwhile, on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
