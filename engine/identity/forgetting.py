"""Forgets what accounts leave behind: sessions and secrets long over, windows of attempts, mails nobody can use."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import Session

from engine.store import attempts, mails, sessions, verifications

KEEP_SESSIONS = timedelta(days=30)
KEEP_SECRETS = timedelta(days=7)
KEEP_MAILS = timedelta(days=7)  # also those given up: an operator may want to see why


def prune(session: Session, now: datetime) -> None:
    """Forget it, in the caller's transaction."""
    sessions.prune(session, now - KEEP_SESSIONS)
    verifications.prune(session, now - KEEP_SECRETS)
    attempts.prune(session, now)
    mails.prune(session, now - KEEP_MAILS)
