"""`stackyard keys`: works on the store itself, so the first key can be made before anybody may call the API."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlmodel import Session

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.settings import Settings, load
from engine.identity import installation_secret, issue
from engine.identity.issue import KeyRequest
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.access import Permission, Principal
from engine.model.clock import SystemClock
from engine.model.errors import NotFound
from engine.store import keys, migrate, orgs
from engine.store.database import Database
from engine.store.tables import ApiKeyRow, OrgRow

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Create, list, rotate and revoke API keys, directly in the store."
)
OrgOption = Annotated[str, typer.Option(help="organisation id; empty: the first one")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="what the key is for")],
    org: OrgOption = "",
    new_org: Annotated[str, typer.Option(help="make an organisation of this name for the key")] = "",
    prefix: Annotated[str, typer.Option(help="sk or ck")] = "sk",
    scope: Annotated[list[Permission] | None, typer.Option(help="what it may do, repeatable; default: all")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a key and print it, this once. The first key also creates the first organisation."""
    settings = load()
    clock = SystemClock()
    hasher = KeyHasher(installation_secret.load_or_create(settings.data_dir, settings.secret_key))
    with _store(settings) as database, database.write() as session:
        owner = _new_org(session, new_org or "default", clock) if new_org else _org(session, org)
        owner = owner or _new_org(session, "default", clock)
        request = KeyRequest(name, prefix, scopes=frozenset(scope) if scope else None)
        row, secret = issue.create_key(
            session, hasher, _operator(owner.id), request, key_id=ids.new_id("key"), now=clock.now()
        )
        shown = {**_shown(row), "key": secret}
    _print_new(shown, output)


@app.command("list")
def list_keys(org: OrgOption = "", output: OutputOption = Output.TABLE) -> None:
    """List keys, revoked ones too."""
    with _store(load()) as database, database.read() as session:
        owner = _org(session, org)
        rows = [_shown(row) for row in keys.list_for_org(session, owner.id)] if owner else []
    columns = ("id", "name", "prefix", "org_id", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at")
    print_rows(rows, columns, output, empty="no keys yet: `stackyard keys create NAME`")


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="key_…")],
    overlap_seconds: Annotated[int, typer.Option(help="how long the old key goes on working")] = 86_400,
    output: OutputOption = Output.TABLE,
) -> None:
    """Replace a key by a new one that may do the same, and print that, this once."""
    settings = load()
    hasher = KeyHasher(installation_secret.load_or_create(settings.data_dir, settings.secret_key))
    with _store(settings) as database, database.write() as session:
        row, secret = issue.rotate_key(
            session, hasher, _operator(_existing(session, key_id).org_id), key_id, timedelta(seconds=overlap_seconds),
            key_id=ids.new_id("key"), now=SystemClock().now(),
        )  # fmt: skip
        shown = {**_shown(row), "key": secret}
    _print_new(shown, output)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="key_…")], output: OutputOption = Output.TABLE) -> None:
    """Revoke a key: it is refused everywhere within a second, also while the API process is down."""
    with _store(load()) as database, database.write() as session:
        caller = _operator(_existing(session, key_id).org_id)
        shown = _shown(issue.revoke_key(session, caller, key_id, SystemClock().now()))
    if output is Output.JSON:
        print_json(shown)
    else:
        Console(stderr=True).print(f"revoked {key_id}")


def _operator(org_id: str) -> Principal:
    """The person at this machine, who may do anything; keys made so belong to no account."""
    return Principal(org_id, operator=f"operator:{getpass.getuser()}")


def _existing(session: Session, key_id: str) -> ApiKeyRow:
    row = keys.get(session, key_id)
    if row is None:
        raise NotFound(f"no key {key_id}: `stackyard keys list` shows them")
    return row


def _print_new(shown: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(shown)
    else:
        Console(stderr=True).print(f"key {shown['id']} of {shown['org_id']}; it is shown only now:", style="dim")
        typer.echo(shown["key"])


@contextmanager
def _store(settings: Settings) -> Iterator[Database]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        migrate.migrate(database)
        yield database
    finally:
        database.close()


def _org(session: Session, org_id: str) -> OrgRow | None:
    if not org_id:
        return orgs.first(session)
    row = orgs.get(session, org_id)
    if row is None:
        raise NotFound(f"no organisation {org_id}")
    return row


def _new_org(session: Session, name: str, clock: SystemClock) -> OrgRow:
    return orgs.insert(session, orgs.operators_own(ids.new_id("org"), name, clock.now()))


def _shown(row: ApiKeyRow) -> dict[str, Any]:
    fields = ("id", "org_id", "name", "prefix", "scopes", "replaces", "created_at", "last_used_at", "expires_at",
              "revoked_at")  # fmt: skip
    values = {f: getattr(row, f) for f in fields}
    return {f: v.isoformat(timespec="seconds") if isinstance(v, datetime) else v for f, v in values.items()}
