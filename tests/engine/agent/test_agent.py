"""Token, TLS, health, metrics, logs and drain of an agent in this process."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

LIMIT = 60.0


async def test_request_without_or_with_wrong_token_is_refused(client, worker):
    for token in (None, "", "wrong", "token-of-this-deploymen", "tøken"):
        for method, path in (("GET", "/healthz"), ("GET", "/metrics"), ("GET", "/logs"), ("POST", "/drain"),
                             ("POST", "/v1/echo"), ("GET", "/nowhere")):  # fmt: skip
            async with client.request(method, path, token=token) as answer:
                assert answer.status == 401, (token, path)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert (await answer.json())["error"]["code"] == "unauthorized"
    assert worker.seen == []


async def test_token_in_another_scheme_is_refused(client):
    status, _ = await client.json(
        "GET", "/healthz", token=None, headers={"Authorization": "Basic token-of-this-deployment"}
    )
    assert status == 401


async def test_livez_needs_no_token(client):
    assert await client.json("GET", "/livez", token=None) == (200, {"status": "alive"})


async def test_certificate_of_another_deployment_is_refused_by_a_pinning_client(client, other_identity):
    client.pinned = aiohttp.Fingerprint(other_identity.fingerprint)
    with pytest.raises(aiohttp.ServerFingerprintMismatch):
        await client.json("GET", "/livez")


async def test_plain_http_is_never_answered(client):
    with pytest.raises(aiohttp.ClientError):
        async with client.session.get(client.base_url.replace("https", "http") + "/livez"):
            pass


async def test_unknown_path_answers_the_one_error_shape(client):
    status, body = await client.json("GET", "/nowhere")
    assert (status, body["error"]["code"]) == (404, "not_found")
    status, body = await client.json("GET", "/drain")
    assert (status, body["error"]["code"]) == (405, "method_not_allowed")


async def test_health_is_ready_when_health_and_models_answer(client):
    status, body = await client.json("GET", "/healthz")
    assert status == 200
    phases = body.pop("phase_seconds")
    assert body == {
        "status": "ready", "replica": "r1-0", "deployment_id": "dep_test", "model_id": "demo/model",
        "in_flight": 0, "draining": False, "models": [],
    }  # fmt: skip
    assert 0 <= phases["worker_listening"] <= phases["ready"] < LIMIT


async def test_health_goes_from_starting_to_ready_to_unreachable(start_agent, worker):
    worker.health = 503
    client = await start_agent(worker.port)
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"]) == (503, "starting")
    assert body["reason"] == "the model server's /health answers 503"
    assert "ready" not in body["phase_seconds"]

    worker.health, worker.models = 200, ["another/model"]
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"]) == (503, "starting")
    assert body["reason"] == "the model server serves another/model, not demo/model"

    worker.models = ["demo/model"]
    assert (await client.json("GET", "/healthz"))[0] == 200

    worker.health = 500
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"]) == (503, "unreachable")


async def test_health_is_starting_while_nothing_listens(start_agent, free_port):
    client = await start_agent(free_port())
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"]) == (503, "starting")
    assert "cannot be reached" in body["reason"]


async def test_phases_are_timed_even_when_nobody_asks(client):
    async with asyncio.timeout(LIMIT):
        await client.agent._watch
    assert "ready" in client.agent._health.phase_seconds


async def test_metrics_pass_through_the_workers_and_add_the_agents(client, worker):
    worker.go_on.set()
    async with client.request("POST", "/v1/chat/completions") as answer:
        await answer.read()
    async with client.request("GET", "/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert "worker_tokens 7" in lines
    assert 'stackyard_agent_requests_total{code="200"} 1' in lines
    assert "stackyard_agent_in_flight 0" in lines
    assert 'stackyard_agent_time_to_first_token_seconds_bucket{le="+Inf"} 1' in lines
    assert "stackyard_agent_time_to_first_token_seconds_count 1" in lines


async def test_metrics_of_the_agent_are_there_when_the_worker_is_not(start_agent, free_port):
    client = await start_agent(free_port())
    async with client.request("GET", "/metrics") as answer:
        assert answer.status == 200
        assert "stackyard_agent_in_flight 0" in await answer.text()


async def test_draining_agent_refuses_new_requests_and_finishes_open_ones(client, worker):
    async with client.request("POST", "/v1/chat/completions") as open_answer:
        assert await open_answer.content.readline() == b"data: first\n"
        assert await client.json("POST", "/drain") == (200, {"draining": True, "in_flight": 1})
        async with client.request("POST", "/v1/echo", data=b"x") as refused:
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "1"
            assert (await refused.json())["error"]["code"] == "draining"
        status, body = await client.json("GET", "/healthz")
        assert (status, body["draining"], body["in_flight"]) == (200, True, 1)
        worker.go_on.set()
        assert (await open_answer.read()).endswith(b"data: [DONE]\n\n")
    async with asyncio.timeout(LIMIT):
        await client.agent.metrics.idle.wait()
    assert await client.json("POST", "/undrain") == (200, {"draining": False, "in_flight": 0})
    async with client.request("POST", "/v1/echo", data=b"x") as accepted:
        assert accepted.status == 418


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "var/log/stackyard/worker.log"
    path.parent.mkdir(parents=True)
    return path


async def test_logs_answer_the_last_lines(client, log):
    log.write_text("".join(f"line {i}\n" for i in range(50_000)))
    async with client.request("GET", "/logs?tail=2") as answer:
        assert answer.status == 200
        assert await answer.text() == "line 49998\nline 49999\n"
    async with client.request("GET", "/logs") as answer:
        assert len((await answer.text()).splitlines()) == 100
    async with client.request("GET", "/logs?tail=0") as answer:
        assert await answer.text() == ""


async def test_logs_say_when_there_is_no_file(client):
    status, body = await client.json("GET", "/logs")
    assert (status, body["error"]["code"]) == (404, "no_log")


@pytest.mark.parametrize("query", ["tail=-1", "tail=x", "tail=10001", "tail=%C2%B2", "follow=yes"])
async def test_logs_refuse_a_bad_query(client, query):
    status, body = await client.json("GET", f"/logs?{query}")
    assert (status, body["error"]["code"]) == (400, "bad_request")


async def test_logs_follow_what_is_written_and_a_rotated_file(client, log):
    log.write_text("old\nlast\n")
    async with asyncio.timeout(LIMIT), client.request("GET", "/logs?tail=1&follow=1") as answer:
        assert await answer.content.readline() == b"last\n"
        with log.open("a") as file:
            file.write("new\n")
        assert await answer.content.readline() == b"new\n"
        log.rename(log.with_suffix(".1"))
        log.write_text("rotated\n")
        assert await answer.content.readline() == b"rotated\n"


async def test_logs_follow_waits_for_a_missing_file(client, log):
    async with asyncio.timeout(LIMIT), client.request("GET", "/logs?follow=1") as answer:
        log.write_text("hello\n")
        assert await answer.content.readline() == b"hello\n"


async def test_handler_is_ready_when_its_port_is_open_and_runs_jobs(start_agent, worker, free_port, tmp_path):
    client = await start_agent(worker.port, engine="handler")
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"], body["exits"]) == (200, "ready", 0)
    async with client.request("POST", "/run", data=b'{"input": 1}') as answer:
        assert answer.status == 404  # this model server has no /run, and it was asked
    silent = await start_agent(free_port(), engine="handler")
    exits = tmp_path / "var/log/stackyard/worker.exits"
    exits.parent.mkdir(parents=True)
    exits.write_text("1\n137\n")
    status, body = await silent.json("GET", "/healthz")
    assert (status, body["status"], body["exits"], body["exit_code"]) == (503, "starting", 2, 137)
