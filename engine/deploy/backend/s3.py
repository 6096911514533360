"""The S3 backend: the file backend's keys below `.pulumi` as objects of a bucket, on AWS or any such server.

Takes the URL parameters of the official engine and no others. Not where weights are stored (`engine/storage`).
Source: gocloud `blob/s3blob`, `aws/aws.go`; pulumi `pkg/backend/diy/backend.go, translateLegacyS3Params`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from engine.deploy.backend.blobs import BackendError, Blob, lock_gone
from engine.deploy.backend.stacks import CLI_HINT
from engine.model.errors import StaleLease

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_TAKEN = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_UNCONDITIONAL = frozenset({"501", "NotImplemented"})


@dataclass(frozen=True)
class S3Settings:
    """What a URL and the environment say about a bucket; hashable, because clients are shared by it."""

    bucket: str
    prefix: str
    endpoint: str = ""
    region: str = ""
    profile: str = ""
    path_style: bool = False
    anonymous: bool = False
    accelerate: bool = False
    dualstack: bool = False
    fips: bool = False
    request_checksums: str = ""
    response_checksums: str = ""
    encryption: str = ""
    kms_key: str = ""
    credentials: tuple[str, str, str] = field(default=("", "", ""), repr=False)


def parse_url(url: str, env: Mapping[str, str]) -> S3Settings:
    """The settings of an `s3://bucket/prefix?parameters` URL.

    Raises:
        BackendError: no bucket, an unknown parameter, or a value that may not be.
    """
    parts = urlsplit(url)
    if not parts.netloc:
        raise BackendError(f"{url} names no bucket: s3://BUCKET, perhaps with /PREFIX and ?region=…")
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    take = given.pop
    plain = _flag(given, "disable_https") or _flag(given, "disableSSL")
    endpoint = take("endpoint", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if plain else 'https'}://{endpoint}"
    elif endpoint and plain:
        endpoint = f"http://{endpoint.partition('://')[2]}"
    elif plain:
        raise BackendError(f"disable_https in {url} needs an endpoint: AWS itself is not reached without TLS from here")
    # What AWS checks by default, other servers may refuse.
    checksums = take("request_checksum_calculation", "") or env.get("AWS_REQUEST_CHECKSUM_CALCULATION", "")
    path_style = _flag(given, "use_path_style"), _flag(given, "s3ForcePathStyle")
    take("awssdk", "")  # both of the official engine's clients are this one
    take("hostname_immutable", "")
    keys = env.get("AWS_ACCESS_KEY_ID", ""), env.get("AWS_SECRET_ACCESS_KEY", ""), env.get("AWS_SESSION_TOKEN", "")
    settings = S3Settings(
        bucket=parts.netloc,
        prefix="".join(f"{part}/" for part in [parts.path.strip("/")] if part) + ".pulumi/",
        endpoint=endpoint or env.get("AWS_ENDPOINT_URL_S3", "") or env.get("AWS_ENDPOINT_URL", ""),
        region=take("region", "") or env.get("AWS_REGION", "") or env.get("AWS_DEFAULT_REGION", ""),
        profile=take("profile", "") or ("" if keys[0] else env.get("AWS_PROFILE", "")),
        path_style=any(path_style),
        anonymous=_flag(given, "anonymous"),
        accelerate=_flag(given, "accelerate"),
        dualstack=_flag(given, "dualstack"),
        fips=_flag(given, "fips"),
        request_checksums=checksums or ("when_required" if endpoint else ""),
        response_checksums=take("response_checksum_validation", "") or env.get("AWS_RESPONSE_CHECKSUM_VALIDATION", ""),
        encryption=_encryption(take("ssetype", "")),
        kms_key=take("kmskeyid", ""),
        credentials=keys,
    )
    if given:
        raise BackendError(
            f"unknown parameter {sorted(given)[0]!r} in the backend's URL; if the CLI takes it, {CLI_HINT}"
        )
    return settings


def _flag(given: dict[str, str], name: str) -> bool:
    match given.pop(name, ""):
        case "1" | "t" | "T" | "true" | "TRUE" | "True":
            return True
        case "" | "0" | "f" | "F" | "false" | "FALSE" | "False":
            return False
        case value:
            raise BackendError(f"invalid value for query parameter {name!r}: {value!r} is neither true nor false")


def _encryption(text: str) -> str:
    known = {"": "", "aes256": "AES256", "aws:kms": "aws:kms", "aws:kms:dsse": "aws:kms:dsse"}
    if text.lower() not in known:
        raise BackendError(f"{text!r} is not a valid value for 'ssetype': AES256, aws:kms or aws:kms:dsse")
    return known[text.lower()]


@lru_cache(maxsize=8)  # making a client reads its service's description: 90 ms, once per bucket and not per command
def _client(settings: S3Settings) -> Any:
    key, secret, token = settings.credentials
    config = Config(
        signature_version=UNSIGNED if settings.anonymous else "s3v4",
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 5},
        use_dualstack_endpoint=settings.dualstack,
        use_fips_endpoint=settings.fips,
        max_pool_connections=16,
        request_checksum_calculation=settings.request_checksums or None,
        response_checksum_validation=settings.response_checksums or None,
        s3={
            "addressing_style": "path" if settings.path_style else "virtual" if settings.endpoint else "auto",
            "use_accelerate_endpoint": settings.accelerate,
        },
    )
    named = bool(key and secret) and not settings.profile
    session = boto3.session.Session(
        aws_access_key_id=key if named else None,
        aws_secret_access_key=secret if named else None,
        aws_session_token=token or None if named else None,
        region_name=settings.region or None,
        profile_name=settings.profile or None,
    )
    region = session.region_name or ("us-east-1" if settings.endpoint else None)  # what servers that are not AWS expect
    return session.client("s3", region_name=region, endpoint_url=settings.endpoint or None, config=config)


def open_blobs(url: str, env: Mapping[str, str]) -> S3Blobs:
    """The bucket of an `s3://` URL.

    Raises:
        BackendError: the URL is wrong.
    """
    settings = parse_url(url, env)
    try:
        return S3Blobs(_client(settings), settings, url)
    except (BotoCoreError, ValueError) as err:
        raise BackendError(f"unable to open {url}: {err}") from err


class S3Blobs:
    """Blobs in a bucket. S3 answers every read and listing with the last write, which locks rely on."""

    probe_seconds = 1.0

    def __init__(self, client: Any, settings: S3Settings, url: str) -> None:
        self.url = url
        self._client = client
        self._settings = settings
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._conditional = True

    @property
    def identity(self) -> str:
        return f"s3:{self._settings.endpoint}/{self._bucket}/{self._prefix}"

    def location(self, key: str) -> str:
        """See `Blobs.location`; as the official engine puts it, with the URL's parameters."""
        parts: SplitResult = urlsplit(self.url)
        path = quote(f"{parts.path.rstrip('/')}/.pulumi/{key}")
        return parts._replace(path=path).geturl()

    def get(self, key: str) -> Blob | None:
        """See `Blobs.get`."""
        with self._errors("reading", key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
                return Blob(answer["Body"].read(), answer["ETag"])
            except ClientError as err:
                if _code(err) in _MISSING:
                    return None
                raise

    def existing(self, keys: Iterable[str]) -> set[str]:
        """See `Blobs.existing`; names that begin alike are asked for together."""
        wanted = set(keys)
        shortest = min(wanted, key=len, default="")
        if len(wanted) > 1 and all(key.startswith(shortest) for key in wanted):
            return wanted & set(self._listed(shortest))
        return {key for key in wanted if self._exists(key)}

    def _exists(self, key: str) -> bool:
        with self._errors("looking for", key):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as err:
                if _code(err) in _MISSING:
                    return False
                raise
            return True

    def put(self, key: str, data: bytes) -> None:
        """See `Blobs.put`."""
        with self._errors("writing", key):
            self._put(key, data, {})

    def create(self, key: str, data: bytes, *, guard: str) -> None:
        """See `Blobs.create`. The guard is looked for after writing: whoever took it away reads this or stops it."""
        if not self._put_if(key, data, None):
            raise FileExistsError(f"{self.location(key)} exists already")
        if guard and not self._exists(guard):
            self.delete(key)
            raise lock_gone()

    def replace(self, key: str, data: bytes, *, over: Blob | None, check: Callable[[], None], guard: str = "") -> None:
        """See `Blobs.replace`."""
        check()
        if guard and not self._exists(guard):
            raise lock_gone()
        if not self._put_if(key, data, over):
            raise StaleLease(f"{self.location(key)} was replaced by somebody else: this update has stopped")

    def delete(self, key: str) -> None:
        """See `Blobs.delete`."""
        with self._errors("deleting", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def keys(self, folder: str) -> list[str]:
        """See `Blobs.keys`."""
        return sorted(self._listed(f"{folder}/" if folder else ""))

    def _listed(self, prefix: str) -> list[str]:
        with self._errors("listing", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            return [o["Key"].removeprefix(self._prefix) for page in pages for o in page.get("Contents", ())]

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> None:
        extra = {"ServerSideEncryption": self._settings.encryption, "SSEKMSKeyId": self._settings.kms_key}
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._prefix + key,
            Body=data,
            ContentType="text/plain; charset=utf-8",
            **{k: v for k, v in extra.items() if v},
            **condition,
        )

    def _put_if(self, key: str, data: bytes, over: Blob | None) -> bool:
        """Write in the place of one content; False: another is there."""
        condition = {"IfMatch": over.version} if over else {"IfNoneMatch": "*"}
        with self._errors("writing", key):
            if self._conditional:
                try:
                    self._put(key, data, condition)
                    return True
                except ClientError as err:
                    if _code(err) in _MISSING and over:
                        return False
                    if _code(err) in _TAKEN:
                        return self._is_ours(key, data)
                    if _code(err) not in _UNCONDITIONAL:
                        raise
                    self._conditional = False
            # A server without conditional writes: the question comes last, as on a file system.
            current = self.get(key)
            if (current and current.version) != (over and over.version):
                return False
            self._put(key, data, {})
            return True

    def _is_ours(self, key: str, data: bytes) -> bool:
        # The first try of a request that was sent twice may have been the one that did it.
        current = self.get(key)
        return current is not None and current.data == data

    def _errors(self, doing: str, key: str) -> AbstractContextManager[None]:
        return _translated(f"{doing} {self.location(key)}")


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except NoCredentialsError as err:
        raise BackendError(
            f"{doing}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile"
        ) from err
    except ClientError as err:
        if _code(err) == "NoSuchBucket":
            raise BackendError(f"{doing}: the bucket does not exist; create it first") from err
        raise BackendError(f"{doing}: {err}") from err
    except BotoCoreError as err:
        raise BackendError(f"{doing}: {err}") from err


def _code(err: ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))
