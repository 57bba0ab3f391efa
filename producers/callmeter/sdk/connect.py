"""Where a client sends: the URL it was given, else the local collector if it answers, else
nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from callmeter.sdk.containment import logger

if TYPE_CHECKING:
    from callmeter.settings import Settings
    from callmeter.transports.protocol import Transport

LOCAL_HOST = "127.0.0.1"
LOCAL_PORT = 4248
#: How long init may wait for a local collector that is not there.
PROBE_S = 0.2


def find_url(settings: Settings) -> str | None:
    """The URL to use; None, with one warning, if there is none."""
    if settings.url:
        return settings.url
    if local_collector_answers(LOCAL_PORT):
        return f"http://{LOCAL_HOST}:{LOCAL_PORT}"
    logger.warning(
        "nothing is metered: no url was given, CALLMETER_URL is not set and no local collector "
        "answers at %s:%d (callmeter up starts one)",
        LOCAL_HOST,
        LOCAL_PORT,
    )
    return None


def local_collector_answers(port: int, host: str = LOCAL_HOST) -> bool:
    """Whether ``GET /healthz`` is answered with 200 within ``PROBE_S``."""
    import socket

    try:
        with socket.create_connection((host, port), PROBE_S) as connection:
            connection.settimeout(PROBE_S)
            request = f"GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            status = connection.recv(64)
    except OSError:
        return False
    return status.startswith(b"HTTP/1.") and status[8:13] == b" 200 "


def connect(url: str, settings: Settings) -> Transport:
    """A transport for the URL; ``ConfigError`` says what is wrong with it."""
    from callmeter.transports.factory import open_transport
    from callmeter.transports.options import TransportOptions

    options = TransportOptions(
        api_key=settings.api_key,
        timeout_s=settings.timeout_s,
        compression=settings.compression,
        prefix=settings.prefix,
        ca_file=settings.ca_file,
    )
    return open_transport(url, settings=options)
