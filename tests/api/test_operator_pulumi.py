"""`stackyard pulumi` and `stackyard stacks checkout`: an operator's own update does exactly what the API's does."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import main, stacks
from api.cli.stacks import _request, _yard
from engine.identity import installation_secret
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.store import deployments, migrate, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from tests.fakes.rows import SPEC, deployment_row, org_row
from tests.fakes.sandbox_thread import sandbox_on_a_thread

REPOSITORY = Path(__file__).parents[2]
BOUNDED_SECONDS = 60


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[str]:
    with sandbox_on_a_thread(tmp_path / "cloud", boot_seconds=0.05) as url:
        yield url


@dataclass
class Operator:
    """Somebody at a checkout of the repository, beside an installation."""

    folder: Path
    environment: dict[str, str]

    def pulumi(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`stackyard pulumi …` as a process of its own."""
        command = [sys.executable, "-m", "api.cli.main", "pulumi", *args]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=BOUNDED_SECONDS
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloud: str) -> Operator:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text((REPOSITORY / "Pulumi.yaml").read_text())
    (folder / "stacks").symlink_to(REPOSITORY / "stacks")
    (folder / ".venv").symlink_to(sys.prefix)
    for name in [n for n in os.environ if n.startswith(("STACKYARD_", "DIGITALOCEAN_", "PULUMI_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "STACKYARD_DATA_DIR": str(tmp_path / "data"),
        "STACKYARD_DIGITALOCEAN_API_ENDPOINT": cloud,
        "DIGITALOCEAN_TOKEN": "sandbox-token",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return Operator(folder, dict(os.environ))


@pytest.fixture
def deployed(operator: Operator, tmp_path: Path) -> str:
    """A deployment whose stack the API's own driver made."""
    secret = installation_secret.load_or_create(tmp_path / "data")
    sealer, clock = Sealer(secret), SystemClock()
    database = Database(f"sqlite:///{tmp_path / 'data'}/stackyard.db")
    migrate.migrate(database)
    row = deployment_row(
        clock.now(), "dep_1", SPEC, worker_token_sealed=sealer.seal("wt_1"), worker_key_sealed=sealer.seal("key")
    )
    with database.write() as session:
        orgs.insert(session, org_row(clock.now()))
        deployments.insert(session, row)
    database.close()
    assert api("up").get("create", 0) > 1
    return "dep-1"


def api(operation: str) -> dict[str, int]:
    """What the API's worker does with the stack: its driver, its request. Returns how many of each change."""
    with warnings.catch_warnings():
        # Kept connections to the cloud go with the loop they belong to.
        warnings.simplefilter("ignore", ResourceWarning)
        with _yard() as yard:
            result = getattr(yard.driver, operation)(_request(yard, "dep_1"), fence=NoFence())
        changes = {op: n for op, n in result.resource_changes.items() if n}
        del yard, result
        gc.collect()
    return changes


def run(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main.build(), args)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_checkout_then_pulumi_up_changes_nothing(operator: Operator, deployed: str) -> None:
    said = run("stacks", "checkout", deployed).stdout
    path = operator.folder / ".stackyard" / "config" / "Pulumi.dep-1.yaml"
    assert str(path) in said and "stackyard pulumi preview -s dep-1" in said
    text = path.read_text()
    assert "wt_1" not in text and "encryptionsalt" in text
    digest = json.loads(operator.pulumi("preview", "-s", deployed, "--json").stdout)
    assert set(digest["changeSummary"]) == {"same"} and [s["op"] for s in digest["steps"]] == ["same"]
    done = operator.pulumi("up", "-s", deployed, "--yes", "--expect-no-changes")
    assert done.stdout.startswith("Previewing update (dep-1):") and "unchanged" in done.stdout
    assert set(api("preview")) == {"same"}


def test_checkout_takes_what_the_api_would_use_next(operator: Operator, deployed: str, tmp_path: Path) -> None:
    run("stacks", "checkout", deployed)
    path = operator.folder / ".stackyard" / "config" / "Pulumi.dep-1.yaml"
    before = path.read_text()
    path.write_text(f"# mine\n{before}".replace("stackyard:name: ", "stackyard:name: other-"))
    run("stacks", "checkout", deployed)
    assert path.read_text() == f"# mine\n{before}"  # comments and ciphertexts stay, changed values come back


def test_checkout_passphrase_file_is_the_owners_alone(operator: Operator, deployed: str, tmp_path: Path) -> None:
    run("stacks", "checkout", deployed)
    path = tmp_path / "data" / "passphrase"
    assert path.stat().st_mode & 0o777 == 0o600
    plain = {"PULUMI_CONFIG_PASSPHRASE_FILE": str(path), "PULUMI_BACKEND_URL": f"file://{tmp_path}/data/state"}
    official = Operator(operator.folder, operator.environment | plain)  # as the official CLI would be called
    shown = official.pulumi("config", "get", "workerToken", "-s", deployed).stdout
    assert shown.strip() == "wt_1"


def test_checkout_of_nothing_says_so(operator: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no deployment dep_9"):
        stacks.checkout("dep_9")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="checkout of Stackyard"):
        stacks.checkout("dep_9")


def test_pulumi_refuses_to_update_unasked_where_nobody_can_be_asked(operator: Operator, deployed: str) -> None:
    run("stacks", "checkout", deployed)
    assert "--yes or --skip-preview" in operator.pulumi("up", "-s", deployed, code=2).stderr
    assert "no stack named 'nope' found" in operator.pulumi("preview", "-s", "nope", code=6).stderr
    assert "STACKYARD_PULUMI=cli" in operator.pulumi("new", "python", code=2).stderr
