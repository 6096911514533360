"""Calls to DigitalOcean's API: budget, rate limits, retries of what is safe to repeat, pages.

Knows HTTP and nothing of resource types. A POST that may have had its effect is never repeated here: `Unanswered` tells
the caller to look first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from engine.model.budget import CallBudget, Priority
from engine.model.clock import Clock

DEFAULT_ENDPOINT = "https://api.digitalocean.com"
PER_PAGE = 200  # the most DigitalOcean gives
RETRY_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)  # those of DigitalOcean's own clients: five attempts in all
REQUEST_TIMEOUT_SECONDS = 30.0
LISTING_TIMEOUT_SECONDS = 300.0
SHORTEST_WAIT_SECONDS = 0.05
KEEP_ALIVE_SECONDS = 4.0  # shorter than the usual server's 5 s, so that a connection is not used while it is closed
IDEMPOTENT = frozenset({"GET", "PUT", "PATCH", "DELETE"})  # our PATCHes set values, they never add


class ApiError(Exception):
    """DigitalOcean refused. `status` is HTTP's, 0 when there was no answer; `message` its own words."""

    def __init__(self, method: str, url: str, status: int, message: str, request_id: str = "") -> None:
        request = f' (request "{request_id}")' if request_id else ""
        super().__init__(f"{method} {url}: {status}{request} {message}" if status else f"{method} {url}: {message}")
        self.status = status
        self.message = message

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later: no answer, a failing server, too many calls."""
        return self.status in (0, 429) or self.status >= 500


class NotSent(ApiError):
    """No connection: the request cannot have had an effect."""


class Unanswered(ApiError):
    """The request may have had its effect: no answer came, or the server failed while it worked."""


class RateLimited(ApiError):
    """429. `retry_after_seconds` as the server says, None when it does not."""

    retry_after_seconds: float | None = None


class HttpClients:
    """HTTP clients by endpoint, so that many providers in one process share connections and TLS settings.

    Not safe across event loops: one instance per loop.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._clients: dict[str, httpx.AsyncClient] = {}

    def client(self, endpoint: str) -> httpx.AsyncClient:
        """The client of an endpoint, made on first use."""
        if endpoint not in self._clients:
            secure = endpoint.startswith("https:")
            self._clients[endpoint] = httpx.AsyncClient(
                base_url=endpoint,
                transport=self._transport,
                # Reading the certificate store costs 20 ms and the machine's proxy settings apply to the internet.
                verify=secure,
                trust_env=secure,
                limits=httpx.Limits(
                    max_connections=100, max_keepalive_connections=50, keepalive_expiry=KEEP_ALIVE_SECONDS
                ),
            )
        return self._clients[endpoint]

    async def close(self) -> None:
        """Give back the connections."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()


class DigitalOceanApi:
    """The API of one account (endpoint and token)."""

    def __init__(
        self,
        *,
        endpoint: str,
        token: str,
        budget: CallBudget,
        clock: Clock,
        clients: HttpClients,
        user_agent: str,
        retry_waits_seconds: Sequence[float] = RETRY_WAITS_SECONDS,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.clock = clock
        self.retry_waits_seconds = retry_waits_seconds
        self.has_token = bool(token)
        self._budget = budget
        self._clients = clients
        self._headers = {"authorization": f"Bearer {token}", "user-agent": user_agent, "accept": "application/json"}

    async def request(
        self,
        method: str,
        path: str,
        *,
        priority: Priority,
        deadline: float,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
        idempotent: bool | None = None,
    ) -> dict[str, Any]:
        """One call, repeated while that is safe: always after 429, after failures only if it is idempotent.

        Args:
            deadline: on the clock's monotonic scale; no wait goes past it.
            idempotent: whether repeating does no harm; by default GET, PUT, PATCH and DELETE.

        Returns:
            The answer's JSON, {} for an empty one.

        Raises:
            Unanswered: the effect of a call that must not be repeated is not known.
            ApiError: refused, or still failing after the last attempt.
        """
        repeatable = method in IDEMPOTENT if idempotent is None else idempotent
        waits = iter(self.retry_waits_seconds)
        attempts = 0
        while True:
            await self._budget.acquire(priority)
            attempts += 1
            try:
                return await self._call(method, path, body, params, deadline)
            except RateLimited as err:
                failure: ApiError = err
                wait = next(waits, None) if err.retry_after_seconds is None else err.retry_after_seconds
            except NotSent as err:
                failure, wait = err, next(waits, None)
            except Unanswered as err:
                if not repeatable:
                    raise
                failure, wait = err, next(waits, None)
            if wait is None or self.clock.monotonic() + wait > deadline:
                raise ApiError(
                    method,
                    self.endpoint + path,
                    failure.status,
                    f"{failure.message}; giving up after {attempts} attempt(s)",
                ) from failure
            await self.clock.sleep(wait)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str | int] | None,
        deadline: float,
    ) -> dict[str, Any]:
        url = self.endpoint + path
        patience = min(REQUEST_TIMEOUT_SECONDS, max(1.0, deadline - self.clock.monotonic()))
        try:
            response = await self._clients.client(self.endpoint).request(
                method, path, json=body, params=params, headers=self._headers, timeout=patience
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as err:
            raise NotSent(method, url, 0, f"no connection ({_name(err)})") from err
        except httpx.TransportError as err:
            raise Unanswered(method, url, 0, f"no answer ({_name(err)})") from err
        return self._answer(method, url, response)

    def _answer(self, method: str, url: str, response: httpx.Response) -> dict[str, Any]:
        self._observe(response)
        try:
            answer = response.json() if response.content else {}
        except ValueError:
            answer = {"message": response.text[:200]} if not response.is_success else None
        if response.is_success and isinstance(answer, dict):
            return answer
        words = answer if isinstance(answer, dict) else {"message": "the answer is not a JSON object"}
        kind = RateLimited if response.status_code == 429 else ApiError
        if response.is_success or response.status_code >= 500:
            kind = Unanswered
        message = str(words.get("message") or response.reason_phrase)
        error = kind(method, url, response.status_code, message, str(words.get("request_id") or ""))
        if isinstance(error, RateLimited):
            error.retry_after_seconds = self._retry_after(response)
        raise error

    def _observe(self, response: httpx.Response) -> None:
        limit, remaining = response.headers.get("ratelimit-limit"), response.headers.get("ratelimit-remaining")
        limited = response.status_code == 429
        if limit and remaining and limit.isdigit() and remaining.isdigit():
            retry_after = (self._retry_after(response) or 1.0) if limited else None
            self._budget.observe(limit=int(limit), remaining=int(remaining), retry_after_seconds=retry_after)
        elif limited:  # without counts; a 429 means that nothing is left
            self._budget.observe(limit=0, remaining=0, retry_after_seconds=self._retry_after(response) or 1.0)

    def _retry_after(self, response: httpx.Response) -> float | None:
        """`retry-after`; else, when the hour is used up, the time until `ratelimit-reset` (Unix time)."""
        seconds = _number(response.headers.get("retry-after"))
        if seconds is not None:
            return max(seconds, SHORTEST_WAIT_SECONDS)
        reset = _number(response.headers.get("ratelimit-reset"))
        if reset is None or response.headers.get("ratelimit-remaining") != "0":
            return None
        return max(reset - self.clock.now().timestamp(), SHORTEST_WAIT_SECONDS)

    async def pages(
        self,
        path: str,
        key: str,
        *,
        deadline: float,
        params: Mapping[str, str | int] | None = None,
        priority: Priority = Priority.READ,
    ) -> list[dict[str, Any]]:
        """All members of a listing, 200 per page."""
        members: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = await self.request(
                "GET",
                path,
                priority=priority,
                deadline=deadline,
                params={**(params or {}), "page": page, "per_page": PER_PAGE},
            )
            members += answer.get(key) or []
            if not ((answer.get("links") or {}).get("pages") or {}).get("next"):
                return members
            page += 1

    # What the sweeper needs: whole listings, without a resource's state.

    async def droplets_by_tag(self, tag: str) -> list[dict[str, Any]]:
        """All Droplets that carry a tag, as the API describes them.

        The documents do not say whether a tag's listing has GPU Droplets, and it cannot be asked for them; the most
        expensive machines must not be overlooked, so their own listing is read too.
        """
        tagged = await self.pages("/v2/droplets", "droplets", deadline=self._soon(), params={"tag_name": tag})
        gpus = await self.pages("/v2/droplets", "droplets", deadline=self._soon(), params={"type": "gpus"})
        found = {droplet["id"]: droplet for droplet in (*tagged, *gpus) if tag in (droplet.get("tags") or [])}
        return list(found.values())

    async def listing(self, path: str, key: str) -> list[dict[str, Any]]:
        """All members of one of the account's collections (`/v2/firewalls`, `firewalls`)."""
        return await self.pages(path, key, deadline=self._soon())

    async def delete(self, path: str) -> None:
        """Delete one thing; gone already is success."""
        try:
            await self.request("DELETE", path, priority=Priority.DELETE, deadline=self._soon())
        except ApiError as err:
            if err.status != 404:
                raise

    async def delete_droplet(self, id: str) -> None:
        """Ask for a Droplet's deletion, without waiting until it is gone."""
        await self.delete(f"/v2/droplets/{id}")

    def _soon(self) -> float:
        return self.clock.monotonic() + LISTING_TIMEOUT_SECONDS


def _name(err: Exception) -> str:
    return f"{type(err).__name__}: {err}" if str(err) else type(err).__name__


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
