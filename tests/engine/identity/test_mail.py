"""Mail by SMTP to a real server of the test's own: what arrives, which TLS it insists on, which refusals are final."""

from __future__ import annotations

import datetime as dt
import io
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.identity.letters import verify_email
from engine.identity.mail import ConsoleMail, Mail, MailFailed, MailRefused, SmtpMail, SmtpServer
from engine.model.errors import InvalidSpec

SENDER = "Yard <yard@example.com>"
MAIL = Mail("mail_1", "ada@example.com", "Confirm your address", "Grüße\n\nhttp://yard.test/auth#token=vt_secret\n")


@dataclass
class Inbox:
    """A handler of aiosmtpd: keeps what it is given, or answers as it is told."""

    answer: str = "250 OK"
    rcpt_answer: str = ""
    got: list[Any] = field(default_factory=list)
    envelopes: list[Any] = field(default_factory=list)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.rcpt_answer:
            return self.rcpt_answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answer.startswith("250"):
            self.got.append(message_from_bytes(envelope.content, policy=policy.default))
            self.envelopes.append((session.ssl is not None, session.authenticated))
        return self.answer


class Tls:
    """A certificate of 127.0.0.1 and the two sides' contexts."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(hours=1))
        certificate = builder.add_extension(x509.SubjectAlternativeName([address]), False).sign(key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (folder / "key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "cert").write_bytes(pem)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.load_cert_chain(folder / "cert", folder / "key")
        self.client = ssl.create_default_context(cadata=pem.decode())


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def serve(inbox: Inbox) -> Iterator[Any]:
    """Starts servers: `serve(**options of aiosmtpd) -> port`."""
    started: list[Controller] = []

    def start(**options: Any) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        controller = Controller(inbox, hostname="127.0.0.1", port=port, **options)
        controller.start()
        started.append(controller)
        return port

    yield start
    for controller in started:
        controller.stop()


def sender(port: int, *, scheme: str = "smtp", credentials: str = "", tls: ssl.SSLContext | None = None) -> SmtpMail:
    return SmtpMail(SmtpServer.of_url(f"{scheme}://{credentials}127.0.0.1:{port}"), SENDER, tls)


def test_mail_arrives_as_it_was_written(serve: Any, inbox: Inbox) -> None:
    sender(serve()).send(MAIL)
    [got] = inbox.got
    assert got["From"] == SENDER and got["To"] == "ada@example.com" and got["Subject"] == "Confirm your address"
    assert got["Message-ID"] == "<mail_1@example.com>" and got["Auto-Submitted"] == "auto-generated"
    assert got.get_content().replace("\r\n", "\n") == MAIL.body


def test_starttls_is_used_where_it_is_offered_and_the_certificate_checked(serve: Any, inbox: Inbox, tls: Tls) -> None:
    port = serve(tls_context=tls.server)
    sender(port, tls=tls.client).send(MAIL)
    assert inbox.envelopes[0][0]
    with pytest.raises(MailFailed, match="CERTIFICATE_VERIFY_FAILED"):
        sender(port).send(MAIL)  # its certificate is nobody's we trust
    assert len(inbox.got) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # it does not see the TLS below it
def test_implicit_tls_logs_in(serve: Any, inbox: Inbox, tls: Tls) -> None:
    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"yard", b"p@ss:word/1")
        return AuthResult(success=right, handled=False)

    port = serve(ssl_context=tls.server, authenticator=authenticate, auth_required=True, auth_require_tls=False)
    sender(port, scheme="smtps", credentials="yard:p%40ss%3Aword%2F1@", tls=tls.client).send(MAIL)
    assert inbox.envelopes[0][1]
    with pytest.raises(MailFailed, match="name and password"):
        sender(port, scheme="smtps", credentials="yard:wrong@", tls=tls.client).send(MAIL)


def test_mail_crosses_no_network_in_the_clear(monkeypatch: pytest.MonkeyPatch, serve: Any, inbox: Inbox) -> None:
    port = serve()
    server = SmtpServer.of_url(f"smtp://127.0.0.1:{port}")
    monkeypatch.setattr("engine.identity.mail._LOOPBACK", frozenset())
    with pytest.raises(MailFailed, match="offers no STARTTLS"):
        SmtpMail(server, SENDER).send(MAIL)
    assert inbox.got == []


@pytest.mark.parametrize(
    ("changed", "failure"),
    [
        ({"answer": "451 later"}, MailFailed),
        ({"answer": "554 no"}, MailRefused),
        ({"rcpt_answer": "550 no such user"}, MailRefused),
        ({"rcpt_answer": "450 busy"}, MailFailed),
    ],
    ids=str,
)
def test_refusals_for_now_and_for_good_are_told_apart(
    serve: Any, inbox: Inbox, changed: dict[str, str], failure: type[Exception]
) -> None:
    for name, value in changed.items():
        setattr(inbox, name, value)
    with pytest.raises(failure):
        sender(serve()).send(MAIL)


def test_server_that_is_gone_fails_for_now() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(MailFailed, match="does not answer"):
        sender(port).send(MAIL)


@pytest.mark.parametrize("url", ["mail.example.com", "http://mail.example.com", "smtp://", "smtp://host:port"])
def test_url_that_is_none_says_how_it_reads(url: str) -> None:
    with pytest.raises(InvalidSpec, match="STACKYARD_SMTP_URL"):
        SmtpServer.of_url(url)


def test_password_of_the_server_is_not_shown() -> None:
    server = SmtpServer.of_url("smtps://yard:hunter2@mail.example.com")
    assert (server.port, server.password) == (465, "hunter2") and "hunter2" not in repr(server)


def test_console_shows_the_link() -> None:
    stream = io.StringIO()
    letter = verify_email("http://yard.test", "vt_1")
    ConsoleMail(stream).send(Mail("m", "ada@example.com", letter.subject, letter.body))
    assert "http://yard.test/auth/verify-email#token=vt_1" in stream.getvalue()
