"""Who may call which deployment: by a key's hash in the route table, or as whom a browser session stands for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.gateway import asgi
from engine.gateway.asgi import Scope
from engine.gateway.calls import Call
from engine.gateway.routes import Route, RouteTable
from engine.identity.keys import KeyHasher, bearer_secret
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.model.errors import StackyardError


class Admission:
    """Lets callers in.

    Args:
        fresh: waits until the table has seen what the store holds now; called before every refusal, so that a client
            that just read `active` from the API is never told otherwise here.
    """

    def __init__(
        self, table: RouteTable, hasher: KeyHasher, clock: Clock, fresh: Callable[[], Awaitable[None]]
    ) -> None:
        self.table = table
        self.fresh = fresh
        self._hasher = hasher
        self._clock = clock

    async def admit(self, call: Call, scope: Scope, caller: Principal | None = None) -> Route:
        """The route this caller may use; the store's newest state is awaited before saying no.

        Args:
            caller: who a browser session stands for; None: whoever holds the key in the request.
        """
        try:
            return self.table.admit(caller or self._by_key(call, scope), call.deployment_id)
        except StackyardError:
            await self.fresh()
            return self.table.admit(caller or self._by_key(call, scope), call.deployment_id)

    def _by_key(self, call: Call, scope: Scope) -> Principal:
        secret = bearer_secret((asgi.header(scope, b"authorization") or b"").decode("latin-1"))
        key_hash = self._hasher.hash(secret) if secret else None
        org_id = call.org_id or (asgi.header(scope, b"stackyard-org") or b"").decode("latin-1") or None
        return self.table.principal(key_hash, self._clock.now(), org_id)
