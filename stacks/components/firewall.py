"""The firewall of a deployment's machines: the agent's port for the control plane, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_digitalocean as digitalocean

ANYWHERE = ("0.0.0.0/0", "::/0")


def worker_firewall(
    name: str, *, tag: pulumi.Input[str], agent_port: int, cidrs: Sequence[str]
) -> digitalocean.Firewall:
    """Admit `cidrs` to the agent's port of every machine that carries `tag`; let the machines reach the internet.

    It is bound to the tag, not to machine ids, so that a machine is never up without it.
    """
    everywhere = list(ANYWHERE)
    return digitalocean.Firewall(
        name,
        name=name,
        tags=[tag],
        inbound_rules=[
            digitalocean.FirewallInboundRuleArgs(
                protocol="tcp", port_range=str(agent_port), source_addresses=list(cidrs)
            )
        ],
        outbound_rules=[
            digitalocean.FirewallOutboundRuleArgs(
                protocol=protocol,
                port_range=None if protocol == "icmp" else "1-65535",
                destination_addresses=everywhere,
            )
            for protocol in ("tcp", "udp", "icmp")
        ],
    )
