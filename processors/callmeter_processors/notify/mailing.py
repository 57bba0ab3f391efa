"""Hands a message to a mail server by smtplib: TLS, log in, send."""

from __future__ import annotations

import logging
import smtplib
import ssl
from email.message import EmailMessage

from callmeter_processors.notify.outcome import Again, Outcome, Refused, Sent
from callmeter_processors.notify.targets import Smtp

logger = logging.getLogger(__name__)


def send_mail(smtp: Smtp, message: EmailMessage, timeout_s: float) -> Outcome:
    """Send one message to all its recipients in one transaction of the mail server.

    Nothing but loopback is sent over a connection without TLS. A refused log-in is tried again:
    whoever mends the password wants the alerts that waited for it.
    """
    try:
        with _connect(smtp, timeout_s) as server:
            if not smtp.implicit_tls:
                server.ehlo_or_helo_if_needed()
                if server.has_extn("starttls"):
                    server.starttls(context=_context(smtp))
                elif not smtp.is_loopback:
                    return Again("the mail server offers no STARTTLS")
            if smtp.username:
                server.login(smtp.username, smtp.password or "")
            left_out = server.send_message(message)
    except smtplib.SMTPRecipientsRefused as exc:
        return _judge(max(code for code, _ in exc.recipients.values()), "refuses the recipients")
    except smtplib.SMTPAuthenticationError as exc:
        return Again(f"the mail server refuses user or password ({exc.smtp_code})")
    except smtplib.SMTPResponseException as exc:
        return _judge(exc.smtp_code, "refuses the message")
    except smtplib.SMTPException as exc:
        return Again(f"the mail server: {type(exc).__name__}")
    except TimeoutError:
        return Again("no answer in time")
    except OSError as exc:
        return Again(f"not reachable: {exc.strerror or type(exc).__name__}")
    if left_out:
        # The others have it: sending again would be a second copy to them.
        logger.warning("the mail server refused %d of the recipients", len(left_out))
    return Sent()


def _judge(code: int, says: str) -> Outcome:
    reason = f"the mail server {says} ({code})"
    return Refused(reason) if code >= 500 else Again(reason)


def _connect(smtp: Smtp, timeout_s: float) -> smtplib.SMTP:
    if smtp.implicit_tls:
        return smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=timeout_s, context=_context(smtp))
    return smtplib.SMTP(smtp.host, smtp.port, timeout=timeout_s)


def _context(smtp: Smtp) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=smtp.ca_file)
