"""Ids of attachments, which the cloud has none for: `<what>-<moment><number>`, as the official provider makes them."""

from __future__ import annotations

from itertools import count

from engine.model.clock import Clock


class AttachmentIds:
    """Makes ids that differ: the moment to a tenth of a millisecond and a running number."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def new(self, prefix: str, clock: Clock) -> str:
        """`3164444-10ae…-` → `3164444-10ae…-20261121104821100700000001`."""
        now = clock.now()
        return f"{prefix}{now:%Y%m%d%H%M%S}{now.microsecond // 100:04d}{next(self._numbers):08x}"
