"""Runs one Pulumi program in the interpreter it was started with: the language host's part inside its process.

It imports nothing of this project, because that interpreter need not have it. Its request is one line of JSON on
standard input, so that secrets are in no environment; when that pipe closes, whoever wanted the program is gone and
the process ends. It ends with 0 (done), 32 (failed, and said why through the engine), 1 (said what the user is to do)
or the program's own code.
Source: pulumi `sdk/python/cmd/pulumi-language-python-exec`.
"""

import sys

# This file's folder must not come before the standard library or the program's own modules.
sys.path[:] = [entry for entry in sys.path if entry != __file__.rpartition("/")[0]]

import asyncio  # noqa: E402 - only after the path is the program's
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import runpy  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from typing import Any, TextIO  # noqa: E402

REPORTED = 32


def main() -> int:
    """Run the program of the request on standard input."""
    control = os.fdopen(os.dup(0), "r", encoding="utf-8")
    request = json.loads(control.readline())
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with_owner, args=(control,), daemon=True).start()
    try:
        import pulumi  # noqa: PLC0415 - its absence is an answer, not a crash
    except ImportError:
        _say(
            f"the Pulumi SDK is not installed for {sys.executable}: run `{sys.executable} -m pip install pulumi`, or "
            "name the right environment with `runtime: {name: python, options: {virtualenv: PATH}}` in Pulumi.yaml"
        )
        return 1
    _configure(pulumi, request)
    _tune()
    return _run(pulumi, request)


def _configure(pulumi: Any, request: Any) -> None:
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=request["monitor"],
            engine=request["engine"],
            project=request["project"],
            stack=request["stack"],
            parallel=request["parallel"],
            dry_run=request["dry_run"],
            organization=request["organization"],
            root_directory=request["root"],
        )
    )
    pulumi.runtime.set_all_config(request["config"], request["secret_keys"])


def _tune() -> None:
    """Spare the program what the SDK does for nothing (`tuning.py`, beside this file); not needed to run it."""
    try:
        runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tuning.py"))["apply"]()
    except (ImportError, AttributeError):  # an SDK of another time: it runs as it is
        return


def _run(pulumi: Any, request: Any) -> int:
    import grpc  # noqa: PLC0415 - the SDK needs it, so it is there once the SDK is

    program = request["program"]
    os.chdir(request["directory"])
    sys.argv = [program]
    folder = program if os.path.isdir(program) else os.path.dirname(program)
    sys.path.insert(0, folder)
    # A failed program leaves futures nobody awaits; asyncio would report each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(ThreadPoolExecutor(max_workers=max(request["parallel"], 1) * 4))
    try:
        main = _main_of(program)
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: runpy.run_path(main, run_name="__main__")))
    except pulumi.RunError as err:
        pulumi.log.error(str(err))
        return 1
    except grpc.RpcError as err:
        if err.code() != grpc.StatusCode.UNAVAILABLE:
            pulumi.log.error(f"RPC error: {err.details()}")
        return REPORTED  # an engine that hung up has said why
    except SystemExit as err:
        return _exit_code(err)
    except Exception as err:  # noqa: BLE001 - the edge of somebody else's program
        pulumi.log.error("Program failed with an unhandled exception:\n" + _from_program(err, folder))
        return REPORTED
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
    return 0


def _exit_code(err: SystemExit) -> int:
    """As Python ends on it: words are printed and are code 1."""
    if err.code is None or isinstance(err.code, int):
        return err.code or 0
    _say(str(err.code))
    return 1


def _main_of(program: str) -> str:
    """The file itself: as a folder it would be read from its bytecode, which tells neither an edit within the same
    second nor of the same length from no edit."""
    file = os.path.join(program, "__main__.py")
    return file if os.path.isfile(file) else program


def _from_program(err: BaseException, folder: str) -> str:
    """The traceback from the program's first line on: what is above it is ours and the SDK's."""
    frame = err.__traceback__
    while frame is not None and not frame.tb_frame.f_code.co_filename.startswith(folder + os.sep):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(err), err, frame or err.__traceback__))


def _end_with_owner(control: TextIO) -> None:
    control.read()
    os.killpg(0, signal.SIGKILL)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a failed program must not keep it alive
