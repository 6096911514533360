"""`stackyard stacks`: the Pulumi stacks behind deployments, for operators; changes none (`checkout` writes files)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from api.checkpoints import hide_secrets
from api.cli.output import Output, OutputOption, print_json, print_rows
from api.cloud_account import shared_budget
from api.settings import Settings, load
from api.stack_driver import build_driver, passphrase, stack_settings
from engine.automation.driver import StackDriver
from engine.deploy.command import EngineLoop
from engine.deploy.secrets import PassphraseSecrets
from engine.deploy.stack_config import ConfigError, Project, StackConfig, config_path, find_project
from engine.identity import installation_secret
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec, NotFound
from engine.model.fence import NoFence
from engine.model.stack import PROJECT, StackRequest, stack_name
from engine.model.workload import WorkerIdentity, Workload
from engine.store import deployments, migrate, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from stacks.spec import build_request

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at the Pulumi stacks behind deployments.")
StackName = Annotated[str, typer.Argument(metavar="ID", help="dep_…, or the stack's name dep-…")]
SecretsOption = Annotated[bool, typer.Option("--show-secrets", help="print secret values")]


@dataclass(frozen=True)
class _Yard:
    settings: Settings
    database: Database
    sealer: Sealer
    driver: StackDriver
    passphrase: str
    loop: EngineLoop


@app.command("ls")
def list_stacks(output: OutputOption = Output.TABLE) -> None:
    """List stacks, with when they were last updated and how many resources they have."""
    with _yard() as yard:
        rows = [
            {"stack": s.name, "resources": s.resources, "updated_at": s.updated_at and s.updated_at.isoformat(),
             "updating": "yes" if s.is_updating else ""}
            for s in yard.driver.stacks()
        ]  # fmt: skip
    print_rows(rows, ("stack", "resources", "updated_at", "updating"), output, empty="no stacks yet")


@app.command()
def preview(deployment_id: StackName, output: OutputOption = Output.TABLE) -> None:
    """Say what the next update of a deployment's stack would change; changes nothing in the cloud."""
    with _yard() as yard:
        result = yard.driver.preview(_request(yard, deployment_id), fence=NoFence())
    changes = {operation: count for operation, count in result.resource_changes.items() if count}
    if output is Output.JSON:
        print_json({"changes": changes, "seconds": round(result.seconds, 3)})
    else:
        said = ", ".join(f"{count} {operation}" for operation, count in sorted(changes.items()))
        typer.echo(f"{said or 'nothing'}  ({result.seconds:.2f} s)")


@app.command()
def outputs(deployment_id: StackName, show_secrets: SecretsOption = False, output: OutputOption = Output.TABLE) -> None:
    """Print a stack's outputs."""
    with _yard() as yard:
        found = yard.driver.outputs(_stack(deployment_id)) if show_secrets else _hidden_outputs(yard, deployment_id)
    if output is Output.JSON:
        print_json(found)
        return
    for name, value in found.items():
        Console(highlight=False, soft_wrap=True).print(f"[dim]{name}[/] = ", end="")
        typer.echo(value)


@app.command()
def export(deployment_id: StackName, show_secrets: SecretsOption = False) -> None:
    """Print a stack's state as `pulumi stack export` does; secrets read `[secret]` unless asked for."""
    with _yard() as yard:
        deployment = yard.driver.export(_stack(deployment_id))
    print_json({"version": 3, "deployment": deployment if show_secrets else hide_secrets(deployment)})


@app.command()
def checkout(deployment_id: StackName) -> None:
    """Write the configuration of a deployment's stack into this checkout, for `stackyard pulumi` and `pulumi`."""
    project = _project()
    with _yard() as yard:
        request = _request(yard, deployment_id)
        if not yard.driver.exists(request.stack):
            raise NotFound(f"{request.stack} has no stack yet: its first update makes it; wait for that")
        path = config_path(project, request.stack)
        _write_config(yard, request, path)
        passphrase_file = _write_passphrase(yard)
        backend_url = yard.settings.resolved_backend_url
    typer.echo(
        f"wrote {path}: what the next update by the API would use\n\n"
        f"  stackyard pulumi preview -s {request.stack}\n\n"
        "or, with the official CLI:\n\n"
        f"  export PULUMI_BACKEND_URL={backend_url}\n"
        f"  export PULUMI_CONFIG_PASSPHRASE_FILE={passphrase_file}\n"
        f"  pulumi preview -s {request.stack}"
    )


def _project() -> Project:
    """The checkout's Pulumi.yaml; another project's programs know nothing of our stacks."""
    try:
        project = find_project(Path.cwd())
    except ConfigError as err:
        raise InvalidSpec(f"{err}: run this in a checkout of Stackyard's repository") from err
    if project.name != PROJECT:
        raise InvalidSpec(
            f"{project.path} is project {project.name!r}: run this in a checkout of Stackyard's repository"
        )
    return project


def _write_config(yard: _Yard, request: StackRequest, path: Path) -> None:
    """Exactly the request's configuration; what is right already keeps its text, also the ciphertexts of the API's."""
    used = yard.driver.work_folder(request.stack) / path.name
    config = StackConfig.load(path)
    if not config.salt or config.salt != StackConfig.load(used).salt:
        config = StackConfig(path, used.read_text(encoding="utf-8") if used.exists() else "")
    with yard.database.read() as session:
        installation = orgs.installation(session)
    salt = config.salt or (installation.passphrase_salt if installation else "")
    secrets = PassphraseSecrets.open(yard.passphrase, salt, yard.loop.keys)
    present = config.entries(PROJECT, lambda: secrets)
    for key, wanted in request.config.items():
        known = present.get(key)
        if known is None or (known.text, known.secret) != (wanted.value, wanted.secret):
            stored = {"secure": secrets.encrypt(wanted.value)} if wanted.secret else wanted.value
            config.set(key, [], stored, PROJECT)
    for key in present.keys() - request.config.keys():
        config.remove(key, [], PROJECT)
    if not config.salt:
        config.set_salt(secrets.state)
    path.parent.mkdir(parents=True, exist_ok=True)
    config.write()


def _write_passphrase(yard: _Yard) -> Path:
    """A file only its owner may read: the official CLI takes the passphrase from there."""
    path = yard.settings.data_dir.resolve() / "passphrase"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(yard.passphrase + "\n")
    return path


@contextmanager
def _yard() -> Iterator[_Yard]:
    """This installation's driver, as a worker has it, under a name of its own and without leases."""
    settings, clock, loop = load(), SystemClock(), EngineLoop()
    secret = installation_secret.load_or_create(settings.data_dir, settings.secret_key)
    database = Database(settings.resolved_database_url)
    try:
        migrate.migrate(database)
        driver = build_driver(
            settings, database, clock, secret=secret, budget=shared_budget(settings, database, clock, dict(os.environ)),
            executor_id=f"operator-{ids.random_text(10)}", loop=loop,
        )  # fmt: skip
        yield _Yard(settings, database, Sealer(secret), driver, passphrase(secret, os.environ), loop)
    finally:
        loop.close()
        database.close()


def _stack(deployment_id: str) -> str:
    return stack_name(deployment_id)


def _hidden_outputs(yard: _Yard, deployment_id: str) -> dict[str, Any]:
    resources = yard.driver.export(_stack(deployment_id)).get("resources") or []
    root: dict[str, Any] = next((r for r in resources if r["type"] == "pulumi:pulumi:Stack"), {})
    return {name: hide_secrets(value) for name, value in (root.get("outputs") or {}).items()}


def _request(yard: _Yard, deployment_id: str) -> StackRequest:
    """The stack as the reconciler would update it now."""
    with yard.database.read() as session:
        row = deployments.get(session, deployment_id.replace("dep-", "dep_", 1))
        installation = orgs.installation(session)
    if row is None or installation is None:
        raise NotFound(
            f"no deployment {deployment_id}: `stackyard stacks ls` and `stackyard deployments list` show them"
        )
    workload = Workload(
        deployment_id=row.id,
        org_id=row.org_id,
        spec=deployments.running_spec_of(row),
        generation=row.generation,
        machines=deployments.machines_of(row),
        placement_revision=row.placement_revision,
        installation_id=installation.id,
        identity=WorkerIdentity(
            token=yard.sealer.open(row.worker_token_sealed),
            certificate_pem=row.worker_certificate_pem,
            private_key_pem=yard.sealer.open(row.worker_key_sealed),
            fingerprint=row.worker_fingerprint,
        ),
    )
    return build_request(workload, stack_settings(yard.settings))
