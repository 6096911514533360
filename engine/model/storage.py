"""Stored objects as values: what may be stored, its life, and references to it from handlers and pods. No I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from engine.model.errors import IllegalTransition, InvalidSpec

DECIMAL_GB = 10**9
"""A GB of the price list is 10^9 bytes, as disks and networks are sold; 2^30 bytes are a GiB and named so."""

LARGEST_OBJECT = 5 * 1024**4
"""5 TiB: the most that one S3 object holds, so an installation may change its backend later."""

SMALLEST_PART = 5 * 1024**2
MOST_PARTS = 10_000
"""S3's limits for parts; the disk backend keeps them too, so that a client works with both."""

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_CONTENT_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}(; ?[A-Za-z0-9_.+-]+=[A-Za-z0-9_.+-]+)*")
_HEX = re.compile(r"[0-9a-f]{64}")
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\]|[\ud800-\udfff]")
_FORBIDDEN_IN_PATHS = re.compile(r"[\x00-\x1f\x7f\\:,\"]|[\ud800-\udfff]")
"""Control characters, and what container engines divide their own arguments by."""

_LONGEST_PATH = 1024
_SYSTEM_FOLDERS = ("/proc", "/sys", "/dev", "/etc", "/bin", "/sbin", "/usr", "/lib", "/lib64", "/run", "/boot")


class Phase(StrEnum):
    """Place of an object in its life; drawn in `engine/storage/README.md`."""

    PENDING = "pending"  # a URL was handed out, nothing arrived
    UPLOADED = "uploaded"  # the bytes are here; nobody said that they are right
    COMMITTED = "committed"  # checked: readable, at rest, never changed again
    DELETED = "deleted"


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        Phase.PENDING: frozenset({Phase.UPLOADED, Phase.COMMITTED, Phase.DELETED}),
        Phase.UPLOADED: frozenset({Phase.UPLOADED, Phase.COMMITTED, Phase.DELETED}),
        Phase.COMMITTED: frozenset({Phase.DELETED}),
        Phase.DELETED: frozenset(),
    }
)


def advance(current: Phase, to: Phase) -> Phase:
    """The phase that follows.

    Raises:
        IllegalTransition: it may not follow.
    """
    if to not in TRANSITIONS[current]:
        raise IllegalTransition(f"an object that is {current} cannot become {to}")
    return to


@dataclass(frozen=True)
class Upload:
    """What somebody is about to store, checked.

    Attributes:
        size_bytes: as declared; None: what arrives decides.
        sha256: as declared, 64 hexadecimal digits.
    """

    filename: str
    content_type: str
    kind: str
    size_bytes: int | None = None
    sha256: str | None = None
    public: bool = True

    def __post_init__(self) -> None:
        name = self.filename
        if not 0 < len(name) <= 255 or _FORBIDDEN_IN_NAMES.search(name) or name in (".", ".."):
            raise InvalidSpec(
                "filename: 1 to 255 characters without slashes and control characters; folders are not part of a name",
                field="filename",
            )
        if not _CONTENT_TYPE.fullmatch(self.content_type):
            raise InvalidSpec(
                f"contentType: {self.content_type[:100]!r} is no media type such as application/octet-stream",
                field="contentType",
            )
        if not _KIND.fullmatch(self.kind):
            raise InvalidSpec(
                "kind: 1 to 32 of a-z, 0-9, - and _, beginning with a letter: lora, model, dataset, output, …",
                field="kind",
            )
        if self.size_bytes is not None and not 0 <= self.size_bytes <= LARGEST_OBJECT:
            raise InvalidSpec(f"sizeBytes: 0 to {LARGEST_OBJECT} (5 TiB), not {self.size_bytes}", field="sizeBytes")


def parse_checksum(text: str | None) -> str | None:
    """A SHA-256 as 64 hexadecimal digits, from those, `sha256:` and those, or base64 as S3 writes it.

    Raises:
        InvalidSpec: it is something else.
    """
    if text is None:
        return None
    value = text.strip().removeprefix("sha256:").removeprefix("SHA256:")
    if _HEX.fullmatch(value.lower()):
        return value.lower()
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise InvalidSpec(
            "checksum: a SHA-256 as 64 hexadecimal digits (`sha256sum FILE`), with or without `sha256:` before them",
            field="checksum",
        )
    return raw.hex()


@dataclass(frozen=True)
class PartPlan:
    """How an object is divided: all parts but the last one have `part_bytes`."""

    size_bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        return max(1, -(-self.size_bytes // self.part_bytes))

    def offset(self, number: int) -> int:
        return (number - 1) * self.part_bytes

    def size_of(self, number: int) -> int:
        """Bytes of part `number`, counted from 1."""
        return min(self.part_bytes, self.size_bytes - self.offset(number))


def plan_parts(size_bytes: int, part_bytes: int | None = None) -> PartPlan:
    """Parts for an object; of 64 MiB, or larger where that would be too many.

    Raises:
        InvalidSpec: the wished part size is too small or too large.
    """
    wanted = part_bytes or max(64 * 1024**2, -(-size_bytes // MOST_PARTS))
    least = max(SMALLEST_PART, -(-size_bytes // MOST_PARTS))
    if not least <= wanted <= 5 * 1024**3:
        raise InvalidSpec(
            f"partSizeBytes: {least} (5 MiB, and {MOST_PARTS} parts at most) to {5 * 1024**3} (5 GiB), not {wanted}",
            field="partSizeBytes",
        )
    return PartPlan(size_bytes, wanted)


@dataclass(frozen=True)
class Mount:
    """A stored object that a handler or pod wants at a path.

    Attributes:
        object: an id (`obj_…`), or the name of a committed object, with or without its kind (`lora/style.safetensors`);
            of several the newest.
        path: absolute, a file's.
    """

    object: str
    path: str

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not self.path.startswith("/") or "" in parts[1:] or {".", ".."} & set(parts):
            raise InvalidSpec(
                f"a mount's path is a file's absolute path without `..`, not {self.path!r}", path=self.path
            )
        if _FORBIDDEN_IN_PATHS.search(self.path) or len(self.path.encode()) > _LONGEST_PATH:
            raise InvalidSpec(
                f"a mount's path has at most {_LONGEST_PATH} bytes and no control characters, backslashes, colons, "
                f"commas and double quotes, unlike {self.path!r}: give the mount another `path`",
                path=self.path,
            )
        if any(self.path == folder or self.path.startswith(folder + "/") for folder in _SYSTEM_FOLDERS):
            raise InvalidSpec(f"a mount's path lies outside of the system's folders, not {self.path!r}", path=self.path)


@dataclass(frozen=True)
class MountedObject:
    """A mount that was resolved: what a worker gets before it starts.

    Attributes:
        url: short-lived and signed; reading by it costs nothing. "" where the object was deleted.
        source: where it lies as a file of the control plane.
        sha256: None where nobody knows it.
    """

    object_id: str
    filename: str
    path: str
    url: str
    size_bytes: int
    sha256: str | None
    expires_at: datetime
    source: str = ""
