"""``callmeter notify``: tells people and programs of alerts."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callmeter.cli import options
from callmeter.cli.top import Span
from callmeter.errors import UsageError

if TYPE_CHECKING:
    from callmeter.cli.monitor import Monitor
    from callmeter.cli.notify_sources import AlertSource
    from callmeter.clock import Clock
    from callmeter.errors import UnreachableError
    from callmeter_processors.notify.config import NotifyConfig
    from callmeter_processors.notify.notifier import Notifier
    from callmeter_processors.notify.outbox import Outbox
    from callmeter_processors.notify.targets import Target

STATE_DIRECTORY = "notify"
DEAD_LETTERS = "dead-letters.jsonl"
_ENV = "CALLMETER_NOTIFY_"
_SAY_S = 60.0
_DRAIN_LOOK_S = 0.1
#: It is not ready when the log was not read for so long.
_UNREAD_S = 30.0


@click.command(name="notify")
@options.kafka
@options.directory
@click.option(
    "--url", default=None, metavar="URL",
    help="A collector: http[s]://host:4248, with a read key in CALLMETER_API_KEY(_FILE).",
)  # fmt: skip
@click.option("--webhook", "webhooks", multiple=True, metavar="URL", help="POST JSON. Repeatable.")
@click.option(
    "--slack", "slacks", multiple=True, metavar="URL",
    help="An incoming webhook of Slack; better in CALLMETER_NOTIFY_SLACK(_FILE). Repeatable.",
)  # fmt: skip
@click.option("--email", "mails", multiple=True, metavar="TO", help="A mail address. Repeatable.")
@click.option(
    "--smtp", metavar="URL", default=None, envvar="CALLMETER_NOTIFY_SMTP",
    help="The mail server: smtp://[user@]host[:port] (STARTTLS) or smtps://….",
)  # fmt: skip
@click.option("--from", "sender", metavar="ADDRESS", default="", help="The mails' sender.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="More targets, secrets and patience: see docs/guides/notify.md.",
)  # fmt: skip
@click.option("--project", "projects", multiple=True, help="Only this project's. Repeatable.")
@click.option("--kind", "kinds", multiple=True, help="threshold, stuck, gap, … Repeatable.")
@click.option("--link", default="", metavar="URL", help="Where to look: https://…/{trace_id}.")
@click.option(
    "--state", "state", type=click.Path(path_type=Path, file_okay=False), default=None,
    help="What is delivered is kept here.  [default: DIR/notify]",
)  # fmt: skip
@click.option(
    "--dead-letters", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help=f"Where alerts go that nobody takes.  [default: {DEAD_LETTERS} beside the state]",
)  # fmt: skip
@click.option(
    "--since", type=Span(), default="1h", show_default=True,
    help="At the very first start: how old the oldest alert may be that is sent.",
)  # fmt: skip
@click.option("--drain", is_flag=True, help="End when all there was is delivered or dead.")
@click.option(
    "--metrics", "metrics_at", metavar="HOST:PORT", default=None, envvar="CALLMETER_NOTIFY_METRICS",
    help="Serve /metrics, /healthz and /readyz here; a port alone is on loopback, 0 a free one.",
)  # fmt: skip
@click.option("--test", "is_test", is_flag=True, help="Send a sample to each target, and end.")
@click.option(
    "--redeliver", type=click.Path(path_type=Path, dir_okay=False), default=None, metavar="FILE",
    help="Send a dead-letter file again, and end.",
)  # fmt: skip
@options.verbosity
def command(
    kafka_url: str | None,
    directory: Path | None,
    url: str | None,
    webhooks: tuple[str, ...],
    slacks: tuple[str, ...],
    mails: tuple[str, ...],
    smtp: str | None,
    sender: str,
    config_file: Path | None,
    projects: tuple[str, ...],
    kinds: tuple[str, ...],
    link: str,
    state: Path | None,
    dead_letters: Path | None,
    since: float,
    drain: bool,
    metrics_at: str | None,
    is_test: bool,
    redeliver: Path | None,
    quiet: bool,
) -> int:
    r"""Tell of alerts by webhook, Slack and mail, each at least once, until SIGTERM.

    What was delivered is kept on disk: an alert is not sent again after a restart. A kill in the
    middle of an attempt may send it twice; its id (Idempotency-Key, Message-ID) stays the same.

    \b
    Examples: callmeter notify --webhook http://localhost:8080/alerts
              callmeter notify --kafka kafka://localhost:9092 --config notify.toml
              callmeter notify --url https://collector:4248 --config notify.toml
              callmeter notify --config notify.toml --test
    """
    if sum(place is not None for place in (kafka_url, directory, url)) > 1:
        raise UsageError("give one of --dir, --kafka and --url")
    config = _config(config_file, webhooks, slacks, mails, smtp, sender, projects, kinds, link)
    if is_test:
        return _test(config, quiet=quiet)
    home = state or (directory or Path(options.DEFAULT_DIR)) / STATE_DIRECTORY
    letters = dead_letters or home / DEAD_LETTERS
    if redeliver is not None:
        return _redeliver(config, redeliver, letters, quiet=quiet)
    source = _source(kafka_url, directory, url, config)
    return _run(
        config, source, home, letters, since, drain=drain, metrics_at=metrics_at, quiet=quiet
    )


def _config(
    config_file: Path | None,
    webhooks: tuple[str, ...],
    slacks: tuple[str, ...],
    mails: tuple[str, ...],
    smtp: str | None,
    sender: str,
    projects: tuple[str, ...],
    kinds: tuple[str, ...],
    link: str,
) -> NotifyConfig:
    """The file's targets and the options', in one."""
    from callmeter_processors.notify.config import NotifyConfig, read_config
    from callmeter_processors.notify.render import check_link
    from callmeter_processors.notify.targets import (
        Choice,
        Email,
        Slack,
        Smtp,
        Webhook,
        check_names,
        default_name,
    )

    file = NotifyConfig(()) if config_file is None else read_config(config_file)
    if link:
        check_link(link)
    choice = Choice.of(projects=projects, kinds=kinds)
    secret = _secret("WEBHOOK_SECRET")
    targets: list[Target] = [*file.targets]
    targets += [
        Webhook(name=default_name("webhook", url), url=url, secret=secret, choice=choice)
        for url in webhooks
    ]
    environment = _secret("SLACK")
    targets += [
        Slack(name=default_name("slack", url), url=url, choice=choice)
        for url in (*slacks, *([environment] if environment else ()))
    ]
    if mails:
        if smtp is None:
            raise UsageError("--email needs a mail server: --smtp smtp://user@host:587")
        server = Smtp.from_url(smtp, _secret("SMTP_PASSWORD"), os.environ.get(f"{_ENV}SMTP_CA"))
        name = default_name("email", ",".join(mails))
        targets.append(
            Email(name=name, to=mails, smtp=server, sender=sender or mails[0], choice=choice)
        )
    check_names(targets)
    return NotifyConfig(tuple(targets), file.retry, link or file.link)


def _secret(name: str) -> str | None:
    from callmeter_processors.notify.config import secret_of

    variable, path = f"{_ENV}{name}", os.environ.get(f"{_ENV}{name}_FILE", "")
    return secret_of(os.environ, variable, os.environ.get(variable, ""), path, "")


def _source(
    kafka_url: str | None, directory: Path | None, url: str | None, config: NotifyConfig
) -> AlertSource:
    from callmeter.cli.notify_collector import CollectorAlerts, projects_of
    from callmeter.cli.notify_sources import KafkaAlerts, SqliteAlerts

    if url is not None:
        return CollectorAlerts(url, projects_of([t.choice.projects for t in config.targets]))
    if kafka_url is not None:
        return KafkaAlerts(kafka_url)
    return SqliteAlerts(directory or Path(options.DEFAULT_DIR))


def _run(
    config: NotifyConfig,
    source: AlertSource,
    home: Path,
    letters: Path,
    since_s: float,
    *,
    drain: bool,
    metrics_at: str | None,
    quiet: bool,
) -> int:
    from callmeter.cli.notify_sources import Following
    from callmeter.clock import SystemClock
    from callmeter.log.dirlock import DirectoryLock
    from callmeter_processors.notify.deadletters import DeadLetterFile
    from callmeter_processors.notify.notifier import Notifier
    from callmeter_processors.notify.outbox import Outbox
    from callmeter_processors.notify.sending import NetworkSender

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    clock = SystemClock()
    with ExitStack() as stack:
        lock = DirectoryLock(home)
        lock.acquire()
        stack.callback(lock.release)
        outbox = stack.enter_context(Outbox(home / "outbox.db", clock.now_us()))
        begin_us = outbox.begun_us - round(since_s * 1e6)
        notifier = Notifier(
            outbox,
            config.targets,
            NetworkSender(clock),
            DeadLetterFile(letters),
            clock,
            retry=config.retry,
            link=config.link,
            begin_us=begin_us,
        )
        voice = _Voice(notifier, outbox, quiet=quiet)
        if metrics_at is not None:
            voice.serves(stack.enter_context(_monitor(metrics_at, notifier, clock)))
        voice.begin(config)
        notifier.start()
        stack.callback(notifier.stop)
        source.follow(
            Following(outbox.positions, notifier.take, voice, stopping, begin_us, drain=drain)
        )
        while drain and notifier.waiting and not stopping.wait(_DRAIN_LOOK_S):
            voice.check()
        notifier.stop()
        voice.check()
        voice.end()
    return 1 if notifier.stats.dead else 0


def _monitor(address: str, notifier: Notifier, clock: Clock) -> Monitor:
    from callmeter.cli.monitor import Monitor
    from callmeter_processors.notify.metrics import NotifyMetrics, ailing, unready

    return Monitor(
        address,
        [NotifyMetrics(notifier)],
        unready=lambda: unready(notifier, _UNREAD_S, clock.now_us()),
        ailing=lambda: ailing(notifier),
    )


class _Voice:
    """What the command says while it runs, and what ends it."""

    def __init__(self, notifier: Notifier, outbox: Outbox, *, quiet: bool) -> None:
        self._notifier = notifier
        self._outbox = outbox
        self._quiet = quiet
        self._said = ""
        self._said_s = time.monotonic()
        self._pruned = False
        self._in_trouble = False
        self._troubled_s = -_SAY_S

    def serves(self, monitor: Monitor) -> None:
        self._say(f"metrics are served at {monitor.url}/metrics")

    def begin(self, config: NotifyConfig) -> None:
        names = ", ".join(f"{target.name} ({target.kind})" for target in config.targets)
        self._say(f"notifying {names}; Ctrl-C stops it")
        for name, count in self._notifier.left_behind.items():
            click.echo(f"{count} deliveries wait for {name}, which is not configured now", err=True)

    def check(self) -> None:
        """Raise what made a target's thread fail; a line a minute, if there is news."""
        self._in_trouble = False
        if self._notifier.failed is not None:
            raise self._notifier.failed
        if time.monotonic() - self._said_s > _SAY_S or not self._pruned:
            self._pruned = True
            self._said_s = time.monotonic()
            self._outbox.forget(time.time_ns() // 1000)
            self._say(self._line())

    def trouble(self, exc: UnreachableError) -> None:
        """Once for each outage, and once a minute; deliveries go on meanwhile."""
        if self._notifier.failed is not None:
            raise self._notifier.failed
        now_s = time.monotonic()
        if not self._in_trouble and now_s - self._troubled_s >= _SAY_S:
            self._troubled_s = now_s
            click.echo(f"{exc}; trying again", err=True)
        self._in_trouble = True

    def lost(self, records: int) -> None:
        """Said and counted: retention was faster than we."""
        self._notifier.stats.removed += records
        click.echo(
            f"up to {records:,} alerts are past the log's retention and were not read; going on "
            "with what is left",
            err=True,
        )

    def end(self) -> None:
        self._say(self._line())

    def _line(self) -> str:
        stats = self._notifier.stats
        return (
            f"{stats.taken:,} alerts taken, {stats.delivered:,} delivered, "
            f"{self._notifier.waiting:,} waiting, {stats.retried:,} attempts failed, "
            f"{stats.dead:,} given up"
        )

    def _say(self, text: str) -> None:
        if text != self._said and not self._quiet:
            self._said = text
            click.echo(text)


def _test(config: NotifyConfig, *, quiet: bool) -> int:
    """One sample to each target, once; 0 if all took it."""
    from callmeter.clock import SystemClock
    from callmeter.schema.alerts import encode_alert
    from callmeter_processors.notify.outcome import Sent
    from callmeter_processors.notify.render import link_of
    from callmeter_processors.notify.sample import sample_alert
    from callmeter_processors.notify.sending import Message, NetworkSender

    clock = SystemClock()
    sender = NetworkSender(clock)
    alert = sample_alert(clock.now_us())
    message = Message(alert, encode_alert(alert), link_of(alert, config.link))
    code = 0
    for target in config.targets:
        outcome = sender.send(target, message)
        if isinstance(outcome, Sent):
            if not quiet:
                click.echo(f"{target.name} ({target.kind}): taken")
        else:
            click.echo(f"{target.name} ({target.kind}): {outcome.reason}", err=True)
            code = 1
    return code


def _redeliver(config: NotifyConfig, file: Path, letters: Path, *, quiet: bool) -> int:
    """Every line of a dead-letter file again; what fails goes to the dead-letter file."""
    from callmeter.clock import SystemClock
    from callmeter_processors.notify.deadletters import DeadLetterFile, read_letters
    from callmeter_processors.notify.redelivery import redeliver
    from callmeter_processors.notify.sending import NetworkSender

    if letters.exists() and file.exists() and letters.samefile(file):
        raise UsageError(
            f"{file} is where dead letters go: move it away first, or give another --dead-letters"
        )
    clock = SystemClock()
    done, failed = redeliver(
        list(read_letters(file)),
        config,
        NetworkSender(clock),
        DeadLetterFile(letters),
        clock,
    )
    if not quiet:
        click.echo(f"{done:,} delivered, {failed:,} not" + (f": see {letters}" if failed else ""))
    return 1 if failed else 0
