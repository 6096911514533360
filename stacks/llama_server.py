"""How a GPU Droplet serves own weights: llama.cpp's server in a container, as a template that the agent fills in."""

from __future__ import annotations

CUDA_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-cuda"
ROCM_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-rocm"

SLOTS = 4
"""Requests a server answers at the same time; all share one context (`--kv-unified`)."""

NVIDIA_DEVICES = ("--gpus", "all")
AMD_DEVICES = ("--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video",
               "--security-opt", "seccomp=unconfined")  # fmt: skip

# The first argument is the container's name. `docker run` in the foreground does not always pass SIGTERM on to a
# container that is still loading, and one that a killed agent left behind must not keep its memory.
_RUN = (
    'name="$1"; shift; docker rm -f "$name" >/dev/null 2>&1; '
    "trap 'docker stop -t 10 \"$name\" >/dev/null 2>&1' TERM INT; "
    '"$@" & child=$!; wait "$child"; code=$?; wait "$child" 2>/dev/null; exit "$code"'
)


def llama_image(vendor: str) -> str:
    """The build for a maker's GPUs: `nvidia` or `amd`."""
    return CUDA_IMAGE if vendor == "nvidia" else ROCM_IMAGE


def llama_command(vendor: str) -> tuple[str, ...]:
    """`WorkerSpec.llama_command` of a machine: weights mounted read-only, reachable from the machine alone."""
    return (
        "/bin/sh", "-c", _RUN, "own-weights", "{container}",
        "/usr/bin/docker", "run", "--rm", "--name", "{container}",
        *(NVIDIA_DEVICES if vendor == "nvidia" else AMD_DEVICES),
        "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--publish", "{host}:{port}:8080",
        "--volume", "{file}:/model.gguf:ro", llama_image(vendor),
        "--model", "/model.gguf", "--alias", "{alias}", "--host", "0.0.0.0", "--port", "8080",
        "-ngl", "99", "--ctx-size", "{context}", "--parallel", str(SLOTS), "--kv-unified", "--jinja", "--metrics",
        "--no-webui",
    )  # fmt: skip
