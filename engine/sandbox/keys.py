"""Routes of `/v2/account/keys`: the SSH keys of an account."""

from __future__ import annotations

import base64
import binascii
import hashlib

from engine.sandbox import shapes
from engine.sandbox.errors import not_found, unprocessable
from engine.sandbox.records import Account, SshKey
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of


def fingerprint(public_key: str) -> str:
    """MD5 of the key's bytes, in hexadecimal pairs.

    Raises:
        ApiError: 422: not an OpenSSH public key.
    """
    parts = public_key.split()
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error, ValueError):
        raise unprocessable("Key invalid, key should be of the format `type key [comment]`") from None
    if not blob:
        raise unprocessable("Key invalid, key should be of the format `type key [comment]`")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


def find_key(account: Account, identifier: str | int) -> SshKey | None:
    """A key by id or fingerprint."""
    text = str(identifier)
    if text.isascii() and text.isdigit() and int(text) in account.keys:
        return account.keys[int(text)]
    return next((k for k in account.keys.values() if k.fingerprint == text), None)


def _key(request: Request) -> SshKey:
    if (found := find_key(request.account, request.values["key"])) is None:
        raise not_found()
    return found


def list_keys(request: Request) -> Reply:
    """GET /v2/account/keys"""
    return page_of(request, "ssh_keys", list(request.account.keys.values()), shapes.ssh_key)


def create_key(request: Request) -> Reply:
    """POST /v2/account/keys"""
    name, public_key = request.text("name"), request.text("public_key")
    mark = fingerprint(public_key)
    if any(k.fingerprint == mark for k in request.account.keys.values()):
        raise unprocessable("SSH Key is already in use on your account")
    cloud = request.cloud
    key = SshKey(cloud.counters.key, request.account.name, name, public_key, mark)
    cloud.counters.key += 1
    request.account.keys[key.id] = key
    cloud.save(key)
    cloud.journal.add(cloud.now(), request.account.name, "key.created", key.id, name=name)
    return Reply(201, {"ssh_key": shapes.ssh_key(key)})


def get_key(request: Request) -> Reply:
    """GET /v2/account/keys/{key}"""
    return Reply(200, {"ssh_key": shapes.ssh_key(_key(request))})


def rename_key(request: Request) -> Reply:
    """PUT /v2/account/keys/{key}"""
    key = _key(request)
    key.name = request.text("name")
    request.cloud.save(key)
    return Reply(200, {"ssh_key": shapes.ssh_key(key)})


def delete_key(request: Request) -> Reply:
    """DELETE /v2/account/keys/{key}"""
    key = _key(request)
    del request.account.keys[key.id]
    request.cloud.forget(key)
    request.cloud.journal.add(request.cloud.now(), request.account.name, "key.deleted", key.id, name=key.name)
    return NO_CONTENT


ROUTES = (
    ("GET", "/v2/account/keys", list_keys),
    ("POST", "/v2/account/keys", create_key),
    ("GET", "/v2/account/keys/{key}", get_key),
    ("PUT", "/v2/account/keys/{key}", rename_key),
    ("DELETE", "/v2/account/keys/{key}", delete_key),
)
