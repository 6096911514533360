"""What is not inference goes to the API over its socket, both ways streamed."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest


class EchoApi:
    """Answers with what it got; `/slow` waits between its two halves."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.go_on = threading.Event()
        self.gone = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        query = scope["query_string"].decode()
        text = f"{scope['method']} {scope['raw_path'].decode()} {query} {size}".encode()
        await send({"type": "http.response.start", "status": 207, "headers": [(b"x-api", b"1"), (b"set-cookie", b"a=b"),
                                                                              (b"set-cookie", b"c=d")]})  # fmt: skip
        await send({"type": "http.response.body", "body": text, "more_body": True})
        if scope["path"] == "/hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
            return
        await send({"type": "http.response.body", "body": b"!"})


def test_request_and_answer_pass_through(yard: Any, serve_api: Any) -> None:
    api = EchoApi()
    serve_api(api)
    answer = httpx.patch(f"{yard.url}/a%2Fb?x=%20y", content=b"12345", headers={"X-Forwarded-For": "6.6.6.6"})
    assert (answer.status_code, answer.text) == (207, "PATCH /a%2Fb x=%20y 5!")
    assert answer.headers["x-api"] == "1" and answer.headers.get_list("set-cookie") == ["a=b", "c=d"]
    assert api.headers["x-forwarded-for"] == "127.0.0.1" and api.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-request-id"] == api.headers["x-request-id"]


def test_long_upload_is_streamed_and_limited(yard: Any, serve_api: Any) -> None:
    api = EchoApi()
    serve_api(api)
    part = b"x" * 65536
    assert httpx.post(f"{yard.url}/up", content=(part for _ in range(16))).text == f"POST /up  {16 * 65536}!"
    for content in ((part for _ in range(20)), part * 20):
        answer = httpx.post(f"{yard.url}/up", content=content)
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "payload_too_large"


def test_client_that_leaves_ends_the_call_to_the_api(yard: Any, serve_api: Any) -> None:
    api = EchoApi()
    serve_api(api)
    with httpx.stream("GET", f"{yard.url}/hang") as answer:
        assert next(answer.iter_bytes()).startswith(b"GET /hang")
    assert api.gone.wait(30)


def test_api_that_is_down_is_a_503_and_does_not_stop_the_gateway(yard: Any) -> None:
    answer = httpx.get(f"{yard.url}/api/v1/public/deployments", headers=yard.headers)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
    assert "API process" in answer.json()["error"]["message"] and answer.headers["retry-after"] == "2"
    assert httpx.get(f"{yard.url}/healthz").json() == {"status": "ok"}
    metrics = httpx.get(f"{yard.url}/metrics").text
    assert 'stackyard_gateway_requests_total{kind="api",status="503"} 1.0' in metrics


@pytest.mark.parametrize("path", ["deployments/dep_unknown/chat/completions"])
def test_unknown_deployment_is_left_to_the_api(yard: Any, serve_api: Any, path: str) -> None:
    serve_api(EchoApi())
    assert httpx.post(f"{yard.url}/api/v1/public/{path}", headers=yard.headers, json={}).status_code == 207
