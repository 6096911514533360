"""A sandbox in process on a clock that stands still, and the OpenAPI document to hold its answers against."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

from engine.sandbox.admin import SandboxAdmin
from engine.sandbox.app import SandboxApp
from engine.sandbox.cloud import Cloud
from engine.sandbox.faults import Faults
from engine.sandbox.limits import Limiter, RateLimits
from engine.sandbox.records import Timings
from tests.fakes.clock import FakeClock

DOCUMENT = Path(__file__).resolve().parents[3].parent / "shared" / "reference" / "digitalocean-openapi.json"
GPU = {"region": "nyc2", "size": "gpu-h100x1-80gb", "image": "gpu-h100x1-base"}
CPU = {"region": "nyc3", "size": "s-1vcpu-1gb", "image": "ubuntu-24-04-x64"}


class OpenApiDocument:
    """Judges answers by the document."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.paths = {tuple(p.strip("/").split("/")): v for p, v in data["paths"].items()}
        self._registry = Registry().with_resource("urn:do", DRAFT4.create_resource(data))
        self._data = data
        self._validators: dict[str, OAS30Validator] = {}

    def template(self, path: str) -> tuple[str, ...]:
        parts = path.strip("/").split("/")
        found = [t for t in self.paths if len(t) == len(parts) and _fits(t, parts)]
        assert found, f"{path} is not in the document"
        return min(found, key=lambda t: sum(p.startswith("{") for p in t))

    def check(self, method: str, path: str, status: int, body: bytes) -> None:
        template = self.template(path)
        responses = self.paths[template][method.lower()]["responses"]
        pointer = f"/paths/{_escape('/' + '/'.join(template))}/{method.lower()}/responses/{status}"
        response = responses.get(str(status))
        if response is None and status in (400, 409, 413, 422, 502, 503, 504):
            pointer, response = pointer.rsplit("/", 1)[0] + "/default", responses["default"]
        assert response is not None, f"the document knows no {status} for {method} {path}"
        if "$ref" in response:
            pointer, response = response["$ref"][1:], self._resolve(response["$ref"])
        if "application/yaml" in response.get("content", {}):
            assert body, f"{method} {path} {status}: the document has YAML here"
            return
        content = response.get("content", {}).get("application/json")
        if content is None:
            assert body == b"", f"{method} {path} {status}: the document has no body here"
            return
        schema = f"urn:do#{pointer}/content/application~1json/schema"
        errors = [
            f"{'/'.join(map(str, e.absolute_path))}: {e.message[:300]}"
            for e in self._validator(schema).iter_errors(json.loads(body))
        ]
        assert not errors, f"{method} {path} {status}: {errors}"

    def _validator(self, ref: str) -> OAS30Validator:
        if ref not in self._validators:
            checker = OAS30Validator.FORMAT_CHECKER
            self._validators[ref] = OAS30Validator({"$ref": ref}, registry=self._registry, format_checker=checker)
        return self._validators[ref]

    def _resolve(self, ref: str) -> Any:
        found: Any = self._data
        for part in ref[2:].split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found


def _fits(template: tuple[str, ...], parts: list[str]) -> bool:
    return all(t.startswith("{") or t == p for t, p in zip(template, parts, strict=True))


def _escape(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


@lru_cache(maxsize=1)
def _document() -> OpenApiDocument | None:
    return OpenApiDocument(json.loads(DOCUMENT.read_text())) if DOCUMENT.exists() else None


@pytest.fixture
def document() -> OpenApiDocument:
    if (found := _document()) is None:
        pytest.skip(f"DigitalOcean's OpenAPI document is not at {DOCUMENT}")
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> Cloud:
    return Cloud(clock, Timings(boot_seconds=10), droplet_limit=25)


@pytest.fixture
def app(cloud: Cloud) -> SandboxApp:
    faults, limiter = Faults(), Limiter(RateLimits(0, 0, 0))
    return SandboxApp(cloud, faults, limiter, admin=SandboxAdmin(cloud, faults, limiter))


@pytest.fixture
async def client(app: SandboxApp) -> AsyncIterator[httpx.AsyncClient]:
    """Every answer it gets is held against the document, where that is there."""
    document = _document()

    async def judge(response: httpx.Response) -> None:
        request, body = response.request, await response.aread()
        if document is not None and request.url.path.startswith("/v2/"):
            document.check(request.method, request.url.path, response.status_code, body)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://do.test", event_hooks={"response": [judge]},
        headers={"authorization": "Bearer token-a"},
    ) as client:  # fmt: skip
        yield client


Create = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def create(client: httpx.AsyncClient) -> Create:
    """Create one Droplet; keyword arguments replace or add fields."""

    async def create(name: str = "web-1", **fields: Any) -> dict[str, Any]:
        response = await client.post("/v2/droplets", json={"name": name, **GPU, **fields})
        assert response.status_code == 202, response.text
        droplet: dict[str, Any] = response.json()["droplet"]
        return droplet

    return create


@pytest.fixture
def gpu() -> dict[str, str]:
    return dict(GPU)


@pytest.fixture
def cpu() -> dict[str, str]:
    return dict(CPU)
