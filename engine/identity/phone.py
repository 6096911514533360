"""Phone numbers: verified by a code, once each, and worth a promotional credit. Only their keyed hash is kept."""

from __future__ import annotations

import asyncio

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType
from sqlmodel import Session

from engine.identity import verifications
from engine.identity.attempts import (
    CODE_PER_ACCOUNT,
    SMS_PER_ACCOUNT,
    SMS_PER_CLIENT,
    SMS_PER_NUMBER,
    charge,
    client_of,
)
from engine.identity.context import Identity
from engine.identity.keys import KeyHasher
from engine.identity.sessions import Client
from engine.model.errors import Conflict, InvalidSpec, NotFound, StackyardError
from engine.store import accounts, orgs
from engine.store import verifications as stored_verifications
from engine.store.account_tables import UserRow

_NO_TEXTS = frozenset(
    {
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.VOIP,
        PhoneNumberType.PAGER,
        PhoneNumberType.UAN,
        PhoneNumberType.VOICEMAIL,
    }
)
"""Lines that take no texts, that charge whoever sends them one, or that anybody gets by the hundred."""


def normalise(number: str) -> str:
    """A number as E.164, `+14155550123`.

    Raises:
        InvalidSpec: it is not a mobile number with its country code.
    """
    if not number.strip().startswith("+"):
        raise InvalidSpec("write the number with its country code: +14155550123", field="number")
    try:
        parsed = phonenumbers.parse(number, None)
    except NumberParseException as err:
        raise InvalidSpec(f"this is not a phone number: {err}", field="number") from err
    if not phonenumbers.is_valid_number(parsed):
        raise InvalidSpec("there is no such phone number", field="number")
    if phonenumbers.number_type(parsed) in _NO_TEXTS:
        raise InvalidSpec("this is not a mobile number: a code could not be texted to it", field="number")
    return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)


def hash_of(hasher: KeyHasher, e164: str) -> str:
    """The keyed hash that stands for a number in the database; without the installation's secret it names none."""
    return hasher.hash(f"phone {e164}")


async def send_code(identity: Identity, user: UserRow, number: str, client: Client) -> None:
    """Text a code to a number that an account claims. Whether another account has it is only told to its holder.

    Raises:
        InvalidSpec: not a number that can be texted; nothing is stored.
        Conflict: the account has verified this number.
        RateLimited: too many codes for this account, number or client.
        Unavailable: the message was not taken; nothing is stored.
    """
    e164 = normalise(number)
    phone_hash = hash_of(identity.hasher, e164)
    if user.phone_hash == phone_hash:
        raise Conflict("this account has verified this number", field="number")
    uses = (
        (SMS_PER_ACCOUNT, user.id),
        (SMS_PER_NUMBER, phone_hash),
        (SMS_PER_CLIENT, client_of(client.address)),
    )
    await asyncio.to_thread(charge, identity.database, identity.hasher, identity.clock.now(), *uses)
    verification_id = identity.new_id("ver")

    def store(session: Session) -> str:
        return verifications.issue_code(
            session, identity.hasher, verification_id=verification_id, user_id=user.id, target=phone_hash,
            now=identity.clock.now(),
        )  # fmt: skip

    code = await identity.write(store)
    try:
        await identity.sms.send(e164, f"{code} is your Stackyard code. It is good for ten minutes; tell it to nobody.")
    except StackyardError:
        await identity.write(lambda session: stored_verifications.discard(session, verification_id))
        raise


async def verify_code(identity: Identity, user: UserRow, code: str, client: Client) -> bool:
    """Record that an account holds the number a code was texted to; its first one earns a credit.

    Returns:
        Whether the credit was given.

    Raises:
        InvalidSpec: the code is wrong, expired or was tried too often.
        Conflict: another account has verified the number.
        RateLimited: too many codes tried.
    """
    now = identity.clock.now()
    await asyncio.to_thread(charge, identity.database, identity.hasher, now, (CODE_PER_ACCOUNT, user.id))

    def store(session: Session) -> bool | None:
        row = verifications.try_code(session, identity.hasher, user.id, code.strip(), now)
        return None if row is None else _record(identity, session, user.id, row.target, client)

    credited = await identity.write(store)
    if credited is None:
        raise InvalidSpec("the code is wrong", field="code")
    return credited


def _record(identity: Identity, session: Session, user_id: str, phone_hash: str, client: Client) -> bool:
    accounts.lock_sign_up(session)  # of two accounts that verify one number now, the second sees the first
    user, now = accounts.get(session, user_id), identity.clock.now()
    if user is None:
        raise NotFound(f"no account {user_id}")
    holder = accounts.by_phone(session, phone_hash)
    if holder is not None and holder.id != user_id:
        raise Conflict("another account has verified this number", field="number")
    earns = user.phone_verified_at is None
    user.phone_hash, user.phone_verified_at = phone_hash, now
    session.add(user)
    session.flush()
    org = orgs.personal_of(session, user_id)
    credited = earns and org is not None and identity.grant_promotion(session, org.id, phone_hash, now)
    identity.record(session, user, "account.phone_verified", client, credited=credited)
    return credited
