"""The `openai` client through the agent to the real model server, as a gateway meets it."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

import httpx
import openai
import pytest

LIMIT = 60.0


@pytest.fixture
async def served(start_agent, free_port):
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine.sandbox.llama", "--port", str(port), "--model-id", "demo/model",
        cwd=Path(__file__).parents[3], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    client = await start_agent(port)
    async with asyncio.timeout(LIMIT):
        await client.agent._watch
    yield client
    process.terminate()
    await process.communicate()


async def test_openai_client_chats_and_streams_through_the_agent(served, identity):
    trusted = ssl.create_default_context(cadata=identity.certificate_pem)
    trusted.check_hostname = False
    http = httpx.AsyncClient(verify=trusted)
    async with openai.AsyncOpenAI(
        base_url=f"{served.base_url}/v1", api_key="token-of-this-deployment", http_client=http
    ) as client:
        messages = [{"role": "user", "content": "Explain gradient descent"}]
        whole = await client.chat.completions.create(model="demo/model", messages=messages, temperature=0)
        stream = await client.chat.completions.create(model="demo/model", messages=messages, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        text = whole.choices[0].message.content
        assert text.startswith("Gradient descent is a way to find the lowest point of a function")
        assert "".join(piece for piece in pieces if piece) == text
        assert len(pieces) > 100
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
    status, body = await served.json("GET", "/healthz")
    assert (status, body["status"], body["in_flight"]) == (200, "ready", 0)
