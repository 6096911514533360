"""The agent's HTTP surface: token, health, metrics, logs, drain, and the way to the model server. Not its process."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from engine.agent import log_tail
from engine.agent.health import HandlerHealth, WorkerHealth
from engine.agent.metrics import Metrics
from engine.agent.own_models import Order, OwnHealth, OwnModels, Refused
from engine.agent.proxy import Proxy, error, upstream_session
from engine.model.worker import EXITS_PATH, HANDLER, MODEL_HEADER, OWN_WEIGHTS, WorkerSpec

_MAX_TAIL = 10_000
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Agent:
    """One worker's agent. Make it inside a running loop; `close()` it.

    Attributes:
        draining: no new inference requests are accepted.
        ending: nor will be: the process waits for those it has.
        metrics: the counters; `metrics.idle` is set while no request is open.
    """

    def __init__(
        self, spec: WorkerSpec, upstream_host: str, root: Path, llama_command: tuple[str, ...] | None = None
    ) -> None:
        """`llama_command`: starts own weights instead of what the specification says."""
        self._spec = spec
        self._log_path = root / spec.log_path.lstrip("/")
        self._session = upstream_session()
        self._base_url = f"http://{upstream_host}:{spec.worker_port}"
        command = spec.llama_command if llama_command is None else llama_command
        taken = (spec.worker_port, spec.agent_port)
        self._models = OwnModels(self._session, command, upstream_host, root, taken)
        self._health: WorkerHealth | HandlerHealth | OwnHealth
        self._health = WorkerHealth(self._session, self._base_url, spec.model_id)
        if spec.engine == HANDLER:
            self._health = HandlerHealth(upstream_host, spec.worker_port, root / EXITS_PATH.lstrip("/"))
        if spec.own_model is not None:
            self._health = OwnHealth(self._models, spec.own_model)
        self._watch = asyncio.ensure_future(self._health.watch_start())
        self.metrics = Metrics()
        self._proxy = Proxy(self._session, self._base_url, self.metrics)
        self.draining = self.ending = False

    def begin(self) -> None:
        """Serve own weights again that are on the machine."""
        self._models.begin()

    async def close(self) -> None:
        """Stop probing, end own weights' servers and drop the connections to the model server."""
        await self._models.close()
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch
        await self._session.close()

    def application(self) -> web.Application:
        """The routes behind the token."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_get("/logs", self._logs)
        app.router.add_post("/drain", self._drain)
        app.router.add_post("/undrain", self._drain)
        app.router.add_get("/models", self._list_models)
        app.router.add_put("/models/{name}", self._put_model)
        app.router.add_delete("/models/{name}", self._drop_model)
        app.router.add_get("/v1/models", self._served_models)
        app.router.add_route("*", "/v1/{path:.+}", self._inference)
        for path in ("/tokenize", "/detokenize"):  # vLLM has these at its root
            app.router.add_post(path, self._inference)
        if self._spec.engine == HANDLER:
            app.router.add_post("/run", self._inference)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Demand the token, and answer errors in the one shape."""
        if request.path != "/livez" and not self._is_authorized(request):
            message = "Send the deployment's token as 'Authorization: Bearer …'."
            return error(401, "unauthorized", message, WWW_Authenticate="Bearer")
        try:
            return await handler(request)
        except web.HTTPException as err:
            code = (err.reason or "error").lower().replace(" ", "_")
            return error(err.status, code, f"{request.method} {request.path}: {err.reason}")

    def _is_authorized(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(token.encode(errors="replace"), self._spec.token.encode())
        return known and scheme.lower() == "bearer"

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _healthz(self, _: web.Request) -> web.Response:
        health = await self._health.probe()
        body = {
            "status": health.status,
            "replica": self._spec.replica,
            "deployment_id": self._spec.deployment_id,
            "model_id": self._spec.model_id,
            "in_flight": self.metrics.in_flight,
            "draining": self.draining,
            "phase_seconds": self._health.phase_seconds,
            "models": self._models.ready(),
        }
        if health.reason:
            body["reason"] = health.reason
        if isinstance(self._health, HandlerHealth):
            body["exits"], body["exit_code"] = self._health.exits()
        return web.json_response(body, status=200 if health.status == "ready" else 503)

    async def _metrics_text(self, _: web.Request) -> web.Response:
        text = self.metrics.text(self.draining)
        # A model server that does not answer must not hide the agent's own numbers.
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            own = self._models.url_of(self._spec.own_model) if self._spec.own_model is not None else self._base_url
            if own is None:
                return _metrics_answer(text)
            url, limit = own + "/metrics", aiohttp.ClientTimeout(total=5.0)
            async with self._session.get(url, timeout=limit, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.status == 200:
                    text = (await answer.text()).rstrip("\n") + "\n" + text
        return _metrics_answer(text)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        tail, following = request.query.get("tail", "100"), request.query.get("follow", "0")
        if not (tail.isascii() and tail.isdigit() and int(tail) <= _MAX_TAIL) or following not in ("0", "1"):
            return error(400, "bad_request", f"tail is a number up to {_MAX_TAIL}, follow is 0 or 1.")
        if following == "1":
            return await self._follow_log(request, int(tail))
        try:
            text, _ = log_tail.last_lines(self._log_path, int(tail))
        except OSError as err:
            return error(404, "no_log", f"No log at {self._spec.log_path}: {err.strerror}.")
        return web.Response(body=text, content_type="text/plain", charset="utf-8")

    async def _follow_log(self, request: web.Request, tail: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        async for text in log_tail.follow(self._log_path, tail):
            await response.write(text)
        return response

    async def _drain(self, request: web.Request) -> web.Response:
        self.draining = self.ending or request.path == "/drain"
        return web.json_response({"draining": self.draining, "in_flight": self.metrics.in_flight})

    async def _inference(self, request: web.Request) -> web.StreamResponse:
        if ".." in request.path.split("/"):
            return error(404, "not_found", "A path under /v1/ must not leave it.")
        if self.draining and request.method != "GET":
            return error(503, "draining", "This replica is draining: send the request to another.", Retry_After="1")
        model = self._model_of(request)
        if model is None:
            return await self._proxy.forward(request)
        if (base_url := self._models.url_of(model)) is None:
            message = f"This replica does not serve {OWN_WEIGHTS}{model} at this moment."
            return error(503, "worker_unreachable", message, Retry_After="2")
        with self._models.serving(model):
            return await self._proxy.forward(request, base_url)

    def _model_of(self, request: web.Request) -> str | None:
        """Which own weights a request is for; None: the machine's model server."""
        named = request.headers.get(MODEL_HEADER, "")
        return named[len(OWN_WEIGHTS) :] if named.startswith(OWN_WEIGHTS) else self._spec.own_model

    async def _served_models(self, request: web.Request) -> web.StreamResponse:
        """The model server's list, with own weights behind it."""
        own = [{"id": OWN_WEIGHTS + name, "object": "model", "owned_by": "organization"}
               for name in self._models.ready()]  # fmt: skip
        if self._spec.own_model is not None:
            return web.json_response({"object": "list", "data": own})
        if not own:
            return await self._proxy.forward(request)
        try:
            limit = aiohttp.ClientTimeout(total=5.0)
            async with self._session.get(self._base_url + "/v1/models", timeout=limit) as answer:
                body = await answer.json(content_type=None)
                body["data"] = [*body["data"], *own]
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError, TypeError):  # noqa: UP041 - as in health
            return error(502, "worker_unreachable", "The model server does not list its models.")
        return web.json_response(body)

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"models": self._models.facts(), "room_gib": self._room_gib()})

    def _room_gib(self) -> float:
        return self._spec.own_weights_gib if self._models.is_possible else 0.0

    async def _put_model(self, request: web.Request) -> web.StreamResponse:
        try:
            order = Order.of(request.match_info["name"], await request.json())
            return web.json_response(self._models.put(order), status=202)
        except Refused as err:
            return error(400, "bad_request", str(err))
        except ValueError:
            return error(400, "bad_request", "The body is not JSON.")

    async def _drop_model(self, request: web.Request) -> web.Response:
        return web.json_response({"dropped": self._models.drop(request.match_info["name"])})


def _metrics_answer(text: str) -> web.Response:
    return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
