"""What a machine is told to serve: the worker specification a Droplet's user-data carries.

Standard library only and Python 3.10: the agent takes this file along to machines that have nothing installed.
Not the deployment's specification: that is `deployment.py`, of which this is one replica's share.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SPEC_PATH = "/etc/stackyard/worker.json"
AGENT_PATH = "/opt/stackyard/agent.pyz"
LOG_PATH = "/var/log/stackyard/worker.log"
EXITS_PATH = "/var/log/stackyard/worker.exits"
"""One line with the exit code for every time a handler's process ended by itself."""

MOUNTS_PATH = "/etc/stackyard/mounts.json"
"""Stored objects that a handler's container mounts, as JSON: object_id, path, url, size_bytes, sha256 of each."""

MODELS_PATH = "/var/lib/stackyard/models"
"""Own weights that were fetched."""

HANDLER = "handler"
LLAMA_CPP = "llama.cpp"
OWN_WEIGHTS = "byom:"
"""Before the name of own weights, where it stands among other models' names."""

MODEL_HEADER = "X-Stackyard-Model"
"""Which own weights a request is for (`byom:NAME`), told to the agent by the gateway, which alone has its token."""


@dataclass(frozen=True)
class WorkerSpec:
    """One replica's share of a deployment.

    Attributes:
        deployment_id: owner, `dep_…`.
        replica: stable name of the replica within its deployment, for example `r1-0`.
        model_id: the name the model is served under.
        engine: `vllm` (OpenAI server in a container), `llama.cpp` (server over a GGUF) or `handler` (a user's image).
        image: container image of the engine; empty where the machine brings the engine itself.
        args: the engine's command-line flags, already chosen for this GPU.
        env: environment of the engine's process.
        worker_port: port of the engine on the machine's loopback (in the sandbox: on the machine's own address).
        agent_port: the only port that is reachable from outside; TLS.
        token: bearer token the agent demands; per deployment.
        certificate_pem, private_key_pem: the agent's TLS identity, whose fingerprint the gateway pins.
        log_path: where the engine's output is kept on the machine.
        llama_command: starts llama.cpp's server for own weights; empty: the machine serves none. What stands in braces
            is filled in by the agent (`engine/agent/own_models.py`).
        own_weights_gib: GPU memory that is left to own weights.
    """

    deployment_id: str
    replica: str
    model_id: str
    engine: str
    image: str
    args: tuple[str, ...]
    token: str
    certificate_pem: str
    private_key_pem: str
    env: dict[str, str] = field(default_factory=dict)
    worker_port: int = 8000
    agent_port: int = 8443
    log_path: str = LOG_PATH
    llama_command: tuple[str, ...] = ()
    own_weights_gib: float = 0.0
    version: int = 1

    @property
    def own_model(self) -> str | None:
        """The name of the own weights this machine is made of alone; None: it has another model, or a handler."""
        is_own = self.engine == LLAMA_CPP and self.model_id.startswith(OWN_WEIGHTS)
        return self.model_id[len(OWN_WEIGHTS) :] if is_own else None

    def to_json(self) -> str:
        """The text of `/etc/stackyard/worker.json`; keys sorted, so equal specifications are equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        """Read the text of `/etc/stackyard/worker.json`.

        Raises:
            ValueError: not JSON, not version 1, or a field is missing or unknown; the message names it.
        """
        data: dict[str, Any] = json.loads(text)
        if data.get("version") != 1:
            raise ValueError(f"worker specification version {data.get('version')!r} is not 1: update the agent")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown fields in the worker specification: {', '.join(unknown)}")
        data["args"] = tuple(data.get("args", ()))
        data["llama_command"] = tuple(data.get("llama_command", ()))
        try:
            return cls(**data)
        except TypeError as err:
            raise ValueError(f"incomplete worker specification: {err}") from err
