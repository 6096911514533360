"""Operations on buckets: make, delete, and what is configured on them. What is in them is not here."""

from __future__ import annotations

import re
from ipaddress import ip_address

from engine.model.ids import random_hex, random_uuid
from engine.sandbox.assets import SpacesBucket
from engine.sandbox.records import Account
from engine.sandbox.spaces.access import granted
from engine.sandbox.spaces.call import Answer, Call, Operation, canned_acl, timestamp, xml_answer
from engine.sandbox.spaces.configuration import cors_elements, lifecycle_elements, read_cors, read_lifecycle
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.policy import check_policy
from engine.sandbox.spaces.xml import Element, child_text, parse

BUCKET_LIMIT = 100
_NAME = re.compile(r"[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]")
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
NO_CONTENT = Answer(204)


async def list_buckets(call: Call) -> Answer:
    """The buckets of the account in the endpoint's region; with a limited key those it has a grant for."""
    owner = call.owner()
    found = [
        b
        for b in owner.table(SpacesBucket).values()
        if b.region == call.address.region and granted(call.caller, "ListBucket", b.id)
    ]
    buckets: list[Element] = [
        ("Bucket", [("Name", b.id), ("CreationDate", timestamp(b.created_at))])
        for b in sorted(found, key=lambda b: b.id)
    ]
    return xml_answer("ListAllMyBucketsResult", [("Owner", owner_elements(owner)), ("Buckets", buckets)])


def _save(call: Call, bucket: SpacesBucket, what: str) -> None:
    """Keep one of a bucket's settings."""
    call.cloud.save(bucket)
    call.cloud.journal.add(
        call.cloud.now(), bucket.account, "spaces_bucket.configured", bucket.id, name=bucket.name, what=what
    )


def owner_elements(account: Account) -> list[Element]:
    """What an Owner contains."""
    return [("ID", account.uuid), ("DisplayName", account.name)]


async def create(call: Call) -> Answer:
    """Make a bucket. Its name is unique among all accounts and regions."""
    name, account = call.address.bucket, call.owner()
    _check_name(name)
    acl = canned_acl(call)
    await _check_location(call)
    for other in call.cloud.accounts.values():
        if (found := other.table(SpacesBucket).get(name)) is not None:
            raise S3Error("BucketAlreadyOwnedByYou" if found.account == account.name else "BucketAlreadyExists")
    if len(account.table(SpacesBucket)) >= BUCKET_LIMIT:
        raise S3Error("TooManyBuckets")
    bucket = SpacesBucket(
        id=name, account=account.name, name=name, created_at=call.cloud.now(), region=call.address.region,
        uid=random_uuid(), acl=acl,
    )  # fmt: skip
    call.cloud.assets.add(account, bucket, hits=call.hits)
    return Answer(200, {"location": f"/{name}"})


def _check_name(name: str) -> None:
    try:
        ip_address(name)
        is_address = True
    except ValueError:
        is_address = False
    if is_address or not _NAME.fullmatch(name):
        raise S3Error(
            "InvalidBucketName",
            "A bucket's name has 3 to 63 lower-case letters, digits, dashes and dots, and begins and ends with one of "
            "the former two.",
        )


async def _check_location(call: Call) -> None:
    raw = await call.body.document()
    if not raw:
        return
    root = parse(raw, "CreateBucketConfiguration")
    if root is None:
        raise S3Error("MalformedXML")
    if (child_text(root, "LocationConstraint") or call.address.region) != call.address.region:
        raise S3Error("InvalidLocationConstraint")


async def delete(call: Call) -> Answer:
    """Delete an empty bucket; uploads that were not completed go with it."""
    bucket = call.bucket()
    if not call.storage.index.is_empty(bucket.uid):
        raise S3Error("BucketNotEmpty")
    call.storage.blobs.remove(call.storage.index.drop(bucket.uid))
    call.cloud.assets.remove(call.cloud.account(bucket.account), bucket)
    return NO_CONTENT


async def head(call: Call) -> Answer:
    """Whether it is there."""
    return Answer(200, {"x-amz-bucket-region": call.bucket().region, "content-type": "application/xml"})


async def location(call: Call) -> Answer:
    """Its region."""
    region = call.bucket().region
    answer = xml_answer("LocationConstraint", [])
    return Answer(200, answer.headers, answer.body.replace(b"></", f">{region}</".encode()))


async def get_acl(call: Call) -> Answer:
    """Its ACL, written out as grants."""
    bucket = call.bucket()
    return acl_answer(call.cloud.account(bucket.account), bucket.acl)


def acl_answer(owner: Account, acl: str) -> Answer:
    """A canned ACL as grants."""
    user = [("ID", owner.uuid), ("DisplayName", owner.name), ("Type", "CanonicalUser")]
    grants: list[Element] = [("Grant", [("Grantee", user), ("Permission", "FULL_CONTROL")])]
    if acl == "public-read":
        public = [("URI", ALL_USERS), ("Type", "Group")]
        grants.append(("Grant", [("Grantee", public), ("Permission", "READ")]))
    answer = xml_answer("AccessControlPolicy", [("Owner", owner_elements(owner)), ("AccessControlList", grants)])
    body = answer.body
    for kind in (b"CanonicalUser", b"Group"):
        # S3 says the type in an attribute of another namespace.
        opening = b'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="' + kind + b'">'
        head, mark, rest = body.partition(b"<Type>" + kind + b"</Type>")
        if mark:
            before, _, after = head.rpartition(b"<Grantee>")
            body = before + opening + after + rest
    return Answer(200, answer.headers, body)


async def put_acl(call: Call) -> Answer:
    """Set its ACL."""
    bucket = call.bucket()
    bucket.acl = await read_acl(call)
    _save(call, bucket, "acl")
    return Answer()


async def read_acl(call: Call) -> str:
    """The ACL that a request asks for: in its header, or as grants that say the same as one of the canned ones."""
    raw = await call.body.document()
    if "x-amz-acl" in call.headers or not raw:
        return canned_acl(call)
    root = parse(raw, "AccessControlPolicy")
    if root is None:
        raise S3Error("MalformedXML")
    acl = "private"
    for grant in root.iter("Grant"):
        uri, permission = child_text(grant.find("Grantee") or grant, "URI"), child_text(grant, "Permission")
        if uri == ALL_USERS and permission == "READ":
            acl = "public-read"
        elif uri is not None or permission != "FULL_CONTROL":
            raise S3Error("NotImplemented", "Only the grants of private and public-read are supported.")
    return acl


async def get_versioning(call: Call) -> Answer:
    """Whether it keeps versions."""
    status = call.bucket().versioning
    return xml_answer("VersioningConfiguration", [("Status", status)] if status else [])


async def put_versioning(call: Call) -> Answer:
    """Begin or stop to keep versions; what was kept stays."""
    bucket = call.bucket()
    root = parse(await call.body.document(), "VersioningConfiguration")
    status = None if root is None else child_text(root, "Status")
    if status not in ("Enabled", "Suspended"):
        raise S3Error("MalformedXML", "Status must be Enabled or Suspended.")
    bucket.versioning = status
    _save(call, bucket, "versioning")
    return Answer()


async def get_cors(call: Call) -> Answer:
    """Its CORS rules."""
    if not (rules := call.bucket().cors):
        raise S3Error("NoSuchCORSConfiguration")
    return xml_answer("CORSConfiguration", cors_elements(rules))


async def put_cors(call: Call) -> Answer:
    """Set its CORS rules."""
    bucket = call.bucket()
    bucket.cors = read_cors(await call.body.document())
    _save(call, bucket, "cors")
    return Answer()


async def delete_cors(call: Call) -> Answer:
    """Remove its CORS rules."""
    bucket = call.bucket()
    bucket.cors = []
    _save(call, bucket, "cors")
    return NO_CONTENT


async def get_lifecycle(call: Call) -> Answer:
    """Its lifecycle rules."""
    if not (rules := call.bucket().lifecycle):
        raise S3Error("NoSuchLifecycleConfiguration")
    return xml_answer("LifecycleConfiguration", lifecycle_elements(rules))


async def put_lifecycle(call: Call) -> Answer:
    """Set its lifecycle rules."""
    bucket = call.bucket()
    raw = await call.body.document()
    bucket.lifecycle = read_lifecycle(raw, [random_hex(32) for _ in range(max(1, raw.count(b"<Rule>")))])
    _save(call, bucket, "lifecycle")
    return Answer()


async def delete_lifecycle(call: Call) -> Answer:
    """Remove its lifecycle rules."""
    bucket = call.bucket()
    bucket.lifecycle = []
    _save(call, bucket, "lifecycle")
    return NO_CONTENT


async def get_policy(call: Call) -> Answer:
    """Its policy, as it was given."""
    if not (policy := call.bucket().policy):
        raise S3Error("NoSuchBucketPolicy")
    return Answer(200, {"content-type": "application/json"}, policy.encode())


async def put_policy(call: Call) -> Answer:
    """Set its policy."""
    bucket = call.bucket()
    raw = await call.body.document()
    check_policy(raw, bucket.id)
    bucket.policy = raw.decode()
    _save(call, bucket, "policy")
    return NO_CONTENT


async def delete_policy(call: Call) -> Answer:
    """Remove its policy."""
    bucket = call.bucket()
    bucket.policy = ""
    _save(call, bucket, "policy")
    return NO_CONTENT


OPERATIONS = (
    Operation("GET", "service", "", "ListAllMyBuckets", list_buckets),
    Operation("PUT", "bucket", "", "CreateBucket", create),
    Operation("DELETE", "bucket", "", "DeleteBucket", delete),
    Operation("HEAD", "bucket", "", "ListBucket", head),
    Operation("GET", "bucket", "location", "GetBucketLocation", location),
    Operation("GET", "bucket", "acl", "GetBucketAcl", get_acl),
    Operation("PUT", "bucket", "acl", "PutBucketAcl", put_acl),
    Operation("GET", "bucket", "versioning", "GetBucketVersioning", get_versioning),
    Operation("PUT", "bucket", "versioning", "PutBucketVersioning", put_versioning),
    Operation("GET", "bucket", "cors", "GetBucketCORS", get_cors),
    Operation("PUT", "bucket", "cors", "PutBucketCORS", put_cors),
    Operation("DELETE", "bucket", "cors", "PutBucketCORS", delete_cors),
    Operation("GET", "bucket", "lifecycle", "GetLifecycleConfiguration", get_lifecycle),
    Operation("PUT", "bucket", "lifecycle", "PutLifecycleConfiguration", put_lifecycle),
    Operation("DELETE", "bucket", "lifecycle", "PutLifecycleConfiguration", delete_lifecycle),
    Operation("GET", "bucket", "policy", "GetBucketPolicy", get_policy),
    Operation("PUT", "bucket", "policy", "PutBucketPolicy", put_policy),
    Operation("DELETE", "bucket", "policy", "DeleteBucketPolicy", delete_policy),
)
