"""What history remembers of an update's circumstances: names of settings and versions, no values of anybody's.

It finds out nothing by running anything. Source: pulumi `cmd/pulumi/metadata/metadata.go`.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from engine.deploy.checkpoint import COMPATIBLE_VERSION
from engine.deploy.command.session import Session
from engine.deploy.local_program import LocalRuntime, read_runtime
from engine.deploy.stack_config import ConfigError
from engine.deploy.update import UpdateMode

_TEXT_SWITCHES = frozenset({"true", "false"})
_NO_VERSION = "0.0.0"  # what the official host says of a pip that is not there


def circumstances(session: Session, mode: UpdateMode) -> Mapping[str, str]:
    """The `environment` of an entry in the history, sorted."""
    arguments = session.arguments
    facts = {
        "exec.kind": arguments.text("exec-kind", "cli"),
        "pulumi.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "pulumi.os": sys.platform,
        "pulumi.version": f"v{COMPATIBLE_VERSION}",
        "stack.environments": "[]",
        "updatePlan": "true" if arguments.text("plan") else "false",
    }
    for name, text in session.env.items():
        if name.startswith("PULUMI_"):
            facts[f"pulumi.env.{name}"] = text if text in _TEXT_SWITCHES else "set"
    if session.terminal is None:
        facts["pulumi.flag.non-interactive"] = "true"
    if facts["exec.kind"].startswith("auto."):
        facts["pulumi.env.PULUMI_AUTOMATION_API"] = "set"
    for flag, texts in arguments.flags.items():
        facts[f"pulumi.flag.{flag}"] = texts[-1] if texts[-1] in _TEXT_SWITCHES else "set"
    if mode is UpdateMode.UP:
        facts |= _client() if arguments.text("client") else _python(session.project.path)
    return dict(sorted(facts.items()))


def _client() -> dict[str, str]:
    """An inline program's language host is the Automation API's, in this very process."""
    return {
        "runtime.executable": str(Path(sys.executable)),
        "runtime.name": "client",
        "runtime.version": platform.python_version(),
    }


def _python(project: Path) -> dict[str, str]:
    """The Python of a program in a folder."""
    with suppress(ConfigError):  # the update has said so
        runtime = read_runtime(project)
        facts = {
            "runtime.executable": str(runtime.interpreter),
            "runtime.metadata.toolchain": (runtime.toolchain or "auto").capitalize(),
            "runtime.metadata.typechecker": "None",
            "runtime.name": "python",
            "runtime.version": _python_version(runtime),
        }
        if runtime.toolchain != "uv":  # which tells its version only when it is run
            facts["runtime.metadata.toolchainVersion"] = _pip_version(runtime.virtualenv or Path(sys.prefix))
        return facts
    return {}


def _python_version(runtime: LocalRuntime) -> str:
    if runtime.virtualenv is None:
        return platform.python_version()
    with suppress(OSError):
        settings = (runtime.virtualenv / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", settings, re.MULTILINE):
            return found[1]
    return _NO_VERSION


def _pip_version(prefix: Path) -> str:
    for folder in prefix.glob("lib/python*/site-packages/pip-*.dist-info"):
        if found := re.match(r"pip-(\d+(?:\.\d+)*)", folder.name):
            return ".".join([*found[1].split("."), "0", "0"][:3])
    return _NO_VERSION
