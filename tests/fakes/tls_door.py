"""A TLS port in front of a Unix socket, for clients with a certificate only: a daemon as others publish theirs."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from tests.fakes.certificates import Authority


class TlsDoor:
    """One port of 127.0.0.1; a context manager. `address` is its `tcp://` URL."""

    def __init__(self, behind: str, authority: Authority, folder: Path) -> None:
        self._behind = behind
        certificate, key = authority.issue("server")
        files = {"server.pem": certificate, "server-key.pem": key, "authority.pem": authority.certificate}
        for name, text in files.items():
            (folder / name).write_text(text)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
        self._context.load_verify_locations(folder / "authority.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> TlsDoor:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(raw)
            self._start(lambda raw=raw: self._serve(raw))  # type: ignore[misc]

    def _serve(self, raw: socket.socket) -> None:
        try:
            outside = self._context.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            return
        inside = socket.socket(socket.AF_UNIX)
        inside.connect(self._behind)
        self._open += [outside, inside]
        self._start(lambda: _copy(inside, outside))
        _copy(outside, inside)

    def _start(self, work: object) -> None:
        thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
