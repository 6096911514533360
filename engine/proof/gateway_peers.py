"""The proxies that are measured beside the gateway: LiteLLM, nginx and a bare one. Each one process, on one core.

LiteLLM needs a Python that imports it, in an environment of its own; nginx is looked for on PATH.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.proof.installation import Child

LITELLM_KEY = "sk-bench-master"
"""LiteLLM checks this master key and no more: its virtual keys and budgets would need a PostgreSQL per request."""

_LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, set_verbose: false, num_retries: 0}}
"""

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.error.log error; {user}
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 64m; keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream models {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://models; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Peer:
    """A proxy that runs, or why it does not.

    Attributes:
        path, headers: what a chat request to it needs.
    """

    name: str
    port: int
    child: Child | None = None
    reason: str = ""
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)


def bare(folder: Path, port: int, upstream: int) -> Peer:
    url = f"http://127.0.0.1:{upstream}/v1/chat/completions"
    command = [sys.executable, "-m", "engine.proof.bare_proxy", str(port), url]
    return Peer("bare", port, Child("bare", command, folder / "bare.log", os.environ))


def nginx(folder: Path, port: int, upstream: int) -> Peer:
    """nginx with kept connections on both sides and nothing buffered."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not binary:
        return Peer("nginx", port, reason="there is no nginx on PATH (`apt-get install nginx-light`)")
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream, user=user))
    command = [binary, "-p", str(folder), "-e", str(folder / "nginx.error.log"), "-c", str(path)]
    return Peer("nginx", port, Child("nginx", command, folder / "nginx.log", os.environ))


def litellm(folder: Path, port: int, upstream: int, python: str) -> Peer:
    """LiteLLM's proxy with one worker, by a Python that has it."""
    if not python:
        return Peer("litellm", port, reason="no Python with LiteLLM was named (--litellm-python)")
    program = Path(python).parent / "litellm"
    if not program.exists():
        return Peer("litellm", port, reason=f"{program} does not exist: `pip install 'litellm[proxy]'` there")
    path = folder / "litellm.yaml"
    path.write_text(_LITELLM.format(upstream=upstream, key=LITELLM_KEY))
    environment = {
        "PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(folder), "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is to be downloaded
    }  # fmt: skip
    flags = ["--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    child = Child("litellm", [str(program), *flags, "--telemetry", "False"], folder / "litellm.log", environment)
    return Peer("litellm", port, child, headers={"authorization": f"Bearer {LITELLM_KEY}"})
