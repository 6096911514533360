"""Run llama.cpp's OpenAI server on one address until told to stop; TLS, tokens and drain belong to the agent."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import xllamacpp

MODEL_PATH = Path(__file__).parent.parent / "weights" / "stackyard-tiny.gguf"
_LOG = logging.getLogger("llama")


def main() -> None:
    """Parse the flags, serve, and leave on SIGTERM, SIGINT or the parent's end."""
    args = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stdout)
    stop = threading.Event()
    threading.Thread(target=watch_parent, args=(os.getppid(), stop), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = xllamacpp.Server(server_params(args.model, args.model_id, args.host, args.port, args.parallel))
    except RuntimeError as err:
        _LOG.error("cannot serve %s on %s:%d: %s", args.model, args.host, args.port, err)
        raise SystemExit(2) from err
    _LOG.info("serving %s from %s on %s", args.model_id, args.model, server.listening_address)
    stop.wait()
    _LOG.info("stopping")
    logging.shutdown()
    os._exit(0)  # the server's threads have no other way to leave an open stream


def parse_flags() -> argparse.Namespace:
    """Flags of the model server, refused with a sentence when they cannot work."""
    parser = argparse.ArgumentParser(prog="python -m engine.sandbox.llama", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind, within 127.0.0.0/8")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model-id", required=True, help="name the model is served under")
    parser.add_argument("--model", type=Path, default=MODEL_PATH, help="a GGUF file")
    parser.add_argument("--parallel", type=int, default=4, help="requests that are answered at the same time")
    args = parser.parse_args()
    try:
        loopback = ipaddress.ip_address(args.host).is_loopback
    except ValueError:
        parser.error(f"--host {args.host} is not an address")
    if not loopback:
        parser.error(f"--host {args.host} is not in 127.0.0.0/8: this server has no TLS and no token, the agent has")
    if not args.model.is_file():
        parser.error(f"no GGUF at {args.model}: name one with --model, or make it (engine/sandbox/weights/README.md)")
    if not 1 <= args.parallel <= 64:
        parser.error(f"--parallel {args.parallel} is not between 1 and 64")
    return args


def server_params(model: Path, model_id: str, host: str, port: int, parallel: int) -> Any:
    """Parameters for a small model on a shared machine: one thread, short context, no caches, no web page."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {model_id}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = parallel
    params.n_ctx = 1024 * parallel  # divided among the parallel requests
    params.n_batch = params.n_ubatch = 256
    params.n_predict = 512  # a text without end stops here when the request names no max_tokens
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = parallel + 4  # health and metrics answer while all streams are busy
    params.cache_ram_mib = 0
    params.fit_params = False
    params.ui = False
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.verbosity = 1
    params.sampling.temp = 0.3  # the model is small: at the field's 0.8 its words lose their way
    params.sampling.top_k = 20
    params.sampling.min_p = 0.1
    return params


def watch_parent(parent: int, stop: threading.Event) -> None:
    """Set `stop` when the parent ends. PR_SET_PDEATHSIG would already fire when the thread that started us ends."""
    try:
        ended = select.poll()
        ended.register(os.pidfd_open(parent), select.POLLIN)
        ended.poll()
    except ProcessLookupError:
        _LOG.warning("the parent process has ended already")
    stop.set()


if __name__ == "__main__":
    main()
