"""What a failed stack operation of a handler says: no such image, a place that refused, or neither. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.model.deployment import UpdateKind, UpdateState
from engine.model.failure_words import for_tenant, headline, reasons, scrubbed
from engine.model.handler import Refusal, Worker, WorkerPhase
from engine.model.registries import NOT_ALLOWED, pull_hint
from engine.reconcilers.handlers.snapshot import HandlerPolicy, Snapshot

_NO_IMAGE = (
    "manifest unknown", "manifest for", "repository does not exist", "not found: manifest",
    "name unknown", "no such image", "unable to find image",
    "no matching manifest", *NOT_ALLOWED,
)  # fmt: skip
_REFUSED = (
    "capacity", "not available in", "unavailable in", "out of stock", "sold out", "droplet limit",
    "no docker daemon answers", "the docker daemon at", "cannot connect to the docker daemon", "connection refused",
    "unreachable", "could not select device driver", "no space left", "all predefined address pools",
)  # fmt: skip
_NAMED = re.compile(r"\(([\w-]+)\)")
_IMAGE_RESOURCE = re.compile(r"docker:index(?:/remoteImage)?:RemoteImage\b")


@dataclass(frozen=True)
class Verdict:
    """What the last operation's failure means.

    Attributes:
        no_image: the registry's words, when there is no such image or it may not be read.
        refusals: places to pass over for a while.
        lost: workers that were to be made there.
        lost_hosts: hosts where not even network and image could be made.
        is_stuck: a worker that ended could not be removed, because its host does not answer.
    """

    no_image: str = ""
    refusals: tuple[Refusal, ...] = ()
    lost: frozenset[str] = frozenset()
    lost_hosts: frozenset[str] = frozenset()
    is_stuck: bool = False


def says_no_image(ended: str) -> bool:
    """Whether a machine's `docker run` ended because there is no such image: it exits with 125 then."""
    return "exit code 125" in ended and any(words in ended.lower() for words in _NO_IMAGE)


def verdict(s: Snapshot, workers: Sequence[Worker], now: datetime, policy: HandlerPolicy) -> Verdict:
    """Judge the last operation, if it failed and nothing was changed because of it yet."""
    last = s.last_update
    if last is None or last.state is not UpdateState.FAILED or last.kind is not UpdateKind.UP:
        return Verdict()
    if last.generation != s.revision:
        return Verdict()  # what it tried is not what is wanted any more
    text = last.message.lower()
    lines = reasons(last.message)
    if any(_speaks(line, _NO_IMAGE) and _IMAGE_RESOURCE.search(line) for line in lines):
        said = _sentence(lines, _NO_IMAGE) or for_tenant(last.message)
        return Verdict(no_image=said.partition("; name who may pull")[0] + pull_hint(last.message))
    if not any(words in text for words in _REFUSED):
        return Verdict()
    named = {name for line in lines if _speaks(line, _REFUSED) for name in _NAMED.findall(line)}
    coming = [w for w in workers if w.phase is WorkerPhase.CREATING]
    hosts = {host for host in s.prepared_hosts if any(n == host or n.startswith(f"{host}-") for n in named)}
    lost = [w for w in coming if w.name in named or (w.host and w.host in hosts)]
    stuck = [w for w in workers if w.phase is WorkerPhase.EXITED and w.host and w.endpoint and w.name in named]
    if not lost and not hosts and not stuck:
        return Verdict()
    why = _sentence(lines, _REFUSED)
    until = now + policy.refused_for
    refused = {(w.pool, w.target, w.host, w.region) for w in lost}
    refused |= {(w.pool, w.target, w.host, w.region) for w in stuck}
    silent = hosts | {w.host for w in stuck}
    refused |= {(p.pool, p.target, p.host, p.region) for p in s.places if p.host in silent and p.host}
    return Verdict(
        refusals=tuple(
            Refusal(pool=pool, target=target, host=host, region=region, why=why, until=until)
            for pool, target, host, region in sorted(refused)
        ),
        lost=frozenset(w.name for w in lost),
        is_stuck=bool(stuck),
        lost_hosts=frozenset(host for host in hosts if not _is_used(workers, host, {w.name for w in lost})),
    )


def _is_used(workers: Sequence[Worker], host: str, without: set[str]) -> bool:
    return any(w.host == host and w.name not in without for w in workers)


def _speaks(line: str, words: Sequence[str]) -> bool:
    return any(word in line.lower() for word in words)


def _sentence(lines: Sequence[str], words: Sequence[str]) -> str:
    """The line that says it, as tenants may read it."""
    return scrubbed(headline(next((line for line in lines if _speaks(line, words)), "")))
