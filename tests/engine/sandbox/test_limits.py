"""Request limits per token."""

from __future__ import annotations

from engine.sandbox.limits import Limiter, RateLimits


async def test_minute_limit_refuses_and_lets_back_in(client, clock, app):
    app.limiter.set(RateLimits(per_hour=5000, per_minute=250))
    first = clock.now().timestamp()
    for left in range(4999, 4749, -1):
        response = await client.get("/v2/account")
        assert response.headers["ratelimit-limit"] == "5000"
        assert response.headers["ratelimit-remaining"] == str(left)
        assert response.headers["ratelimit-reset"] == str(int(first) + 3600)
    refused = await client.get("/v2/account")
    assert refused.status_code == 429
    assert refused.json()["id"] == "too_many_requests"
    assert (refused.headers["retry-after"], refused.headers["ratelimit-remaining"]) == ("60", "0")
    assert (await client.get("/v2/account", headers={"authorization": "Bearer other"})).status_code == 200
    clock.advance(60)
    assert (await client.get("/v2/account")).headers["ratelimit-remaining"] == "4749"


def test_windows_roll_request_by_request():
    limiter = Limiter(RateLimits(per_hour=0, per_minute=2))
    verdicts = [limiter.check("t", "GET", "/v2/droplets", now) for now in (0, 30, 59, 60, 61, 90)]
    assert [v.passes for v in verdicts] == [True, True, False, True, False, True]
    assert verdicts[2].retry_after_seconds == 1
    assert verdicts[4].retry_after_seconds == 29


def test_hour_limit_outlasts_the_minute():
    limiter = Limiter(RateLimits(per_hour=3, per_minute=100))
    verdicts = [limiter.check("t", "GET", "/v2/droplets", now) for now in (0, 600, 1200, 1800, 3600)]
    assert [v.passes for v in verdicts] == [True, True, True, False, True]
    assert (verdicts[3].retry_after_seconds, verdicts[3].limit) == (1800, 3)


def test_list_of_keys_has_a_limit_of_its_own():
    limiter = Limiter(RateLimits(per_hour=5000, per_minute=250, keys_per_minute=2))
    path = "/v2/account/keys"
    assert [limiter.check("t", "GET", path, 0).passes for _ in range(3)] == [True, True, False]
    assert limiter.check("t", "POST", path, 0).passes
    assert limiter.check("t", "GET", f"{path}/1", 0).passes


def test_never_more_than_the_limit_in_any_minute():
    limiter = Limiter(RateLimits(per_hour=0, per_minute=5))
    passed = [t for t in range(0, 600, 3) if limiter.check("t", "GET", "/", float(t)).passes]
    assert all(sum(start <= t < start + 60 for t in passed) <= 5 for start in range(600))
    assert len(passed) == 50


async def test_no_limits_no_headers(client):
    assert "ratelimit-limit" not in (await client.get("/v2/account")).headers
