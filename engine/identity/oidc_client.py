"""How an OpenID provider knows this installation. Talks to nobody: that is `identity/oidc.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from engine.model.errors import InvalidSpec

CALLBACK = "/auth/oidc/callback"
"""The path the provider sends browsers back to; registered there with our public URL before it."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class OidcClient:
    """This installation as the provider knows it."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    scopes: str = "openid email profile"

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise InvalidSpec("STACKYARD_OIDC_ISSUER has to be an https:// URL (http:// on this machine only)")
        if not self.client_id:
            raise InvalidSpec("STACKYARD_OIDC_CLIENT_ID: the provider's name for this installation is missing")
        if not {"openid", "email"} <= set(self.scopes.split()):
            raise InvalidSpec("STACKYARD_OIDC_SCOPES needs openid and email")
