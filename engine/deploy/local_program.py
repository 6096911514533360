"""A program in a folder: found by its `Pulumi.yaml`, run in a child process by our launcher (`launchers/program.py`).

The child is a process group of its own, killed at its deadline. Knows no resources. Source: pulumi
`sdk/python/cmd/pulumi-language-python/main.go`, `sdk/go/common/workspace/project.go` (`GetPwdMain`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.deploy.program import OutputListener, ProgramBailed
from engine.deploy.stack_config import ConfigError
from engine.deploy.update_target import UpdateTarget

DEADLINE_SECONDS = 3600.0  # a program waits for its resources: an hour outlasts the slowest cloud, not a lost weekend
_LAUNCHER = Path(__file__).parent / "launchers" / "program.py"
_REPORTED = 32  # the launcher's exit code for: the engine has been told why
_DRAIN_SECONDS = 2.0  # a daemon the program left behind may hold its output open for ever
_STDOUT_STREAM, _STDERR_STREAM = 1, 2
_MAX_LINE_BYTES = 1 << 20  # a longer line of a program is cut into several messages
_SWITCH = "set STACKYARD_PULUMI=cli to run this program with the official Pulumi CLI instead"


@dataclass(frozen=True)
class LocalRuntime:
    """The Python of a project.

    Attributes:
        interpreter: the Python to run with.
        virtualenv: its virtual environment, if the project names one.
        directory: the working folder a program finds itself in.
        toolchain: as the project names it; "" if it does not.
    """

    interpreter: Path
    virtualenv: Path | None
    directory: Path
    toolchain: str = ""

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of a child in this runtime."""
        child = {name: text for name, text in environment.items() if name != "PYTHONHOME"}
        if self.virtualenv:
            child["VIRTUAL_ENV"] = str(self.virtualenv)
            child["PATH"] = f"{self.virtualenv / 'bin'}{os.pathsep}{child.get('PATH', os.defpath)}"
        return child


@dataclass(frozen=True)
class LocalProject:
    """What `Pulumi.yaml` says about the program: its project's folder, and the folder or file to run."""

    root: Path
    program: Path
    runtime: LocalRuntime


def read_local_project(path: Path) -> LocalProject:
    """The program of a `Pulumi.yaml`.

    Raises:
        ConfigError: it cannot be run; the message says what to change.
    """
    path = Path(os.path.normpath(path.absolute()))
    data = _read(path)
    program = _program(path, data.get("main"))
    return LocalProject(path.parent, program, _runtime(path, data, program if program.is_dir() else program.parent))


def read_runtime(path: Path) -> LocalRuntime:
    """The Python of a project that need have no program, for example that of an inline one.

    Raises:
        ConfigError: there is no such Python.
    """
    path = Path(os.path.normpath(path.absolute()))
    data = _read(path)
    return _runtime(path, data, _folder(path, data.get("main")))


def program_folder(path: Path) -> Path:
    """The folder of a `Pulumi.yaml`'s program, where relative paths of its files start; the project's if it has none.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = Path(os.path.normpath(path.absolute()))
    return _folder(path, _read(path).get("main"))


def _folder(path: Path, main: Any) -> Path:
    program = Path(os.path.normpath(path.parent / str(main or ".")))
    folder = program if program.is_dir() else program.parent
    return folder if folder.is_dir() else path.parent


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as err:
        raise ConfigError(f"{path} does not exist: run inside a project, or make one with `pulumi new`") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not valid YAML: {err}") from err
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must be a map")
    return data


def _runtime(path: Path, data: Mapping[str, Any], directory: Path) -> LocalRuntime:
    runtime = data.get("runtime")
    name, options = (runtime, {}) if isinstance(runtime, str) else _name_and_options(path, runtime)
    if name != "python":
        raise ConfigError(f"{path}: runtime {name!r}: the embedded engine runs Python programs only; {_SWITCH}")
    virtualenv = _virtualenv(path, options)
    interpreter = virtualenv / "bin" / "python" if virtualenv else Path(sys.executable)
    return LocalRuntime(interpreter, virtualenv, directory, str(options.get("toolchain") or ""))


def _name_and_options(path: Path, runtime: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(runtime, dict) or not isinstance(runtime.get("name"), str):
        raise ConfigError(f"{path}: project is missing a 'runtime' attribute; write `runtime: python`")
    options = runtime.get("options") or {}
    if not isinstance(options, dict):
        raise ConfigError(f"{path}: `runtime.options` must be a map")
    return runtime["name"], options


def _virtualenv(path: Path, options: Mapping[str, Any]) -> Path | None:
    toolchain = options.get("toolchain") or "pip"
    if toolchain not in ("pip", "uv"):
        raise ConfigError(f"{path}: toolchain {toolchain!r}: the embedded engine knows pip and uv; {_SWITCH}")
    if checker := options.get("typechecker"):
        raise ConfigError(f"{path}: typechecker {checker!r} is not run by the embedded engine: remove it, or {_SWITCH}")
    named = options.get("virtualenv") or (".venv" if toolchain == "uv" else None)
    if named is None:
        return None
    folder = path.parent / str(named)
    if not (folder / "bin" / "python").exists():
        what = "is not a virtual environment" if folder.exists() else "does not exist"
        raise ConfigError(
            f"{path}: the virtualenv {str(named)!r} {what} ({folder}): make it with `python3 -m venv {folder}` and "
            "install the program's requirements, or correct `runtime.options.virtualenv`"
        )
    return folder


def _program(path: Path, main: Any) -> Path:
    program = Path(os.path.normpath(path.parent / str(main or ".")))
    if not program.is_relative_to(path.parent):
        raise ConfigError(f"{path}: project 'main' must be a subfolder, not {main!r}")
    if not program.exists():
        raise ConfigError(f"{path}: project 'main' could not be read: {program} does not exist")
    if program.is_dir() and not (program / "__main__.py").is_file():
        raise ConfigError(f"{program} has no __main__.py: name the program's folder or file as `main` in {path}")
    return program


class LocalProgram:
    """A `ProgramSource` over a folder.

    Args:
        environment: of the child; the program's credentials come from it.
        deadline_seconds: how long the program may take in all, waiting for its resources included.
    """

    def __init__(
        self, project: LocalProject, environment: Mapping[str, str], *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self._project = project
        self._environment = project.runtime.environment(environment)
        self._deadline_seconds = deadline_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._cancelled = False
        self._ended = False
        self._on_output: OutputListener = lambda severity, line, stream: None

    def listen(self, on_output: OutputListener) -> None:
        """Say who is told what the program prints."""
        self._on_output = on_output

    async def run(
        self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool, parallel: int
    ) -> str:
        """Run the program to its end; returns its error ("" = it succeeded).

        Raises:
            ProgramBailed: it failed and has told the engine why.
        """
        project = self._project
        request = {
            "monitor": monitor_address,
            "engine": engine_address,
            "project": target.project,
            "stack": target.stack,
            "organization": target.organization,
            "config": dict(target.config),
            "secret_keys": sorted(target.secret_keys),
            "dry_run": dry_run,
            "parallel": parallel,
            "root": str(project.root),
            "directory": str(project.runtime.directory),
            "program": str(project.program),
        }
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                str(project.runtime.interpreter),
                "-u",
                str(_LAUNCHER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=project.runtime.directory,
                env=self._environment,
                start_new_session=True,
                limit=_MAX_LINE_BYTES,
            )
        except OSError as err:
            return f"the program's interpreter {project.runtime.interpreter} did not start: {err}"
        return await self._converse(process, json.dumps(request).encode() + b"\n")

    async def cancel(self) -> None:
        """Kill the program and all it started."""
        self._cancelled = True
        if self._process is not None:
            await self._end(self._process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if not self._ended:  # once: afterwards the number may be another's
            self._ended = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    async def _converse(self, process: asyncio.subprocess.Process, request: bytes) -> str:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        readers = asyncio.gather(
            self._forward(process.stdout, "info", _STDOUT_STREAM),
            self._forward(process.stderr, "info#err", _STDERR_STREAM),
        )
        try:
            with suppress(ConnectionError):  # it died at once: its exit code and last words say why
                process.stdin.write(request)
                await process.stdin.drain()
            async with asyncio.timeout(self._deadline_seconds):
                code = await process.wait()
        except TimeoutError:
            return (
                f"the program did not end within its deadline of {self._deadline_seconds:g} seconds and was killed; "
                "what it had registered is saved"
            )
        finally:
            await self._end(process)  # also whatever it left behind that holds its output open
            await asyncio.wait({readers}, timeout=_DRAIN_SECONDS)
            readers.cancel()
        return self._verdict(code)

    def _verdict(self, code: int) -> str:
        if code == 0:
            return ""
        if self._cancelled:
            return "the program was cancelled"
        if code == _REPORTED:
            raise ProgramBailed
        how = f"was killed by signal {-code}" if code < 0 else f"exited with non-zero exit code: {code}"
        return f"program {how}"  # its last words have been shown

    async def _forward(self, pipe: asyncio.StreamReader, severity: str, stream: int) -> None:
        while line := await _line(pipe):
            text = line.decode("utf-8", "replace")
            if text.strip():
                self._on_output(severity, text, stream)


async def _line(pipe: asyncio.StreamReader) -> bytes:
    try:
        return await pipe.readuntil(b"\n")
    except asyncio.IncompleteReadError as err:
        return err.partial
    except asyncio.LimitOverrunError:
        return await pipe.read(_MAX_LINE_BYTES)
