"""Options of whatever serves the collector's routes: keys from a file, TLS, limits, logs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from callmeter.collector.config import CollectorConfig

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Serving:
    """What was asked for beyond address and keys."""

    keys_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    rate: float | None = None
    rate_bytes: float | None = None
    drain_grace: float = 0.0
    otlp_spans: str = "all"
    log_format: str = "text"

    def config(
        self, host: str, port: int, api_keys: tuple[str, ...], read_keys: tuple[str, ...]
    ) -> CollectorConfig:
        """The collector's settings, and the form of the log set up. ``ConfigError``."""
        from callmeter.collector.config import CollectorConfig
        from callmeter.collector.keys import KeyRing
        from callmeter.collector.logs import set_up_logs

        set_up_logs(self.log_format)
        return CollectorConfig(
            host=host,
            port=port,
            keys=KeyRing.parse(api_keys, read_keys),
            keys_file=self.keys_file,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            rate_envelopes_per_s=self.rate,
            rate_bytes_per_s=self.rate_bytes,
            drain_grace_s=self.drain_grace,
            otlp_spans=self.otlp_spans,
        )


def keys_file(command: F) -> F:
    """``--keys-file`` alone."""
    return click.option(
        "--keys-file", type=_PATH, envvar="CALLMETER_KEYS_FILE", default=None, metavar="FILE",
        help="Keys made by `callmeter keys`; read again when it changes.",
    )(command)  # fmt: skip


def tls(command: F) -> F:
    """``--tls-cert`` and ``--tls-key``, which belong together."""
    key = click.option(
        "--tls-key", type=_PATH, envvar="CALLMETER_TLS_KEY", default=None, metavar="FILE",
        help="The certificate's key (PEM).",
    )  # fmt: skip
    return click.option(
        "--tls-cert", type=_PATH, envvar="CALLMETER_TLS_CERT", default=None, metavar="FILE",
        help="Serve HTTPS with this certificate chain (PEM); read again when it changes.",
    )(key(command))  # fmt: skip


def serving_options(command: F) -> F:
    """All of them, handed to the command as one ``serving``."""

    @functools.wraps(command)
    def collected(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Serving)}
        return command(*args, serving=Serving(**chosen), **given)

    made: Any = tls(keys_file(collected))
    for option in (
        click.option("--rate", type=float, envvar="CALLMETER_RATE", default=None, metavar="N",
                     help="Envelopes a second that each key may send."),
        click.option("--rate-bytes", type=float, envvar="CALLMETER_RATE_BYTES", default=None,
                     metavar="N", help="Bytes a second that each key may send, uncompressed."),
        click.option("--drain-grace", type=click.FloatRange(0, 300), default=0.0, metavar="SECONDS",
                     envvar="CALLMETER_DRAIN_GRACE",
                     help="Be unready for so long before it stops listening."),
        click.option("--otlp-spans", type=click.Choice(["all", "genai"]), default="all",
                     envvar="CALLMETER_OTLP_SPANS", show_default=True,
                     help="Which OTLP spans are stored."),
        click.option("--log-format", type=click.Choice(["text", "json"]), default="text",
                     envvar="CALLMETER_LOG_FORMAT", show_default=True,
                     help="JSON also logs a line for each request."),
    ):  # fmt: skip
        made = option(made)
    wrapped: F = made
    return wrapped
