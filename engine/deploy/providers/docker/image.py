"""`docker:index/image:Image`: an image built from a folder and pushed to a registry.

Its state is of another form than the other types': inputs are kept under `__inputs`, and there is no property table.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.deploy.diff import diff_inputs
from engine.deploy.property import UNKNOWN, PropertyMap, Secret, contains_unknown, strip_secrets
from engine.deploy.provider import CheckFailure, CheckResult, DiffResult, ReadResult
from engine.deploy.providers.docker.builds import build, context_digest
from engine.deploy.providers.docker.daemon import REFUSALS, Daemon, DaemonError, TypeFailure
from engine.deploy.providers.docker.registries import HUB, Credentials, Registries, parse_image, without_tag

TOKEN = "docker:index/image:Image"
SECONDS = 1200.0
_INPUTS = frozenset({"build", "buildOnPreview", "imageName", "registry", "skipPush"})
_BUILD = frozenset(
    {
        "addHosts", "args", "builderVersion", "cacheFrom", "context", "contextDigest", "dockerfile", "network",
        "platform", "target",
    }
)  # fmt: skip
_NOT_A_CHANGE = ("username", "password")  # they change often, and change no image
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def check(news: PropertyMap) -> CheckResult:
    """Defaults filled in, the build context hashed."""
    failures = [_unknown(key, _INPUTS) for key in sorted(news.keys() - _INPUTS) if not key.startswith("__")]
    inputs: PropertyMap = {k: v for k, v in news.items() if v is not None and not k.startswith("__")}
    if not inputs.get("imageName"):
        failures.append(CheckFailure("imageName", "missing required property 'imageName': set it in the program"))
    inputs.setdefault("buildOnPreview", False)
    registry = strip_secrets(inputs.get("registry"))
    if isinstance(registry, dict) and registry.get("password"):
        inputs["registry"] = Secret(registry)
    secret = isinstance(inputs.get("build"), Secret)
    given = strip_secrets(inputs.get("build")) if secret else inputs.get("build")
    if given is UNKNOWN:
        return CheckResult(inputs, tuple(failures))
    made, faults = _checked_build(given if isinstance(given, dict) else {})
    inputs["build"] = Secret(made) if secret else made
    return CheckResult(inputs, (*failures, *faults))


def _unknown(key: str, known: frozenset[str]) -> CheckFailure:
    return CheckFailure(key, f"{key!r} is not an input of this resource; inputs: {', '.join(sorted(known))}")


def _checked_build(given: PropertyMap) -> tuple[PropertyMap, list[CheckFailure]]:
    faults = [_unknown(f"build.{key}", _BUILD) for key in sorted(given.keys() - _BUILD) if not key.startswith("__")]
    made: PropertyMap = {k: v for k, v in given.items() if v is not None and not k.startswith("__")}
    context = made.setdefault("context", ".")
    if context is not UNKNOWN:
        made.setdefault("dockerfile", str(Path(context) / "Dockerfile") if given else "Dockerfile")
    if made.get("builderVersion") not in (None, "BuilderV1", UNKNOWN):
        faults.append(
            CheckFailure("build.builderVersion", "the built-in provider has only the daemon's builder: BuilderV1")
        )
    made.setdefault("platform", f"linux/{_MACHINES.get(platform.machine(), platform.machine())}")
    dockerfile = made.get("dockerfile")
    if not isinstance(context, str) or not isinstance(dockerfile, str):  # not known yet
        return made, faults
    if not Path(dockerfile).is_file():
        return made, [*faults, CheckFailure("build.dockerfile", _missing(context, dockerfile))]
    try:
        made["contextDigest"] = context_digest(context, dockerfile)
    except OSError as err:
        faults.append(CheckFailure("build.context", f"unable to hash build context: {err}"))
    return made, faults


def _missing(context: str, dockerfile: str) -> str:
    if (Path(context) / dockerfile).is_file():
        inside = os.path.join(context, dockerfile)
        return f'could not open dockerfile at relative path "{dockerfile}". Try setting `dockerfile` to "{inside}"'
    return f'could not open dockerfile at relative path "{dockerfile}": there is no such file'


def diff(old_inputs: PropertyMap, new_inputs: PropertyMap, ignore_changes: Sequence[str]) -> DiffResult:
    """Any change builds again; a registry's name and password are none."""
    ignored = {path.split(".", 1)[0].split("[", 1)[0] for path in ignore_changes} | {"__defaults"}
    return diff_inputs(_comparable(old_inputs, ignored), _comparable(new_inputs, ignored))


def _comparable(inputs: PropertyMap, ignored: set[str]) -> PropertyMap:
    plain: PropertyMap = {k: v for k, v in strip_secrets(inputs).items() if k not in ignored}
    registry = plain.get("registry")
    if isinstance(registry, dict):
        plain = {**plain, "registry": {k: v for k, v in registry.items() if k not in _NOT_A_CHANGE}}
    return plain


async def make(daemon: Daemon, inputs: PropertyMap, *, push: bool = True) -> tuple[str, PropertyMap]:
    """Build, and push unless `skipPush`; returns id and outputs."""
    plain = strip_secrets(inputs)
    name, options, registry = str(plain["imageName"]), plain["build"], plain.get("registry") or {}
    daemon = _with_credentials(daemon, name, registry)
    context, dockerfile = str(options["context"]), str(options["dockerfile"])
    built = await build(daemon, context, _build_options(name, options))
    outputs: PropertyMap = {
        "__inputs": Secret(inputs_kept(inputs)),
        "baseImageName": name,
        "context": context,
        "dockerfile": os.path.relpath(dockerfile, context),
        "imageName": name,
        "platform": options.get("platform") or "",
        "registryServer": registry.get("server") or "",
        "repoDigest": built,
    }
    if not push or plain.get("skipPush"):
        return name, outputs
    try:
        digest = await daemon.push(name)
    except DaemonError as err:
        raise TypeFailure(f"error reading push output: {err.words}{_push_hint(err, name)}") from err
    return name, {**outputs, "repoDigest": f"{_canonical(name)}@{digest}" if digest else "<none>@<none>"}


def inputs_kept(inputs: PropertyMap) -> PropertyMap:
    """The inputs as state keeps them beside the outputs."""
    kept: PropertyMap = strip_secrets(inputs)
    return kept


def preview(inputs: PropertyMap) -> PropertyMap:
    """What a create will lead to; the digest is known only after the build."""
    return {**inputs, "baseImageName": inputs.get("imageName", UNKNOWN), "repoDigest": UNKNOWN}


def may_build_in_preview(inputs: PropertyMap) -> bool:
    """Whether the program wants it, and all that a build needs is known."""
    needed = [inputs.get("imageName"), inputs.get("build")]
    return strip_secrets(inputs.get("buildOnPreview")) is True and not contains_unknown(needed)


async def read(daemon: Daemon, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
    """There as long as the daemon, or a registry it was pushed to, has it."""
    plain = strip_secrets(inputs)
    if not outputs:
        raise TypeFailure("an image cannot be imported: declare it, and it is built")
    pushed = not plain.get("skipPush")
    there = pushed or await daemon.image(id) is not None
    return ReadResult(id, outputs, inputs) if there else ReadResult("", {}, {})


def _build_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    cache = (given.get("cacheFrom") or {}).get("images")
    return {
        "dockerfile": os.path.relpath(given["dockerfile"], given["context"]),
        "tag": name,
        "rm": True,
        "forcerm": True,
        "buildargs": {k: str(v) for k, v in (given.get("args") or {}).items()},
        "target": given.get("target"),
        "cache_from": cache or None,
        "platform": given.get("platform"),
        "network_mode": given.get("network"),
        "extra_hosts": dict(entry.split(":", 1) for entry in given.get("addHosts") or ()) or None,
    }


def _with_credentials(daemon: Daemon, name: str, registry: PropertyMap) -> Daemon:
    """The same daemon, known to the registry by what the resource says."""
    if not registry.get("username"):
        return daemon
    given = Credentials(str(registry["username"]), str(registry.get("password") or ""))
    address = str(registry.get("server") or parse_image(name).registry)
    known = {address: given, parse_image(name).registry: given}
    registries = Registries({**daemon.registries.known, **known}, daemon.registries.config_file)
    return replace(daemon, registries=registries)


def _canonical(name: str) -> str:
    image = parse_image(name)
    return f"docker.io/{image.repository}" if image.registry == HUB else without_tag(name)


def _push_hint(err: DaemonError, name: str) -> str:
    if any(sign in err.words for sign in REFUSALS):
        return f"; name who may push to {parse_image(name).registry} in `registry`, or set skipPush"
    return ""
