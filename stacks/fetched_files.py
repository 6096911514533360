"""What a machine's shell does for mounts: fetches stored objects before the container starts, binds them read-only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from engine.model.storage import MountedObject

FOLDER = "/var/lib/stackyard/mounts"

_FETCH = """\
# Fetches $1 from the URL $2 into the folder once; $3 bytes, of the SHA-256 $4 where one is known.
fetch() {
  [ -f "$folder/$1" ] && return 0
  if [ -z "$2" ]; then
    echo "stackyard: the stored object $1 was deleted, and this deployment mounts it" >&2; return 1
  fi
  mkdir -p "$folder" && rm -f "$folder/$1.part"
  if ! curl --fail --silent --show-error --location --retry 5 --retry-connrefused --connect-timeout 20 \
      --output "$folder/$1.part" "$2"; then
    echo "stackyard: the stored object $1 could not be fetched" >&2; return 1
  fi
  size=$(stat -c %s "$folder/$1.part")
  if [ "$size" != "$3" ]; then
    echo "stackyard: the stored object $1 came with $size bytes instead of $3" >&2; return 1
  fi
  if [ -n "$4" ] && ! echo "$4  $folder/$1.part" | sha256sum --check --status; then
    echo "stackyard: the stored object $1 came with another SHA-256 than $4" >&2; return 1
  fi
  chmod 0444 "$folder/$1.part" && mv "$folder/$1.part" "$folder/$1"
}
"""


@dataclass(frozen=True)
class MountPlace:
    """A mounted object as stack configurations have it; see `engine.model.storage.MountedObject`."""

    object_id: str
    path: str
    source: str
    size_bytes: int
    sha256: str = ""


def described(mounts: Sequence[MountedObject]) -> str:
    """What a configuration says of mounts, as JSON of `MountPlace`s.

    Without URLs, which are others each time, and may be read by whoever has them.
    """
    return json.dumps([asdict(MountPlace(m.object_id, m.path, m.source, m.size_bytes, m.sha256 or "")) for m in mounts])


@dataclass(frozen=True)
class FetchedFile:
    """A stored object on its way to a path in a container.

    Attributes:
        url: signed, short-lived; "" where the object is gone.
        sha256: "" where nobody knows it.
    """

    object_id: str
    path: str
    url: str
    size_bytes: int
    sha256: str


def files_of(mounts: Sequence[MountPlace], urls: str) -> list[FetchedFile]:
    """`urls`: theirs, as JSON."""
    pairs = zip(mounts, json.loads(urls), strict=True)
    return [FetchedFile(m.object_id, m.path, url, m.size_bytes, m.sha256) for m, url in pairs]


def fetching(files: Iterable[FetchedFile], exits_path: str = "/dev/null", folder: str = FOLDER) -> str:
    """Lines of a script that end it with 1, written to `exits_path` too, unless every file is there."""
    calls = [shlex.join(["fetch", f.object_id, f.url, str(f.size_bytes), f.sha256]) for f in files]
    if not calls:
        return ""
    failure = f"{{ echo 1 >> {shlex.quote(exits_path)}; exit 1; }}"
    return f"folder={shlex.quote(folder)}\n{_FETCH}" + "".join(f"{call} || {failure}\n" for call in calls)


def bindings(files: Sequence[FetchedFile], folder: str = FOLDER) -> list[str]:
    """Arguments of `docker run`. A path has no colon: `engine.model.storage.Mount` sees to that."""
    return [word for f in files for word in ("--volume", f"{folder}/{f.object_id}:{f.path}:ro")]
