"""`stackyard keys`: works on the store itself, so the first key can be made before anybody may call the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlmodel import Session

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.settings import Settings, load
from engine.identity import installation_secret
from engine.identity.issue import issue_key
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.errors import NotFound
from engine.store import keys, migrate, orgs
from engine.store.database import Database
from engine.store.tables import ApiKeyRow, OrgRow

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Create, list and revoke API keys, directly in the store."
)
OrgOption = Annotated[str, typer.Option(help="organisation id; empty: the first one")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="what the key is for")],
    org: OrgOption = "",
    new_org: Annotated[str, typer.Option(help="make an organisation of this name for the key")] = "",
    prefix: Annotated[str, typer.Option(help="sk or ck")] = "sk",
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a key and print it, this once. The first key also creates the first organisation."""
    settings = load()
    clock = SystemClock()
    hasher = KeyHasher(installation_secret.load_or_create(settings.data_dir, settings.secret_key))
    with _store(settings) as database, database.write() as session:
        owner = _new_org(session, new_org or "default", clock) if new_org else _org(session, org)
        owner = owner or _new_org(session, "default", clock)
        row, secret = issue_key(
            session, hasher, key_id=ids.new_id("key"), org_id=owner.id, name=name, prefix=prefix, now=clock.now()
        )
        shown = {**_shown(row), "key": secret}
    if output is Output.JSON:
        print_json(shown)
    else:
        Console(stderr=True).print(f"key {shown['id']} of {shown['org_id']}; it is shown only now:", style="dim")
        typer.echo(secret)


@app.command("list")
def list_keys(org: OrgOption = "", output: OutputOption = Output.TABLE) -> None:
    """List keys, revoked ones too."""
    with _store(load()) as database, database.read() as session:
        owner = _org(session, org)
        rows = [_shown(row) for row in keys.list_for_org(session, owner.id)] if owner else []
    columns = ("id", "name", "prefix", "org_id", "created_at", "revoked_at")
    print_rows(rows, columns, output, empty="no keys yet: `stackyard keys create NAME`")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="key_…")], output: OutputOption = Output.TABLE) -> None:
    """Revoke a key: it is refused everywhere within a second."""
    with _store(load()) as database, database.write() as session:
        row = keys.revoke(session, key_id, SystemClock().now())
        if row is None:
            raise NotFound(f"no key {key_id}: `stackyard keys list` shows them")
        shown = _shown(row)
    if output is Output.JSON:
        print_json(shown)
    else:
        Console(stderr=True).print(f"revoked {key_id}")


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
    fields = ("id", "org_id", "name", "prefix", "created_at", "expires_at", "revoked_at")
    times = {f: getattr(row, f) for f in fields}
    return {f: v.isoformat(timespec="seconds") if hasattr(v, "isoformat") else v for f, v in times.items()}
