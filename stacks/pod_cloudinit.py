"""The user-data of a pod's Droplet: the user's key, the volume at `/workspace`, and the image run by Docker.

SSH reaches the machine itself, whatever the image has; the container is `docker exec -it pod bash` from there.
"""

from __future__ import annotations

import json
import shlex

from engine.model.pod import SSH_PORT, WORKSPACE
from stacks.cloudinit import MAX_USER_DATA_BYTES, written
from stacks.fetched_files import bindings, fetching, files_of
from stacks.image_pull import fetching_image, login_file
from stacks.pod_types import AMD, NVIDIA
from stacks.pod_workload import PodConfig

SETUP_PATH = "/opt/stackyard/setup.sh"
RUN_PATH = "/opt/stackyard/run.sh"
MOUNTS_FOLDER = f"{WORKSPACE}/.stackyard/mounts"
"""On the volume: a restart makes a machine from the same user-data, whose URLs may have expired by then."""

_UNIT_PATH = "/etc/systemd/system/stackyard-pod.service"

_DEVICES = {
    NVIDIA: ("--gpus", "all"),
    AMD: ("--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video",
          "--security-opt", "seccomp=unconfined"),
}  # fmt: skip

_SETUP = """#!/bin/sh
# Installs what the image lacks, waits for the volume, then starts the container. Runs once, by cloud-init.
set -eu
export DEBIAN_FRONTEND=noninteractive
if ! command -v docker >/dev/null; then apt-get update -q && apt-get install -yq docker.io; fi
if command -v nvidia-ctk >/dev/null; then nvidia-ctk runtime configure --runtime=docker && systemctl restart docker; fi
volume={device}
for _ in $(seq 600); do [ -e "$volume" ] && break; sleep 1; done
blkid "$volume" >/dev/null || mkfs.ext4 -q "$volume"
mkdir -p {workspace}
grep -q " {workspace} " /etc/fstab || echo "$volume {workspace} ext4 defaults,nofail,discard 0 2" >> /etc/fstab
mountpoint -q {workspace} || mount {workspace}
systemctl daemon-reload
systemctl enable --now stackyard-pod.service
"""

_UNIT = """[Unit]
Description=Stackyard pod
After=docker.service network-online.target
Wants=network-online.target
Requires=docker.service
RequiresMountsFor={workspace}

[Service]
ExecStartPre=-/usr/bin/docker rm -f pod
ExecStart={run}
ExecStop=/usr/bin/docker stop -t 10 pod
Restart=always
RestartSec=5
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"""


def pod_user_data(pod: PodConfig, vendor: str, environment: str, mount_urls: str, registry_login: str = "{}") -> str:
    """The whole user-data of a pod's machine.

    Args:
        environment: the pod's, as JSON.
        mount_urls: where its mounts are fetched from, as JSON.
        registry_login: as whom its image is fetched, as JSON.

    Raises:
        ValueError: more than DigitalOcean accepts: the environment is too large.
    """
    setup = _SETUP.format(device=f"/dev/disk/by-id/scsi-0DO_Volume_{pod.stack}", workspace=WORKSPACE)
    run = _run_script(pod, vendor, environment, mount_urls, registry_login)
    config: dict[str, object] = {
        "disable_root": False,
        "ssh_pwauth": False,
        "chpasswd": {"expire": False},
        "write_files": [
            {"path": SETUP_PATH, "permissions": "0755", "content": setup},
            {"path": RUN_PATH, "permissions": "0700", **written(run)},
            *login_file(registry_login),
            {"path": _UNIT_PATH, "permissions": "0644", "content": _UNIT.format(run=RUN_PATH, workspace=WORKSPACE)},
        ],
        "runcmd": [[SETUP_PATH]],
    }
    if pod.ssh_public_key:
        key_and_comment = pod.ssh_public_key.split(maxsplit=2)
        comment = "".join(c for c in " ".join(key_and_comment[2:]) if ord(c) <= 0xFFFF)  # see `written`
        config["ssh_authorized_keys"] = [" ".join([*key_and_comment[:2], comment]).strip()]
    text = "#cloud-config\n" + json.dumps(config, indent=1)
    if (size := len(text.encode())) > MAX_USER_DATA_BYTES:
        raise ValueError(f"user-data of {size} bytes; DigitalOcean accepts {MAX_USER_DATA_BYTES}")
    return text


def _run_script(pod: PodConfig, vendor: str, environment: str, mount_urls: str, registry_login: str) -> str:
    files = files_of(pod.mounts, mount_urls)
    values = sorted(pod.environment_of(environment).items())
    published = [port for port in sorted(pod.ports) if port != SSH_PORT]
    command = [
        "/usr/bin/docker", "run", "--rm", "--name", "pod", "--hostname", pod.stack, *_DEVICES.get(vendor, ()),
        "--shm-size", "16g", "--volume", f"{WORKSPACE}:{WORKSPACE}",
        *(part for port in published for part in ("--publish", f"{port}:{port}")),
        *bindings(files, MOUNTS_FOLDER),
        *(part for key, value in values for part in ("--env", f"{key}={value}")),
        pod.image,
    ]  # fmt: skip
    fetched = fetching_image(pod.image, registry_login) + fetching(files, folder=MOUNTS_FOLDER)
    return f"#!/bin/sh\n{fetched}exec {shlex.join(command)}\n"
