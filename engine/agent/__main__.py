"""The agent's process: reads the worker specification, serves TLS, drains on SIGTERM; no request handling."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import ssl
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from engine.agent.app import Agent
from engine.model.worker import SPEC_PATH, WorkerSpec

_LOG = logging.getLogger("agent")


def main() -> None:
    """Run until SIGTERM or SIGINT; a specification that cannot work ends with exit code 2 and a sentence."""
    parser = argparse.ArgumentParser(prog="stackyard-agent", description=__doc__)
    parser.add_argument("--spec", type=Path, default=Path(SPEC_PATH), help="the worker specification")
    parser.add_argument("--host", default="0.0.0.0", help="address to serve on")
    parser.add_argument("--upstream-host", default="127.0.0.1", help="address of the model server")
    parser.add_argument("--root", type=Path, default=Path("/"), help="prefix of the log's path")
    parser.add_argument("--drain-seconds", type=float, default=30.0, help="longest wait for open requests at the end")
    parser.add_argument("--llama-command", default="", help="starts own weights instead; a JSON list of strings")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stdout)
    try:
        spec = read_spec(args.spec)
        context = tls_context(spec)
        asyncio.run(serve(spec, context, args))
    except (OSError, ValueError) as err:
        parser.exit(2, f"stackyard-agent: {err}\n")


def read_spec(path: Path) -> WorkerSpec:
    """The worker specification.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a specification, or has no token to demand.
    """
    try:
        spec = WorkerSpec.from_json(path.read_text())
    except (ValueError, AttributeError) as err:
        raise ValueError(f"{path} is not a worker specification: {err}") from err
    if not spec.token:
        raise ValueError(f"{path} has an empty token: anybody could use this worker")
    return spec


def llama_command(text: str) -> tuple[str, ...] | None:
    """What is to start servers of own weights instead of what the specification names; None: nothing.

    Raises:
        ValueError: it is no list of strings.
    """
    if not text:
        return None
    parts = json.loads(text)
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("--llama-command is a JSON list of strings")
    return tuple(parts)


def tls_context(spec: WorkerSpec) -> ssl.SSLContext:
    """The server's TLS identity. The ssl module reads only files: they are private and live for a moment.

    Raises:
        ValueError: certificate and key are no pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory(prefix="stackyard-agent-") as folder:
        path = os.path.join(folder, "identity.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(spec.private_key_pem + "\n" + spec.certificate_pem)
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as err:
            raise ValueError(f"certificate_pem and private_key_pem are no usable pair: {err}") from err
    return context


async def serve(spec: WorkerSpec, context: ssl.SSLContext, args: argparse.Namespace) -> None:
    """Serve until told to stop, then drain."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = Agent(spec, args.upstream_host, args.root, llama_command(args.llama_command))
    agent.begin()
    of_runner, of_site = server_options()
    runner = web.AppRunner(agent.application(), access_log=None, **of_runner)
    await runner.setup()
    try:
        site = web.TCPSite(runner, args.host, spec.agent_port, ssl_context=context, **of_site)
        await site.start()
        _LOG.info("%s of %s on https://%s:%d", spec.replica, spec.deployment_id, args.host, spec.agent_port)
        await stop.wait()
        agent.draining = agent.ending = True
        _LOG.info("draining %d requests", agent.metrics.in_flight)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(agent.metrics.idle.wait(), args.drain_seconds)
    finally:
        await runner.cleanup()
        await agent.close()
    _LOG.info("stopped")


def server_options() -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of runner and site: a client that leaves cancels its handler, the end waits for nobody.

    aiohttp 3.9 moved the timeout to the runner and made the cancellation, until then always done, an option.
    """
    if tuple(int(part) for part in aiohttp.__version__.split(".")[:2]) >= (3, 9):
        return {"handler_cancellation": True, "shutdown_timeout": 0.5}, {}
    return {}, {"shutdown_timeout": 0.5}


if __name__ == "__main__":
    main()
