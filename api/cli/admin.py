"""`stackyard admin`: what only operators do, on the store itself: accounts, tiers, credit, prices, refunds, audit."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.settings import load
from engine.billing import commitments, credit
from engine.identity import operators
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec, Unavailable
from engine.model.ledger import parse_usd
from engine.model.money import to_usd
from engine.model.tiers import Tier
from engine.store import audit, ledger, ledger_audit, migrate, orgs, prices
from engine.store.database import Database
from engine.store.ledger_tables import PriceRow
from engine.store.tables import AuditRow

app = typer.Typer(no_args_is_help=True, add_completion=False, help="What only operators do, directly in the store.")
accounts_app = typer.Typer(no_args_is_help=True, help="Accounts: list, close, open again, make operators.")
orgs_app = typer.Typer(no_args_is_help=True, help="Organisations: list, tier, credit limit.")
credit_app = typer.Typer(no_args_is_help=True, help="Money: record payments, give credit, refund, look.")
prices_app = typer.Typer(no_args_is_help=True, help="Prices: list, set from now or later on.")
app.add_typer(accounts_app, name="accounts")
app.add_typer(orgs_app, name="orgs")
app.add_typer(credit_app, name="credit")
app.add_typer(prices_app, name="prices")

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
    except OperationalError as err:
        raise Unavailable(f"the database does not answer: {err.orig}; check STACKYARD_DATABASE_URL") from err
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


@credit_app.command("deposit")
def deposit(
    org: OrgArgument,
    usd: Annotated[str, typer.Argument(help="dollars, for example 50 or 12.50")],
    payment: Annotated[str, typer.Option(help="the payment's number; it counts once, forever")],
    description: Annotated[str, typer.Option(help="what people read beside it")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Record money that was paid in outside of this system. Five dollars in all make Basic organisations Pro."""
    with writing() as session:
        orgs.one(session, org)
        made = credit.deposit(
            session, org, parse_usd(usd), key=payment, actor=operator(), now=SystemClock().now(),
            description=description,
        )  # fmt: skip
    pro = "; it is Pro now" if made.became_pro else ""
    sentence = f"${usd} recorded for {org}{pro}" if made.is_new else f"payment {payment} was recorded before"
    said(
        {"transaction_id": made.transaction_id, "is_new": made.is_new, "became_pro": made.became_pro}, output, sentence
    )


@credit_app.command("grant")
def grant(
    org: OrgArgument,
    usd: Annotated[str, typer.Argument(help="dollars")],
    name: Annotated[str, typer.Option(help="names this grant; it counts once, forever")],
    description: Annotated[str, typer.Option(help="what people read beside it")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Give credit without money; it counts towards no tier."""
    with writing() as session:
        orgs.one(session, org)
        posted = credit.promote(
            session, org, parse_usd(usd), key=f"operator/{name}", actor=operator(), now=SystemClock().now(),
            description=description,
        )  # fmt: skip
    sentence = f"${usd} given to {org}" if posted.is_new else f"grant {name} was made before"
    said({"transaction_id": posted.id, "is_new": posted.is_new}, output, sentence)


@credit_app.command("refund")
def refund(
    transaction: Annotated[str, typer.Argument(help="txn_… of usage or of a deposit")],
    usd: Annotated[str, typer.Option(help="a part of it; empty: what is left of it")] = "",
    name: Annotated[str, typer.Option(help="names this refund of it; it counts once, forever")] = "1",
    description: Annotated[str, typer.Option(help="what people read beside it")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Take a transaction back by its reverse: usage goes back to the balance, a deposit out of the system."""
    with writing() as session:
        posted = credit.refund(
            session, transaction, parse_usd(usd) if usd else None, key=name, actor=operator(),
            now=SystemClock().now(), description=description,
        )  # fmt: skip
    sentence = f"{transaction} refunded as {posted.id}" if posted.is_new else f"refund {name} was made before"
    said({"transaction_id": posted.id, "is_new": posted.is_new}, output, sentence)


@credit_app.command("commit")
def commit(
    org: OrgArgument,
    above: Annotated[str, typer.Option(help="monthly dollars from which on it costs less")] = "5000",
    percent: Annotated[str, typer.Option(help="how much less; empty: end what was agreed, after this month")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Agree on a discount for what is used above a monthly spend, from this month on."""
    now = SystemClock().now()
    with writing() as session:
        orgs.one(session, org)
        if percent:
            row = commitments.agree(
                session, org, above_microdollars=parse_usd(above), percent=_decimal(percent), actor=operator(), now=now
            )
            details = {"above_usd": above, "percent": f"{row.percent:f}"}
            sentence = f"{org} pays {percent} % less for what it uses above ${above} a month"
        elif commitments.end(session, org, now=now):
            details, sentence = {"ended": "with this month"}, f"the discount of {org} ends with this month"
        else:
            raise InvalidSpec(f"{org} has no discount to end; to agree on one give --percent")
        audit.record(
            session, at=now, actor=operator(), action="org.discount_changed", subject=org, org_id=org, details=details
        )
    said(details, output, sentence)


@credit_app.command("show")
def show_credit(
    org: OrgArgument,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="newest transactions")] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show an organisation's transactions, newest first, with every account they moved."""
    with database() as opened, opened.read() as session:
        rows = ledger.page(session, org, limit=limit)
        lines = ledger.postings(session, [row.id for row in rows])
        shown = [
            {
                "id": row.id, "effective_at": row.effective_at.isoformat(timespec="seconds"), "reason": row.reason,
                "postings": ", ".join(f"{p.account} {to_usd(p.microdollars):+f}" for p in lines[row.id]),
                "description": row.description, "actor": row.actor,
            }
            for row in rows
        ]  # fmt: skip
    columns = ("id", "effective_at", "reason", "postings", "description", "actor")
    print_rows(shown, columns, output, empty="no money moved yet")


@prices_app.command("list")
def list_prices(output: OutputOption = Output.TABLE) -> None:
    """List every price with when it begins."""
    with database() as opened, opened.read() as session:
        rows = [_priced(row) for row in prices.everything(session)]
    print_rows(rows, ("sku", "unit_usd", "unit", "effective_from", "created_by"), output, empty="no prices yet")


@prices_app.command("set")
def set_price(
    sku: Annotated[str, typer.Argument(help="what is sold, for example tokens:llama-3.3-70b-instruct:output")],
    usd: Annotated[str, typer.Argument(help="dollars for one unit, as exact as you like")],
    unit: Annotated[str, typer.Option(help="what is counted: tokens, images, seconds, …")],
    begins: Annotated[str, typer.Option("--from", help="ISO 8601 with a time zone; empty: now")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Set what a sku costs from now or later on. What was used keeps its price."""
    now = SystemClock().now()
    with writing() as session:
        row = prices.put(
            session,
            PriceRow(
                id=ids.new_id("price"), sku=sku, unit=unit, unit_usd=_decimal(usd), created_at=now,
                created_by=operator(), effective_from=_moment(begins) if begins else now,
            ),
            now=now,
        )  # fmt: skip
        audit.record(
            session, at=now, actor=operator(), action="price.set", subject=row.id,
            details={"sku": sku, "unit_usd": str(row.unit_usd), "effective_from": row.effective_from.isoformat()},
        )  # fmt: skip
        shown = _priced(row)
    said(shown, output, f"{sku}: ${shown['unit_usd']} per {unit} from {shown['effective_from']} on")


@app.command("verify")
def verify_books(output: OutputOption = Output.TABLE) -> None:
    """Add up every posting ever made and compare with the balances; exit code 1 if the books contradict themselves."""
    with database() as opened, opened.read() as session:
        findings = [{"subject": f.subject, "message": f.message} for f in ledger_audit.verify(session)]
        totals = {kind.value: f"{to_usd(amount):f}" for kind, amount in ledger.totals(session).items() if amount}
    if findings:
        print_rows(findings, ("subject", "message"), output, empty="")
        raise typer.Exit(1)
    summary = ", ".join(f"{kind} {amount}" for kind, amount in totals.items()) or "nothing was posted yet"
    said({"findings": [], "totals": totals}, output, f"the books agree: {summary}")


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


def _priced(row: PriceRow) -> dict[str, Any]:
    return {**row.model_dump(), "unit_usd": f"{row.unit_usd:f}", "effective_from": row.effective_from.isoformat(),
            "created_at": row.created_at.isoformat()}  # fmt: skip


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as err:
        raise InvalidSpec(f"{text!r} is not a price: write dollars like 0.0000004") from err


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as err:
        raise InvalidSpec(f"{text!r} is no time: write 2027-01-01T00:00:00Z") from err


def _audited(row: AuditRow) -> dict[str, Any]:
    return {**row.model_dump(exclude={"hash", "previous_hash"}), "at": row.at.isoformat(timespec="seconds")}
