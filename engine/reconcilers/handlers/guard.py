"""Keeps tenants' containers on a Docker host from the host itself and from its cloud's metadata.

Docker keeps networks from each other, not from ports that are published: containers of all tenants reach those at the
host's own addresses, and 169.254.169.254. Rules of the host's packet filter close both; a container keeps them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import requests.exceptions
import structlog
from docker.errors import DockerException

from engine.deploy.providers.docker.host_programs import keep_on_host, run_on_host
from engine.deploy.providers.docker.hosts import DockerHost as Connection
from engine.deploy.providers.docker.hosts import HostUnreachable
from engine.model.clock import Clock
from engine.model.hosts import BRIDGES, DockerHost

NAME = "stackyard-guard"
CAPABILITIES = ("NET_ADMIN", "NET_RAW")
CHECK_SECONDS = 60.0
_CHAIN = "STACKYARD"
_log = structlog.get_logger("guard")

_RULES = """\
iptables -w 10 -n -L DOCKER-USER >/dev/null || exit 3
printf '%s\\n' '*filter' ':{chain} - [0:0]' {rules} COMMIT | iptables-restore -w 10 --noflush || exit 4
iptables -w 10 -C INPUT -i {bridges} -j {chain} 2>/dev/null || iptables -w 10 -I INPUT -i {bridges} -j {chain} || exit 4
iptables -w 10 -C DOCKER-USER -i {bridges} -d 169.254.0.0/16 -j DROP 2>/dev/null || \
iptables -w 10 -I DOCKER-USER -i {bridges} -d 169.254.0.0/16 -j DROP || exit 4
"""


def rules(gateway_url: str) -> str:
    """A shell's script that closes what is open; as often as one likes, and without a moment in which it is open.

    Containers may ask the host for names, and reach the gateway where it runs there.

    Args:
        gateway_url: where workers ask for jobs.
    """
    url = urlsplit(gateway_url)
    gateway = url.port or (443 if url.scheme == "https" else 80)
    lines = [
        f"-A {_CHAIN} -p udp --dport 53 -j ACCEPT", f"-A {_CHAIN} -p tcp --dport 53 -j ACCEPT",
        f"-A {_CHAIN} -p tcp --dport {gateway} -j ACCEPT",
        f"-A {_CHAIN} -m conntrack --ctstate NEW -j DROP",  # answers to the control plane are not new
    ]  # fmt: skip
    return _RULES.format(chain=_CHAIN, bridges=BRIDGES, rules=" ".join(f"'{line}'" for line in lines))


IS_CLOSED = f"""\
iptables -w 10 -C INPUT -i {BRIDGES} -j {_CHAIN} && iptables -w 10 -C DOCKER-USER -i {BRIDGES} -d 169.254.0.0/16 -j DROP
"""
"""A script that ends with 0 where the rules are in place; it changes nothing."""

METADATA_RULE = f"iptables -I DOCKER-USER -i {BRIDGES} -d 169.254.0.0/16 -j DROP"
"""What closes metadata alone, for hosts that are not guarded and published at loopback."""


def keeping(gateway_url: str) -> str:
    """A script that sees to it for ever: other programs flush packet filters now and then."""
    return f"while true; do ({rules(gateway_url)}); sleep 10; done"


def guard(connection: Connection, gateway_url: str) -> str:
    """Close a host now and from now on; returns "", or why it cannot be. Blocks.

    Raises:
        HostUnreachable: no daemon answers.
    """
    try:
        client = connection.client()
        done = run_on_host(client, rules(gateway_url), capabilities=CAPABILITIES)
        if done.exit_code == 0:
            keep_on_host(client, NAME, keeping(gateway_url), capabilities=CAPABILITIES)
    except (DockerException, requests.exceptions.RequestException, OSError) as err:
        return f"its daemon does not run the host's iptables: {err}"
    if done.exit_code == 3:
        return f"its daemon manages no packet filter (there is no chain DOCKER-USER): {done.text.strip()[:200]}"
    return "" if done.exit_code == 0 else f"its iptables refuses: {done.text.strip()[:200]}"


class HostGuards:
    """Sees to the guards of all hosts that have one.

    Args:
        connections: by the name of the host.
    """

    def __init__(
        self, hosts: Sequence[DockerHost], connections: Mapping[str, Connection], gateway_url: str, clock: Clock
    ) -> None:
        self._hosts = [host for host in hosts if host.is_guarded]
        self._connections = connections
        self._gateway_url = gateway_url
        self._clock = clock
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Look at them again and again, until cancelled."""
        while True:
            await asyncio.gather(*(self._look(host) for host in self._hosts))
            await self._clock.sleep(CHECK_SECONDS)

    async def _look(self, host: DockerHost) -> None:
        try:
            why_not = await asyncio.to_thread(guard, self._connections[host.name], self._gateway_url)
        except HostUnreachable:
            return  # nothing runs there that could be kept from anything
        if why_not and why_not != self._said.get(host.name):
            _log.warning("containers on a Docker host are not kept from it", host=host.name, reason=why_not)
        self._said[host.name] = why_not
