from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.errors import Forbidden
from engine.storage.signing import METHODS, Grant, UrlSigner, Use

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SIGNER = UrlSigner(b"0123456789abcdef0123456789abcdef")

subjects = st.from_regex(r"(obj|ups)_[0-9a-z]{16}", fullmatch=True)
grants = st.builds(
    Grant,
    subject=subjects,
    use=st.sampled_from(Use),
    expires_at=st.integers(1, 10**6).map(lambda seconds: NOW + timedelta(seconds=seconds)),
    part=st.integers(0, 10_000),
)


def parts(url: str) -> tuple[str, str]:
    split = urlsplit(url)
    return split.path, split.query


@settings(deadline=None)
@given(grants)
def test_what_was_signed_is_what_is_granted_until_it_expires(grant: Grant) -> None:
    path, query = parts(SIGNER.path(grant))
    for method in METHODS[grant.use]:
        assert SIGNER.check(method, path, query, NOW) == grant
        assert SIGNER.check(method, path, query, grant.expires_at - timedelta(seconds=1)) == grant
        with pytest.raises(Forbidden, match="expired"):
            SIGNER.check(method, path, query, grant.expires_at)
    for method in {"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"} - METHODS[grant.use]:
        with pytest.raises(Forbidden, match="signed for"):
            SIGNER.check(method, path, query, NOW)


@settings(deadline=None)
@given(grants, st.data())
def test_one_changed_character_is_refused(grant: Grant, data: st.DataObject) -> None:
    url = SIGNER.path(grant)
    at = data.draw(st.integers(url.index(grant.subject), len(url) - 1))
    other = data.draw(st.characters(codec="ascii", exclude_characters=url[at]))
    path, _, query = (url[:at] + other + url[at + 1 :]).partition("?")
    for method in ("PUT", "GET"):
        with pytest.raises(Forbidden):
            SIGNER.check(method, path, query, NOW)


@settings(deadline=None)
@given(grants, grants)
def test_no_field_may_be_taken_from_another_url(one: Grant, other: Grant) -> None:
    path, query = parts(SIGNER.path(one))
    _, others_query = parts(SIGNER.path(other))
    if one == other:
        return
    signature, others = query.rpartition("=")[2], others_query.rpartition("=")[2]
    for method in ("PUT", "GET"):
        with pytest.raises(Forbidden):
            SIGNER.check(method, path, query.replace(signature, others), NOW)


def test_another_installation_signs_otherwise() -> None:
    path, query = parts(UrlSigner(b"another secret of this length...").path(Grant("obj_1", Use.PUT, NOW, 0)))
    with pytest.raises(Forbidden):
        SIGNER.check("PUT", path, query, NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda q: "",
        lambda q: q + "&part=1",
        lambda q: q + "&x=1",
        lambda q: q.replace("part=0", "part=00"),
        lambda q: q.replace("part=0", "part=%D9%A0"),  # an Arabic zero: int() would take it
        lambda q: q.replace("expires=", "expires=+"),
        lambda q: q.replace("signature=", "signature=%C3%A9"),
        lambda q: q.replace("&", ";"),
    ],
)
def test_other_spellings_are_refused(change: object) -> None:
    path, query = parts(SIGNER.path(Grant("obj_1", Use.PUT, NOW + timedelta(hours=1))))
    assert SIGNER.check("PUT", path, query, NOW)
    with pytest.raises(Forbidden):
        SIGNER.check("PUT", path, change(query), NOW)  # type: ignore[operator]
