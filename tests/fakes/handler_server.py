"""A handler's container as the dispatcher meets it: a real HTTP server with `POST /run`; a test writes its answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, bytes]


class HandlerServer:
    """Echoes unless told otherwise.

    Attributes:
        answer: body of a request → status and body; may wait.
        received: bodies that came, in order; headers beside them.
        answered: how many requests were answered, heard or not.
        dies_at: how many of the next requests end without an answer.
    """

    def __init__(self, port: int = 0) -> None:
        self.answer: Callable[[dict[str, Any]], Reply] = echo
        self.received: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = 0
        self.dies_at = 0
        self.extra_headers: dict[str, str] = {}
        self.began = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.received.append(body)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.began.set()
                if outer.dies_at > 0:
                    outer.dies_at -= 1
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._send(*outer.answer(body))
                outer.answered += 1

            def do_GET(self) -> None:
                self._send(404, b"{}")

            def _send(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(body)))
                    for name, value in outer.extra_headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing listens any more; connections that are open stay."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def echo(body: dict[str, Any]) -> Reply:
    return 200, json.dumps({"output": {"echo": body["input"]}}).encode()
