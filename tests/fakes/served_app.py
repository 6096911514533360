"""An ASGI application behind a real uvicorn in a thread, for tests that need sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn


@contextmanager
def served(app: Any, *, at: Path | None = None, lifespan: str = "off") -> Iterator[str]:
    """Serve on a free port of 127.0.0.1, or on the Unix socket `at`; yields the base URL ("" for a socket)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        options: dict[str, Any] = {"uds": str(at)} if at else {}
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan=lifespan, proxy_headers=False,
            timeout_graceful_shutdown=1, **options,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={} if at else {"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            thread.join(0.005)
        yield "" if at else f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
