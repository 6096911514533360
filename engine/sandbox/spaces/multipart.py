"""Multipart uploads: begin, parts in any order, complete or abort. Parts stay files of their own, nothing is copied."""

from __future__ import annotations

import hashlib

from engine.model.ids import random_hex
from engine.sandbox.spaces import checksums
from engine.sandbox.spaces.body import composite
from engine.sandbox.spaces.buckets import NO_CONTENT, owner_elements
from engine.sandbox.spaces.call import Answer, Call, Operation, canned_acl, timestamp, xml_answer
from engine.sandbox.spaces.conditions import byte_range, check_write
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.index import Part, Upload, Version
from engine.sandbox.spaces.objects import (
    check_key,
    copied_bytes,
    copy_source,
    current,
    kept_headers,
    save,
    version_headers,
)
from engine.sandbox.spaces.xml import Element, child_text, parse

SMALLEST_PART_BYTES = 5 << 20
MOST_PARTS = 10_000
MOST_LISTED = 1000


async def begin(call: Call) -> Answer:
    """Begin an upload: headers and ACL are said now, bytes later."""
    bucket, key = call.bucket(), check_key(call)
    algorithm = call.headers.get("x-amz-checksum-algorithm", "").lower()
    if algorithm and algorithm not in checksums.ALGORITHMS:
        raise S3Error("InvalidRequest", f"Checksum algorithm {algorithm!r} is not one of S3's.")
    upload = Upload(
        bucket.uid, random_hex(40), key, call.cloud.now(), canned_acl(call), kept_headers(call.headers), algorithm
    )
    call.storage.index.begin(upload)
    content: list[Element] = [("Bucket", bucket.id), ("Key", key), ("UploadId", upload.id)]
    answer = xml_answer("InitiateMultipartUploadResult", content)
    told = {"x-amz-checksum-algorithm": algorithm.upper()} if algorithm else {}
    return Answer(200, {**answer.headers, **told}, answer.body)


def _upload(call: Call) -> Upload:
    found = call.storage.index.upload(call.bucket().uid, call.query.get("uploadId", ""))
    if found is None or found.key != call.address.key:
        raise S3Error("NoSuchUpload")
    return found


async def put_part(call: Call) -> Answer:
    """Store a part, or copy it from an object; one of the same number is replaced."""
    upload, index = _upload(call), call.storage.index
    text = call.query.get("partNumber", "")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PARTS:
        raise S3Error("InvalidArgument", f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive")
    if "x-amz-copy-source" in call.headers:
        return await _copy_part(call, upload, int(text))
    stored = await call.body.store(call.storage.blobs)
    if index.upload(upload.bucket, upload.id) is None:
        call.storage.blobs.remove((stored.blob,))
        raise S3Error("NoSuchUpload")
    part = Part(int(text), call.cloud.now(), stored.blob.size, stored.etag, stored.checksums, (stored.blob,))
    call.storage.blobs.remove(index.put_part(upload, part))
    sums = {checksums.PREFIX + name: value for name, value in stored.checksums.items()}
    return Answer(200, {"etag": f'"{part.etag}"', **sums})


async def _copy_part(call: Call, upload: Upload, number: int) -> Answer:
    _, source = copy_source(call)
    piece = byte_range(call.headers.get("x-amz-copy-source-range"), source.size)
    blobs = await copied_bytes(call, source, piece)
    md5 = hashlib.md5(usedforsecurity=False)
    size = sum(blob.size for blob in blobs)
    async for block in call.storage.blobs.read(blobs, 0, size):
        md5.update(block)
    part = Part(number, call.cloud.now(), size, md5.hexdigest(), {}, blobs)
    call.storage.blobs.remove(call.storage.index.put_part(upload, part))
    return xml_answer("CopyPartResult", [("LastModified", timestamp(part.modified)), ("ETag", f'"{part.etag}"')])


async def complete(call: Call) -> Answer:
    """Make an object of the parts that the client names; the others are thrown away."""
    bucket, upload, index = call.bucket(), _upload(call), call.storage.index
    root = parse(await call.body.document(), "CompleteMultipartUpload")
    named = [] if root is None else root.findall("Part")
    if not named:
        raise S3Error("MalformedXML", "You must specify at least one part")
    stated = [(child_text(p, "PartNumber") or "", (child_text(p, "ETag") or "").strip('"')) for p in named]
    check_write(call.headers, current(call, bucket, upload.key))
    upload = _upload(call)  # the body took its time: another request may have completed it
    known = {str(p.number): p for p in index.parts(upload)}
    parts = _chosen(stated, known)
    whole = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in parts), usedforsecurity=False)
    version = save(call, bucket, Version(
        upload.bucket, upload.key, "", call.cloud.now(), size=sum(p.size for p in parts),
        etag=f"{whole.hexdigest()}-{len(parts)}", acl=upload.acl, headers=upload.headers,
        checksums=_checksums(call, upload, parts), blobs=tuple(b for p in parts for b in p.blobs),
    ))  # fmt: skip
    index.finish(upload)
    call.storage.blobs.remove([b for p in known.values() if p not in parts for b in p.blobs])
    place = f"http://{call.headers.get('host', '')}{call.address.path}"
    content: list[Element] = [("Location", place), ("Bucket", bucket.id), ("Key", upload.key)]
    content += [("ETag", f'"{version.etag}"')]
    content += [(f"Checksum{name.upper()}", value) for name, value in version.checksums.items()]
    answer = xml_answer("CompleteMultipartUploadResult", content)
    return Answer(200, {**answer.headers, **version_headers(bucket, version)}, answer.body)


def _chosen(stated: list[tuple[str, str]], known: dict[str, Part]) -> list[Part]:
    numbers = [int(number) if number.isascii() and number.isdigit() else 0 for number, _ in stated]
    if numbers != sorted(set(numbers)):
        raise S3Error("InvalidPartOrder")
    parts = []
    for number, etag in stated:
        if number not in known or known[number].etag != etag:
            raise S3Error("InvalidPart")
        parts.append(known[number])
    if any(part.size < SMALLEST_PART_BYTES for part in parts[:-1]):
        raise S3Error("EntityTooSmall")
    return parts


def _checksums(call: Call, upload: Upload, parts: list[Part]) -> dict[str, str]:
    """The checksum of the parts' checksums; one of the whole object would mean to read it all again."""
    algorithm = upload.algorithm
    values = [p.checksums.get(algorithm, "") for p in parts]
    is_whole = call.headers.get("x-amz-checksum-type", "").upper() == "FULL_OBJECT"
    return {} if not algorithm or is_whole or not all(values) else {algorithm: composite(values, algorithm)}


async def abort(call: Call) -> Answer:
    """Throw an upload away."""
    upload, index = _upload(call), call.storage.index
    blobs = [b for part in index.parts(upload) for b in part.blobs]
    index.finish(upload)
    call.storage.blobs.remove(blobs)
    return NO_CONTENT


async def list_parts(call: Call) -> Answer:
    """The parts of an upload so far."""
    upload, bucket = _upload(call), call.bucket()
    after = call.number("part-number-marker", 0, 0, MOST_PARTS)
    most = call.number("max-parts", MOST_LISTED, 0, MOST_LISTED)
    left = [p for p in call.storage.index.parts(upload) if p.number > after]
    content: list[Element] = [("Bucket", bucket.id), ("Key", upload.key), ("UploadId", upload.id)]
    content += [("PartNumberMarker", str(after)), ("MaxParts", str(most))]
    content += [("IsTruncated", "true" if len(left) > most else "false")]
    shown_parts = left[:most]
    content += [("NextPartNumberMarker", str(shown_parts[-1].number if shown_parts else after))]
    for part in shown_parts:
        shown: list[Element] = [("PartNumber", str(part.number)), ("LastModified", timestamp(part.modified))]
        shown += [("ETag", f'"{part.etag}"'), ("Size", str(part.size))]
        shown += [(f"Checksum{name.upper()}", value) for name, value in part.checksums.items()]
        content.append(("Part", shown))
    return xml_answer("ListPartsResult", content)


async def list_uploads(call: Call) -> Answer:
    """The uploads of a bucket that were neither completed nor aborted."""
    bucket, prefix = call.bucket(), call.query.get("prefix", "")
    if call.query.get("delimiter"):
        raise S3Error("NotImplemented", "Uploads cannot be listed with a delimiter.")
    most = call.number("max-uploads", MOST_LISTED, 0, MOST_LISTED)
    key, id = call.query.get("key-marker", ""), call.query.get("upload-id-marker", "")
    after = (key, id or ("~" if key else ""))  # without an id the key's own uploads are behind the marker
    found = call.storage.index.uploads(bucket.uid, prefix, after, most + 1)
    content: list[Element] = [("Bucket", bucket.id), ("KeyMarker", key), ("UploadIdMarker", id), ("Prefix", prefix)]
    content += [("MaxUploads", str(most)), ("IsTruncated", "true" if len(found) > most else "false")]
    if len(found) > most > 0:
        content += [("NextKeyMarker", found[most - 1].key), ("NextUploadIdMarker", found[most - 1].id)]
    owner = owner_elements(call.cloud.account(bucket.account))
    for upload in found[:most]:
        shown: list[Element] = [("Key", upload.key), ("UploadId", upload.id), ("Owner", owner), ("Initiator", owner)]
        content.append(("Upload", [*shown, ("StorageClass", "STANDARD"), ("Initiated", timestamp(upload.started))]))
    return xml_answer("ListMultipartUploadsResult", content)


OPERATIONS = (
    Operation("POST", "object", "uploads", "PutObject", begin),
    Operation("PUT", "object", "uploadId", "PutObject", put_part),
    Operation("POST", "object", "uploadId", "PutObject", complete),
    Operation("DELETE", "object", "uploadId", "AbortMultipartUpload", abort),
    Operation("GET", "object", "uploadId", "ListMultipartUploadParts", list_parts),
    Operation("GET", "bucket", "uploads", "ListBucketMultipartUploads", list_uploads),
)
