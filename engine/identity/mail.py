"""Sends one mail: by SMTP, or to the terminal. Blocks; retries and durability are `identity/outbox.py`."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Protocol, TextIO
from urllib.parse import unquote, urlsplit

from engine.model.errors import InvalidSpec, StackyardError

_SECONDS = 20.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"smtp": 587, "smtps": 465}


class MailRefused(StackyardError):
    """The server will never take this mail as it is: trying again is no use."""

    code = "mail_refused"


class MailFailed(StackyardError):
    """The server did not take it now; it may later."""

    code = "mail_failed"


@dataclass(frozen=True)
class Mail:
    """A plain-text mail. `id` becomes its Message-ID, so that a repeated delivery is recognised."""

    id: str
    to: str
    subject: str
    body: str


class MailSender(Protocol):
    """Takes one mail."""

    def send(self, mail: Mail) -> None:
        """Hand it over; blocks.

        Raises:
            MailRefused: it will never be taken.
            MailFailed: not now.
        """
        ...


@dataclass(frozen=True)
class ConsoleMail:
    """Writes mails to the terminal, for installations without a mail server. Never to a log: they carry secrets."""

    stream: TextIO

    def send(self, mail: Mail) -> None:
        bar = "-" * 72
        self.stream.write(f"{bar}\nmail to {mail.to}: {mail.subject}\n\n{mail.body.rstrip()}\n{bar}\n")
        self.stream.flush()


@dataclass(frozen=True)
class SmtpServer:
    """Where mail goes: read from `smtp://user:password@host:587` (STARTTLS) or `smtps://…:465`."""

    host: str
    port: int
    implicit_tls: bool
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of_url(cls, url: str) -> SmtpServer:
        """Read a URL.

        Raises:
            InvalidSpec: it is not one of the two forms.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as err:
            raise InvalidSpec("STACKYARD_SMTP_URL: the port is not a number") from err
        if parts.scheme not in _PORTS or not parts.hostname:
            raise InvalidSpec(
                "STACKYARD_SMTP_URL reads smtp://user:password@host:587 or smtps://user:password@host:465"
            )
        return cls(
            parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "smtps",
            unquote(parts.username or ""), unquote(parts.password or ""),
        )  # fmt: skip


class SmtpMail:
    """Sends through one SMTP server, a connection per mail.

    Mail crosses the network encrypted, to a server whose certificate is checked, or not at all; only a server on this
    very machine is spoken to in the clear.
    """

    def __init__(self, server: SmtpServer, sender: str, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._sender = sender
        self._tls = tls or ssl.create_default_context()

    def send(self, mail: Mail) -> None:
        try:
            with self._connect() as smtp:
                self._protect(smtp)
                if self._server.user:
                    smtp.login(self._server.user, self._server.password)
                smtp.send_message(self._message(mail))
        except smtplib.SMTPRecipientsRefused as err:
            code, reason = next(iter(err.recipients.values()))
            raise _failure(code, reason) from None
        except smtplib.SMTPAuthenticationError as err:
            raise MailFailed(f"the mail server refuses our name and password ({err.smtp_code})") from None
        except smtplib.SMTPResponseException as err:
            raise _failure(err.smtp_code, err.smtp_error) from None
        except (smtplib.SMTPException, OSError) as err:
            raise MailFailed(f"the mail server does not answer as it should: {type(err).__name__}: {err}") from err

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.implicit_tls:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=_SECONDS, context=self._tls)
        return smtplib.SMTP(server.host, server.port, timeout=_SECONDS)

    def _protect(self, smtp: smtplib.SMTP) -> None:
        if self._server.implicit_tls:
            return
        smtp.ehlo()
        if smtp.has_extn("starttls"):
            smtp.starttls(context=self._tls)
            smtp.ehlo()
        elif self._server.host not in _LOOPBACK:
            raise MailFailed(f"{self._server.host} offers no STARTTLS: mail with secrets is not sent in the clear")

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
        message["Message-ID"] = f"<{mail.id}@{self._sender.rpartition('@')[2].rstrip('>') or 'stackyard'}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        message.set_content(mail.body)
        return message


def _failure(code: int, reason: bytes | str) -> StackyardError:
    said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
    if 500 <= code < 600:
        return MailRefused(f"the mail server refused it for good ({code}): {said}")
    return MailFailed(f"the mail server did not take it now ({code}): {said}")
