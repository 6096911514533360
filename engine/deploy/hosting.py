"""One update as a provider in another process meets it: what it is told of it, and what it may say to it.

Not the provider's configuration and not its process (`plugin_process.py`). Source: pulumi
`sdk/go/common/resource/plugin/provider.go`, ConstructInfo and CallInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pulumi.runtime.proto import provider_pb2

from engine.deploy.events import EngineEvents
from engine.deploy.update_target import UpdateTarget


@dataclass(eq=False)
class Hosting:
    """One update.

    Attributes:
        monitor_address: where its resource monitor listens; "" before the program starts.
    """

    target: UpdateTarget
    events: EngineEvents
    dry_run: bool
    parallel: int
    monitor_address: str = ""

    def facts(self) -> dict[str, Any]:
        """The fields that every request carries whose provider may ask the monitor for resources of its own."""
        return {
            "project": self.target.project,
            "stack": self.target.stack,
            "organization": self.target.organization,
            "config": dict(self.target.config),
            "configSecretKeys": sorted(self.target.secret_keys),
            "dryRun": self.dry_run,
            "parallel": self.parallel,
            "monitorEndpoint": self.monitor_address,
            "accepts_output_values": True,
        }

    def owns(self, urn: str) -> bool:
        """Whether a resource is one of this stack's."""
        return urn.startswith(f"urn:pulumi:{self.target.stack}::{self.target.project}::")

    def tell(self, severity: str, message: str, *, urn: str = "", stream_id: int = 0, ephemeral: bool = False) -> None:
        """Show a provider's message to the user."""
        self.events.diagnostic(severity, message, urn=urn, stream_id=stream_id, ephemeral=ephemeral)


@runtime_checkable
class HostedProvider(Protocol):
    """A provider that wants to know which update it serves."""

    def join(self, hosting: Hosting) -> None:
        """Called once, before anything else."""
        ...


@runtime_checkable
class ConstructingProvider(Protocol):
    """A provider that has remote components."""

    async def construct(self, request: provider_pb2.ConstructRequest) -> provider_pb2.ConstructResponse | None:
        """Have a component made: its children are registered with the monitor the request names.

        Returns:
            None in a preview that does not know the provider's configuration yet.

        Raises:
            ProviderError: it could not be made.
        """
        ...
