"""A daemon that knows one thing and says of it what was recorded; for tests of what states are made of its words."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from engine.deploy.providers.docker import DockerHost, HostSettings


class _Answer:
    status_code = 200
    content = b"{}"
    text = ""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value

    def json(self) -> Mapping[str, Any]:
        return self._value


class _Client:
    """The calls of the SDK's client that a create and a read make."""

    base_url, api_version, timeout = "http://docker", "1.41", 1

    def __init__(self, thing: Mapping[str, Any]) -> None:
        self._thing = json.loads(json.dumps(thing))
        self.may_end = threading.Event()

    def inspect(self, *_of: Any) -> Any:
        return self._thing

    inspect_container = inspect_network = inspect_volume = inspect_image = inspect

    def create_container_from_config(self, *_body: Any) -> Any:
        return {"Id": self._thing["Id"]}

    def create_volume(self, **_body: Any) -> Any:
        return self._thing

    def networks(self, names: list[str]) -> list[Any]:
        return []

    def post(self, _url: str, **_body: Any) -> _Answer:
        return _Answer({"Id": self._thing.get("Id")})

    def wait(self, *_of: Any, **_options: Any) -> None:
        """Until the test lets it end."""
        self.may_end.wait(60)

    def nothing(self, *_args: Any, **_options: Any) -> None:
        return None

    start = put_archive = disconnect_container_from_network = tag = close = nothing


class DaemonOfOne(DockerHost):
    """The way to such a daemon."""

    def __init__(self, thing: Mapping[str, Any]) -> None:
        super().__init__(HostSettings())
        self._one = _Client(thing)
        self.may_end = self._one.may_end

    def client(self) -> Any:
        return self._one
