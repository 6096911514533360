"""How often something may be tried, as data, and the refusal when it was. Not the API's request rates per key."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.identity.keys import KeyHasher
from engine.model.errors import RateLimited
from engine.store import attempts
from engine.store.database import Database


@dataclass(frozen=True)
class Limit:
    """So many times in a window that begins with the first."""

    name: str
    times: int
    window: timedelta


_QUARTER, _HOUR, _DAY = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)

LOG_IN_PER_EMAIL = Limit("log in, address", 10, _QUARTER)
LOG_IN_PER_CLIENT = Limit("log in, client", 30, _QUARTER)  # an office behind one address mistypes more often
PASSWORD_PER_ACCOUNT = Limit("password, account", 10, _QUARTER)
SIGN_UP_PER_CLIENT = Limit("sign up, client", 20, _HOUR)
MAIL_PER_EMAIL = Limit("mail, address", 4, _HOUR)
MAIL_PER_CLIENT = Limit("mail, client", 20, _HOUR)
TOKEN_PER_CLIENT = Limit("token, client", 30, _HOUR)
SMS_PER_ACCOUNT = Limit("sms, account", 5, _DAY)
SMS_PER_NUMBER = Limit("sms, number", 3, _DAY)
SMS_PER_CLIENT = Limit("sms, client", 10, _DAY)
CODE_PER_ACCOUNT = Limit("code, account", 20, _DAY)


def charge(database: Database, hasher: KeyHasher, now: datetime, *uses: tuple[Limit, str]) -> None:
    """Count one attempt against each limit, in a transaction of its own: it counts whatever becomes of it.

    Args:
        uses: limits, each with whom or what it is counted for.

    Raises:
        RateLimited: one is used up; the refused attempt counts too.
    """
    with database.write() as session:
        counted = [(limit, *attempts.count(session, _name(hasher, limit, whom), limit.window, now))
                   for limit, whom in uses]  # fmt: skip
    waits = [resets_at - now for limit, number, resets_at in counted if number > limit.times]
    if waits:
        seconds = max(1, math.ceil(max(waits).total_seconds()))
        raise RateLimited(f"Rate limit exceeded. Please retry after {seconds} seconds.", retry_after_seconds=seconds)


def forget(session: Session, hasher: KeyHasher, *uses: tuple[Limit, str]) -> None:
    """Begin anew: the attempts led to a success."""
    for limit, whom in uses:
        attempts.forget(session, _name(hasher, limit, whom))


def client_of(address: str) -> str:
    """Whom a network address is counted for: an IPv4 address, or the /64 that one IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _name(hasher: KeyHasher, limit: Limit, whom: str) -> str:
    return hasher.hash(f"attempts {limit.name}: {whom}")
