"""The byte path through real sockets: uvicorn in front, a TLS worker behind, SQLite beside."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from engine.store import keys

BODY = {"model": "m", "messages": [{"role": "user", "content": "Explain"}], "max_tokens": 5, "x_custom": [1, None]}


def post(yard: Any, deployment_id: str, **options: Any) -> httpx.Response:
    options.setdefault("headers", yard.headers)
    if "content" not in options:
        options.setdefault("json", BODY)
    return httpx.post(yard.chat_url(deployment_id), timeout=60, **options)


def test_request_reaches_the_worker_unchanged_but_for_its_credentials(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = yard.add_deployment(worker)
    content = b'{ "model":"m", "messages": [],\n "temperature": 0.70 }'
    answer = post(yard, dep, content=content, headers={
        **yard.headers, "Content-Type": "application/json; charset=utf-8", "X-Custom": "kept", "Cookie": "a=secret",
        "Connection": "keep-alive, X-Hop", "X-Hop": "dropped", "X-Request-Id": "mine-1",
    })  # fmt: skip
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"].startswith("Gradient")
    assert answer.headers["x-request-id"] == "mine-1"
    seen = worker.seen[0]
    assert (seen.path, seen.body) == ("/v1/chat/completions", content)
    assert seen.headers["authorization"] == f"Bearer {worker.identity.token}"
    assert seen.headers["content-type"] == "application/json; charset=utf-8" and seen.headers["x-custom"] == "kept"
    assert seen.headers["x-request-id"] == "mine-1"
    assert "cookie" not in seen.headers and "x-hop" not in seen.headers
    assert yard.key not in json.dumps(seen.headers)


def test_json_sent_with_curls_content_type_is_json_for_the_worker(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = yard.add_deployment(worker)
    headers = {**yard.headers, "Content-Type": "application/x-www-form-urlencoded"}
    assert post(yard, dep, content=json.dumps(BODY).encode(), headers=headers).status_code == 200
    assert worker.seen[0].headers["content-type"] == "application/json"


def test_stream_first_byte_arrives_before_the_second_exists(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    worker.answer = worker.stream_when_told
    dep = yard.add_deployment(worker)
    with httpx.stream(
        "POST", yard.chat_url(dep), headers=yard.headers, json={**BODY, "stream": True}, timeout=60
    ) as answer:
        chunks = answer.iter_bytes()
        assert b"Gradient" in next(chunks)
        assert answer.headers["content-type"].startswith("text/event-stream")
        worker.go_on.set()
        rest = b"".join(chunks)
    assert b"downhill" in rest and rest.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_cancels_the_worker_at_once(yard: Any, new_worker: Any, stream: bool) -> None:
    worker = new_worker()
    worker.answer = worker.stream_when_told if stream else worker.hang
    dep = yard.add_deployment(worker)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(yard.chat_url(dep), headers=yard.headers, json=BODY, timeout=0.5)
    assert worker.cancelled.wait(30)
    assert "stackyard_gateway_clients_gone_total 1.0" in httpx.get(f"{yard.url}/metrics").text


def test_openai_client_works_with_base_url_and_key_changed(yard: Any, new_worker: Any) -> None:
    dep = yard.add_deployment(new_worker())
    client = openai.OpenAI(
        base_url=f"{yard.url}/api/v1/public/deployments/{dep}", api_key=yard.key, max_retries=0, timeout=60
    )
    with client:
        messages: Any = BODY["messages"]
        whole = client.chat.completions.create(model="m", messages=messages)
        assert whole.choices[0].message.content == "Gradient descent walks downhill."
        words = [
            c.choices[0].delta.content
            for c in client.chat.completions.create(model="m", messages=messages, stream=True)
        ]
        assert words == ["Gradient", " descent", " walks", " downhill", "."]
        assert [m.id for m in client.models.list()] == ["m"]
        client.api_key = "sk_wrong"
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="m", messages=messages)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk_nobody"}, {"Authorization": "Basic abc"}])
def test_missing_or_unknown_key_is_refused(yard: Any, new_worker: Any, headers: dict[str, str]) -> None:
    worker = new_worker()
    answer = post(yard, yard.add_deployment(worker), headers=headers)
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer" and not worker.seen


def test_revoked_key_is_refused_within_a_second_while_the_api_is_down(yard: Any, new_worker: Any) -> None:
    dep = yard.add_deployment(new_worker())
    key = yard.add_key()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(timeout=60, headers=headers) as client:
        assert client.post(yard.chat_url(dep), json=BODY).status_code == 200
        with yard.database.write() as session:
            keys.revoke(session, yard.key_id, yard.clock.now())
        deadline = time.monotonic() + 1
        while (answer := client.post(yard.chat_url(dep), json=BODY)).status_code == 200:
            assert time.monotonic() < deadline
    assert answer.status_code == 401 and "revoked" in answer.json()["error"]["message"]


def test_new_key_and_new_deployment_work_at_once(yard: Any, new_worker: Any) -> None:
    for _ in range(5):
        dep, key = yard.add_deployment(new_worker()), yard.add_key()
        assert post(yard, dep, headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_deployment_that_just_became_active_is_never_refused(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = yard.add_deployment(phase="provisioning")
    assert post(yard, dep).status_code == 409
    yard.change(dep, worker, phase="active", worker_fingerprint=worker.identity.fingerprint,
                worker_token_sealed=yard.sealer.seal(worker.identity.token))  # fmt: skip
    assert post(yard, dep).status_code == 200


@pytest.mark.parametrize("phase", ["provisioning", "teardown", "failed"])
def test_not_serving_is_a_409_with_the_status(yard: Any, new_worker: Any, phase: str) -> None:
    worker = new_worker()
    answer = post(yard, yard.add_deployment(worker, phase=phase))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["status"]) == (409, "conflict", phase)
    assert not worker.seen


@pytest.mark.parametrize("phase", ["active", "scaling", "degraded"])
def test_serving_phases_answer_and_say_503_without_a_ready_replica(yard: Any, new_worker: Any, phase: str) -> None:
    assert post(yard, yard.add_deployment(new_worker(), phase=phase)).status_code == 200
    answer = post(yard, yard.add_deployment(phase=phase))
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "unavailable"


def test_accepted_delete_stops_serving_before_the_reconciler_moves(yard: Any, new_worker: Any) -> None:
    dep = yard.add_deployment(new_worker())
    yard.change(dep, delete_requested_at=yard.clock.now())
    time_limit = time.monotonic() + 1
    while (answer := post(yard, dep)).status_code == 200:
        assert time.monotonic() < time_limit
    assert answer.json()["error"]["details"]["status"] == "teardown"


def test_org_scoped_path_serves_members_only(yard: Any, new_worker: Any) -> None:
    dep = yard.add_deployment(new_worker())
    base = f"{yard.url}/api/v1/public/orgs"
    path = f"deployments/{dep}/chat/completions"
    assert httpx.post(f"{base}/org_1/{path}", headers=yard.headers, json=BODY).status_code == 200
    assert httpx.post(f"{base}/org_2/{path}", headers=yard.headers, json=BODY).status_code == 404
    other = {"Authorization": f"Bearer {yard.add_key('org_2')}"}
    assert httpx.post(f"{base}/org_1/{path}", headers=other, json=BODY).status_code == 404


@pytest.mark.parametrize("chunked", [True, False])
def test_body_over_the_limit_is_a_413_and_never_reaches_the_worker(yard: Any, new_worker: Any, chunked: bool) -> None:
    worker = new_worker()
    dep = yard.add_deployment(worker)
    part = b"x" * 65536
    content: Any = (part for _ in range(20)) if chunked else part * 20
    answer = post(yard, dep, content=content)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "payload_too_large" and not worker.seen
    assert post(yard, dep, content=part * 16).status_code != 413


def test_wrong_method_is_a_405_that_names_the_right_one(yard: Any) -> None:
    answer = httpx.get(yard.chat_url(yard.add_deployment()), headers=yard.headers)
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_requests_go_to_the_least_busy_replica(yard: Any, new_worker: Any) -> None:
    first = new_worker()
    second = new_worker(first.identity)
    dep = yard.add_deployment(first, second)
    for _ in range(4):
        assert post(yard, dep).status_code == 200
    assert len(first.seen) == len(second.seen) == 2


def test_replica_that_cannot_be_reached_is_skipped(yard: Any, new_worker: Any) -> None:
    first = new_worker()
    second = new_worker(first.identity)
    dep = yard.add_deployment(first, second)
    first.close()
    assert [post(yard, dep).status_code for _ in range(4)] == [200] * 4
    second.close()
    answer = post(yard, dep)
    assert answer.status_code == 502 and answer.json()["error"]["details"]["reason"] == "no_connection"


def test_worker_with_another_certificate_never_gets_the_request(yard: Any, new_worker: Any) -> None:
    worker, stranger = new_worker(), new_worker()
    dep = yard.add_deployment(worker)
    yard.change(dep, stranger)
    answer = post(yard, dep)
    assert answer.status_code == 502 and answer.json()["error"]["details"]["reason"] == "wrong_certificate"
    assert not stranger.seen


def test_worker_that_refuses_our_token_is_not_shown_as_the_callers_fault(yard: Any, new_worker: Any) -> None:
    dep = yard.add_deployment(new_worker())
    yard.change(dep, worker_token_sealed=yard.sealer.seal("wrong"))
    time_limit = time.monotonic() + 1
    while (answer := post(yard, dep)).status_code == 200:
        assert time.monotonic() < time_limit
    assert answer.status_code == 502 and answer.json()["error"]["details"]["reason"] == "refused_gateway"


def test_worker_errors_pass_through_as_they_are(yard: Any, new_worker: Any) -> None:
    worker = new_worker()

    async def too_long(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "context too long"}}, status=400, headers={"x-worker": "1"})

    worker.answer = too_long
    answer = post(yard, yard.add_deployment(worker))
    assert answer.status_code == 400 and answer.json()["error"]["message"] == "context too long"
    assert answer.headers["x-worker"] == "1"


def test_worker_that_dies_in_mid_stream_is_reported_in_the_stream(yard: Any, new_worker: Any) -> None:
    worker = new_worker()

    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: {}\n\n")
        await asyncio.sleep(0)
        assert request.transport
        request.transport.abort()
        return response

    worker.answer = die
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream(
            "POST", yard.chat_url(yard.add_deployment(worker)), headers=yard.headers, json=BODY, timeout=60
        ) as answer,
    ):
        for chunk in answer.iter_bytes():
            received += chunk
    event = received.rsplit(b"data: ", 1)[1]
    assert json.loads(event)["error"]["code"] == "bad_gateway"


def test_ambiguous_request_framing_is_refused(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = yard.add_deployment(worker)
    host, port = yard.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        path = f"/api/v1/public/deployments/{dep}/chat/completions"
        raw.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {yard.key}\r\n"
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n".encode()
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 400")
    assert not worker.seen


def agent_error(status: int, code: str) -> web.Response:
    """An error of the agent itself."""
    body = {"error": {"code": code, "message": "go"}}
    return web.json_response(body, status=status, headers={"X-Stackyard-Agent-Error": code})


@pytest.mark.parametrize(("status", "code", "calls"), [(502, "worker_broke_off", 2), (502, "worker_unreachable", 3)])
def test_request_that_kills_model_servers_is_sent_twice_at_most(
    yard: Any, new_worker: Any, status: int, code: str, calls: int
) -> None:
    workers = [new_worker()]
    workers += [new_worker(workers[0].identity) for _ in range(2)]

    async def broken(request: web.Request) -> web.Response:
        return agent_error(status, code)

    for worker in workers:
        worker.answer = broken
    assert post(yard, yard.add_deployment(*workers)).status_code == 502
    assert sum(len(worker.seen) for worker in workers) == calls


@pytest.mark.parametrize("status", [502, 503])
def test_model_servers_own_refusal_is_passed_on(yard: Any, new_worker: Any, status: int) -> None:
    workers = [new_worker()]
    workers += [new_worker(workers[0].identity)]

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "full"}}, status=status)

    for worker in workers:
        worker.answer = refuse
    answer = post(yard, yard.add_deployment(*workers))
    assert answer.status_code == status and answer.json()["error"]["message"] == "full"
    assert sum(len(worker.seen) for worker in workers) == 1


def test_draining_replica_hands_requests_to_another(yard: Any, new_worker: Any) -> None:
    first = new_worker()
    second = new_worker(first.identity)

    async def draining(request: web.Request) -> web.Response:
        return agent_error(503, "draining")

    first.answer = draining
    dep = yard.add_deployment(first, second)
    assert [post(yard, dep).status_code for _ in range(4)] == [200] * 4
    second.answer = draining
    answer = post(yard, dep)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "draining"


@pytest.mark.parametrize(
    ("method", "path", "at_worker"),
    [
        ("POST", "embeddings", "/v1/embeddings"),
        ("POST", "rerank", "/v1/rerank"),
        ("POST", "audio/transcriptions", "/v1/audio/transcriptions"),
        ("POST", "tokenize", "/tokenize"),
        ("POST", "responses", "/v1/responses"),
        ("POST", "responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
        ("GET", "responses/resp_1?include=x", "/v1/responses/resp_1?include=x"),
        ("DELETE", "responses/resp_1", "/v1/responses/resp_1"),
    ],
)
def test_calls_reach_the_workers_path_and_its_404_the_client(
    yard: Any, new_worker: Any, method: str, path: str, at_worker: str
) -> None:
    worker = new_worker()
    missing = {"error": {"message": "Not Found", "type": "NotFoundError", "param": None, "code": 404}}

    async def not_here(request: web.Request) -> web.Response:
        return web.json_response(missing, status=404)

    worker.answer = worker.answer_get = not_here
    url = yard.chat_url(yard.add_deployment(worker)).replace("chat/completions", path)
    for prefix in ("public/deployments", "public/orgs/org_1/deployments"):
        answer = httpx.request(method, url.replace("public/deployments", prefix), headers=yard.headers, timeout=60)
        assert (answer.status_code, answer.json()) == (404, missing)
    assert [seen.path for seen in worker.seen] == [at_worker] * 2


@pytest.mark.parametrize("path", ["responses/..%2f..%2fdrain", "responses/a%0d%0aX: 1", "admin", "responses/a/b"])
def test_no_other_path_reaches_a_worker(yard: Any, new_worker: Any, path: str) -> None:
    worker = new_worker()
    url = yard.chat_url(yard.add_deployment(worker)).replace("chat/completions", path)
    assert httpx.get(url, headers=yard.headers, timeout=60).status_code == 503  # it is the API's, which is not there
    assert not worker.seen
