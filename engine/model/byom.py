"""Own weights (BYOM): names, the life of a model, what an agent says of it. No I/O.

What a file needs and whether it fits is `engine/byom`; what runs it on a machine is `engine/agent/own_models.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from engine.model.errors import IllegalTransition, InvalidSpec

PREFIX = "byom:"
"""Before a model's name wherever it stands among other models' names."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Phase(StrEnum):
    """Place of a model in its life; the documents call it `status`."""

    UPLOADING = "uploading"  # an upload in parts is open
    VALIDATING = "validating"  # all bytes are here: header, checksum and memory are looked at
    DISTRIBUTING = "distributing"  # machines fetch and load it
    READY = "ready"  # all machines that answer serve it; kept for later deployments, without machines, as well
    FAILED = "failed"
    DELETING = "deleting"  # machines let go of it
    DELETED = "deleted"


P = Phase
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        P.UPLOADING: frozenset({P.VALIDATING, P.FAILED, P.DELETING}),
        P.VALIDATING: frozenset({P.DISTRIBUTING, P.READY, P.FAILED, P.DELETING}),
        P.DISTRIBUTING: frozenset({P.READY, P.FAILED, P.DELETING}),
        P.READY: frozenset({P.DISTRIBUTING, P.FAILED, P.DELETING}),
        P.FAILED: frozenset({P.DELETING}),
        P.DELETING: frozenset({P.DELETED}),
        P.DELETED: frozenset(),
    }
)

HOLDS_ITS_NAME = (P.UPLOADING, P.VALIDATING, P.DISTRIBUTING, P.READY)
"""In these phases no other model of the same deployment may have the name."""


def advance(current: Phase, to: Phase) -> Phase:
    """The phase that follows.

    Raises:
        IllegalTransition: it may not follow. Staying is always legal.
    """
    if to is not current and to not in TRANSITIONS[current]:
        raise IllegalTransition(f"a model that is {current} cannot become {to}")
    return to


def checked_name(name: str) -> str:
    """A name as users give it, with or without `byom:`.

    Raises:
        InvalidSpec: it cannot be one.
    """
    bare = name.strip().removeprefix(PREFIX)
    if not _NAME.fullmatch(bare):
        raise InvalidSpec(
            f"name: 1 to 63 of A-Z, a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit, not {name[:80]!r}",
            field="name",
        )
    return bare


def own_name(model_id: str) -> str | None:
    """The name of the own weights that a model id means; None: it is a model of the catalog."""
    return model_id.removeprefix(PREFIX) if model_id.startswith(PREFIX) else None
