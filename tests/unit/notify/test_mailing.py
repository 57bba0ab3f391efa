"""Mail over a real socket: TLS, log in, what each answer means."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import trustme

from callmeter.clock import ManualClock
from callmeter.errors import ConfigError
from callmeter.schema.alerts import encode_alert
from callmeter_processors.notify.outcome import Again, Outcome, Refused, Sent
from callmeter_processors.notify.sending import Message, NetworkSender
from callmeter_processors.notify.targets import Email, Smtp
from support.alerting import NOW_US, alert
from support.mail_server import MailServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(made)
    return made


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def send(smtp: Smtp) -> Outcome:
    target = Email(
        name="m", to=("a@example.org", "b@example.org"), smtp=smtp, sender="c@example.org"
    )
    message = Message(alert(), encode_alert(alert()))
    return NetworkSender(ManualClock(NOW_US), timeout_s=5).send(target, message)


def test_starttls_and_log_in(context: ssl.SSLContext, ca_file: str) -> None:
    with MailServer(tls=context, user="u", password="p w") as server:
        url = f"smtp://u:p%20w@localhost:{server.port}"
        assert send(Smtp.from_url(url, ca_file=ca_file)) == Sent()
    assert server.secured == [True]
    assert alert().message.encode() in server.messages[0]
    assert b"To: a@example.org, b@example.org" in server.messages[0]


def test_implicit_tls(context: ssl.SSLContext, ca_file: str) -> None:
    with MailServer(tls=context, implicit=True) as server:
        url = f"smtps://localhost:{server.port}"
        assert send(Smtp.from_url(url, ca_file=ca_file)) == Sent()
    assert len(server.messages) == 1


def test_a_certificate_nobody_vouches_for_is_not_trusted(context: ssl.SSLContext) -> None:
    with MailServer(tls=context, user="u", password="p") as server:
        outcome = send(Smtp.from_url(f"smtp://u:p@localhost:{server.port}"))
    assert isinstance(outcome, Again)
    assert not server.messages


def test_plain_is_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with MailServer() as server:
        assert send(Smtp.from_url(f"smtp://localhost:{server.port}")) == Sent()
        # A name that is not loopback's, and leads here.
        real = socket.create_connection
        monkeypatch.setattr(
            socket, "create_connection", lambda at, *a, **k: real(("127.0.0.1", at[1]), *a, **k)
        )
        outcome = send(Smtp.from_url(f"smtp://mail.example.org:{server.port}"))
    assert outcome == Again("the mail server offers no STARTTLS")
    assert len(server.messages) == 1


def test_a_wrong_password_waits_to_be_mended() -> None:
    with MailServer(user="u", password="right") as server:
        outcome = send(Smtp.from_url(f"smtp://u@localhost:{server.port}", "WRONG"))
    assert isinstance(outcome, Again)
    assert "WRONG" not in outcome.reason


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"RCPT": "550 nobody here"}, Refused),
        ({"RCPT": "450 later"}, Again),
        ({"MAIL": "552 too much"}, Refused),
        ({"MAIL": "451 busy"}, Again),
    ],
)
def test_what_an_answer_means(answers: dict[str, str], kind: type) -> None:
    with MailServer(answers=answers) as server:
        assert type(send(Smtp.from_url(f"smtp://localhost:{server.port}"))) is kind


def test_nobody_there_is_tried_again() -> None:
    with MailServer() as server:
        port = server.port
    assert isinstance(send(Smtp.from_url(f"smtp://localhost:{port}")), Again)


@pytest.mark.parametrize(
    "url", ["", "http://x", "smtp://", "smtp://h:x", "smtp://:secret@h", "mail.example.org"]
)
def test_what_is_no_mail_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Smtp.from_url(url)


def test_ports_and_secrets_of_a_url() -> None:
    assert Smtp.from_url("smtp://h").port == 587
    assert Smtp.from_url("smtps://h").port == 465
    assert "SECRET" not in repr(Smtp.from_url("smtp://u:SECRET@h"))


@pytest.mark.parametrize("to", ["nobody", "a@b\nBcc: c@d", "a@b,c@d", "<a@b>"])
def test_what_is_no_address_is_refused(to: str) -> None:
    with pytest.raises(ConfigError, match="mail address"):
        Email(name="m", to=(to,), smtp=Smtp.from_url("smtp://h"), sender="a@b")
