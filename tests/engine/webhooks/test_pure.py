"""When it is tried again, how it is signed, and where it may go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.errors import InvalidSpec
from engine.webhooks import signature
from engine.webhooks.address import AddressRule, url_shown
from engine.webhooks.schedule import PAUSES, DeliveryState, Outcome, Schedule, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def attempts_until_given_up(schedule: Schedule) -> tuple[int, timedelta]:
    now, attempts = NOW, 1
    while (verdict := judge(Outcome(500, "answered 500"), schedule, attempts, now)).again_at is not None:
        now, attempts = verdict.again_at, attempts + 1
    assert verdict.state is DeliveryState.GIVEN_UP
    return attempts, now - NOW


def test_event_is_tried_five_times_over_ten_minutes() -> None:
    assert attempts_until_given_up(Schedule.EVENT) == (5, timedelta(minutes=10))


def test_job_is_tried_for_more_than_a_day() -> None:
    attempts, lasted = attempts_until_given_up(Schedule.JOB)
    assert attempts == 14 and lasted > timedelta(hours=24)


@given(st.sampled_from(Schedule), st.integers(1, 20), st.floats(0, 0.999), st.integers(0, 10**6))
def test_never_sooner_than_the_pause_and_what_the_receiver_asks(
    schedule: Schedule, attempts: int, jitter: float, asked: int
) -> None:
    verdict = judge(
        Outcome(503, "answered 503", retry_after=timedelta(seconds=asked)), schedule, attempts, NOW, jitter=jitter
    )
    if verdict.again_at is not None:
        pause = PAUSES[schedule][attempts - 1]
        wait = verdict.again_at - NOW
        assert wait >= pause and wait >= min(timedelta(seconds=asked), timedelta(hours=4))
        assert wait <= max(pause * 1.1, timedelta(hours=4))
    else:
        assert attempts > len(PAUSES[schedule])


def test_what_ends_a_delivery_at_once() -> None:
    assert judge(Outcome(204), Schedule.JOB, 1, NOW).state is DeliveryState.DELIVERED
    assert judge(Outcome(410, "answered 410"), Schedule.JOB, 1, NOW).state is DeliveryState.GIVEN_UP
    assert judge(Outcome(None, "private", is_final=True), Schedule.JOB, 1, NOW).state is DeliveryState.GIVEN_UP


def test_standard_webhooks_known_answer() -> None:
    """The example of the specification's reference libraries."""
    made = signature.headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC), b'{"test": 2432232314}',
    )  # fmt: skip
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert made["webhook-timestamp"] == "1614265330"


def verify_webhook(body: bytes, sig_header: str, secret: str) -> bool:
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={mac}", sig_header)


def test_documented_check_accepts_what_we_send_and_nothing_else() -> None:
    secret = signature.new_secret()
    made = signature.headers([secret], "whd_1", NOW, b"{}")["x-stackyard-signature"]
    assert verify_webhook(b"{}", made, secret)
    assert not verify_webhook(b"{ }", made, secret) and not verify_webhook(b"{}", made, signature.new_secret())
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"))) <= 64


def test_two_keys_sign_while_one_is_replaced() -> None:
    new, old = signature.new_secret(), signature.new_secret()
    both = signature.headers([new, old], "whd_1", NOW, b"{}")["webhook-signature"].split()
    assert both == [signature.headers([k], "whd_1", NOW, b"{}")["webhook-signature"] for k in (new, old)]


def test_secret_of_a_job_goes_into_its_address() -> None:
    signed = signature.signed_secret("whsec_x", "job_1")
    assert signature.with_secret("https://a.example/h?b=1&secret=old#x", "whsec_x", "job_1") == (
        f"https://a.example/h?b=1&secret={signed}"
    )


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://10.1.2.3:80/x", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "http://localhost/",
     "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://0.0.0.0/", "http://[fe80::1]/",
     "http://[64:ff9b::a00:1]/", "http://[2002:7f00:1::]/", "http://224.0.0.1/", "http://api.localhost/",
     "http://１２７.0.0.1/", "http://169。254。169。254/", "http://①②⑦.⓪.⓪.①:8080/x", "http://ｌocalhost./"],
)  # fmt: skip
def test_places_that_are_not_public_are_refused(url: str) -> None:
    with pytest.raises(InvalidSpec, match="not a public address"):
        AddressRule().check_url(url)


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a.example/", "https:///x", "https://user:pw@a.example/", "https://a.example:0/", "https://a.example:x/",
     "https://a.example/ x", "https://a.example/" + "x" * 2048, "http://127.1/", "http://2130706433/",
     "https://a.example/\ud800"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidSpec, match="webhook URL"):
        AddressRule().check_url(url)


def test_operators_may_allow_a_network() -> None:
    rule = AddressRule.of("10.0.0.0/8, ::1/128")
    assert rule.check_url("http://10.1.2.3/x") and rule.check_url("http://[::1]:8080/")
    assert rule.check_url("https://hooks.example/x")
    with pytest.raises(InvalidSpec, match="not a public address"):
        rule.check_url("http://192.168.0.1/")
    with pytest.raises(InvalidSpec, match=r"write them as 10\.0\.0\.0/8"):
        AddressRule.of("10.0.0.0/8,everything")


@given(st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fc00::/7"))
def test_no_form_of_a_private_address_is_admitted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    rule = AddressRule()
    assert not rule.admits(address)
    if isinstance(address, ipaddress.IPv4Address):
        number = int(address)
        for base in ("::ffff:0:0", "64:ff9b::"):
            assert not rule.admits(ipaddress.IPv6Address(int(ipaddress.IPv6Address(base)) + number))
        assert not rule.admits(ipaddress.IPv6Address((0x2002 << 112) + (number << 80)))


def test_what_is_shown_holds_no_secret() -> None:
    assert url_shown("https://a.example:8443/h/1?token=x#y") == "https://a.example:8443/h/1"
    assert url_shown("http://[2001:db8::1]:80/") == "http://[2001:db8::1]:80/"
