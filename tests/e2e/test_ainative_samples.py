"""AINative's own samples and the `openai` client against a real installation: real gateway, stack, agent and model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pytest

from engine.proof.installation import Installation, await_until

pytestmark = pytest.mark.e2e

SAMPLES = Path(__file__).parents[1] / "api" / "golden" / "ainative-samples.py.txt"
HOST = "https://api.ainative.studio"


class Reader:
    """Somebody who copies the document's samples one after the other into one Python session."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        text = SAMPLES.read_text().split("# --- ")[1:]
        self._code = {name: code for name, _, code in (part.partition("\n") for part in text)}
        self.session: dict[str, Any] = {}

    def run(self, name: str) -> None:
        """Execute one sample with host and key changed."""
        code = self._code[name].replace(HOST, self._installation.url).replace("sk_your_key", self._installation.api_key)
        exec(compile(code, name, "exec"), self.session)


def test_samples_run_against_a_real_installation(
    installation: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: pause(min(seconds, 0.1)))
    reader = Reader(installation)
    reader.run("create")
    dep_id, status = capsys.readouterr().out.split()
    assert dep_id.startswith("dep_") and status == "provisioning"
    reader.run("poll")
    ready = capsys.readouterr().out
    assert ready.startswith("Ready: ")
    reader.run("inference")
    assert "downhill" in capsys.readouterr().out
    openai_client_talks(installation, ready.removeprefix("Ready: ").strip())
    reader.run("scaling")
    reader.run("billing")
    assert capsys.readouterr().out == "$4.41/hr × 730 = $3219.30/mo projected\n"
    reader.run("teardown")
    with installation.client() as client:
        path = f"/api/v1/public/deployments/{dep_id}"
        await_until(lambda: client.get(path).json()["status"] == "inactive", seconds=30, what="the teardown")
    assert installation.droplets() == []


def openai_client_talks(installation: Installation, endpoint_url: str) -> None:
    """`endpoint_url` and a key are all the client needs; answers come whole and as a stream."""
    with openai.OpenAI(base_url=endpoint_url, api_key=installation.api_key) as client:
        asked: dict[str, Any] = {
            "model": "llama-3.3-70b-instruct",
            "messages": [{"role": "user", "content": "Hello!"}],
            "max_tokens": 40,
        }
        whole = client.chat.completions.create(**asked)
        assert "sandbox" in (whole.choices[0].message.content or "")
        stream = client.chat.completions.create(**asked, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert len([p for p in pieces if p]) > 5
        listed = client.models.list()
        assert [m.id for m in listed.data] == ["llama-3.3-70b-instruct"]
