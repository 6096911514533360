"""The peak of resident memory over some processes while something runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil

MIB = 1024 * 1024
SAMPLE_SECONDS = 0.02


@contextmanager
def peak_memory(pids: Sequence[int]) -> Iterator[Callable[[], float]]:
    """Sample the resident memory of `pids` together (shared pages counted in each); yields the peak so far in MiB."""
    processes = [psutil.Process(pid) for pid in pids]
    done, peak = threading.Event(), 0

    def sample() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, sum(p.memory_info().rss for p in processes))
            done.wait(SAMPLE_SECONDS)

    sampler = threading.Thread(target=sample, name="memory-sampler")
    sampler.start()
    try:
        yield lambda: peak / MIB
    finally:
        done.set()
        sampler.join()
