"""`stackyard admin`: what only operators do, on the store itself: accounts, tiers, credit, prices, refunds, audit."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlmodel import Session

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.settings import load
from engine.identity import operators
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec
from engine.model.ledger import parse_usd
from engine.model.tiers import Tier
from engine.store import audit, migrate
from engine.store.database import Database
from engine.store.tables import AuditRow

app = typer.Typer(no_args_is_help=True, add_completion=False, help="What only operators do, directly in the store.")
accounts_app = typer.Typer(no_args_is_help=True, help="Accounts: list, close, open again, make operators.")
orgs_app = typer.Typer(no_args_is_help=True, help="Organisations: list, tier, credit limit.")
app.add_typer(accounts_app, name="accounts")
app.add_typer(orgs_app, name="orgs")

OrgArgument = Annotated[str, typer.Argument(help="org_…")]
AccountArgument = Annotated[str, typer.Argument(help="e-mail address or usr_…")]


@contextmanager
def database() -> Iterator[Database]:
    """The installation's store, brought to this version's tables."""
    settings = load()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    opened = Database(settings.resolved_database_url)
    try:
        migrate.migrate(opened)
        yield opened
    finally:
        opened.close()


@contextmanager
def writing() -> Iterator[Session]:
    """One transaction on the store."""
    with database() as opened, opened.write() as session:
        yield session


def operator() -> str:
    """Who the audit log names: the person at this machine."""
    return f"operator:{getpass.getuser()}"


def said(value: dict[str, Any], output: Output, sentence: str) -> None:
    """The result of one deed: a sentence for people, the thing itself for programs."""
    if output is Output.JSON:
        print_json(value)
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[green]✓[/] {sentence}")


@accounts_app.command("list")
def list_accounts(output: OutputOption = Output.TABLE) -> None:
    """List accounts with their organisations."""
    with database() as opened, opened.read() as session:
        rows = operators.accounts(session)
    columns = ("id", "email", "name", "email_verified", "is_operator", "organisations", "created_at", "disabled_at")
    print_rows(rows, columns, output, empty="no accounts yet: people sign up at /auth/signup")


@accounts_app.command("disable")
def disable(account: AccountArgument, output: OutputOption = Output.TABLE) -> None:
    """Close an account: its sessions and the keys it made open nothing within a second."""
    with writing() as session:
        row = operators.disable(session, account, actor=operator(), now=SystemClock().now())
    said(
        {"id": row.id, "disabled": True},
        output,
        f"{row.email} is closed; its resources still belong to its organisations",
    )


@accounts_app.command("enable")
def enable(account: AccountArgument, output: OutputOption = Output.TABLE) -> None:
    """Open a closed account again; its sessions and keys stay ended."""
    with writing() as session:
        row = operators.enable(session, account, actor=operator(), now=SystemClock().now())
    said({"id": row.id, "disabled": False}, output, f"{row.email} may log in again")


@accounts_app.command("operator")
def make_operator(
    account: AccountArgument,
    revoke: Annotated[bool, typer.Option("--revoke", help="take it away instead")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let an account run this installation (all tenants, tiers, prices), or no longer."""
    with writing() as session:
        row = operators.set_operator(session, account, not revoke, actor=operator(), now=SystemClock().now())
    said(
        {"id": row.id, "is_operator": not revoke},
        output,
        f"{row.email} {'is no longer' if revoke else 'is'} an operator",
    )


@orgs_app.command("list")
def list_orgs(output: OutputOption = Output.TABLE) -> None:
    """List organisations with tier, balance and credit limit."""
    with database() as opened, opened.read() as session:
        rows = operators.organisations(session)
    columns = (
        "id",
        "name",
        "tier",
        "available_usd",
        "wallet_usd",
        "held_usd",
        "owed_usd",
        "credit_limit_usd",
        "members",
    )
    print_rows(rows, columns, output, empty="no organisations yet: `stackyard keys create NAME` makes the first one")


@orgs_app.command("set-tier")
def set_tier(
    org: OrgArgument, tier: Annotated[Tier, typer.Argument(help="basic, pro or enterprise")],
    output: OutputOption = Output.TABLE,
) -> None:  # fmt: skip
    """Change an organisation's tier; holds everywhere within a second."""
    with writing() as session:
        row = operators.set_tier(session, org, tier, actor=operator(), now=SystemClock().now())
    said({"id": row.id, "tier": row.tier}, output, f"{row.name} ({row.id}) is {row.tier}")


@orgs_app.command("set-credit-limit")
def set_credit_limit(
    org: OrgArgument,
    usd: Annotated[str, typer.Argument(help="how far below zero it may go; 0: prepaid; none: never refused")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Change how far an organisation may spend beyond its balance."""
    limit = _limit(usd)
    with writing() as session:
        row = operators.set_credit_limit(session, org, limit, actor=operator(), now=SystemClock().now())
    said({"id": row.id, "credit_limit_microdollars": limit}, output, f"{row.name} ({row.id}) may go {usd} below zero")


@app.command("audit")
def show_audit(
    org: Annotated[str, typer.Option(help="only of this organisation")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="newest rows")] = 50,
    verify: Annotated[bool, typer.Option("--verify", help="check the whole chain instead")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show who did what, newest first; or prove that nobody changed the log."""
    with database() as opened, opened.read() as session:
        if verify:
            broken = audit.first_broken(session)
            if broken is not None:
                raise InvalidSpec(f"the audit log was changed at row {broken}: compare with a backup made before")
            newest = next(iter(audit.page(session, limit=1)), None)
            head = {"rows": newest.seq if newest else 0, "hash": newest.hash if newest else audit.GENESIS}
            # keep the two elsewhere: a log cut off at its end is whole in itself
            return said(
                head, output, f"the audit log is whole: {head['rows']} rows, the newest one's hash {head['hash']}"
            )
        rows = [_audited(row) for row in audit.page(session, org_id=org or None, limit=limit)]
    print_rows(
        rows, ("seq", "at", "actor", "action", "subject", "org_id", "details"), output, empty="nothing was done yet"
    )


def _limit(usd: str) -> int | None:
    if usd.lower() == "none":
        return None
    return 0 if usd in ("0", "0.0", "0.00") else parse_usd(usd)


def _audited(row: AuditRow) -> dict[str, Any]:
    return {**row.model_dump(exclude={"hash", "previous_hash"}), "at": row.at.isoformat(timespec="seconds")}
