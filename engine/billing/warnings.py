"""Mails to the people who pay, when their organisation's money runs short, out, or comes back. Decides no standing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from engine.billing.spend import Change, SpendState
from engine.identity import outbox
from engine.identity.letters import Letter
from engine.model.access import PERMISSIONS_OF_ROLE, Permission, Role
from engine.model.clock import Clock
from engine.store import memberships, orgs
from engine.store.sealing import Sealer


@dataclass(frozen=True)
class MailWarnings:
    """`spend.Tell`: one mail for each member who may pay."""

    sealer: Sealer
    clock: Clock
    new_id: Callable[[str], str]
    public_url: str

    def __call__(self, session: Session, change: Change) -> None:
        """Write the mails in the transaction that records the change."""
        org = orgs.one(session, change.org_id)
        letter = letter_about(org.name, change, self.public_url)
        if letter is None:
            return
        for member, account in memberships.list_for_org(session, org.id):
            may_pay = Permission.BILLING_WRITE in PERMISSIONS_OF_ROLE.get(Role(member.role), frozenset())
            if may_pay and account.disabled_at is None:
                outbox.post(session, self.sealer, self.clock, self.new_id("mail"), account.email, letter)


def letter_about(org_name: str, change: Change, public_url: str) -> Letter | None:
    """What a change means and what to do; None: nothing worth a mail."""
    after = change.after
    where = f"Add credit at {public_url}, or ask the operator of the installation to record a payment.\n"
    match after.state:
        case SpendState.WARNED:
            text = f"At the present rate the balance of {org_name} lasts until {_at(after.lasts_until)}.\n{where}"
            return Letter(f"The balance of {org_name} is running low", text)
        case SpendState.GRACE:
            text = (
                f"The balance of {org_name} is used up. Nothing new is started. What runs goes on until "
                f"{_at(after.drains_at)}; then it is suspended.\n{where}"
            )
            return Letter(f"The balance of {org_name} is used up", text)
        case SpendState.DRAINED:
            text = (
                f"The balance of {org_name} is used up and its grace period is over: what ran is suspended and costs "
                f"nothing more. It comes back by itself once there is credit.\n{where}"
            )
            return Letter(f"{org_name} is suspended", text)
        case SpendState.OK:
            is_back = change.before in (SpendState.GRACE, SpendState.DRAINED)
            text = f"There is credit again: what was suspended of {org_name} is starting.\n"
            return Letter(f"{org_name} runs again", text) if is_back else None


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "later"
