"""S3's own part: URL parameters as the official engine takes them, and what servers answer to conditional writes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.open import open_backend
from engine.deploy.backend.s3 import S3Blobs, parse_url
from engine.model.errors import StaleLease
from tests.fakes.s3_server import S3Server

# The first test that needs the S3 server may have to build it.
pytestmark = pytest.mark.timeout(900)

URL = "s3://bucket/team/a?region=us-east-1"


class FakeClient:
    """A bucket in memory.

    Args:
        conditional: whether conditional writes are understood.
        lost_answers: how many writes are done and answered with a refusal, as if sent twice.
    """

    def __init__(self, *, conditional: bool = True, lost_answers: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self._conditional = conditional
        self._lost_answers = lost_answers

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise failure("NoSuchKey")
        return {"Body": io.BytesIO(self.objects[Key]), "ETag": self._etag(Key)}

    def put_object(self, *, Key: str, Body: bytes, IfMatch: str = "", IfNoneMatch: str = "", **_: Any) -> None:
        self.calls.append("conditional" if IfMatch or IfNoneMatch else "plain")
        if (IfMatch or IfNoneMatch) and not self._conditional:
            raise failure("NotImplemented")
        if (IfNoneMatch and Key in self.objects) or (IfMatch and IfMatch != self._etag(Key)):
            raise failure("PreconditionFailed")
        self.objects[Key] = Body
        if self._lost_answers:
            self._lost_answers -= 1
            raise failure("PreconditionFailed")

    def _etag(self, key: str) -> str:
        return str(hash(self.objects.get(key)))


def failure(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "so it is"}}, "PutObject")


def allowed() -> None:
    return None


def blobs(client: Any) -> S3Blobs:
    return S3Blobs(client, parse_url(URL, {}), URL)


def test_parameters_of_the_official_engine() -> None:
    settings = parse_url(
        "s3://b/some/folder/?endpoint=minio:9000&disableSSL=true&s3ForcePathStyle=true&awssdk=v1&profile=p&region=r"
        "&ssetype=aes256&kmskeyid=k",
        {"AWS_ACCESS_KEY_ID": "id"},
    )
    assert (settings.bucket, settings.prefix, settings.endpoint) == ("b", "some/folder/.pulumi/", "http://minio:9000")
    assert (settings.path_style, settings.profile, settings.region) == (True, "p", "r")
    assert (settings.encryption, settings.kms_key) == ("AES256", "k")
    assert settings.request_checksums == "when_required"


def test_defaults_are_those_of_aws() -> None:
    settings = parse_url("s3://b", {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "p"})
    assert (settings.prefix, settings.endpoint, settings.region) == (".pulumi/", "", "eu-west-1")
    assert (settings.path_style, settings.profile, settings.request_checksums) == (False, "p", "")


@pytest.mark.parametrize(
    ("query", "endpoint"),
    [
        ("endpoint=https://minio:9000&disableSSL=true", "http://minio:9000"),
        ("endpoint=minio:9000", "https://minio:9000"),
        ("endpoint=http://minio:9000&use_path_style=1", "http://minio:9000"),
    ],
)
def test_forms_of_endpoints(query: str, endpoint: str) -> None:
    assert parse_url(f"s3://b?{query}", {}).endpoint == endpoint


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3:///folder", "names no bucket"),
        ("s3://b?disableSSL=banana", "disableSSL"),
        ("s3://b?ssetype=rot13", "ssetype"),
        ("s3://b?role=arn:aws:iam::1:role/x", r"'role'.*STACKYARD_PULUMI=cli"),
        ("s3://b?disable_https=true", "needs an endpoint"),
    ],
)
def test_what_is_not_understood_is_refused(url: str, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        parse_url(url, {})


def test_keys_never_show_in_what_is_printed() -> None:
    assert "hush" not in repr(parse_url("s3://b", {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush"}))


def test_location_is_the_official_engines() -> None:
    expected = "s3://bucket/team/a/.pulumi/locks/organization/golden/dev/x.json?region=us-east-1"
    assert blobs(FakeClient()).location("locks/organization/golden/dev/x.json") == expected


def test_write_that_was_sent_twice_is_recognised_as_its_own() -> None:
    client = FakeClient(lost_answers=2)
    bucket = blobs(client)
    bucket.create("a", b"1", guard="")
    bucket.replace("a", b"2", over=bucket.get("a"), check=allowed)
    assert client.objects == {"team/a/.pulumi/a": b"2"}


def test_server_without_conditional_writes_is_asked_instead() -> None:
    client = FakeClient(conditional=False)
    bucket = blobs(client)
    bucket.create("a", b"1", guard="")
    seen = bucket.get("a")
    bucket.replace("a", b"2", over=seen, check=allowed)
    with pytest.raises(StaleLease):
        bucket.replace("a", b"3", over=seen, check=allowed)
    with pytest.raises(FileExistsError):
        bucket.create("a", b"4", guard="")
    assert client.objects == {"team/a/.pulumi/a": b"2"}
    assert client.calls == ["conditional", "plain", "plain"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (failure("NoSuchBucket"), "create it first"),
        (failure("AccessDenied"), "so it is"),
        (NoCredentialsError(), "AWS_ACCESS_KEY_ID"),
    ],
)
def test_refusals_of_the_server_say_where_and_why(error: Exception, says: str) -> None:
    class Refusing(FakeClient):
        def get_object(self, **_: Any) -> dict[str, Any]:
            raise error

    with pytest.raises(BackendError, match=rf"reading s3://bucket.*a\.json.*{says}"):
        blobs(Refusing()).get("a.json")


@pytest.mark.integration
def test_real_server_compares_by_itself(s3_server: S3Server) -> None:
    url = f"s3://{s3_server.new_bucket()}?endpoint={s3_server.endpoint}&use_path_style=true"
    bucket = open_backend(url, None, s3_server.environment).blobs  # type: ignore[arg-type]
    bucket.create("a", b"1", guard="")
    bucket.replace("a", b"2", over=bucket.get("a"), check=allowed)
    with pytest.raises(StaleLease):
        bucket.replace("gone", b"3", over=bucket.get("a"), check=allowed)
    assert isinstance(bucket, S3Blobs)
    assert bucket._conditional


@pytest.mark.integration
def test_missing_bucket_and_wrong_keys_say_so(s3_server: S3Server) -> None:
    query = f"endpoint={s3_server.endpoint}&use_path_style=true"
    with pytest.raises(BackendError, match="create it first"):
        open_backend(f"s3://nowhere?{query}", None, s3_server.environment)  # type: ignore[arg-type]
    wrong = {**s3_server.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(BackendError, match="reading s3://nowhere"):
        open_backend(f"s3://nowhere?{query}", None, wrong)  # type: ignore[arg-type]
