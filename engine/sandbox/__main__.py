"""`python -m engine.sandbox`: the sandbox alone."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path

from engine.sandbox.server import Sandbox, SandboxSettings, run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("engine.sandbox", description="A DigitalOcean API on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="an address of 127.0.0.0/8")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--port-file", type=Path, help="written with the port once requests are answered")
    parser.add_argument("--data-dir", type=Path, help="for the machines' files; default: a temporary folder")
    parser.add_argument("--state", type=Path, help="SQLite file that outlives the process")
    parser.add_argument("--boot-seconds", type=float, default=20.0)
    parser.add_argument("--action-seconds", type=float, default=0.0)
    parser.add_argument("--delete-seconds", type=float, default=0.0)
    parser.add_argument("--droplet-limit", type=int, default=1000)
    parser.add_argument("--worker-command", default="", help="model server; {host} {port} {model_id} {root}")
    parser.add_argument("--no-machines", action="store_true", help="Droplets start no processes")
    parser.add_argument("--no-rate-limits", action="store_true")
    return parser


def write_port_file(path: Path, port: int) -> None:
    """The port in a file that is there in full or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(f"{port}\n")
    partial.replace(path)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and serve."""
    args = _parser().parse_args(argv)

    def ready(sandbox: Sandbox) -> None:
        if args.port_file:
            write_port_file(args.port_file, sandbox.port)

    with tempfile.TemporaryDirectory(prefix="stackyard-sandbox-") as temporary:
        settings = SandboxSettings(
            data_dir=args.data_dir or Path(temporary), host=args.host, port=args.port,
            boot_seconds=args.boot_seconds, action_seconds=args.action_seconds, delete_seconds=args.delete_seconds,
            machines=not args.no_machines, rate_limits=not args.no_rate_limits, droplet_limit=args.droplet_limit,
            state_file=args.state, worker_command=shlex.split(args.worker_command),
        )  # fmt: skip
        run(settings, ready=ready)


if __name__ == "__main__":
    main()
