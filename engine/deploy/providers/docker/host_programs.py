"""Runs a Docker host's own programs through its daemon: its packet filter, its GPU drivers' tools. Knows none of them.

The way needs no login on the host and no registry: a container of an image without a file, in which links lead to the
host's programs and libraries. Whoever may use a daemon is root on its host already; nothing is gained by it.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import docker
from docker.errors import APIError, ImageNotFound, NotFound

_FOLDERS = ("bin", "sbin", "lib", "lib64", "lib32", "usr", "opt", "nix")
_IN_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf")
_HOST = "/host"
_REPOSITORY, _TAG = "stackyard.invalid/host-programs", "2"
"""No registry can ever have this name (RFC 6761): of one that can be pulled, a tenant's image would be run as root."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/rocm/bin"
_RECIPE = "stackyard.recipe"


@dataclass(frozen=True)
class Ran:
    """What came of a script: its exit code, and what it wrote to both of its streams."""

    exit_code: int
    text: str


def run_on_host(
    client: docker.APIClient, script: str, *, capabilities: Sequence[str] = (), device_majors: Sequence[int] = (),
    seconds: int = 30,
) -> Ran:  # fmt: skip
    """Run a shell's script once, in the host's network.

    Args:
        capabilities: of the kernel's, what it needs.
        device_majors: numbers of the kernel's drivers whose devices it may use.

    Raises:
        docker.errors.DockerException, requests.RequestException: the daemon refused, or it took longer.
    """
    id = _create(client, script, _limits(capabilities, device_majors), labels={})["Id"]
    try:
        client.start(id)
        code = int(client.wait(id, timeout=seconds)["StatusCode"])
        return Ran(code, client.logs(id).decode(errors="replace"))
    finally:
        with suppress(NotFound):
            client.remove_container(id, force=True)


def keep_on_host(
    client: docker.APIClient, name: str, script: str, *, capabilities: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> bool:  # fmt: skip
    """Have a script run for as long as the host does, over restarts too; True: it was not there, or another one.

    Raises:
        docker.errors.DockerException, requests.RequestException: the daemon refused.
    """
    recipe = hashlib.sha256(repr([script, sorted(capabilities), _TAG]).encode()).hexdigest()[:16]
    with suppress(NotFound):
        found = client.inspect_container(name)
        if (found["Config"].get("Labels") or {}).get(_RECIPE) == recipe:
            if found["State"]["Running"]:
                return False
            client.start(name)
            return True
        client.remove_container(name, force=True)
    limits = _limits(capabilities) | {"restart_policy": {"Name": "always"}}
    try:
        _create(client, script, limits, labels={**(labels or {}), _RECIPE: recipe}, name=name)
    except APIError as err:
        if err.status_code != 409:  # another process made it in this moment
            raise
    client.start(name)
    return True


def _create(
    client: docker.APIClient, script: str, limits: Mapping[str, object], *, labels: Mapping[str, str], name: str = ""
) -> Mapping[str, str]:
    made: Mapping[str, str] = client.create_container(
        _image(client), entrypoint=["/bin/sh", "-c", script], name=name or None,
        environment={"PATH": _PATH, "HOME": "/tmp"}, labels=dict(labels),
        host_config=client.create_host_config(**limits), network_disabled=False,
    )  # fmt: skip
    return made


def _limits(capabilities: Sequence[str], device_majors: Sequence[int] = ()) -> dict[str, object]:
    binds = {"/": {"bind": _HOST, "mode": "ro"}}
    if device_majors:
        binds["/dev"] = {"bind": "/dev", "mode": "ro"}
    return {
        "binds": binds, "network_mode": "host", "read_only": True, "tmpfs": {"/run": "", "/tmp": ""},
        "cap_drop": ["ALL"], "cap_add": list(capabilities), "pids_limit": 64,
        "device_cgroup_rules": [f"c {major}:* rw" for major in device_majors],
        "log_config": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
    }  # fmt: skip


def _image(client: docker.APIClient) -> str:
    """The id of the image without a file; made where it is missing, or where something else has its name."""
    name, archive = f"{_REPOSITORY}:{_TAG}", _links()
    layers = [f"sha256:{hashlib.sha256(archive).hexdigest()}"]
    with suppress(ImageNotFound):
        found = client.inspect_image(name)
        if found["RootFS"].get("Layers") == layers:
            return str(found["Id"])
    client.import_image_from_data(archive, repository=_REPOSITORY, tag=_TAG)
    return str(client.inspect_image(name)["Id"])


def _links() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in ("etc", "host", "run", "tmp", "proc", "sys", "dev"):
            _add(tar, folder, tarfile.DIRTYPE)
        for name in _FOLDERS:
            _add(tar, name, tarfile.SYMTYPE, f"{_HOST}/{name}")
        for name in _IN_ETC:
            _add(tar, f"etc/{name}", tarfile.SYMTYPE, f"{_HOST}/etc/{name}")
    return archive.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, 0o755
    tar.addfile(member)
