"""Money in is money out, over everything at once: workers, sink and notify on a real Kafka.

Live traffic with duplicates, reordering, late events and gaps; SIGKILL of any process and of the
broker, SIGSTOP of workers for longer than their session. Afterwards everything is compared with
what was sent: ClickHouse by raw rows and by rollups, the ids of all alerts, what a webhook got, and
where every budget stands. ``--chaos long`` (``make chaos``) injects 100 faults, otherwise 8.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
import pytest

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_server import KafkaServer
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import publish
from callmeter.schema.budgets import encode_budget
from callmeter.schema.status import BudgetStatus, decode_status
from callmeter_sinks.clickhouse.opening import open_store
from support.alert_receiver import AlertReceiver, Answer, Received
from support.chaos import ChaosRun
from support.metered import Truth
from support.pipeline_alerts import Expected, budgets, expect_budgets
from support.pipeline_events import counted
from support.pipeline_fleet import Fleet
from support.pipeline_log import Listener, committed, once
from support.pipeline_traffic import Traffic, now_us
from support.stored import expected as stored_as
from support.stored import stored

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.slow]

PARTITIONS = 6
#: Session time-out of workers, their own in the long run; paused ones sleep for so much longer.
SHORT_SESSION_S, SESSION_S = 3, 6
BEYOND_S = (1.0, 4.0)
#: After so long the short run's meters tell of envelopes that are missing.
GAP_S = 4
KINDS = ("kill meter", "pause worker", "kill notify", "kill broker", "kill watch", "kill sink")
INJECTED = ("duplicates", "reordered", "late events", "gaps")
NOTIFY = """
[retry]
attempts = 100000
base_s = 0.1
cap_s = 1.0
[[target]]
name = "stub"
type = "webhook"
url = "%s"
"""


class Laps:
    """How long each part of a run took."""

    def __init__(self) -> None:
        self._at_s = self._began_s = time.monotonic()
        self._laps: list[str] = []

    def end(self, what: str) -> None:
        now_s = time.monotonic()
        self._laps.append(f"{what} {now_s - self._at_s:.0f}")
        self._at_s = now_s

    def __str__(self) -> str:
        return f"{self._at_s - self._began_s:.0f} s ({', '.join(self._laps)})"


class Moody:
    """Answers well, badly or not at all, by a turn of its own."""

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, _request: Received) -> Answer:
        self._turn += 1
        if self._turn % 40 == 0:
            return Answer(503, {"Retry-After": "1"})
        if self._turn % 11 == 0:
            return Answer(500)
        return Answer(hang_up=self._turn % 13 == 0)


def commands(url: str, home: Path, chaos: ChaosRun) -> dict[str, list[str]]:
    """Three meters, watches, a sink and a notifier."""
    kafka = ["--kafka", url]
    if chaos.long:
        meter = ["callmeter", "worker", *kafka]
        watches = [[*meter, "--watch"]] * 2
    else:
        watches = [["support.chaos_worker", url, str(SHORT_SESSION_S)]]
        meter = [*watches[0], str(GAP_S)]
    notify = ["--config", str(home / "notify.toml"), "--state", str(home / "notify")]
    return {
        **{f"meter-{n}": meter for n in range(3)},
        **{f"watch-{n}": watch for n, watch in enumerate(watches)},
        "sink": ["callmeter", "sink", *kafka, "--store", f"chdb:{home / 'store'}"],
        "notify": ["callmeter", "notify", *kafka, *notify],
    }


@pytest.mark.timeout(2400)
def test_faults_change_nothing(
    own_kafka: Callable[..., KafkaServer],
    topic_prefix: str,
    tmp_path: Path,
    chaos: ChaosRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chaos.expect(*KINDS, *INJECTED)
    laps = Laps()
    broker = own_kafka()
    url = f"{broker.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url, {})
    log_id = asyncio.run(apply_topics(settings, partitions=PARTITIONS)).log_id
    definitions = budgets(now_us())
    rows = {name.encode(): encode_budget(budget) for name, budget in definitions.items()}
    asyncio.run(publish(settings, "budgets", dict(rows)))
    fleet_commands = commands(url, tmp_path, chaos)
    with (
        AlertReceiver(Moody()) as receiver,
        Listener(broker.bootstrap, topic_prefix, PARTITIONS) as heard,
    ):
        (tmp_path / "notify.toml").write_text(NOTIFY % receiver.url)
        traffic = Traffic(
            settings, PARTITIONS, log_id, chaos.seed, heard.ids.__contains__, silent=chaos.long
        )
        with Fleet(fleet_commands, tmp_path) as fleet:
            traffic.start()
            fleet.until(heard.moved(0), lambda: "nothing is metered")
            laps.end("start")
            inject(chaos, fleet, broker, heard)
            laps.end("faults")
            fleet.supervise(wake_all=True)
            traffic.finish(fleet.supervise)
            for kind, times in traffic.injected.items():
                chaos.count(kind, times)
            laps.end("end of traffic")
            wanted = traffic.expected
            expect_budgets(wanted, traffic.sent, definitions, now_us())
            fleet.until(
                lambda: wanted.certain.keys() <= heard.ids.keys(),
                lambda: f"alerts are missing: {missing(wanted, set(heard.ids))}",
                patience_s=240,
            )
            laps.end("alerts")
            fleet.until(
                partial(stands, broker.bootstrap, topic_prefix, wanted),
                lambda: "the budgets' status is not what was spent",
            )
            laps.end("budgets")
            fleet.until(
                lambda: wanted.certain.keys() <= receiver.taken.keys(),
                lambda: f"not delivered: {missing(wanted, set(receiver.taken))}",
            )
            laps.end("deliveries")
            fleet.stop(*[name for name in fleet_commands if name != "sink"])
            laps.end("stop")
            # Nobody writes any more: the rest is the sink's.
            metered = committed(broker.bootstrap, f"{topic_prefix}.metered", PARTITIONS)
            fleet.stop("sink")
            laps.end("sink")
        events = committed(broker.bootstrap, f"{topic_prefix}.events", PARTITIONS)
        alerts = committed(broker.bootstrap, f"{topic_prefix}.alerts", PARTITIONS)
    truth = counted(traffic.sent, len(events), len({event.value for event in events}))
    differences = compare(tmp_path / "store", truth)
    if differences:
        # A sink that was killed just now has not caught up when it is told to stop.
        fleet.drain("sink")
        differences = compare(tmp_path / "store", truth)
    ids = Counter(alert_id(alert.value) for alert in alerts)
    extra = ids.keys() - wanted.certain.keys() - wanted.possible
    laps.end("reading")
    with capsys.disabled():
        print(
            f"\nseed {chaos.seed}: {sum(chaos.injected[kind] for kind in KINDS)} faults, "
            f"{len(events):,} envelopes ({truth.counts['duplicates']:,} twice, "
            f"{traffic.resent} sent again after a fault), {truth.counts['events']:,} events, "
            f"{truth.cost_pico} pico-USD, {len(ids)} alerts of {len(wanted.certain)} expected, "
            f"{sum(receiver.tried.values())} attempts to deliver, "
            f"{fleet.ended_themselves} processes ended themselves, {len(differences)} differences; "
            f"{laps}\n{dict(chaos.injected)}"
        )
    assert not differences
    once(metered)
    assert len({(r.partition, r.offset) for r in metered}) == len(metered)
    assert not missing(wanted, set(ids))
    assert not extra, [alert.value for alert in alerts if alert_id(alert.value) in extra]
    assert max(ids.values()) == 1, "an alert is twice in the log"
    assert receiver.tried.keys() == ids.keys(), "the webhook got something else than the log has"
    assert receiver.taken.keys() == ids.keys(), "the webhook has not taken each"


def inject(chaos: ChaosRun, fleet: Fleet, broker: KafkaServer, heard: Listener) -> None:
    """The faults, one after another; after each somebody gets on before the next."""
    plan = ["pause worker", *KINDS, "kill notify"]
    more = chaos.pick(short=0, long=92)
    weights = (6, 2, 3, 1, 3, 3)
    plan += chaos.random.choices(KINDS, weights, k=more)
    if more:
        chaos.random.shuffle(plan)
    for kind in plan:
        before = heard.metered
        if kind == "kill broker":
            broker.kill()
            time.sleep(chaos.random.uniform(0.5, 3))
            broker.start()
        elif kind == "pause worker":
            fleet.until(partial(fleet.names, "meter"), lambda: "no meter runs")
            name = chaos.random.choice(fleet.names("meter") + fleet.names("watch"))
            session_s = chaos.pick(short=SHORT_SESSION_S, long=SESSION_S)
            fleet.pause(name, session_s + chaos.random.uniform(*BEYOND_S))
        else:
            target = kind.removeprefix("kill ")
            fleet.until(partial(fleet.names, target), partial("no {} runs".format, target))
            fleet.kill(chaos.random.choice(fleet.names(target)))
        chaos.count(kind)
        fleet.until(heard.moved(before), partial("nothing is metered after {}".format, kind))
        quiet_s = time.monotonic() + chaos.random.uniform(0.3, chaos.pick(short=2, long=4))
        fleet.until(lambda until_s=quiet_s: time.monotonic() > until_s, str)


def missing(wanted: Expected, said: set[str]) -> list[str]:
    return sorted(what for own, what in wanted.certain.items() if own not in said)


def stands(bootstrap: str, prefix: str, wanted: Expected) -> bool:
    """Whether every entity's status shows what was spent in its current window."""
    newest: dict[bytes, bytes] = {}
    for record in committed(bootstrap, f"{prefix}.budget-status", PARTITIONS):
        newest[record.key] = record.value
    found = {
        (status.budget, status.entity): spent(status)
        for status in map(decode_status, filter(None, newest.values()))
    }
    return found == wanted.spend


def spent(status: BudgetStatus) -> tuple[int, int]:
    return int(status.spend_pico), status.tokens


def compare(path: Path, truth: Truth) -> dict[str, tuple[object, object]]:
    """Where raw rows, rollups, histograms or control totals differ from the truth."""
    store = open_store(f"chdb:{path}")
    try:
        found = stored(store)
    finally:
        store.close()
    wanted = stored_as(truth)
    return {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}


def alert_id(value: bytes) -> str:
    return str(orjson.loads(value)["id"])
