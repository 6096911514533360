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
_TEXTS = frozenset({"refresh", "suppress-permalink"})  # officially a text that may be left out
_SWITCHES = re.compile(
    r"PULUMI_(AUTOMATION_API_SKIP_VERSION_CHECK|CONTINUE_ON_ERROR|DEBUG_COMMANDS|DEV|EXPERIMENTAL|GOROUTINE_PANIC_RECOVERY"
    r"|DISABLE_(AUTOMATIC_PLUGIN_ACQUISITION|JOURNALING|OUTPUT_VALUES|PROVIDER_PREVIEW|REGISTRY_RESOLVE"
    r"|RESOURCE_REFERENCES|SECRET_CACHE|VALIDATION)"
    r"|DIY_BACKEND_(DISABLE_CHECKPOINT_BACKUPS|GZIP|IGNORE_DEPRECATION_ERROR|LEGACY_LAYOUT|NO_LEGACY_WARNING"
    r"|RETAIN_CHECKPOINTS|ZSTD)"
    r"|ENABLE_(LEGACY_DIFF|LEGACY_REFRESH_DIFF|STREAMING_JSON_PREVIEW)|ERROR_(ON_DEPENDENCY_CYCLES|OUTPUT_STRING)"
    r"|FALLBACK_TO_STATE_SECRETS_MANAGER|IGNORE_AMBIENT_PLUGINS|NEO|PARALLEL_DIFF|RUN_PROGRAM"
    r"|SKIP_(CHECKPOINTS|CONFIRMATIONS|UPDATE_CHECK)|SUPPRESS_NEO_LINK)"
)
"""The variables that are true or false; of the others even such a value is nobody's business."""
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
            is_on = str(text.lower() in ("1", "true")).lower()
            facts[f"pulumi.env.{name}"] = is_on if _SWITCHES.fullmatch(name) else "set"
    if session.terminal is None:
        facts["pulumi.flag.non-interactive"] = "true"
    if facts["exec.kind"].startswith("auto."):
        facts["pulumi.env.PULUMI_AUTOMATION_API"] = "set"
    for flag, texts in arguments.flags.items():
        is_switch = texts[-1] in _TEXT_SWITCHES and flag not in _TEXTS
        facts[f"pulumi.flag.{flag}"] = texts[-1] if is_switch else "set"
    if mode is UpdateMode.UP and arguments.verb != ("import",):
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
