"""The `pulumi` command line without a process: `EmbeddedPulumi` for the Automation API, one module per verb group."""

from engine.deploy.command.embedded import EmbeddedPulumi
from engine.deploy.command.loop import EngineLoop

__all__ = ["EmbeddedPulumi", "EngineLoop"]
