"""Speaks OpenID Connect with one provider: discovery, authorization code with PKCE, the ID token's verification.

Not what becomes of a verified identity here: that is `identity/federation.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import httpx
import structlog
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization
from joserfc.jws import JWSRegistry

from engine.identity.oidc_client import OidcClient
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Forbidden, InvalidSpec, Unavailable
from engine.store.sealing import CannotOpen, Sealer

FLOW_LIFETIME = timedelta(minutes=10)

_METADATA_KEPT = timedelta(hours=1)
_SECONDS = 10.0
_LEEWAY_SECONDS = 60
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures only: `none` proves nothing, and HS256 would make everybody who knows the client's secret a provider."""

_log = structlog.get_logger("oidc")


@dataclass(frozen=True)
class Flow:
    """What one browser's log-in has to come back with; kept by that browser, sealed."""

    state: str
    nonce: str
    verifier: str
    next_path: str
    expires_at: str

    def seal(self, sealer: Sealer) -> str:
        return sealer.seal(json.dumps(asdict(self)))

    @classmethod
    def open(cls, sealed: str | None, sealer: Sealer, now: datetime) -> Flow:
        """Read what `seal` made.

        Raises:
            InvalidSpec: there is none, it is not ours, or it is too old.
        """
        try:
            flow = cls(**json.loads(sealer.open(sealed or "")))
        except (CannotOpen, TypeError, ValueError) as err:
            raise InvalidSpec("this log-in was not begun in this browser: begin at /auth/oidc/login") from err
        if datetime.fromisoformat(flow.expires_at) <= now:
            raise InvalidSpec("this log-in took too long: begin again at /auth/oidc/login")
        return flow


@dataclass(frozen=True)
class ProvenIdentity:
    """Whom the provider vouches for."""

    issuer: str
    subject: str
    email: str
    email_verified: bool
    name: str


@dataclass(frozen=True)
class _Metadata:
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_auth_methods: tuple[str, ...]
    read_at: datetime


class OidcProvider:
    """One provider, found by its issuer's discovery document. Remembers that document and its keys for an hour."""

    def __init__(self, client: OidcClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._reading = asyncio.Lock()

    @property
    def issuer(self) -> str:
        return self._client.issuer

    async def begin(self, next_path: str) -> tuple[str, Flow]:
        """Where to send the browser, and what it has to bring back.

        Raises:
            Unavailable: the provider does not answer.
        """
        metadata = await self._discover()
        flow = Flow(
            state=ids.random_text(40), nonce=ids.random_text(40), verifier=ids.random_text(64), next_path=next_path,
            expires_at=(self._clock.now() + FLOW_LIFETIME).isoformat(),
        )  # fmt: skip
        query = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_uri,
            "scope": self._client.scopes,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": create_s256_code_challenge(flow.verifier),
            "code_challenge_method": "S256",
        }
        separator = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return f"{metadata.authorization_endpoint}{separator}{urlencode(query)}", flow

    async def finish(self, flow: Flow, code: str) -> ProvenIdentity:
        """Exchange a code for an ID token, and verify that.

        Raises:
            Forbidden: the provider refuses the code, or its token does not verify.
            Unavailable: the provider does not answer.
        """
        metadata = await self._discover()
        tokens = await self._exchange(metadata, flow, code)
        claims = await self._verify(metadata, flow, tokens)
        verified = claims.get("email_verified")
        return ProvenIdentity(
            issuer=metadata.issuer,
            subject=str(claims["sub"]),
            email=str(claims.get("email") or ""),
            email_verified=verified is True or verified == "true",  # some providers send text
            name=str(claims.get("name") or ""),
        )

    async def _exchange(self, metadata: _Metadata, flow: Flow, code: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._client.redirect_uri,
            "code_verifier": flow.verifier,
        }
        basic = "client_secret_basic" in metadata.token_auth_methods and bool(self._client.client_secret)
        auth = httpx.BasicAuth(self._client.client_id, self._client.client_secret) if basic else None
        if not basic:
            form["client_id"] = self._client.client_id
            if self._client.client_secret:
                form["client_secret"] = self._client.client_secret
        answer = await self._call("POST", metadata.token_endpoint, data=form, auth=auth)
        if answer.status_code in (400, 401, 403):
            _log.warning("the provider refused a code", status=answer.status_code, error=_error_of(answer))
            raise Forbidden("the provider refused this log-in: begin again at /auth/oidc/login")
        return _json_object(answer)

    async def _verify(self, metadata: _Metadata, flow: Flow, tokens: Mapping[str, Any]) -> Mapping[str, Any]:
        """The ID token's claims, with signature, issuer, audience, times and nonce checked (OpenID Core 3.1.3.7)."""
        try:
            token = await self._decode(metadata, str(tokens.get("id_token") or ""))
            options = {
                "iss": {"essential": True, "value": metadata.issuer},
                "aud": {"essential": True, "value": self._client.client_id},
            }
            params = {
                "nonce": flow.nonce,
                "client_id": self._client.client_id,
                "access_token": tokens.get("access_token"),
            }
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(now=int(self._clock.now().timestamp()), leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError) as err:
            _log.warning("an ID token does not verify", error=f"{type(err).__name__}: {err}")
            raise Forbidden("the provider's answer does not verify: begin again at /auth/oidc/login") from err
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise Forbidden("the provider's answer names nobody")
        verified: Mapping[str, Any] = claims
        return verified

    async def _decode(self, metadata: _Metadata, id_token: str) -> jwt.Token:
        registry = JWSRegistry(algorithms=list(_ALGORITHMS), strict_check_header=False)
        keys, fresh = await self._key_set(metadata)
        try:
            return jwt.decode(id_token, keys, registry=registry)
        except (JoseError, ValueError):
            if fresh:
                raise
            keys, _ = await self._key_set(metadata, again=True)  # the provider may have changed its keys
            return jwt.decode(id_token, keys, registry=registry)

    async def _key_set(self, metadata: _Metadata, *, again: bool = False) -> tuple[KeySet, bool]:
        """The provider's keys, and whether they were read just now."""
        if self._keys is not None and not again:
            return self._keys, False
        answer = await self._call("GET", metadata.jwks_uri)
        self._keys = KeySet.import_key_set(cast(KeySetSerialization, _json_object(answer)))
        return self._keys, True

    async def _discover(self) -> _Metadata:
        async with self._reading:
            known = self._metadata
            if known is None or self._clock.now() - known.read_at >= _METADATA_KEPT:
                known = self._metadata = await self._read_metadata()
                self._keys = None
            return known

    async def _read_metadata(self) -> _Metadata:
        found = _json_object(
            await self._call("GET", f"{self._client.issuer.rstrip('/')}/.well-known/openid-configuration")
        )
        if found.get("issuer") != self._client.issuer:  # OpenID Discovery 4.3: else anybody could speak for it
            raise Unavailable(f"the OpenID provider calls itself {found.get('issuer')!r}: set STACKYARD_OIDC_ISSUER so")
        try:
            return _Metadata(
                issuer=found["issuer"],
                authorization_endpoint=found["authorization_endpoint"],
                token_endpoint=found["token_endpoint"],
                jwks_uri=found["jwks_uri"],
                token_auth_methods=tuple(found.get("token_endpoint_auth_methods_supported", ("client_secret_basic",))),
                read_at=self._clock.now(),
            )
        except KeyError as err:
            raise Unavailable(f"the OpenID provider's discovery document lacks {err}") from err

    async def _call(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, headers={"Accept": "application/json"}) as client:
                answer = await client.request(method, url, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            _log.warning("the OpenID provider does not answer", url=url, error=type(err).__name__)
            raise Unavailable("the OpenID provider does not answer; try again shortly", retry_after_seconds=10) from err
        if answer.status_code >= 500 or (method == "GET" and not answer.is_success):
            _log.warning("the OpenID provider fails", url=url, status=answer.status_code)
            raise Unavailable("the OpenID provider fails; try again shortly", retry_after_seconds=10)
        return answer


def _json_object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError as err:
        raise Unavailable("the OpenID provider's answer is not JSON") from err
    if not isinstance(found, dict):
        raise Unavailable("the OpenID provider's answer is not a JSON object")
    return found


def _error_of(answer: httpx.Response) -> str:
    """The OAuth error's name, which holds no secret."""
    try:
        return str(answer.json().get("error", ""))[:100]
    except (ValueError, AttributeError):
        return ""
