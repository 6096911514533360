"""The user-data of a GPU Droplet: worker specification, agent, model server in a container, both under systemd.

The text is `#cloud-config` followed by JSON, which is YAML: deterministic, and no quoting can go wrong.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict

from engine.model.worker import AGENT_PATH, EXITS_PATH, HANDLER, MOUNTS_PATH, SPEC_PATH, WorkerSpec
from stacks.fetched_files import FetchedFile, bindings, fetching
from stacks.image_pull import fetching_image, login_file
from stacks.llama_server import AMD_DEVICES, NVIDIA_DEVICES

MAX_USER_DATA_BYTES = 64 * 1024
"""DigitalOcean refuses more (OpenAPI document, `user_data`)."""

SETUP_PATH = "/opt/stackyard/setup.sh"
SERVE_PATH = "/opt/stackyard/serve.sh"

_SETUP = """#!/bin/sh
# Installs what the image lacks, then starts the model server and the agent. Runs once, by cloud-init.
set -eu
export DEBIAN_FRONTEND=noninteractive
missing=""
command -v docker >/dev/null || missing="docker.io"
python3 -c 'import aiohttp' 2>/dev/null || missing="$missing python3-aiohttp"
if [ -n "$missing" ]; then apt-get update -q && apt-get install -yq $missing; fi
if command -v nvidia-ctk >/dev/null; then nvidia-ctk runtime configure --runtime=docker && systemctl restart docker; fi
mkdir -p /var/log/stackyard
systemctl daemon-reload
systemctl enable --now {services}
"""

_NO_METADATA = """# Containers must not read this machine's user-data, which holds the agent's secrets.
ExecStartPre=/bin/sh -c 'iptables -C DOCKER-USER -d 169.254.169.254 -j DROP || \
iptables -I DOCKER-USER -d 169.254.169.254 -j DROP'
"""

_WORKER_UNIT = """[Unit]
Description=Stackyard model server
After=docker.service network-online.target
Wants=network-online.target
Requires=docker.service

[Service]
{no_metadata}ExecStartPre=-/usr/bin/docker rm -f stackyard-worker
ExecStart={serve}
ExecStop=/usr/bin/docker stop -t 30 stackyard-worker
Restart=always
RestartSec=5
StandardOutput=append:{log}
StandardError=append:{log}

[Install]
WantedBy=multi-user.target
"""

_AGENT_UNIT = """[Unit]
Description=Stackyard agent
After={after}
Wants={after}
StartLimitIntervalSec=0

[Service]
{no_metadata}ExecStart=/usr/bin/python3 {agent} --spec {spec}
Restart=always
RestartSec=1
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
"""


def user_data(
    spec: WorkerSpec, vendor: str, agent_archive: bytes, files: Sequence[FetchedFile] = (), registry_login: str = "{}"
) -> str:
    """The whole user-data of one replica.

    Args:
        vendor: `nvidia` or `amd`, of the machine's GPUs.
        files: stored objects that a handler's container finds at their paths.
        registry_login: as whom a handler's image is fetched: JSON of username and password, `{}` for nobody.

    Raises:
        ValueError: more than DigitalOcean accepts.
    """
    archive = base64.b64encode(agent_archive).decode("ascii")
    text = "#cloud-config\n" + json.dumps(
        {
            "write_files": [
                _file(SPEC_PATH, spec.to_json(), "0600"),
                {"path": AGENT_PATH, "permissions": "0644", "encoding": "b64", "content": archive},
                _file(SETUP_PATH, _setup(spec), "0755"),
                *(() if spec.own_model else _model_server(spec, vendor, files, registry_login)),
                *login_file(registry_login),
                *([_file(MOUNTS_PATH, json.dumps([asdict(f) for f in files]), "0600")] if files else []),
                _file("/etc/systemd/system/stackyard-agent.service", _agent_unit(spec), "0644"),
            ],
            "runcmd": [[SETUP_PATH]],
        },
        indent=1,
    )  # fmt: skip
    if (size := len(text.encode())) > MAX_USER_DATA_BYTES:
        raise ValueError(f"user-data of {size} bytes; DigitalOcean accepts {MAX_USER_DATA_BYTES}")
    return text


def _setup(spec: WorkerSpec) -> str:
    """A machine of own weights alone has no model server of its own; their server's image is fetched meanwhile."""
    if spec.own_model is None:
        return _SETUP.format(services="stackyard-worker.service stackyard-agent.service")
    return _SETUP.format(services="stackyard-agent.service") + f"docker pull -q {shlex.quote(spec.image)} || true\n"


def _agent_unit(spec: WorkerSpec) -> str:
    """Where the agent starts containers itself, they are kept from the metadata as the model server's is."""
    no_metadata, after = (_NO_METADATA, " docker.service") if spec.llama_command else ("", "")
    return _AGENT_UNIT.format(
        agent=AGENT_PATH, spec=SPEC_PATH, no_metadata=no_metadata, after=f"network-online.target{after}"
    )


def _model_server(
    spec: WorkerSpec, vendor: str, files: Sequence[FetchedFile], registry_login: str
) -> tuple[dict[str, str], ...]:
    unit = _WORKER_UNIT.format(serve=SERVE_PATH, log=spec.log_path, no_metadata=_NO_METADATA)
    return (
        _file(SERVE_PATH, _serve_script(spec, vendor, files, registry_login), "0700"),
        _file("/etc/systemd/system/stackyard-worker.service", unit, "0644"),
    )


def _file(path: str, content: str, permissions: str) -> dict[str, str]:
    return {"path": path, "permissions": permissions, **written(content)}


def written(content: str) -> dict[str, str]:
    """A file's content for `write_files`.

    JSON writes what lies beyond U+FFFF as two halves, which YAML does not put together again.
    """
    if all(ord(character) <= 0xFFFF for character in content):
        return {"content": content}
    return {"encoding": "b64", "content": base64.b64encode(content.encode()).decode("ascii")}


def _serve_script(spec: WorkerSpec, vendor: str, files: Sequence[FetchedFile], registry_login: str) -> str:
    is_handler = spec.engine == HANDLER
    environment = [part for key, value in sorted(spec.env.items()) for part in ("--env", f"{key}={value}")]
    command = [
        "/usr/bin/docker", "run", "--rm", "--name", "stackyard-worker",
        *(NVIDIA_DEVICES if vendor == "nvidia" else AMD_DEVICES),
        "--shm-size", "16g", "--publish", f"127.0.0.1:{spec.worker_port}:{spec.worker_port if is_handler else 8000}",
        "--volume", "/var/lib/stackyard/cache:/root/.cache", *bindings(files), *environment,
        *(("--security-opt", "no-new-privileges", spec.image) if is_handler
          else ("--entrypoint", spec.engine, spec.image)),
        *spec.args,
    ]  # fmt: skip
    if not is_handler:
        return f"#!/bin/sh\nexec {shlex.join(command)}\n"
    # The agent tells a crash loop by these lines. `docker run` passes SIGTERM on while this shell waits for it.
    fetched = fetching_image(spec.image, registry_login, EXITS_PATH) + fetching(files, EXITS_PATH)
    start = f"{fetched}{shlex.join(command)}"
    return f"#!/bin/sh\n{start}\ncode=$?\necho $code >> {EXITS_PATH}\nexit $code\n"
