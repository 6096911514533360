"""What is known of organisations' own weights on a deployment: read only when no ready replica serves a name."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from engine.gateway.json_members import members
from engine.gateway.routes import Route
from engine.model.byom import PREFIX, Phase
from engine.model.errors import StackyardError, Unavailable
from engine.store import byom
from engine.store.database import Database

DISTRIBUTING_SECONDS = 5
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONG_BYTES = 8 * 1024
"""Longer bodies are scanned in a thread: of brackets alone these take some milliseconds."""
_log = structlog.get_logger("gateway.own_models")


class NoSuchModel(StackyardError):
    """The deployment has no such model; answered in OpenAI's shape, which its clients know."""

    code = "model_not_found"

    def body(self) -> dict[str, Any]:
        return {
            "error": {"message": self.message, "type": "invalid_request_error", "param": "model", "code": self.code}
        }


async def asked_for(deployment_id: str, body: bytes | bytearray) -> str | None:
    """The name behind `byom:` in a request's `model`; None: it asks for another model, or says none.

    Raises:
        NoSuchModel: no model can have that name (which goes into a header, so it matters what is in it).
    """
    if PREFIX.encode() not in body and b"\\u00" not in body:  # the second: written with escapes
        return None
    found = members(body, ("model",)) if len(body) < _LONG_BYTES else await asyncio.to_thread(members, body, ("model",))
    model = found.get("model")
    if not isinstance(model, str) or not model.startswith(PREFIX):
        return None
    name = model.removeprefix(PREFIX)
    if not _PLAIN.fullmatch(name):
        raise no_such_model(deployment_id, name)
    return name


def comes_back(refusal: StackyardError) -> bool:
    """Whether weights that no replica serves at this moment were ready: a machine that is new loads them."""
    return isinstance(refusal, Unavailable) and refusal.details.get("phase") == Phase.READY


def no_such_model(deployment_id: str, name: str) -> NoSuchModel:
    return NoSuchModel(f"The model `{PREFIX}{name[:80]}` does not exist on deployment {deployment_id}.")


class OwnModels:
    """Looks names up in the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def why_not(self, route: Route, name: str) -> StackyardError:
        """Why no ready replica of the deployment serves a name: not yet, or never."""
        try:
            phase = await asyncio.to_thread(self._phase, route, name)
        except SQLAlchemyError as err:
            _log.warning("own weights cannot be looked up", error=str(err.__cause__ or err))
            phase = "not known at this moment"
        if phase is not None:
            return Unavailable(
                f"no ready replica of deployment {route.deployment_id} serves {PREFIX}{name} yet (it is {phase}); try "
                "again in a few seconds", phase=phase, retry_after_seconds=DISTRIBUTING_SECONDS,
            )  # fmt: skip
        return no_such_model(route.deployment_id, name)

    def _phase(self, route: Route, name: str) -> str | None:
        with self._database.read() as session:
            row = byom.holding(session, route.deployment_id, name)
            return row.phase if row is not None else None
