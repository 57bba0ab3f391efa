"""Alerts from a collector that misbehaves, a script of answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from callmeter.cli.notify_collector import CollectorAlerts, projects_of
from callmeter.cli.notify_sources import Following
from callmeter.errors import CallmeterError, ConfigError, DataError, UnreachableError
from callmeter.log.record import LogRecord
from callmeter.schema.alerts import Alert
from support.alerting import LOG, NOW_US, alert
from support.serving import Reply, Request, Server, reply, url

OTHER_LOG = "018f0000-0000-7000-8000-000000000002"


def page(position: str, *alerts: Alert, log: str = LOG, more: bool = False) -> Reply:
    from callmeter.schema.alerts import encode_alert

    found = [
        {"partition": 0, "offset": int(each.id, 16), "at_us": NOW_US,
         "alert": orjson.Fragment(encode_alert(each))}
        for each in alerts
    ]  # fmt: skip
    body = {"log": log, "position": f"{log}:{position}", "alerts": found, "more": more}
    return lambda _: reply(200, body)


def refusal(status: int, error: str = "no", *headers: str, **more: object) -> Reply:
    return lambda _: reply(status, {"error": error, **more}, *headers)


def hang_up(_: Request) -> None:
    return None


class Taker:
    """What notify is to a source: takes, keeps positions, hears of troubles, ends it."""

    def __init__(self, positions: Mapping[int, int] | None = None, log: str = LOG) -> None:
        self.positions = {log: dict(positions or {})}
        self.taken: list[str] = []
        self.records: list[LogRecord] = []
        self.told: list[str] = []
        self.gone = 0
        self.stopping = threading.Event()
        self.enough = 1

    def position(self, log_id: str) -> Mapping[int, int]:
        return self.positions.get(log_id, {})

    def take(
        self, log_id: str, records: Sequence[LogRecord], positions: Mapping[int, int] = {}, /
    ) -> None:
        self.records += records
        self.positions.setdefault(log_id, {}).update(positions)

    def check(self) -> None:
        if len(self.records) >= self.enough:
            self.stopping.set()

    def trouble(self, exc: UnreachableError) -> None:
        self.told.append(str(exc))

    def lost(self, records: int) -> None:
        self.gone += records

    def follow(self, source: CollectorAlerts, *, drain: bool = False) -> None:
        source.follow(Following(self.position, self.take, self, self.stopping, NOW_US, drain=drain))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("API_KEY", "API_KEY_FILE", "CA_FILE", "CONFIG"):
        monkeypatch.delenv(f"CALLMETER_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*script: Reply) -> Server:
        servers.append(Server(list(script)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def asked(server: Server) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(request.line.split()[1]).query) for request in server.requests]


def test_it_begins_where_it_was_and_keeps_the_place(serve, monkeypatch) -> None:
    monkeypatch.setenv("CALLMETER_API_KEY", "sesame-1")
    server = serve(page("0.3.9"), page("5.3.12", alert(4)))
    taker = Taker({0: 4, 2: 12})
    taker.follow(CollectorAlerts(url(server), ["shop", "a&b=c"]))
    first, second = asked(server)
    projects = {"project": ["a&b=c", "shop"]}
    assert first == {"since": [str(NOW_US)], "limit": ["0"], **projects}
    assert second["after"] == [f"{LOG}:4.3.12"]
    assert taker.positions[LOG] == {0: 5, 1: 3, 2: 12}
    (record,) = taker.records
    assert (record.partition, record.offset, record.timestamp_us) == (0, 4, NOW_US)
    assert server.requests[1].headers["authorization"] == "Bearer sesame-1"


def test_an_outage_is_waited_for_and_told(serve) -> None:
    server = serve(
        page("0"), page("1", alert(0)), hang_up, hang_up, refusal(503, "busy", "Retry-After: 0"),
        refusal(429), page("2", alert(1)),
    )  # fmt: skip
    taker = Taker()
    taker.enough = 2
    taker.follow(CollectorAlerts(url(server)))
    assert [record.offset for record in taker.records] == [0, 1]
    # A connection that turns out dead is replaced at once, so one of two ends is no trouble.
    assert len(taker.told) >= 2
    assert any("answers 503: busy" in each for each in taker.told)
    # What was answered before the outage is not asked for again.
    assert asked(server)[-1]["after"] == [f"{LOG}:1"]


def test_at_the_start_and_with_drain_an_outage_ends_it(serve) -> None:
    with pytest.raises(UnreachableError):
        Taker().follow(CollectorAlerts(url(serve(refusal(503)))))
    server = serve(page("0"), page("1", alert(0), more=True), refusal(503))
    taker = Taker()
    taker.enough = 10
    with pytest.raises(UnreachableError):
        taker.follow(CollectorAlerts(url(server)), drain=True)
    assert len(taker.records) == 1


def test_drain_ends_at_the_end_and_never_waits(serve) -> None:
    server = serve(page("0"), page("1", alert(0), more=True), page("2", alert(1)))
    taker = Taker()
    taker.enough = 10
    taker.follow(CollectorAlerts(url(server)), drain=True)
    assert [record.offset for record in taker.records] == [0, 1]
    assert {each["wait"][0] for each in asked(server)[1:]} == {"0"}


def test_another_log_and_what_retention_removed_are_told(serve) -> None:
    server = serve(
        page("0"),
        refusal(410, reason="removed", removed=7, position=f"{LOG}:9"),
        page("10", alert(9)),
        refusal(409, reason="other_log", log=OTHER_LOG),
        page("0", log=OTHER_LOG),
        page("1", alert(0), log=OTHER_LOG),
    )
    taker = Taker()
    taker.enough = 2
    taker.follow(CollectorAlerts(url(server)))
    assert taker.gone == 7
    assert "has another log" in taker.told[0]
    assert taker.positions == {LOG: {0: 10}, OTHER_LOG: {0: 1}}
    words = [each.get("after", ["-"])[0] for each in asked(server)]
    assert words == ["-", f"{LOG}:0", f"{LOG}:9", f"{LOG}:10", "-", f"{OTHER_LOG}:0"]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (refusal(401, "the API key is missing or not known"), ConfigError, "CALLMETER_API_KEY"),
        (refusal(403, "this key writes only"), ConfigError, "writes only"),
        (refusal(404), ConfigError, "an older one"),
        (refusal(400, reason="bad_position"), DataError, "--state"),
        (refusal(302), ConfigError, "302"),
        (refusal(418, "one\nline\x1b[31m of " + "x" * 900), ConfigError, "oneline"),
        (lambda _: reply(200, {"log": LOG}), ConfigError, "no alerts of callmeter"),
        (page("0\r\nX-Evil: 1"), ConfigError, "no alerts of callmeter"),
        (page("0", log="a&limit=1"), ConfigError, "no alerts of callmeter"),
        (lambda _: reply(200, []), ConfigError, "no alerts of callmeter"),
    ],
)
def test_what_cannot_be_ends_it_in_a_line(
    serve, answer: Reply, error: type[CallmeterError], says: str
) -> None:
    with pytest.raises(error, match=says) as told:
        Taker().follow(CollectorAlerts(url(serve(answer))))
    text = str(told.value)
    assert text.isprintable()
    assert len(text) < 600


def test_the_key_is_read_anew_and_never_shown(serve, monkeypatch, tmp_path: Path) -> None:
    key = tmp_path / "key"
    monkeypatch.setenv("CALLMETER_API_KEY_FILE", str(key))
    key.write_text("sesame-1\n")

    def replace(_: Request) -> bytes:
        key.write_text("sesame-2\n")
        return page("0")(_)

    server = serve(replace, page("1", alert(0)))
    Taker().follow(CollectorAlerts(url(server)))
    assert [r.headers["authorization"] for r in server.requests] == [
        "Bearer sesame-1", "Bearer sesame-2",
    ]  # fmt: skip
    key.write_text("sesame\r\nX-Evil: 1")
    with pytest.raises(ConfigError, match="is no key") as told:
        Taker().follow(CollectorAlerts(url(server)))
    assert "sesame" not in str(told.value)


def never(_: Request) -> bytes:
    threading.Event().wait(60)
    return b""


def half(_: Request) -> bytes:
    """The beginning of an answer, after which the server would close."""
    return b"HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{"


@pytest.mark.parametrize("answer", [never, half])
def test_stopping_cuts_off_an_answer_that_is_waited_for(serve, answer: Reply) -> None:
    server = serve(page("0"), answer)
    taker = Taker()
    follows = threading.Thread(target=taker.follow, args=(CollectorAlerts(url(server)),))
    follows.start()
    while len(server.requests) < 2:
        follows.join(0.01)
    taker.stopping.set()
    follows.join(20)
    assert not follows.is_alive()


@pytest.mark.parametrize(
    "given", ["kafka://x", "ftp://x", "http://", "http://u:p@x", "http://x?y=1", "http://x\r\nA: b"]
)
def test_only_a_collectors_url_is_taken(given: str) -> None:
    with pytest.raises(ConfigError) as told:
        CollectorAlerts(given)
    assert "u:p" not in str(told.value)


def test_projects_are_asked_for_if_every_target_names_some() -> None:
    assert projects_of([{"a"}, {"b", "a"}]) == {"a", "b"}
    assert projects_of([{"a"}, set()]) == frozenset()
    assert projects_of([]) == frozenset()
