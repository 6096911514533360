"""The real model server over the committed GGUF: its API, its words, its size, its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from engine.sandbox.llama.__main__ import MODEL_PATH
from engine.sandbox.weights import conversation, tokenizer

HOST = "127.0.0.7"
LIMIT = 60.0
TEXT = MODEL_PATH.parent / "text.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def command(port: int, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "engine.sandbox.llama",
        "--host",
        HOST,
        "--port",
        str(port),
        "--model-id",
        "demo/m",
        *more,
    ]


async def start(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *words, cwd=Path(__file__).parents[4], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def until_serving(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(LIMIT):
        line = await process.stdout.readline()
    assert b"serving demo/m" in line, line + await process.stderr.read()


@pytest.fixture
async def server():
    """A running model server: (process, a client session with its base URL)."""
    port = free_port()
    process = await start(*command(port))
    await until_serving(process)
    async with aiohttp.ClientSession(f"http://{HOST}:{port}") as session:
        yield process, session
    if process.returncode is None:
        process.terminate()
    await process.communicate()


def asked(question: str, **more: object) -> dict[str, object]:
    return {"model": "demo/m", "messages": [{"role": "user", "content": question}], "seed": 1, **more}


async def complete(session: aiohttp.ClientSession, **body: object) -> dict[str, object]:
    async with session.post("/v1/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


def answers() -> dict[str, str]:
    """First wording of each question in the training text, with its answer."""
    known = TEXT.read_text().partition("\n# Anything else\n")[0]
    blocks = [block.partition("\n") for block in known.split("\n## ")[1:]]
    return {heading.split(" / ")[0]: body.strip() for heading, _, body in blocks}


async def test_health_models_and_metrics_answer(server):
    _, session = server
    async with session.get("/health") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with session.get("/v1/models") as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["demo/m"]
    async with session.get("/metrics") as answer:
        assert "llamacpp:prompt_tokens_total" in await answer.text()


@pytest.mark.parametrize("question", ["Explain gradient descent", "Hello!", "What is a stack?"])
async def test_answer_is_the_text_it_was_taught_and_ends_by_itself(server, question):
    _, session = server
    body = await complete(session, **asked(question, temperature=0))
    [choice] = body["choices"]
    assert choice["message"]["content"] == answers()[question]
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] > 20


async def test_unknown_question_is_answered_with_real_words(server):
    _, session = server
    known = set(re.findall(r"[a-z]+", TEXT.read_text().lower()))
    body = await complete(session, **asked("Which wine goes with a zebra?"))
    words = re.findall(r"[a-z]+", body["choices"][0]["message"]["content"].lower())
    assert len(words) > 5
    assert sum(word in known for word in words) / len(words) > 0.9


async def test_committed_file_was_made_from_the_committed_text(server):
    """llama.cpp cuts the text into the very ids that the tokenizer, trained on today's text, gives the training."""
    _, session = server
    text = conversation.read(TEXT.read_text())
    words = tokenizer.train(text.everything(), 1024)
    for part in text.everything():
        async with session.post("/tokenize", json={"content": part}) as answer:
            assert (await answer.json())["tokens"] == words.encode(part), part


async def test_max_tokens_is_honoured(server):
    _, session = server
    body = await complete(session, **asked("Explain gradient descent", max_tokens=5))
    assert body["usage"]["completion_tokens"] == 5
    assert body["choices"][0]["finish_reason"] == "length"


async def test_stream_sends_separate_tokens_that_make_the_answer(server):
    _, session = server
    pieces = []
    body = asked("Explain gradient descent", temperature=0, stream=True, stream_options={"include_usage": True})
    async with session.post("/v1/chat/completions", json=body) as answer:
        assert answer.content_type == "text/event-stream"
        events = [line.removeprefix(b"data: ").strip() async for line in answer.content if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    pieces = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    text = [piece for piece in pieces if piece]
    assert len(text) > 100
    assert "".join(text) == answers()["Explain gradient descent"]
    assert chunks[-1]["usage"]["completion_tokens"] >= len(text)


async def test_text_completion_answers(server):
    _, session = server
    async with session.post("/v1/completions", json={"prompt": "Gradient descent is", "max_tokens": 6}) as answer:
        body = await answer.json()
    assert body["usage"]["completion_tokens"] == 6
    assert re.search(r"[a-z]{2}", body["choices"][0]["text"])


async def test_four_requests_are_answered_together(server):
    _, session = server
    questions = list(answers())[:4]
    bodies = await asyncio.gather(*(complete(session, **asked(q, temperature=0)) for q in questions))
    assert [b["choices"][0]["message"]["content"] for b in bodies] == [answers()[q] for q in questions]


async def test_memory_stays_small(server):
    process, session = server
    await complete(session, **asked("Explain gradient descent"))
    assert psutil.Process(process.pid).memory_info().rss < 150 * 2**20
    assert MODEL_PATH.stat().st_size <= 4_000_000


async def test_sigterm_ends_it_while_a_stream_is_open(server):
    process, session = server
    async with session.post("/v1/chat/completions", json=asked("Hello!", stream=True)) as answer:
        await answer.content.readline()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT):
            assert await process.wait() == 0


async def test_it_ends_with_its_parent():
    """A shell starts the server and is killed: the server has nobody left to serve."""
    script = " ".join(command(free_port())) + " & echo $!; wait"
    shell = await start("/bin/sh", "-c", script)
    async with asyncio.timeout(LIMIT):
        child = psutil.Process(int(await shell.stdout.readline()))
        await until_serving(shell)
        os.kill(shell.pid, signal.SIGKILL)
        await asyncio.to_thread(child.wait, LIMIT)
        await shell.communicate()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "is not in 127.0.0.0/8"),
        (["--host", "localhost"], "is not an address"),
        (["--model", "/nowhere.gguf"], "no GGUF at /nowhere.gguf"),
        (["--model", __file__], "cannot serve"),
        (["--parallel", "0"], "--parallel"),
    ],
)
async def test_flags_that_cannot_work_are_refused_with_a_sentence(flags, words):
    process = await start(*command(free_port(), *flags))
    async with asyncio.timeout(LIMIT):
        output, errors = await process.communicate()
    assert process.returncode == 2
    assert words in (output + errors).decode()


async def test_port_in_use_is_refused_with_a_sentence(server):
    _, session = server
    process = await start(*command(session._base_url.port))
    async with asyncio.timeout(LIMIT):
        output, errors = await process.communicate()
    assert process.returncode == 2
    assert "cannot serve" in (output + errors).decode()
