"""The outbox: with the deed or not at all, again until it is taken, by one process at a time."""

from __future__ import annotations

import threading

import pytest
from sqlmodel import select

from engine.identity import outbox as outboxes
from engine.identity.letters import Letter
from engine.identity.mail import Mail, MailFailed, MailRefused
from engine.identity.outbox import Outbox
from engine.model.errors import Conflict
from engine.store import mails
from engine.store.account_tables import MailRow
from engine.store.database import Database
from engine.store.sealing import Sealer
from tests.fakes.clock import FakeClock
from tests.fakes.identity import ReadableMail

SEALER = Sealer(b"0123456789abcdef0123456789abcdef")
LETTER = Letter("Confirm", "the link has vt_secret")


def post(database: Database, clock: FakeClock, mail_id: str = "mail_1") -> None:
    with database.write() as session:
        outboxes.post(session, SEALER, clock, mail_id, "ada@example.com", LETTER)


def rows(database: Database) -> list[MailRow]:
    with database.read() as session:
        return list(session.exec(select(MailRow)))


def test_mail_is_sent_once_and_forgotten(database: Database, clock: FakeClock) -> None:
    mail = ReadableMail()
    outbox = Outbox(database, SEALER, mail, clock)
    post(database, clock)
    assert "vt_secret" not in rows(database)[0].body_sealed
    assert (outbox.deliver(), outbox.deliver()) == (1, 0)
    assert mail.sent == [Mail("mail_1", "ada@example.com", LETTER.subject, LETTER.body)] and rows(database) == []


def test_mail_of_a_deed_that_failed_is_not_sent(database: Database, clock: FakeClock) -> None:
    mail = ReadableMail()
    with pytest.raises(Conflict), database.write() as session:
        outboxes.post(session, SEALER, clock, "mail_1", "ada@example.com", LETTER)
        raise Conflict("no")
    assert Outbox(database, SEALER, mail, clock).deliver() == 0


def test_failed_mail_is_sent_later_and_given_up_in_the_end(database: Database, clock: FakeClock) -> None:
    mail = ReadableMail(failures=[MailFailed("busy") for _ in range(7)])
    outbox = Outbox(database, SEALER, mail, clock)
    post(database, clock)
    waits = []
    while (row := (rows(database) or [None])[0]) and row.next_attempt_at:
        clock.advance((row.next_attempt_at - clock.now()).total_seconds())
        waits.append(round(clock.monotonic()))
        assert outbox.deliver() == 0
    assert waits == [0, 15, 75, 375, 2175, 9375, 30975]
    [given_up] = rows(database)
    assert given_up.last_error == "busy" and mail.sent == []
    with database.read() as session:
        assert mails.waiting(session) == 0


def test_mail_that_failed_once_arrives(database: Database, clock: FakeClock) -> None:
    mail = ReadableMail(failures=[MailFailed("busy")])
    outbox = Outbox(database, SEALER, mail, clock)
    post(database, clock)
    assert outbox.deliver() == 0 and outbox.deliver() == 0
    clock.advance(15)
    assert outbox.deliver() == 1 and len(mail.sent) == 1


def test_mail_refused_for_good_is_not_tried_again(database: Database, clock: FakeClock) -> None:
    outbox = Outbox(database, SEALER, ReadableMail(failures=[MailRefused("no such user")]), clock)
    post(database, clock)
    outbox.deliver()
    clock.advance(86400)
    assert outbox.deliver() == 0 and rows(database)[0].next_attempt_at is None


def test_sealed_with_another_secret_is_given_up(database: Database, clock: FakeClock) -> None:
    post(database, clock)
    mail = ReadableMail()
    assert Outbox(database, Sealer(b"another secret of 32 characters!"), mail, clock).deliver() == 0
    assert "key" in rows(database)[0].last_error and mail.sent == []


def test_process_that_dies_while_sending_loses_no_mail(database: Database, clock: FakeClock) -> None:
    class Dies:
        def send(self, mail: Mail) -> None:
            raise KeyboardInterrupt

    post(database, clock)
    with pytest.raises(KeyboardInterrupt):
        Outbox(database, SEALER, Dies(), clock).deliver()
    mail = ReadableMail()
    other = Outbox(database, SEALER, mail, clock)
    assert other.deliver() == 0  # the dead one may still be sending
    clock.advance(301)
    assert other.deliver() == 1


def test_processes_share_what_waits(database: Database, clock: FakeClock) -> None:
    for n in range(30):
        post(database, clock, f"mail_{n}")
    boxes = [ReadableMail() for _ in range(3)]
    threads = [threading.Thread(target=Outbox(database, SEALER, box, clock).deliver) for box in boxes for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    Outbox(database, SEALER, boxes[0], clock).deliver()
    assert sorted(m.id for box in boxes for m in box.sent) == sorted(f"mail_{n}" for n in range(30))


def test_database_that_is_away_is_no_failure_of_the_deed(tmp_path: object, clock: FakeClock) -> None:
    gone = Database(f"sqlite:///{tmp_path}/no/such/folder/db")
    Outbox(gone, SEALER, ReadableMail(), clock).nudge()
    gone.close()
