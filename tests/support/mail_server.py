"""A mail server for tests: EHLO, STARTTLS, AUTH PLAIN and LOGIN, DATA; one thread a connection."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class MailServer:
    """Serves on a free loopback port from entry to exit; ``messages`` are what it took.

    ``tls`` offers STARTTLS (``implicit``: TLS from the first byte). ``user`` and ``password`` are
    asked for if given. ``answers`` replaces the answer to a command, like ``{"RCPT": "550 no"}``.
    """

    tls: ssl.SSLContext | None = None
    implicit: bool = False
    user: str = ""
    password: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed: the test is over
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with ExitStack() as stack:
            stack.callback(connection.close)
            # The client may go, or not trust the certificate.
            stack.enter_context(suppress(OSError, ValueError))
            if self.implicit and self.tls is not None:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            _Session(self, connection, stack).run()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


class _Session:
    def __init__(self, server: MailServer, connection: socket.socket, stack: ExitStack) -> None:
        self._server = server
        self._stack = stack
        self._use(connection)
        self._secure = server.implicit

    def _use(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = self._stack.enter_context(connection.makefile("rb"))

    def run(self) -> None:
        self._say("220 test")
        while line := self._lines.readline():
            command = line.decode().strip()
            verb = command.split()[0].upper()
            if verb in self._server.answers:
                self._say(self._server.answers[verb])
            elif verb in ("EHLO", "HELO"):
                offers = ["test", "AUTH PLAIN LOGIN"] if self._server.user else ["test"]
                if self._server.tls is not None and not self._secure:
                    offers.append("STARTTLS")
                for offer in offers[:-1]:
                    self._say(f"250-{offer}")
                self._say(f"250 {offers[-1]}")
            elif verb == "STARTTLS":
                self._say("220 go")
                assert self._server.tls is not None
                secure = self._server.tls.wrap_socket(self._connection, server_side=True)
                self._use(self._stack.enter_context(secure))
                self._secure = True
            elif verb == "AUTH":
                given = base64.b64decode(command.split()[2]).decode().split("\0")
                fine = given[1:] == [self._server.user, self._server.password]
                self._say("235 welcome" if fine else "535 who are you")
            elif verb == "DATA":
                self._say("354 go on")
                body = b""
                while (line := self._lines.readline()) not in (b".\r\n", b""):
                    body += line
                self._server.messages.append(body)
                self._server.secured.append(self._secure)
                self._say("250 taken")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _say(self, text: str) -> None:
        self._connection.sendall(text.encode() + b"\r\n")
