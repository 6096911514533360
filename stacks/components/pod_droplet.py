"""A pod on a Droplet of its own: volume and address that stay, a firewall, and while it runs the machine."""

from __future__ import annotations

import pulumi
import pulumi_digitalocean as digitalocean

from engine.model.pod import SSH_PORT
from stacks.components.firewall import ANYWHERE
from stacks.pod_cloudinit import pod_user_data
from stacks.pod_types import POD_TYPES
from stacks.pod_workload import PodConfig


class PodDroplet(pulumi.ComponentResource):
    """A GPU Droplet with a block volume and a reserved address.

    Outputs: `machine_id` (None while it does not run), `address`.
    """

    machine_id: pulumi.Output[str] | None
    address: pulumi.Output[str]

    def __init__(self, name: str, pod: PodConfig, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("stackyard:index:PodDroplet", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        tag = digitalocean.Tag("owner", name=pod.tags[0], opts=child)
        _firewall(pod, tag, child)
        volume = digitalocean.Volume(
            "workspace",
            name=pod.stack,
            region=pod.region,
            size=pod.volume_gb,
            initial_filesystem_type="ext4",
            tags=[tag.name, pod.tags[1]],
            opts=child,
        )
        address = digitalocean.ReservedIp("address", region=pod.region, opts=child)
        self.address = address.ip_address
        self.machine_id = self._machine(pod, tag, volume, address) if pod.is_running else None
        self.register_outputs({"address": self.address})

    def _machine(
        self, pod: PodConfig, tag: digitalocean.Tag, volume: digitalocean.Volume, address: digitalocean.ReservedIp
    ) -> pulumi.Output[str]:
        pod_type = POD_TYPES[pod.gpu_type]
        option = pod_type.droplets[pod.gpu_count]
        child = pulumi.ResourceOptions(parent=self)
        droplet = digitalocean.Droplet(
            "machine",
            name=f"{pod.stack}-r{pod.revision}",
            image=option.image,
            size=option.size,
            region=pod.region,
            tags=[tag.name, pod.tags[1]],
            user_data=pulumi.Output.all(pod.environment, pod.mount_urls, pod.pull.login).apply(
                lambda texts: pod_user_data(pod, pod_type.vendor, *texts)
            ),
            monitoring=True,
            # A restart is another machine by its name; the volume can be on one at a time, so the old one goes first.
            # An upgrade of the control plane, which may write other user-data, replaces nobody's machine.
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                replace_on_changes=["name"],
                ignore_changes=["userData", "image"],
            ),
        )
        number = droplet.id.apply(int)
        digitalocean.VolumeAttachment("workspace", droplet_id=number, volume_id=volume.id, opts=child)
        digitalocean.ReservedIpAssignment("address", droplet_id=number, ip_address=address.ip_address, opts=child)
        machine: pulumi.Output[str] = droplet.id
        return machine


def _firewall(pod: PodConfig, tag: digitalocean.Tag, opts: pulumi.ResourceOptions) -> None:
    """SSH for those the operator names, the asked ports for everybody; the machine may reach the internet."""
    cidrs = {port: pod.ssh_cidrs if port == SSH_PORT else ANYWHERE for port in pod.ports}
    digitalocean.Firewall(
        "firewall",
        name=pod.stack,
        tags=[tag.name],
        inbound_rules=[
            digitalocean.FirewallInboundRuleArgs(protocol="tcp", port_range=str(port), source_addresses=list(allowed))
            for port, allowed in sorted(cidrs.items())
        ],
        outbound_rules=[
            digitalocean.FirewallOutboundRuleArgs(
                protocol=protocol,
                port_range=None if protocol == "icmp" else "1-65535",
                destination_addresses=list(ANYWHERE),
            )
            for protocol in ("tcp", "udp", "icmp")
        ],
        opts=opts,
    )
