"""Which addresses messages may go to: the public internet, and networks an operator allows. Connects to nothing.

Checked twice: what can be told from the URL when it is given (422), and every address a name resolves to at each
attempt. The connection goes to exactly the addresses that were checked: a name that changes in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from engine.model.errors import InvalidSpec, StackyardError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(StackyardError):
    """A name leads to a private, loopback or link-local address, or to none."""

    code = "webhook_address_refused"


@dataclass(frozen=True)
class AddressRule:
    """What is reachable by webhooks.

    Attributes:
        allowed: networks that are, although they are not public (`STACKYARD_WEBHOOK_NETWORKS`).
    """

    allowed: tuple[Network, ...] = ()

    @classmethod
    def of(cls, text: str) -> AddressRule:
        """Read a comma-separated list of networks.

        Raises:
            InvalidSpec: one of them is none.
        """
        try:
            return cls(tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()))
        except ValueError as err:
            raise InvalidSpec(f"webhook networks: {err}; write them as 10.0.0.0/8,fd00::/8") from err

    def admits(self, address: Address) -> bool:
        """Whether a message may go there. Addresses within addresses (mapped, 6to4, Teredo, NAT64) count too."""
        if any(address.version == network.version and address in network for network in self.allowed):
            return True
        inner = _embedded(address)
        if inner is not None:
            return self.admits(inner)
        return address.is_global and not address.is_multicast and not address.is_reserved

    def check_url(self, url: str) -> str:
        """The URL, if messages may be sent to it as far as it can be told without asking for its name.

        Raises:
            InvalidSpec: it is not http(s), has no host, carries credentials, is too long, or names a place that is
                not public.
        """
        _require_whole(url)
        host = _asked_for(url)
        literal = _literal(host)
        if literal is not None and not self.admits(literal):
            raise InvalidSpec(_refused(url_shown(url), host), field="webhook_url")
        if literal is None and (host == "localhost" or host.endswith(".localhost")) and not self._admits_loopback():
            raise InvalidSpec(_refused(url_shown(url), host), field="webhook_url")
        return url

    def _admits_loopback(self) -> bool:
        return self.admits(ipaddress.ip_address("127.0.0.1")) or self.admits(ipaddress.ip_address("::1"))


class CheckedResolver(AbstractResolver):
    """Resolves names to those of their addresses that the rule admits."""

    def __init__(self, rule: AddressRule, resolver: AbstractResolver) -> None:
        self._rule = rule
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver.resolve`.

        Raises:
            AddressRefused: none of them is admitted.
        """
        found = await self._resolver.resolve(host, port, family)
        admitted = [r for r in found if (a := _literal(r["host"])) is not None and self._rule.admits(a)]
        if not admitted:
            raise AddressRefused(_refused(host, ", ".join(_hosts(found)) or "nothing"))
        return admitted

    async def close(self) -> None:
        await self._resolver.close()


def url_shown(url: str) -> str:
    """The address without user, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def _require_whole(url: str) -> None:
    if len(url) > LONGEST_URL:
        raise InvalidSpec(
            f"the webhook URL has {len(url)} characters, {LONGEST_URL} are the limit", field="webhook_url"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as err:
        raise InvalidSpec(f"the webhook URL cannot be read: {err}", field="webhook_url") from err
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidSpec("a webhook URL reads https://host/path (http is accepted)", field="webhook_url")
    if parts.username is not None or parts.password is not None:
        raise InvalidSpec("a webhook URL must not carry a user name or password", field="webhook_url")
    if any(c.isspace() or ord(c) < 0x20 for c in url):
        raise InvalidSpec("a webhook URL must not contain white space", field="webhook_url")


def _asked_for(url: str) -> str:
    """The host as the client will ask for it: `１２７.0.0.1` and `127。0。0。1` are addresses too.

    Raises:
        InvalidSpec: it is no name that can be asked for.
    """
    try:
        host = URL(url).raw_host or ""
        url.encode()
    except ValueError as err:
        raise InvalidSpec("the host of the webhook URL cannot be a name", field="webhook_url") from err
    host = host.lower().removesuffix(".")
    if host.replace(".", "").isdigit() and _literal(host) is None:  # 127.1, 2130706433: old spellings of addresses
        raise InvalidSpec(f"the webhook URL names {host!r}, which is no address of four numbers", field="webhook_url")
    return host


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _embedded(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


def _hosts(found: Iterable[ResolveResult]) -> Sequence[str]:
    return [r["host"] for r in found]


def _refused(what: str, where: str) -> str:
    return (
        f"webhooks are not sent to {what} ({where}): it is not a public address; an operator may allow its network "
        "with STACKYARD_WEBHOOK_NETWORKS"
    )
