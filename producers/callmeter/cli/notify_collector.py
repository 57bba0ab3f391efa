"""Alerts from a collector: ``callmeter notify --url``."""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlencode

import msgspec

from callmeter._version import __version__
from callmeter.cli.notify_sources import Following
from callmeter.errors import ConfigError, DataError, UnreachableError
from callmeter.log.place import Place, decode_place, encode_place
from callmeter.log.record import LogRecord
from callmeter.schema.topics import ALERTS
from callmeter.settings import resolve
from callmeter.transports.http_connection import Answer, HttpConnection, NoAnswerError
from callmeter.transports.url import http_endpoint, scheme_of

_PATH = "/v1/alerts"
_ALERTS = 500
#: How long the collector may wait for an alert before it says that there is none.
_WAIT_S = 10
_PATIENCE_S = 20.0
_STOP_LOOK_S = 0.1
#: Pauses while the collector is away: doubled each time, half of each random.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_KEY = re.compile(r"[\x21-\x7e]+")


class _Alert(msgspec.Struct):
    partition: int
    offset: int
    at_us: int
    alert: msgspec.Raw


class _Page(msgspec.Struct):
    log: str
    position: str
    alerts: list[_Alert]
    more: bool


class _Refusal(msgspec.Struct):
    error: str = ""
    reason: str = ""
    position: str = ""
    removed: int = 0


class _AwayError(UnreachableError):
    """No answer, or one that says to come back."""

    def __init__(self, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class _RefusedError(Exception):
    """The position is not one that the collector goes on from."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(refusal.error)
        self.refusal = refusal


class CollectorAlerts:
    """The alerts that a read key of the collector may see; ``projects`` asks for these alone.

    Key and authorities are the settings ``api_key`` and ``ca_file``; the key is read again for each
    question, so a file that is replaced is taken up. ``ConfigError`` for what is refused.
    """

    def __init__(self, url: str, projects: Collection[str] = ()) -> None:
        if scheme_of(url) not in ("http", "https"):
            raise ConfigError("a collector's URL is http[s]://host[:port]")
        self._endpoint = http_endpoint(url)
        self._projects = sorted(projects)
        self._connection = HttpConnection(
            self._endpoint,
            timeout_s=_WAIT_S + _PATIENCE_S,
            ca_file=resolve().ca_file,
            environ=os.environ,
        )
        self._rng = random.Random()

    def follow(self, run: Following) -> None:
        ended = threading.Event()

        def cut_off() -> None:
            """An answer that is waited for ends with the command."""
            run.stopping.wait()
            while not ended.wait(_STOP_LOOK_S):
                self._connection.abort()

        watcher = threading.Thread(target=cut_off, name="notify-stop", daemon=True)
        watcher.start()
        try:
            self._follow(run)
        finally:
            ended.set()
            self._connection.close()

    def _follow(self, run: Following) -> None:
        place: Place | None = None
        reached = False
        failures = 0
        while not run.stopping.is_set():
            try:
                if place is None:
                    place = self._begin(run)
                page = self._ask(
                    after=encode_place(place), limit=_ALERTS, wait=0 if run.drain else _WAIT_S
                )
            except _RefusedError as exc:
                failures += 1
                if failures > 1:  # what it told us to go on from is refused as well
                    run.stopping.wait(self._pause_s(failures))
                if exc.refusal.reason == "other_log":
                    run.voice.trouble(UnreachableError(f"{self._endpoint.display} has another log"))
                    place = None
                else:
                    run.voice.lost(exc.refusal.removed)
                    place = decode_place(exc.refusal.position)
                continue
            except UnreachableError as exc:
                if run.stopping.is_set():
                    return
                if run.drain or not reached:
                    raise
                run.voice.trouble(exc)
                failures += 1
                asked_s = exc.retry_after_s if isinstance(exc, _AwayError) else 0.0
                run.stopping.wait(self._pause_s(failures, asked_s))
                continue
            reached, failures = True, 0
            behind, place = place, decode_place(page.position)
            moved = {} if place == behind else place.offsets
            run.take(place.log_id, [_record(each) for each in page.alerts], moved)
            run.voice.check()
            if run.drain and not page.more:
                return

    def _begin(self, run: Following) -> Place:
        """Where the log was read to, and where it was not, what it had at ``begin_us``."""
        place = decode_place(self._ask(since=max(0, run.begin_us), limit=0).position)
        return Place(place.log_id, {**place.offsets, **run.positions(place.log_id)})

    def _pause_s(self, failures: int, asked_s: float = 0.0) -> float:
        full = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))
        return max(full * self._rng.uniform(0.5, 1.0), min(asked_s, _LONGEST_PAUSE_S))

    def _ask(self, **query: str | int) -> _Page:
        words: list[tuple[str, str | int]] = [*query.items()]
        words += [("project", project) for project in self._projects]
        headers = {"Accept": "application/json", "User-Agent": f"callmeter/{__version__}"}
        key = resolve().api_key
        if key:
            if not _KEY.fullmatch(key):
                raise ConfigError("CALLMETER_API_KEY is no key: it has blanks or odd characters")
            headers["Authorization"] = f"Bearer {key}"
        try:
            answer = self._connection.get(f"{_PATH}?{urlencode(words)}", headers)
        except NoAnswerError as exc:
            raise _AwayError(str(exc)) from None
        if answer.status == 200:
            return self._page(answer)
        raise self._refused(answer)

    def _page(self, answer: Answer) -> _Page:
        try:
            page = msgspec.json.decode(answer.body, type=_Page)
            if decode_place(page.position).log_id != page.log:
                raise DataError("its position is of another log")
        except (msgspec.DecodeError, DataError) as exc:
            raise ConfigError(
                f"{self._endpoint.display} gives no alerts of callmeter: {exc}"
            ) from None
        return page

    def _refused(self, answer: Answer) -> Exception:
        try:
            refusal = msgspec.json.decode(answer.body, type=_Refusal)
        except msgspec.DecodeError:
            refusal = _Refusal()
        # What a stranger says is shown in one line, and not at any length.
        said = "".join(c for c in refusal.error[:200] if c.isprintable()) or "no reason is given"
        text = f"{self._endpoint.display} answers {answer.status}: {said}"
        match answer.status, refusal.reason:
            case (409, "other_log") | (410, "removed"):
                return _RefusedError(refusal)
            case (400, "bad_position"):
                return DataError(
                    f"{text}. Was its log restored from a copy? With another --state notify "
                    "begins anew, at --since"
                )
            case (429 | 500 | 502 | 503 | 504, _):
                return _AwayError(text, _seconds(answer.headers))
            case (401 | 403, _):
                return ConfigError(f"{text}; a read key goes in CALLMETER_API_KEY(_FILE)")
            case (404, _):
                return ConfigError(f"{text}: is it a collector of callmeter, and not an older one?")
        return ConfigError(text)


def _record(each: _Alert) -> LogRecord:
    value = bytes(each.alert)
    return LogRecord(ALERTS.name, each.partition, each.offset, each.at_us, None, value)


def _seconds(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def projects_of(choices: Sequence[Collection[str]]) -> frozenset[str]:
    """The projects that some target wants; none if one wants all."""
    return frozenset().union(*choices) if choices and all(choices) else frozenset()
