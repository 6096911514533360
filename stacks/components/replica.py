"""One replica of a deployment, or one worker of a handler, on its own GPU Droplet."""

from __future__ import annotations

from typing import Protocol

import pulumi
import pulumi_digitalocean as digitalocean


class Hardware(Protocol):
    """A Droplet to ask for."""

    @property
    def droplet_size(self) -> str: ...

    @property
    def droplet_image(self) -> str: ...


class DropletReplica(pulumi.ComponentResource):
    """A GPU Droplet that boots one worker.

    Outputs: `droplet_id`, `address` (public IPv4), `status` (the cloud's word for its phase).
    """

    droplet_id: pulumi.Output[str]
    address: pulumi.Output[str]
    status: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        hostname: str,
        gpu: Hardware,
        region: str,
        tags: list[pulumi.Input[str]],
        ssh_keys: list[str],
        user_data: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("stackyard:index:DropletReplica", name, None, opts)
        droplet = digitalocean.Droplet(
            name,
            name=hostname,
            image=gpu.droplet_image,
            size=gpu.droplet_size,
            region=region,
            tags=tags,
            ssh_keys=ssh_keys or None,
            user_data=user_data,
            monitoring=True,
            # Each of these would replace a serving machine at its next update, because the agent was upgraded, the
            # catalog names a newer image or an operator added a key. What must replace machines raises the revision,
            # which is part of the name; new machines get all of it.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["userData", "image", "sshKeys"]),
        )
        self.droplet_id = droplet.id
        self.address = droplet.ipv4_address
        self.status = droplet.status
        self.register_outputs({"address": self.address})
