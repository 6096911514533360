"""Programs in a folder: run in a child process, heard, and killed when they do not end."""

from __future__ import annotations

import json
import platform
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from pulumi import automation

from engine.model.deployment import DeploymentSpec, new_machine
from engine.model.workload import WorkerIdentity, Workload
from stacks.spec import StackSettings, build_request
from tests.fakes.clock import START
from tests.fakes.folder import Folder
from tests.fakes.provider import FakeProviders

REPOSITORY = Path(__file__).parents[4]


def test_up_preview_and_destroy_of_a_folder(started: Callable[..., Folder]) -> None:
    folder = started(
        "import os, sys, pulumi\nfrom thing import Thing\n"
        "config = pulumi.Config()\n"
        "a = Thing('a', {'size': config.require_int('size'), 'key': config.require_secret('key')})\n"
        "pulumi.export('address', a.address)\n"
        "pulumi.export('cwd', os.getcwd())\n"
        "pulumi.export('name', pulumi.get_project() + '/' + pulumi.get_stack())\n"
        "print('hello from the program'); print('a warning of sorts', file=sys.stderr)\n"
    )
    folder.run("config", "set", "size", "3", "--stack", "dev")
    folder.run("config", "set", "key", "hidden", "--secret", "--stack", "dev")
    assert "1 to create" in folder.run("preview", "--stack", "dev") or "2 to create" in folder.run("preview")
    assert not folder.cloud.things
    text = folder.up()
    assert "hello from the program" in text and "a warning of sorts" in text
    assert "2 created" in text
    outputs = folder.run("stack", "output", "--json", "--stack", "dev")
    assert '"name": "local/dev"' in outputs and str(folder.work) in outputs
    assert "2 unchanged" in folder.up()
    folder.destroy()
    assert not folder.cloud.things


def test_output_events_carry_stream_and_severity(started: Callable[..., Folder], tmp_path: Path) -> None:
    folder = started("import sys\nprint('to out')\nprint('to err', file=sys.stderr)\n")
    folder.up("--event-log", str(tmp_path / "events"))
    lines = (tmp_path / "events").read_text().splitlines()
    assert any('"message":"to out\\n\\n"' in line and '"severity":"info"' in line for line in lines)
    assert any('"message":"to err\\n\\n"' in line and '"severity":"info#err"' in line for line in lines)


def test_exception_is_shown_once_from_the_programs_first_line(started: Callable[..., Folder]) -> None:
    text = started("from thing import Thing\nThing('a')\nraise ValueError('boom')\n").up_fails()
    assert "error: Program failed with an unhandled exception:" in text
    assert "ValueError: boom" in text and "__main__.py" in text
    assert "launchers" not in text and "an unhandled error occurred" not in text


def test_run_error_is_its_words_and_an_exit_code(started: Callable[..., Folder]) -> None:
    text = started("import pulumi\nraise pulumi.RunError('choose a region')\n").up_fails()
    assert "error: choose a region" in text and "Traceback" not in text
    assert "error: an unhandled error occurred: program exited with non-zero exit code: 1" in text


@pytest.mark.parametrize(("ending", "code"), [("3", 3), ("'no region'", 1)])
def test_exit_of_the_program_is_its_own(started: Callable[..., Folder], ending: str, code: int) -> None:
    text = started(f"import sys\nsys.exit({ending})\n").up_fails()
    assert f"program exited with non-zero exit code: {code}" in text
    assert ("no region" in text) == (code == 1)


def test_missing_module_is_named(started: Callable[..., Folder]) -> None:
    text = started("import there_is_no_such_module\n").up_fails()
    assert "No module named 'there_is_no_such_module'" in text


def test_program_that_dies_leaves_its_last_words(started: Callable[..., Folder]) -> None:
    text = started("import os, sys\nprint('out of paper', file=sys.stderr, flush=True)\nos._exit(7)\n").up_fails()
    assert "program exited with non-zero exit code: 7" in text and "out of paper" in text


def test_hanging_program_is_killed_with_its_children_and_state_is_saved(started: Callable[..., Folder]) -> None:
    folder = started(
        "import os, subprocess, time, threading\nfrom thing import Thing\n"
        "a = Thing('a')\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "def wait(address):\n    open('made', 'w').write(address)\n    threading.Event().wait()\n"
        "a.address.apply(wait)\n"
    )
    folder.deadline_seconds = 12.0
    text = folder.up_fails()
    assert "did not end within its deadline of 12 seconds and was killed" in text
    assert (folder.work / "made").exists()
    assert len(folder.cloud.things) == 1
    assert "::a" in folder.run("stack", "export", "--stack", "dev")
    assert not alive(int((folder.work / "child").read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_failing_resource_fails_the_program_with_one_error(started: Callable[..., Folder]) -> None:
    folder = started("from thing import Thing\nThing('a')\n")
    folder.cloud.fail("create", "a", "no more room")
    text = folder.up_fails()
    assert "no more room" in text and "Traceback" not in text


def test_main_names_folder_or_file(started: Callable[..., Folder]) -> None:
    folder = started("raise SystemExit(3)\n", project="name: local\nruntime: python\nmain: app/run.py\n")
    (folder.work / "app").mkdir()
    (folder.work / "app" / "run.py").write_text("import os, pulumi, beside\npulumi.export('cwd', os.getcwd())\n")
    (folder.work / "app" / "beside.py").write_text("")
    folder.up()
    assert str(folder.work / "app") in folder.run("stack", "output", "--json", "--stack", "dev")


def test_virtual_environment_is_used(started: Callable[..., Folder]) -> None:
    folder = started(
        "import sys, os, pulumi\n"
        "pulumi.export('prefix', sys.prefix)\npulumi.export('venv', os.environ['VIRTUAL_ENV'])\n",
        project="name: local\nruntime: {name: python, options: {virtualenv: lab}}\n",
    )
    folder.variables = {"PULUMI_ACCESS_TOKEN": "true", "PULUMI_DEV": "0"}
    venv.create(folder.work / "lab", symlinks=True)
    text = folder.up_fails()
    assert "the Pulumi SDK is not installed for" in text and "-m pip install pulumi" in text
    packages = next((folder.work / "lab" / "lib").glob("python*")) / "site-packages"
    (packages / "sdk.pth").write_text(f"{Path(automation.__file__).parents[2]}\n")
    folder.up("--refresh")
    assert f'"prefix": "{folder.work}/lab"' in folder.run("stack", "output", "--json", "--stack", "dev")
    (latest, *_) = json.loads(folder.run("stack", "history", "--json", "--stack", "dev"))
    assert {k: v for k, v in latest["environment"].items() if k.startswith("runtime.")} == {
        "runtime.executable": f"{folder.work}/lab/bin/python",
        "runtime.metadata.toolchain": "Auto",
        "runtime.metadata.toolchainVersion": "0.0.0",
        "runtime.metadata.typechecker": "None",
        "runtime.name": "python",
        "runtime.version": platform.python_version(),
    }
    assert latest["environment"]["pulumi.env.PULUMI_ACCESS_TOKEN"] == "set", "its value is recorded"
    assert latest["environment"]["pulumi.env.PULUMI_DEV"] == "false"
    assert latest["environment"]["pulumi.flag.refresh"] == "set", "it is a text that may be left out"
    assert latest["environment"]["pulumi.flag.yes"] == "true"


@pytest.mark.parametrize(
    ("project", "complaint"),
    [
        ("name: local\nruntime: nodejs\n", "runtime 'nodejs': the embedded engine runs Python programs only"),
        ("name: local\n", "missing a 'runtime' attribute"),
        ("name: local\nruntime: {name: python, options: {virtualenv: gone}}\n", "virtualenv 'gone' does not exist"),
        ("name: local\nruntime: {name: python, options: {toolchain: poetry}}\n", "toolchain 'poetry'"),
        ("name: local\nruntime: {name: python, options: {typechecker: mypy}}\n", "typechecker 'mypy'"),
        ("name: local\nruntime: python\nmain: ../elsewhere\n", "'main' must be a subfolder"),
        ("name: local\nruntime: python\nmain: gone\n", "'main' could not be read"),
        ("name: local\nruntime: python\nmain: empty\n", "has no __main__.py"),
    ],
)
def test_wrong_project_is_refused_before_anything_is_touched(
    started: Callable[..., Folder], project: str, complaint: str
) -> None:
    folder = started("")
    (folder.work / "empty").mkdir()
    (folder.work / "Pulumi.yaml").write_text(project)
    assert complaint in folder.up_fails()


def test_folder_without_project_says_so(folder: Folder) -> None:
    assert "no Pulumi.yaml project file found" in folder.up_fails()


def test_broken_interpreter_is_named(started: Callable[..., Folder]) -> None:
    folder = started("", project="name: local\nruntime: {name: python, options: {virtualenv: lab}}\n")
    (folder.work / "lab" / "bin").mkdir(parents=True)
    (folder.work / "lab" / "bin" / "python").write_text("not a program")
    assert f"interpreter {folder.work}/lab/bin/python did not start" in folder.up_fails()


def test_automation_api_with_a_work_dir(started: Callable[..., Folder]) -> None:
    folder = started("import pulumi\nfrom thing import Thing\npulumi.export('address', Thing('a').address)\n")
    workspace = automation.LocalWorkspace(
        work_dir=str(folder.work), pulumi_command=folder.command(), env_vars=folder.environment
    )
    stack = automation.Stack.create_or_select("dev", workspace)
    result = stack.up()
    assert result.summary.resource_changes == {"create": 2}
    assert set(result.outputs) == {"address"}
    assert stack.preview().change_summary == {automation.OpType.SAME: 2}
    stack.destroy()
    assert not folder.cloud.things


def test_this_repository_runs_from_its_root(folder: Folder) -> None:
    """`pulumi preview` in the checkout: `main: stacks`, configuration in `stackConfigDir`."""
    for name in ("stacks", "engine", "Pulumi.yaml"):
        (folder.work / name).symlink_to(REPOSITORY / name)
    (folder.work / ".venv").symlink_to(Path(sys.prefix))
    folder.run("stack", "init", "dev")
    assert "Missing required configuration variable 'stackyard:program'" in folder.up_fails()
    spec = DeploymentSpec(name="prod", model_id="llama-3.3-70b-instruct", gpu_type="h100", region="nyc2")
    identity = WorkerIdentity("tok", "CERT", "KEY", "f" * 64)
    machines = tuple(new_machine(spec, revision=1, number=n, now=START) for n in range(2))
    request = build_request(Workload("dep_abc", "org_1", spec, 3, machines, 1, "inst1", identity), StackSettings())
    settings = [
        text
        for key, value in request.config.items()
        for text in ("--secret" if value.secret else "--plaintext", f"{key}={value.value}")
    ]
    folder.run("config", "set-all", "--stack", "dev", *settings)
    command = folder.command(FakeProviders(folder.cloud, "digitalocean"))
    text = command.run(["preview", "--stack", "dev"], str(folder.work), {}).stdout
    assert text.count("digitalocean:index:Droplet") == 2 and "digitalocean:index:Firewall" in text
