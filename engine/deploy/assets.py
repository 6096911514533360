"""The hashes of files, texts and archives a program passes as inputs, as the official engine computes them.

It reads files and changes none; providers read assets themselves. Source: pulumi `sdk/go/common/resource/asset` and
`archive`, EnsureHash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.deploy.property import Archive, Asset, PropertyMap, PropertyValue, Secret, walk

_BOOKKEEPING = ".pulumi"
_SUFFIXES = (".jar", ".tar", ".tgz", ".tar.gz", ".zip")
_BLOCK = 512
_NAME_BYTES, _PREFIX_BYTES = 100, 155


class AssetError(Exception):
    """An asset cannot be read; the message names it and says what to do."""


def has_assets(properties: PropertyMap) -> bool:
    """Whether anything inside is a file, a text or an archive."""
    return any(isinstance(value, Asset | Archive) for value in walk(properties))


def with_hashes(value: PropertyValue, directory: Path) -> PropertyValue:
    """The same value with every asset's and archive's `hash`; relative paths start from `directory`.

    Raises:
        AssetError: one cannot be read.
    """
    if isinstance(value, dict):
        return {k: with_hashes(v, directory) for k, v in value.items()}
    if isinstance(value, list):
        return [with_hashes(v, directory) for v in value]
    if isinstance(value, Secret):
        return Secret(with_hashes(value.value, directory))
    if isinstance(value, Asset) and not value.fields.get("hash"):
        return Asset({**value.fields, "hash": hashlib.sha256(_content(value.fields, directory)).hexdigest()})
    if isinstance(value, Archive) and not value.fields.get("hash"):
        fields = dict(value.fields)
        if "assets" in fields:
            fields["assets"] = with_hashes(fields["assets"], directory)
        return Archive({**fields, "hash": _archive_hash(fields, directory)})
    return value


def _content(fields: Mapping[str, Any], directory: Path) -> bytes:
    if "text" in fields:
        return str(fields["text"]).encode()
    return _read(_path(fields, directory))


def _path(fields: Mapping[str, Any], directory: Path) -> Path:
    if fields.get("path"):
        return directory / str(fields["path"])
    uri = urlsplit(str(fields.get("uri", "")))
    if uri.scheme == "file":
        return Path(unquote(uri.path))
    raise AssetError(f"asset {fields.get('uri', '')!r} is not a local file: download it first and name its path")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise AssetError(f"failed to open asset file '{path}': {err.strerror}") from err


def _archive_hash(fields: Mapping[str, Any], directory: Path) -> str:
    if "assets" not in fields:
        path = _path(fields, directory)
        if path.name.endswith(_SUFFIXES):
            return hashlib.sha256(_read(path)).hexdigest()  # an archive already: its bytes count, not its members
    digest = hashlib.sha256()
    seen: set[str] = set()
    for name, content in _members(fields, directory):
        if name not in seen:
            seen.add(name)
            digest.update(_header(name, len(content)))
            digest.update(content + b"\0" * (-len(content) % _BLOCK))
    digest.update(b"\0" * 2 * _BLOCK)
    return digest.hexdigest()


def _members(fields: Mapping[str, Any], directory: Path) -> Iterator[tuple[str, bytes]]:
    if "assets" not in fields:
        yield from _files(_path(fields, directory))
        return
    for name, member in sorted(fields["assets"].items()):
        if isinstance(member, Asset):
            yield name, _content(member.fields, directory)
        elif isinstance(member, Archive):
            for inner, content in _members(member.fields, directory):
                yield os.path.normpath(f"{name}/{inner}"), content
        else:
            raise AssetError(f"member {name!r} of an archive is neither an asset nor an archive")


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a folder in Go's `filepath.Walk` order, or the members of an archive file."""
    if root.name.endswith(_SUFFIXES):
        raise AssetError(f"archive {root} inside another archive: extract it and name its folder")
    if not root.is_dir():
        raise AssetError(f"'{root}' is neither a recognized archive type nor a directory")
    yield from _walk(root, "")


def _walk(root: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(os.scandir(root / prefix), key=lambda e: os.fsencode(e.name)):
        if entry.name == _BOOKKEEPING:
            continue
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, f"{name}/")
        elif not entry.is_dir():
            yield name, _read(root / name)


def _header(name: str, size: int) -> bytes:
    """What Go's `archive/tar` writes before a file: a USTAR header, for odd names a PAX one first."""
    prefix, short = _split(name)
    if name.isascii() and len(short) <= _NAME_BYTES:
        return _block(prefix, short, 0o600, size, "0")
    folder, file = os.path.split(name)
    record = _record(f"path={name}\n".encode())
    pax = _ascii(os.path.join(folder, "PaxHeaders.0", _ascii(file))).rstrip("/")
    padded = record + b"\0" * (-len(record) % _BLOCK)
    return _block("", pax, 0, len(record), "x") + padded + _block("", _ascii(name), 0o600, size, "0")


def _block(prefix: str, name: str, mode: int, size: int, kind: str) -> bytes:
    numbers = b"%07o\0" % mode + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    start = name.encode().ljust(_NAME_BYTES, b"\0") + numbers
    device = b"\0" * 16 if kind == "x" else b"0000000\0" * 2
    middle = kind.encode() + b"\0" * 100 + b"ustar\0" + b"00" + b"\0" * 64 + device
    end = middle + prefix.encode().ljust(_PREFIX_BYTES, b"\0") + b"\0" * 12
    checksum = sum(start) + sum(end) + 8 * ord(" ")
    return start + b"%06o\0 " % checksum + end


def _record(content: bytes) -> bytes:
    """A PAX record: its length, which counts itself, and its content."""
    length = len(content) + 2
    while len(str(length)) + 1 + len(content) != length:
        length += 1
    return f"{length} ".encode() + content


def _ascii(name: str) -> str:
    return "".join(c for c in name if c.isascii())[:_NAME_BYTES]


def _split(name: str) -> tuple[str, str]:
    """Prefix and name; a long name is cut at the last slash that leaves a valid prefix. Go: splitUSTARPath."""
    if len(name) <= _NAME_BYTES:
        return "", name
    cut = name.rfind("/", 0, min(len(name) - 1, _PREFIX_BYTES + 1))
    if cut <= 0 or len(name) - cut - 1 > _NAME_BYTES:
        return "", name
    return name[:cut], name[cut + 1 :]
