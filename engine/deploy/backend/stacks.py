"""The layout of a state backend: which keys a stack's checkpoint, history, backups, tags have. Stores nothing itself.

The same keys as the official engine's, so that either can work on them.
Source: pulumi `pkg/backend/diy/{state,store,meta}.go`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.deploy.backend.blobs import BackendError, Blob, Blobs, Logs, encode
from engine.model.errors import StaleLease

CLI_HINT = "use the official CLI for it (STACKYARD_PULUMI=cli)"
_META = b"version: 1\n"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True)
class StackReference:
    """A stack's name in a backend; the organization of a self-managed backend is always `organization`."""

    project: str
    name: str

    @property
    def qualified(self) -> str:
        return f"organization/{self.project}/{self.name}"


def parse_reference(text: str, project: str) -> StackReference:
    """A stack name as the command line takes it: `dev`, `organization/dev` or `organization/project/dev`.

    Raises:
        BackendError: another organization, or a name that may not be.
    """
    match text.split("/"):
        case [name]:
            organization = "organization"
        case [organization, name]:
            pass
        case [organization, project, name]:
            pass
        case _:
            raise BackendError(f"invalid stack name {text!r}: it may read name, organization/name or org/project/name")
    if organization != "organization":
        raise BackendError("organization name must be 'organization'")
    if not _is_name(name):
        raise BackendError(
            f"invalid stack name {text!r}: a stack name has 1 to 100 letters, digits, hyphens, underscores and periods"
        )
    if project and not _is_name(project):
        raise BackendError(f"invalid project name {project!r}: it has letters, digits, hyphens, underscores, periods")
    if not project:
        raise BackendError("the project's name is needed to find a stack: run inside a project, or name it fully")
    return StackReference(project, name)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text not in (".", "..")


class Backend:
    """A place of stacks.

    Attributes:
        blobs: where everything is kept.
        logs: where journals are kept.
    """

    def __init__(self, blobs: Blobs, logs: Logs) -> None:
        self.blobs = blobs
        self.logs = logs
        self._has_meta = False

    @property
    def url(self) -> str:
        """As the user gave it, without a password."""
        return self.blobs.url

    def check_layout(self) -> None:
        """Return if the layout is the one this engine knows.

        Raises:
            BackendError: it is older or newer.
        """
        meta = self.blobs.get("meta.yaml")
        self._has_meta = meta is not None
        if meta is not None and meta.data.strip() != _META.strip():
            raise BackendError(f"{self.blobs.location('meta.yaml')} names a newer layout than version 1; {CLI_HINT}")
        if meta is None and any(k.count("/") == 1 and k.endswith(".json") for k in self.blobs.keys("stacks")):
            raise BackendError(
                f"{self.url} has the old layout without projects: run `pulumi state upgrade` with the CLI"
            )

    def exists(self, stack: StackReference) -> bool:
        """Whether the stack has a checkpoint."""
        key = _checkpoint_key(stack)
        found = self.blobs.existing([key, f"{key}.gz", f"{key}.zst"])
        if packed := sorted(found - {key}):
            extension = packed[0].removeprefix(key)
            raise BackendError(f"the checkpoint of {stack.name} is compressed ({extension}); {CLI_HINT}")
        return key in found

    def stacks(self, project: str = "") -> list[StackReference]:
        """All stacks, or those of one project, sorted by project and name."""
        parts = [k.split("/") for k in self.blobs.keys(f"stacks/{project}" if project else "stacks")]
        found = [
            StackReference(p[1], p[2].removesuffix(".json")) for p in parts if len(p) == 3 and p[2].endswith(".json")
        ]
        return sorted(found, key=lambda s: (s.project, s.name))

    def read(self, stack: StackReference) -> bytes:
        """The checkpoint file.

        Raises:
            FileNotFoundError: no such stack.
        """
        blob = self.blobs.get(_checkpoint_key(stack))
        if blob is None:
            raise FileNotFoundError(f"{self.blobs.location(_checkpoint_key(stack))} does not exist")
        return blob.data

    def write(
        self,
        stack: StackReference,
        checkpoint: bytes,
        check: Callable[[], None],
        *,
        over: bytes | None = None,
        guard: str = "",
    ) -> None:
        """Put the checkpoint, durably; the one before stays as `.bak`.

        Args:
            check: raises if the caller may not write; asked last of all before the new file takes the old one's place.
            over: the checkpoint the new one was made from; None: whatever is there.
            guard: key of the lock the caller holds, which must exist at that moment; "" for none.

        Raises:
            StaleLease: another checkpoint was stored since, or the lock is gone.
        """
        key = _checkpoint_key(stack)
        if not self._has_meta:
            self.blobs.put("meta.yaml", _META)
            self._has_meta = True
        current = self.blobs.get(key)
        if over is not None and (current is None or current.data != over):
            raise StaleLease(f"another checkpoint of {stack.name} was stored meanwhile: this update has stopped")
        if current is not None:
            self.blobs.put(f"{key}.bak", current.data)
        self.blobs.replace(key, checkpoint, over=current, check=check, guard=guard)

    def remove(self, stack: StackReference, *, remove_backups: bool = False) -> None:
        """Take the stack away: its checkpoint stays as `.bak`, its history goes."""
        key = _checkpoint_key(stack)
        if remove_backups:
            self.blobs.delete(f"{key}.bak")
            self._remove_all(_backups(stack))
        elif (current := self.blobs.get(key)) is not None:
            self.blobs.put(f"{key}.bak", current.data)
        self.blobs.delete(key)
        self.blobs.delete(_tags_key(stack))
        self._remove_all(_history(stack))

    def _remove_all(self, folder: str) -> None:
        for key in self.blobs.keys(folder):
            self.blobs.delete(key)

    def add_history(
        self, stack: StackReference, update: Mapping[str, Any], checkpoint: bytes, nanoseconds: int
    ) -> None:
        """Record one update and the checkpoint it led to."""
        prefix = f"{_history(stack)}/{stack.name}-{nanoseconds}"
        self.blobs.put(f"{prefix}.history.json", encode(update))
        self.blobs.put(f"{prefix}.checkpoint.json", checkpoint)

    def add_backup(self, stack: StackReference, checkpoint: bytes, nanoseconds: int) -> None:
        """Keep a copy of the checkpoint an update led to."""
        self.blobs.put(f"{_backups(stack)}/{stack.name}.{nanoseconds}.json", checkpoint)

    def history(self, stack: StackReference, page_size: int = 0, page: int = 1) -> Sequence[dict[str, Any]]:
        """Recorded updates, newest first; `page_size` 0 is all of them."""
        keys = [k for k in reversed(self.blobs.keys(_history(stack))) if k.endswith(".history.json")]
        if page_size > 0:
            start = (max(page, 1) - 1) * page_size
            keys = keys[start : start + page_size]
        return [self._read_history(key) for key in keys]

    def updates(self, stack: StackReference) -> int:
        """How many updates are recorded."""
        return sum(1 for k in self.blobs.keys(_history(stack)) if k.endswith(".history.json"))

    def past(self, stack: StackReference, number: int) -> bytes:
        """The checkpoint that a recorded update led to; the oldest is number 1.

        Raises:
            BackendError: there is none of that number.
        """
        keys = [k for k in self.blobs.keys(_history(stack)) if k.endswith(".history.json")]
        if not 1 <= number <= len(keys):
            known = f"there are 1 to {len(keys)}" if keys else "it was never updated"
            raise BackendError(f"stack {stack.name} has no version {number}: {known} (`pulumi stack history`)")
        key = keys[number - 1].removesuffix(".history.json") + ".checkpoint.json"
        blob = self.blobs.get(key)
        if blob is None:
            raise BackendError(f"the checkpoint of version {number} is gone: {self.blobs.location(key)}")
        return blob.data

    def _read_history(self, key: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.blobs.get(key) or Blob(b"")).data))
        except ValueError as err:
            where = self.blobs.location(key)
            raise BackendError(f"reading history file {where}: {err}; delete the file to go on without it") from err

    def tags(self, stack: StackReference) -> dict[str, str]:
        """The stack's tags."""
        blob = self.blobs.get(_tags_key(stack))
        stored = json.loads(blob.data).get("tags") if blob else None
        return {str(k): str(v) for k, v in (stored or {}).items()}

    def write_tags(self, stack: StackReference, tags: Mapping[str, str]) -> None:
        """Replace the stack's tags."""
        if tags:
            self.blobs.put(_tags_key(stack), encode({"version": 1, "tags": dict(sorted(tags.items()))}))
        else:
            self.blobs.delete(_tags_key(stack))


def _checkpoint_key(stack: StackReference) -> str:
    return f"stacks/{stack.project}/{stack.name}.json"


def _tags_key(stack: StackReference) -> str:
    return f"stacks/{stack.project}/{stack.name}.pulumi-tags"


def _history(stack: StackReference) -> str:
    return f"history/{stack.project}/{stack.name}"


def _backups(stack: StackReference) -> str:
    return f"backups/{stack.project}/{stack.name}"
