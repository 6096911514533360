"""`"model": "byom:NAME"` goes to the replicas that serve it; where `model` stands in a body is found unparsed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.gateway.json_members import MOST_STEPS, members
from engine.gateway.multipart import LONGEST_HEADER, Form
from engine.model.errors import InvalidSpec
from engine.store import byom
from engine.store.byom_tables import ByomModelRow

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='ab\\"{}[]:, \u00e9\u2028\x01'),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", 'q"']), part, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(["model", "stream", "messages", 'm"', "\\"]), VALUES), max_size=5),
    st.booleans(), st.sampled_from([None, 2]),
)  # fmt: skip
def test_members_are_those_a_parser_finds(pairs: list[tuple[str, Any]], ascii_only: bool, indent: int | None) -> None:
    text = ",\n".join(f"{json.dumps(k)} : {json.dumps(v, ensure_ascii=ascii_only, indent=indent)}" for k, v in pairs)
    body = f" {{ {text} }} ".encode()
    expected = {k: None if isinstance(v, dict | list) else v for k, v in json.loads(body).items()}
    assert members(body, ("model", "stream")) == {k: v for k, v in expected.items() if k in ("model", "stream")}
    for cut in range(0, len(body), 7):
        members(body[:cut], ("model",))  # ends


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"model"', b'{"model"', b'{"model":', b'{"model":"x', b'{"a":[', b"\x00"]
)
def test_nothing_is_found_in_what_is_not_an_object(body: bytes) -> None:
    assert members(body, ("model",)) == {}


@pytest.mark.parametrize("part", [b"[],", b'"a",', b'{"b": ["\\"]"]},'])
def test_no_more_brackets_are_looked_at_than_a_request_has(part: bytes) -> None:
    ordinary, hostile = part * (MOST_STEPS // 8), b'"":1,' * MOST_STEPS + b'"a":' + b"[" * MOST_STEPS
    assert members(b'{"a": [%b 1], "model": "mine"}' % ordinary, ("model",)) == {"model": "mine"}
    assert members(b'{"stream": true, %b, "model": "mine"}' % hostile, ("model", "stream")) == {"stream": True}


def test_headers_whose_reading_would_take_long_are_refused() -> None:
    long = ";" * LONGEST_HEADER
    with pytest.raises(InvalidSpec, match="send a form"):
        Form(f'multipart/form-data; boundary=b; x="{long}"', "file")
    form = Form("multipart/form-data; boundary=b", "file")
    with pytest.raises(InvalidSpec, match="Content-Disposition"):
        form.feed(b'--b\r\nContent-Disposition: form-data; name="name"; x="%b"\r\n\r\n' % long.encode())


def post(yard: Any, dep: str, content: bytes) -> httpx.Response:
    headers = {**yard.headers, "Content-Type": "application/json", "X-Stackyard-Model": "byom:stolen"}
    return httpx.post(yard.chat_url(dep), headers=headers, content=content, timeout=60)


def test_own_weights_are_called_where_they_are_served(yard: Any, new_worker: Any) -> None:
    first = new_worker()
    second = new_worker(first.identity)
    dep = yard.add_deployment(first, second)
    replicas = [{"id": str(n), "name": f"r1-{n}", "address": "127.0.0.1", "endpoint": worker.endpoint,
                 "phase": "ready", "models": ["mine"] if n else []}
                for n, worker in enumerate((first, second))]  # fmt: skip
    yard.change(dep, replicas=replicas)
    for model in ("byom:mine", "\\u0062yom:mine"):
        for _ in range(3):
            assert (
                post(yard, dep, f'{{"messages":[{{"model":"byom:x"}}],"model":"{model}"}}'.encode()).status_code == 200
            )
    assert (len(first.seen), len(second.seen)) == (0, 6)
    assert {seen.headers["x-stackyard-model"] for seen in second.seen} == {"byom:mine"}
    for _ in range(2):
        assert post(yard, dep, b'{"model":"m","messages":["byom:mine"]}').status_code == 200
    assert len(first.seen) == 1 and "x-stackyard-model" not in first.seen[0].headers
    alone = yard.add_deployment(first, model_id="byom:mine")
    assert post(yard, alone, b'{"model":"byom:mine"}').status_code == 200
    assert post(yard, alone, b'{"model":"byom:other"}').status_code == 404


@pytest.mark.parametrize("name", ["nobody", "a\\r\\nX-Evil: 1", "../x", ""])
def test_unknown_own_weights_are_a_404_in_openais_shape(yard: Any, new_worker: Any, name: str) -> None:
    worker = new_worker()
    answer = post(yard, yard.add_deployment(worker), f'{{"model":"byom:{name}"}}'.encode())
    error = answer.json()["error"]
    assert answer.status_code == 404 and not worker.seen
    assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")


def test_own_weights_that_were_ready_are_waited_for_until_a_new_machine_has_loaded_them(
    yard: Any, new_worker: Any
) -> None:
    worker = new_worker()
    dep, now = yard.add_deployment(worker), yard.clock.now()
    row = ByomModelRow(id="byom_2", org_id="org_1", deployment_id=dep, owner_id=dep, name="mine", phase="ready",
                       created_by="u", created_at=now, updated_at=now)  # fmt: skip
    with yard.database.write() as session:
        byom.insert(session, row)
    replica = {"id": "1", "name": "r1-1", "address": "127.0.0.1", "endpoint": worker.endpoint, "phase": "ready"}
    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(post, yard, dep, b'{"model":"byom:mine"}')
        with pytest.raises(TimeoutError):
            waiting.result(0.5)  # held, not refused
        yard.change(dep, replicas=[replica | {"models": ["mine"]}])
        assert waiting.result(20).status_code == 200
    assert len(worker.seen) == 1


def test_own_weights_on_their_way_are_a_503_that_says_when_to_come_back(yard: Any, new_worker: Any) -> None:
    dep, now = yard.add_deployment(new_worker()), yard.clock.now()
    row = ByomModelRow(id="byom_1", org_id="org_1", deployment_id=dep, owner_id=dep, name="mine", phase="distributing",
                       created_by="u", created_at=now, updated_at=now)  # fmt: skip
    with yard.database.write() as session:
        byom.insert(session, row)
    answer = post(yard, dep, b'{"model":"byom:mine"}')
    assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
    assert "distributing" in answer.json()["error"]["message"]
