"""Operations on objects: put, get, copy, delete, one or many, and their ACLs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from engine.model.ids import random_hex
from engine.sandbox.assets import SpacesBucket
from engine.sandbox.faults import FaultKind, first
from engine.sandbox.spaces import checksums
from engine.sandbox.spaces.access import check_access
from engine.sandbox.spaces.blobs import Blob
from engine.sandbox.spaces.buckets import acl_answer, read_acl
from engine.sandbox.spaces.call import Answer, Call, Operation, canned_acl, http_date, timestamp, xml_answer
from engine.sandbox.spaces.conditions import byte_range, check_read, check_write
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.index import NULL_VERSION, Version
from engine.sandbox.spaces.xml import Element, child_text, parse

LONGEST_KEY_BYTES = 1024
LARGEST_METADATA_BYTES = 2048
MOST_DELETES = 1000
META = "x-amz-meta-"
KEPT = (
    "content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires",
    "x-amz-website-redirect-location",
)  # fmt: skip
REFUSED = (
    "x-amz-tagging", "x-amz-server-side-encryption-customer-algorithm", "x-amz-object-lock-mode",
    "x-amz-object-lock-legal-hold", "x-amz-write-offset-bytes",
)  # fmt: skip
_OVERRIDES = ("content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding")


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What is kept of an upload's headers and goes back with the object.

    Raises:
        S3Error: too much of it, or something that is not supported.
    """
    if refused := [name for name in REFUSED if name in headers]:
        raise S3Error("NotImplemented", f"{refused[0]} is not supported.")
    if headers.get("x-amz-storage-class", "STANDARD") != "STANDARD":
        raise S3Error("NotImplemented", "Spaces has one storage class: STANDARD.")
    found = {n: v for n, v in headers.items() if (n in KEPT or n.startswith(META)) and v}
    encodings = [e.strip() for e in found.pop("content-encoding", "").split(",")]
    if rest := ", ".join(e for e in encodings if e not in ("", "aws-chunked")):
        found["content-encoding"] = rest
    if sum(len(n) - len(META) + len(v) for n, v in found.items() if n.startswith(META)) > LARGEST_METADATA_BYTES:
        raise S3Error("MetadataTooLarge")
    return {"content-type": "binary/octet-stream", **found}


def check_key(call: Call) -> str:
    """The key that something is to be stored under."""
    key = call.address.key
    if not call.address.is_readable or "\0" in key:
        raise S3Error("InvalidArgument", "A key is text in UTF-8.")
    if len(key.encode()) > LONGEST_KEY_BYTES:
        raise S3Error("KeyTooLongError")
    return key


def current(call: Call, bucket: SpacesBucket, key: str) -> Version | None:
    """What a key holds now; a delete marker is nothing."""
    found = call.storage.index.latest(bucket.uid, key)
    return None if found is None or found.is_marker else found


def save(call: Call, bucket: SpacesBucket, version: Version) -> Version:
    """Make a version the latest, under an id that the bucket's versioning asks for.

    The conditions are looked at again here: while a body came in, another request may have been faster.
    """
    check_write(call.headers, current(call, bucket, version.key))
    id = random_hex(32) if bucket.versioning == "Enabled" else NULL_VERSION
    kept = Version(**{**version.__dict__, "id": id})
    call.storage.blobs.remove(call.storage.index.put(kept))
    call.storage.tell(bucket, version.key, "created", size=version.size, version=id)
    doomed = first(call.hits, FaultKind.VANISH) or first(call.hits, FaultKind.PLACEMENT_FAILURE)
    if doomed and (made := call.storage.index.version(bucket.uid, version.key, id)) is not None:
        call.storage.remove(bucket, made, "vanished")
    return kept


def version_headers(bucket: SpacesBucket, version: Version) -> dict[str, str]:
    """The version's id, where the bucket has versions."""
    found = {"x-amz-version-id": version.id} if bucket.versioning else {}
    return found | ({"x-amz-delete-marker": "true"} if version.is_marker else {})


async def put(call: Call) -> Answer:
    """Store an object."""
    bucket, key = call.bucket(), check_key(call)
    if "x-amz-copy-source" in call.headers:
        return await _copy(call, bucket, key)
    headers, acl = kept_headers(call.headers), canned_acl(call)
    check_write(call.headers, current(call, bucket, key))
    stored = await call.body.store(call.storage.blobs)
    try:
        bucket = call.bucket()  # the body took its time: it may be gone by now
        version = save(call, bucket, Version(
            bucket.uid, key, "", call.cloud.now(), size=stored.blob.size, etag=stored.etag, acl=acl, headers=headers,
            checksums=stored.checksums, blobs=(stored.blob,),
        ))  # fmt: skip
    except S3Error:
        call.storage.blobs.remove((stored.blob,))
        raise
    sums = {checksums.PREFIX + name: value for name, value in stored.checksums.items()}
    return Answer(200, {"etag": f'"{version.etag}"', **version_headers(bucket, version), **sums})


def copy_source(call: Call) -> tuple[SpacesBucket, Version]:
    """What `x-amz-copy-source` names, if the caller may read it."""
    path, _, query = call.headers["x-amz-copy-source"].partition("?versionId=")
    name, _, key = unquote(path).removeprefix("/").partition("/")
    if not name or not key:
        raise S3Error("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
    bucket = call.storage.bucket(name, call.address.region)
    version = _found(call, bucket, key, unquote(query))
    check_access(call.caller, "GetObject", bucket, key, version)
    if version is None or version.is_marker:
        raise S3Error("NoSuchKey")
    check_read(call.headers, version, "x-amz-copy-source-")
    return bucket, version


def _found(call: Call, bucket: SpacesBucket, key: str, id: str) -> Version | None:
    index = call.storage.index
    return index.version(bucket.uid, key, id) if id else index.latest(bucket.uid, key)


async def _copy(call: Call, bucket: SpacesBucket, key: str) -> Answer:
    _, source = copy_source(call)
    replaces = call.headers.get("x-amz-metadata-directive", "COPY") == "REPLACE"
    if not replaces and (source.bucket, source.key) == (bucket.uid, key) and source.is_latest:
        raise S3Error("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself "
                      "without changing its metadata: say x-amz-metadata-directive: REPLACE.")  # fmt: skip
    headers = kept_headers(call.headers) if replaces else dict(source.headers)
    blobs = call.storage.blobs.duplicate(source.blobs)
    try:
        version = save(call, bucket, Version(
            bucket.uid, key, "", call.cloud.now(), size=source.size, etag=source.etag, acl=canned_acl(call),
            headers=headers, checksums=source.checksums, blobs=blobs,
        ))  # fmt: skip
    except S3Error:
        call.storage.blobs.remove(blobs)
        raise
    content: list[Element] = [("ETag", f'"{version.etag}"'), ("LastModified", timestamp(version.modified))]
    answer = xml_answer("CopyObjectResult", content)
    return Answer(200, {**answer.headers, **version_headers(bucket, version)}, answer.body)


def wanted(call: Call) -> tuple[SpacesBucket, Version]:
    """The object that is asked for, if the caller may see it.

    Raises:
        S3Error: 404; 403 also where the caller may not know whether it exists; 405 for a delete marker by its id.
    """
    bucket, key, id = call.bucket(), call.address.key, call.query.get("versionId", "")
    version = _found(call, bucket, key, id)
    try:
        check_access(call.caller, "GetObjectVersion" if id else "GetObject", bucket, key, version)
    except S3Error:
        if version is None or version.is_marker:
            check_access(call.caller, "ListBucket", bucket)
        else:
            raise
    if version is None:
        raise S3Error("NoSuchVersion" if id else "NoSuchKey")
    if version.is_marker:
        raise S3Error("MethodNotAllowed" if id else "NoSuchKey", headers=version_headers(bucket, version))
    return bucket, version


async def get(call: Call) -> Answer:
    """An object or some of its bytes. HEAD: the same without them."""
    bucket, version = wanted(call)
    if "partNumber" in call.query:
        raise S3Error("NotImplemented", "Reading a part of an object by its number is not supported: use Range.")
    headers = _object_headers(call, bucket, version)
    if not check_read(call.headers, version):
        kept = ("etag", "last-modified", "cache-control", "expires", "x-amz-version-id")
        return Answer(304, {n: v for n, v in headers.items() if n in kept})
    piece = byte_range(call.headers.get("range"), version.size)
    start, length = piece or (0, version.size)
    if piece:
        headers["content-range"] = f"bytes {start}-{start + length - 1}/{version.size}"
    elif call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= {checksums.PREFIX + name: value for name, value in version.checksums.items()}
        if version.checksums:
            is_composite = "-" in next(iter(version.checksums.values()))
            headers["x-amz-checksum-type"] = "COMPOSITE" if is_composite else "FULL_OBJECT"
    status = 206 if piece else 200
    if call.method == "HEAD":
        return Answer(status, headers, length=length)
    return Answer(status, headers, stream=call.storage.blobs.read(version.blobs, start, length), length=length)


def _object_headers(call: Call, bucket: SpacesBucket, version: Version) -> dict[str, str]:
    headers = {
        "etag": f'"{version.etag}"', "last-modified": http_date(version.modified), "accept-ranges": "bytes",
        **version.headers, **version_headers(bucket, version),
    }  # fmt: skip
    overrides = {n: call.query[f"response-{n}"] for n in _OVERRIDES if call.query.get(f"response-{n}")}
    if overrides and call.caller.account is None:
        raise S3Error("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
    return headers | overrides


async def delete(call: Call) -> Answer:
    """Delete an object, or one of its versions."""
    bucket, key, id = call.bucket(), call.address.key, call.query.get("versionId", "")
    if id:
        check_access(call.caller, "DeleteObjectVersion", bucket, key)
    if (match := call.headers.get("if-match")) is not None:
        check_write({"if-match": match}, current(call, bucket, key))
    gone = _delete(call, bucket, key, id)
    return Answer(204, version_headers(bucket, gone) if gone else {})


def _delete(call: Call, bucket: SpacesBucket, key: str, id: str) -> Version | None:
    """Remove a version, or put a delete marker where the bucket keeps versions.

    Returns:
        What was removed, or the marker; None: there was nothing.
    """
    index, storage = call.storage.index, call.storage
    if id or not bucket.versioning:
        found = index.version(bucket.uid, key, id or NULL_VERSION)
        if found is not None:
            storage.remove(bucket, found)
        return found
    marker_id = random_hex(32) if bucket.versioning == "Enabled" else NULL_VERSION
    marker = Version(bucket.uid, key, marker_id, call.cloud.now(), is_marker=True)
    storage.blobs.remove(index.put(marker))
    storage.tell(bucket, key, "delete_marker_created", version=marker_id)
    return marker


async def delete_many(call: Call) -> Answer:
    """Delete up to a thousand objects or versions, each with its own outcome."""
    bucket = call.bucket()
    root = parse(await call.body.document(), "Delete")
    named = [] if root is None else root.findall("Object")
    if root is None or not 1 <= len(named) <= MOST_DELETES:
        raise S3Error("MalformedXML")
    is_quiet = child_text(root, "Quiet") == "true"
    content: list[Element] = []
    for entry in named:
        key, id = child_text(entry, "Key") or "", child_text(entry, "VersionId") or ""
        said: list[Element] = [("Key", key), *([("VersionId", id)] if id else [])]
        try:
            check_access(call.caller, "DeleteObjectVersion" if id else "DeleteObject", bucket, key)
        except S3Error as err:
            content.append(("Error", [*said, ("Code", err.code), ("Message", err.message)]))
            continue
        gone = _delete(call, bucket, key, id)
        if gone is not None and gone.is_marker:
            said += [("DeleteMarker", "true"), ("DeleteMarkerVersionId", gone.id)]
        if not is_quiet:
            content.append(("Deleted", said))
    return xml_answer("DeleteResult", content)


async def get_acl(call: Call) -> Answer:
    """An object's ACL."""
    bucket, version = wanted(call)
    check_access(call.caller, "GetObjectAcl", bucket, version.key)
    return acl_answer(call.cloud.account(bucket.account), version.acl)


async def put_acl(call: Call) -> Answer:
    """Set an object's ACL."""
    _, version = wanted(call)
    call.storage.index.change_acl(version, await read_acl(call))
    return Answer()


async def copied_bytes(call: Call, source: Version, piece: tuple[int, int] | None) -> tuple[Blob, ...]:
    """The bytes of an object, or some of them, under names of their own."""
    blobs = call.storage.blobs
    if piece is None:
        return blobs.duplicate(source.blobs)
    name, path = blobs.new()
    with path.open("wb") as file:
        async for block in blobs.read(source.blobs, *piece):
            file.write(block)
    return (Blob(name, piece[1]),)


OPERATIONS = (
    Operation("PUT", "object", "", "PutObject", put),
    Operation("GET", "object", "", "", get),
    Operation("HEAD", "object", "", "", get),
    Operation("DELETE", "object", "", "DeleteObject", delete),
    Operation("POST", "bucket", "delete", "", delete_many),
    Operation("GET", "object", "acl", "", get_acl),
    Operation("PUT", "object", "acl", "PutObjectAcl", put_acl),
)
"""Operations without an action look at the caller's rights themselves: they depend on what is found."""
