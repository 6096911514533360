"""Who may do what: keys and their grants, canned ACLs, bucket policies."""

from __future__ import annotations

from dataclasses import dataclass

from engine.sandbox.assets import SpacesBucket, SpacesKey
from engine.sandbox.cloud import Cloud
from engine.sandbox.spaces.call import Caller
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.index import Version
from engine.sandbox.spaces.policy import verdict

READS = frozenset(
    {
        "GetObject", "GetObjectVersion", "GetObjectAcl", "ListBucket", "ListBucketVersions", "ListMultipartUploadParts",
        "ListBucketMultipartUploads", "GetBucketLocation", "GetBucketCORS", "GetBucketVersioning",
    }
)  # fmt: skip
WRITES = frozenset({"PutObject", "PutObjectAcl", "DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload"})
PERMITTED = {"read": READS, "readwrite": READS | WRITES}


@dataclass(frozen=True)
class KeyPair:
    """The key that a sandbox has from the beginning, with full access to the account named."""

    access_key: str
    secret_key: str
    account: str


def key_of(cloud: Cloud, default: KeyPair | None, access_key: str, source: str) -> tuple[str, Caller]:
    """The secret of a key, and who it stands for.

    Raises:
        S3Error: nobody has it.
    """
    if default is not None and access_key == default.access_key:
        return default.secret_key, Caller(cloud.account(default.account), None, source)
    for account in cloud.accounts.values():
        key = account.table(SpacesKey).get(access_key)
        if key is not None:
            return key.secret, Caller(account, key.grants, source)
    raise S3Error("InvalidAccessKeyId")


def granted(caller: Caller, action: str, bucket: str) -> bool:
    """Whether the caller's key may do it in a bucket of its own account ("": in no bucket)."""
    if caller.account is None:
        return False
    if caller.grants is None:
        return True
    return any(
        (g["permission"] == "fullaccess" and g["bucket"] in ("", bucket))
        or (g["bucket"] == bucket and action in PERMITTED.get(g["permission"], ()))
        for g in caller.grants
    )  # fmt: skip


def check_access(
    caller: Caller, action: str, bucket: SpacesBucket, key: str = "", found: Version | None = None
) -> None:
    """Let pass what is allowed.

    Args:
        found: the object that is asked for, if it exists; its ACL may make it public.

    Raises:
        S3Error: it is not.
    """
    name = caller.account.name if caller.account else ""
    resource = f"{bucket.id}/{key}" if key else bucket.id
    said = verdict(bucket.policy, principal=name, action=action, resource=resource, source=caller.source)
    if said is False and not (name == bucket.account and action.endswith("BucketPolicy")):
        raise S3Error("AccessDenied")
    if said or (name == bucket.account and granted(caller, action, bucket.id)):
        return
    if action == "ListBucket" and bucket.acl == "public-read":
        return
    if action in ("GetObject", "GetObjectVersion") and found is not None and found.acl == "public-read":
        return
    raise S3Error("AccessDenied")
