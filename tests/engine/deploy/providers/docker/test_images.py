"""The daemon and the images other tests build on: reachable both ways, and really what they say they are."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.fakes.dockerd import DockerDaemon, wait_for
from tests.fakes.images import handler_image, runpod_image

pytestmark = pytest.mark.integration


def test_handler_answers_at_its_address_and_its_published_port(dockerd: DockerDaemon) -> None:
    container = dockerd.client().containers.run(
        handler_image(dockerd), detach=True, ports={"8000/tcp": ("127.0.0.1", 0)}, init=True
    )
    try:
        assert wait_for(lambda: b"listening" in container.logs(), 30)
        container.reload()
        network = container.attrs["NetworkSettings"]
        published = network["Ports"]["8000/tcp"][0]["HostPort"]
        for place in (f"{network['IPAddress']}:8000", f"127.0.0.1:{published}"):
            with urllib.request.urlopen(
                f"http://{place}/run", json.dumps({"input": [1]}).encode(), timeout=10
            ) as answer:
                assert json.load(answer)["output"]["echo"] == [1]
    finally:
        container.remove(force=True)


def test_documents_handler_runs_on_the_real_package(dockerd: DockerDaemon) -> None:
    said = dockerd.client().containers.run(
        runpod_image(dockerd), ["python", "/handler.py", "--test_input", '{"input": {"x": 1}}'], remove=True
    )
    assert b"{'output': {'echo': {'x': 1}}}" in said
