"""A small OpenID provider with real RSA keys over HTTP: discovery, code with PKCE, RS256 ID tokens. Consents for a
user the test names, and can be told to misbehave."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "stackyard", "a:client+secret/with=signs"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})


@dataclass
class TinyProvider:
    """The provider; `issuer` is set once it is served.

    Attributes:
        user: claims of who consents at /authorize.
        changed_claims: put over the ID token's; None takes one out.
        signing_key: the one tokens are signed with, when not the published one.
        algorithm: of the signature; `HS256` signs with the client's secret, `none` not at all.
    """

    now: Callable[[], datetime]
    redirect_uri: str = "http://yard.test/auth/oidc/callback"
    issuer: str = ""
    user: dict[str, Any] = field(
        default_factory=lambda: {"sub": "u-1", "email": "ada@example.com", "email_verified": True, "name": "Ada"}
    )
    changed_claims: dict[str, Any] = field(default_factory=dict)
    published_key: RSAKey = field(default_factory=new_key)
    signing_key: RSAKey | None = None
    algorithm: str = "RS256"
    claimed_issuer: str | None = None
    refuses: bool = False
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/jwks", self.jwks),
            ]
        )

    def discovery(self, request: Request) -> Response:
        self.calls.append("discovery")
        return JSONResponse(
            {
                "issuer": self.claimed_issuer or self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize?tenant=1",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    def jwks(self, request: Request) -> Response:
        self.calls.append("jwks")
        return JSONResponse(KeySet([self.published_key]).as_dict(private=False))

    def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if asked.get("client_id") != CLIENT_ID or asked.get("redirect_uri") != self.redirect_uri:
            return Response("unknown client or address", 400)
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            return Response("only code with S256", 400)
        if self.refuses:
            return self._back(error="access_denied", state=asked["state"])
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return self._back(code=code, state=asked["state"])

    async def token(self, request: Request) -> Response:
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return JSONResponse({"error": "invalid_client"}, 401)
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or form.get("redirect_uri") != asked["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if not hmac.compare_digest(_base64(digest), asked["code_challenge"]):
            return JSONResponse({"error": "invalid_grant"}, 400)
        access = secrets.token_urlsafe(16)
        return JSONResponse({"access_token": access, "token_type": "Bearer", "id_token": self._id_token(asked)})

    def _id_token(self, asked: dict[str, str]) -> str:
        now = int(self.now().timestamp())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = {k: v for k, v in (claims | self.user | self.changed_claims).items() if v is not None}
        header = {"alg": self.algorithm, "kid": self.published_key.kid}
        if self.algorithm == "none":
            return f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}."
        if self.algorithm == "HS256":
            return jwt.encode(header, claims, OctKey.import_key(CLIENT_SECRET), algorithms=["HS256"])
        return jwt.encode(header, claims, self.signing_key or self.published_key)

    def _back(self, **answer: str) -> Response:
        return RedirectResponse(f"{self.redirect_uri}?{urlencode(answer)}", 302)
