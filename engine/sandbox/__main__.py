"""`python -m engine.sandbox`: the sandbox alone."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from engine.sandbox.server import Sandbox, SandboxSettings, check_host, run
from engine.sandbox.spaces.access import KeyPair

SPACES_ACCOUNT = "spaces"
"""Whose buckets those of `--spaces-key` are: it comes without a token."""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog, description="A DigitalOcean API on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="an address of 127.0.0.0/8")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--port-file", type=Path, help="written with the port once requests are answered")
    parser.add_argument("--data-dir", type=Path, help="for machines and objects; default: a temporary folder")
    parser.add_argument("--state", type=Path, help="SQLite file that outlives the process")
    parser.add_argument("--boot-seconds", type=float, default=20.0)
    parser.add_argument("--action-seconds", type=float, default=0.0)
    parser.add_argument("--delete-seconds", type=float, default=0.0)
    parser.add_argument("--droplet-limit", type=int, default=1000)
    parser.add_argument("--worker-command", default="", help="model server; {host} {port} {model_id} {root}")
    parser.add_argument("--spaces-key", default="", help="ACCESS:SECRET of a Spaces key that works from the beginning")
    parser.add_argument("--no-machines", action="store_true", help="Droplets start no processes")
    parser.add_argument("--no-rate-limits", action="store_true")
    return parser


def write_port_file(path: Path, port: int) -> None:
    """The port in a file that is there in full or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(f"{port}\n")
    partial.replace(path)


def announce(line: str) -> None:
    """Tell the user, at once also when the output is a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None, prog: str = "python -m engine.sandbox") -> None:
    """Parse the command line and serve until SIGTERM or SIGINT."""
    parser = _parser(prog)
    args = parser.parse_args(argv)
    try:
        check_host(args.host)
        spaces_key = _spaces_key(args.spaces_key)
    except ValueError as err:
        parser.error(str(err))

    def ready(sandbox: Sandbox) -> None:
        announce(f"DigitalOcean API on {sandbox.url} (any bearer token; levers under /_sandbox)")
        if args.port_file:
            write_port_file(args.port_file, sandbox.port)

    with tempfile.TemporaryDirectory(prefix="stackyard-sandbox-") as temporary:
        try:
            run(_settings(args, Path(temporary), spaces_key), ready=ready)
        except OSError as err:
            parser.exit(1, f"{prog}: {err}\n")


def _spaces_key(text: str) -> KeyPair | None:
    access_key, _, secret_key = text.partition(":")
    if text and not (access_key and secret_key):
        raise ValueError("--spaces-key must be ACCESS:SECRET")
    return KeyPair(access_key, secret_key, SPACES_ACCOUNT) if text else None


def _settings(args: argparse.Namespace, temporary: Path, spaces_key: KeyPair | None) -> SandboxSettings:
    # Objects live as long as the state that knows their buckets.
    beside = args.state.with_name(f"{args.state.name}.spaces") if args.state and not args.data_dir else None
    return SandboxSettings(
        data_dir=args.data_dir or temporary, host=args.host, port=args.port,
        boot_seconds=args.boot_seconds, action_seconds=args.action_seconds, delete_seconds=args.delete_seconds,
        machines=not args.no_machines, rate_limits=not args.no_rate_limits, droplet_limit=args.droplet_limit,
        state_file=args.state, worker_command=shlex.split(args.worker_command),
        spaces_dir=beside, spaces_key=spaces_key,
    )  # fmt: skip


if __name__ == "__main__":
    main()
