"""The SDK's dynamic providers: resources whose provider is pickled into their state by the program.

Served by the SDK's own server (`python -m pulumi.dynamic`) in the program's interpreter, which has its modules. Source:
pulumi `sdk/python/dist/pulumi-resource-pulumi-python`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from engine.deploy.local_program import LocalRuntime
from engine.deploy.plugin_process import PluginCommand
from engine.deploy.property import PropertyMap, Secret

PACKAGE = "pulumi-python"
VERSION = "0.1.0"  # what the SDK's server says of itself


def dynamic_command(runtime: LocalRuntime, project: str, environment: Mapping[str, str]) -> PluginCommand:
    """How to serve the dynamic providers of a project's programs."""
    child = {**runtime.environment(environment), "PULUMI_PROJECT": project}
    if runtime.virtualenv is None:  # an inline program's classes come from wherever this process found them
        child["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    argv = (str(runtime.interpreter), "-u", "-m", "pulumi.dynamic")
    return PluginCommand("pulumi-python (dynamic providers)", argv, child, str(runtime.directory), shows_output=True)


def dynamic_configuration(config: Mapping[str, str], secret_keys: frozenset[str]) -> PropertyMap:
    """What a dynamic provider's `configure` is given: the stack's whole configuration, by full key."""
    return {key: Secret(text) if key in secret_keys else text for key, text in sorted(config.items())}
