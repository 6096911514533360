"""What users give commands beside plain words: `NAME=value` pairs, JSON, passwords."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from engine.model.errors import InvalidSpec


def named_values(pairs: Sequence[str] | None) -> dict[str, str]:
    """`NAME=value` pairs; of a `NAME` alone the value is that of this process's environment.

    Raises:
        InvalidSpec: a name alone that the environment does not have.
    """
    found = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            raise InvalidSpec(f"{name} is not set in this environment: write {name}=value")
        found[name] = value if equals else os.environ[name]
    return found


def json_value(text: str) -> Any:
    """JSON, given or (as `-`) from standard input.

    Raises:
        InvalidSpec: it is none.
    """
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as err:
        raise InvalidSpec(f"--input is not JSON: {err}") from err


def login(username: str) -> dict[str, str]:
    """Credentials of a registry: the password from STACKYARD_REGISTRY_PASSWORD, else asked for."""
    password = os.environ.get("STACKYARD_REGISTRY_PASSWORD") or typer.prompt("password or token", hide_input=True)
    return {"username": username, "password": password}
