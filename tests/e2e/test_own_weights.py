"""Own weights on a real installation: the document's upload, its polling loop, and answers of a GGUF made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import engine.sandbox.weights
from engine.proof.installation import Installation, await_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BASE = "/api/v1/public"
TINY = Path(engine.sandbox.weights.__file__).parent / "stackyard-tiny.gguf"
ENVIRONMENT = {
    "STACKYARD_CLOUD_CALLS_PER_MINUTE": "100000",
    "STACKYARD_CLOUD_CALLS_PER_HOUR": "1000000",
    "STACKYARD_HEALTH_PERIOD_SECONDS": "1",
    "STACKYARD_RECONCILE_PERIOD_SECONDS": "1",
    "STACKYARD_DRAIN_SECONDS": "5",
}
SECONDS = 90.0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("own-weights")
    with Installation(folder, boot_seconds=0.1, environment=ENVIRONMENT) as running, running.client() as made:
        made.base_url = httpx.URL(running.url + BASE)
        yield made


def ok(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, f"{answer.status_code}: {answer.text}"
    body: dict[str, Any] = answer.json()
    return body


def own_gguf() -> bytes:
    """The tiny model under another name of its own: other bytes than the one the sandbox serves itself."""
    content = TINY.read_bytes()
    made = content.replace(b"stackyard-tiny", b"my-finetune-7b", 1)
    assert made != content
    return made


def upload(client: httpx.Client, **fields: str) -> dict[str, Any]:
    parts: list[tuple[str, Any]] = [("file", ("my-finetune-7b.gguf", own_gguf()))]
    return ok(client.post("/models/upload", files=parts + [(name, (None, value)) for name, value in fields.items()]))


def until_ready(client: httpx.Client, model_id: str) -> dict[str, Any]:
    def ready() -> bool:
        found = ok(client.get(f"/models/byom/{model_id}"))
        assert found["status"] != "failed", found
        return bool(found["status"] == "ready")

    await_until(ready, seconds=SECONDS, what=f"{model_id} to be ready")
    return ok(client.get(f"/models/byom/{model_id}"))


def active(client: httpx.Client, deployment: str) -> bool:
    return bool(ok(client.get(f"/deployments/{deployment}"))["status"] == "active")


def chat(client: httpx.Client, deployment: str, model: str) -> httpx.Response:
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0}
    return client.post(f"/deployments/{deployment}/chat/completions", json=asked)


def test_own_model_beside_the_catalogs_answers_and_goes(client: httpx.Client) -> None:
    wanted = {"name": "prod", "model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2"}
    deployment = ok(client.post("/deployments", json=wanted))["id"]
    await_until(lambda: active(client, deployment), seconds=SECONDS, what="the deployment")
    made = upload(client, name="my-model-v2", deployment_id=deployment)
    assert made["status"] == "distributing"
    ready = until_ready(client, made["id"])  # machines that leave it room take the place of those that did not
    assert [place["status"] for place in ready["places"] if place["replica"].startswith("r2-")] == ["ready"]

    await_until(lambda: chat(client, deployment, "byom:my-model-v2").is_success, seconds=SECONDS, what="an answer")
    said = ok(chat(client, deployment, "byom:my-model-v2"))
    assert said["model"] == "byom:my-model-v2" and "sandbox" in said["choices"][0]["message"]["content"]
    assert ok(chat(client, deployment, "llama-3.3-70b-instruct"))["model"] == "llama-3.3-70b-instruct"

    def all_listed() -> bool:  # once the machine without room is gone
        listed = [model["id"] for model in ok(client.get(f"/deployments/{deployment}/models"))["data"]]
        return listed == ["llama-3.3-70b-instruct", "byom:my-model-v2"]

    await_until(all_listed, seconds=SECONDS, what="the list of models")
    unknown = chat(client, deployment, "byom:nothing")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")

    ok(client.delete(f"/models/byom/{made['id']}"))
    await_until(lambda: ok(client.get(f"/models/byom/{made['id']}"))["status"] == "deleted", seconds=SECONDS,
                what="the model's end")  # fmt: skip
    await_until(lambda: chat(client, deployment, "byom:my-model-v2").status_code == 404, seconds=SECONDS, what="a 404")
    stored = client.get(str(client.base_url).replace(BASE + "/", "/v1/storage"))
    assert ok(stored)["data"] == []
    ok(client.delete(f"/deployments/{deployment}"))


def test_deployment_of_own_weights_alone(client: httpx.Client) -> None:
    wanted = {"name": "solo", "model_id": "byom:solo", "gpu_type": "h100", "region": "nyc2"}
    early = client.post("/deployments", json=wanted)
    assert early.status_code == 404 and "upload it without a deployment_id first" in early.text
    content, facts = own_gguf(), {"name": "solo"}
    begun = ok(client.post("/models/uploads", json=facts | {"size_bytes": len(content)}))
    assert client.put(begun["parts"][0]["upload_url"], content=content, headers={"authorization": ""}).is_success
    ok(client.post(f"/models/uploads/{begun['upload_id']}/complete"))
    model = until_ready(client, begun["model"]["id"])
    assert model["header"]["architecture"] == "llama"

    deployment = ok(client.post("/deployments", json=wanted))["id"]
    await_until(lambda: active(client, deployment), seconds=SECONDS, what="the deployment")
    said = ok(chat(client, deployment, "byom:solo"))
    assert said["model"] == "byom:solo" and "sandbox" in said["choices"][0]["message"]["content"]
    in_use = client.delete(f"/models/byom/{model['id']}")
    assert in_use.status_code == 409 and deployment in in_use.text
    ok(client.delete(f"/deployments/{deployment}"))
    gone = f"/deployments/{deployment}"
    await_until(lambda: ok(client.get(gone))["status"] == "inactive", seconds=SECONDS, what="the teardown")
    ok(client.delete(f"/models/byom/{model['id']}"))
