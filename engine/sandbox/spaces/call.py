"""One S3 request as its handler sees it, and its answer. HTTP itself is in `service.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TypeAlias

from engine.sandbox.assets import SpacesBucket
from engine.sandbox.cloud import Cloud
from engine.sandbox.faults import Fault
from engine.sandbox.records import Account
from engine.sandbox.spaces.address import Address
from engine.sandbox.spaces.blobs import Blobs
from engine.sandbox.spaces.body import Body
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.index import Index, Version
from engine.sandbox.spaces.xml import Element, document

XML = {"content-type": "application/xml"}


@dataclass(frozen=True)
class Storage:
    """Where everything is kept: buckets in the cloud, their contents in the index, bytes in files."""

    cloud: Cloud
    index: Index
    blobs: Blobs

    def bucket(self, name: str, region: str) -> SpacesBucket:
        """A bucket by its name, which is unique among all accounts, at its region's endpoint.

        Raises:
            S3Error: there is none.
        """
        for account in self.cloud.accounts.values():
            found = account.table(SpacesBucket).get(name)
            if found is not None and found.region == region:
                return found
        raise S3Error("NoSuchBucket")

    def tell(self, bucket: SpacesBucket, key: str, what: str, **details: object) -> None:
        """Note in the journal what happened to an object."""
        cloud = self.cloud
        cloud.journal.add(
            cloud.now(), bucket.account, f"spaces_object.{what}", f"{bucket.id}/{key}", name=key, **details
        )

    def remove(self, bucket: SpacesBucket, version: Version, what: str = "deleted") -> None:
        """Remove a version and its bytes."""
        self.index.remove(version)
        self.blobs.remove(version.blobs)
        self.tell(bucket, version.key, what, size=version.size, version=version.id)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        account: None for the anonymous public.
        grants: what its key may do; None = everything.
        source: its IP address.
    """

    account: Account | None = None
    grants: Sequence[Mapping[str, str]] | None = None
    source: str = "127.0.0.1"


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        query: name → value; the first of several.
        headers: lower-case name → value.
        hits: the faults it meets.
    """

    storage: Storage
    caller: Caller
    address: Address
    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    hits: Sequence[Fault] = ()

    @property
    def cloud(self) -> Cloud:
        """The cloud that all is in."""
        return self.storage.cloud

    def bucket(self) -> SpacesBucket:
        """The bucket it points at.

        Raises:
            S3Error: there is none.
        """
        return self.storage.bucket(self.address.bucket, self.address.region)

    def owner(self) -> Account:
        """The account that asks.

        Raises:
            S3Error: it is anonymous.
        """
        if self.caller.account is None:
            raise S3Error("AccessDenied")
        return self.caller.account

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A number of the query; larger ones are the largest that is allowed."""
        text = self.query.get(name) or str(default)
        if not text.isascii() or not text.isdigit() or int(text) < lowest:
            raise S3Error("InvalidArgument", f"Argument {name} must be an integer between {lowest} and {highest}")
        return min(int(text), highest)


@dataclass(frozen=True)
class Answer:
    """What goes back.

    Attributes:
        stream: of an object's bytes, instead of `body`.
        length: of the stream, or of what a HEAD leaves out.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    length: int | None = None


Handler: TypeAlias = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Operation:
    """One thing the API can do.

    Attributes:
        level: `service`, `bucket` or `object`: how much the address names.
        part: the word in the query that picks it, such as `acl`; "" = none.
        action: the word policies have for it.
    """

    method: str
    level: str
    part: str
    action: str
    handler: Handler


def xml_answer(name: str, content: Sequence[Element], status: int = 200) -> Answer:
    """A document as an answer."""
    return Answer(status, XML, document(name, content))


def timestamp(at: float) -> str:
    """A moment as S3's documents have it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(at * 1000) % 1000:03d}Z"


def http_date(at: float) -> str:
    """A moment as HTTP's headers have it."""
    return format_datetime(datetime.fromtimestamp(int(at), UTC), usegmt=True)


def canned_acl(call: Call, default: str = "private") -> str:
    """The ACL that the headers ask for; Spaces knows two."""
    acl = call.headers.get("x-amz-acl", default)
    if acl not in ("private", "public-read"):
        raise S3Error("InvalidArgument", f"x-amz-acl must be private or public-read, not {acl!r}")
    if grants := [name for name in call.headers if name.startswith("x-amz-grant-")]:
        raise S3Error("NotImplemented", f"{grants[0]} is not supported: use x-amz-acl")
    return acl
