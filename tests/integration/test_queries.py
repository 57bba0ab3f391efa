"""Questions to a real engine over rows that came through the landing table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.queries import Queries
from support.ledger import Book, call_id, us
from support.stores import land, migrated_chdb

INJECTIONS = [
    "x' OR '1'='1",
    "'; DROP TABLE calls; --",
    "`) FROM calls --",
    "{p0:String}",
    "\\'",
    "\0\n\t",
    "1); SELECT file('/etc/passwd') --",
]
SOURCE_B = "019a0000-0000-7000-8000-00000000bbbb"
SOURCE_C = "019a0000-0000-7000-8000-00000000cccc"


def when(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    with migrated_chdb(tmp_path_factory.mktemp("queries") / "db") as opened:
        write(opened)
        yield opened


@pytest.fixture
def ask(store: ChdbStore) -> Queries:
    return Queries(store)


def write(store: ChdbStore) -> None:
    """Two projects, three days, every kind of event; figures are asserted below."""
    book = Book()
    book.envelope(
        book.call(number=1, usage={"input": 100, "output": 20, "cache_read": 60}, cost="0.5"),
        book.call(number=2, started="2026-03-01T12:30", latency_us=4000, attempts=3, cost="0.25"),
        book.call(
            number=3, started="2026-03-02T09:15", model="gpt-4o-mini", status="error",
            error_type="RateLimitError", error_message="slow down", http_status=429, cost=None,
            usage=None, latency_us=None,
        ),
        book.call(
            number=4, started="2026-03-02T09:16", model="llama", provider="vllm", cost=None,
            latency_us=None, user="ann", session="s1", tags={"team": "red"}, phase="reward",
        ),
        book.call(number=5, started="2026-03-02T10:00", operation="program", usage=None, cost=None,
                  name="main", provider=None, model=None),
        {"kind": "cost", "ts_us": us("2026-03-02T10:00"), "started_us": us("2026-03-01T12:00"),
         "cost_pico": str(-10**11), "source": "bill", "provider": "openai", "model": "gpt-4o",
         "operation": "chat", "status": "ok", "call_id": call_id(1)},
        {"kind": "cost", "ts_us": us("2026-03-02T10:00"), "started_us": us("2026-03-03T00:00"),
         "cost_pico": str(3 * 10**12), "source": "bill", "provider": "azure"},
    )  # fmt: skip
    parent = call_id(10)
    book.envelope(
        book.call(number=10, started="2026-03-03T08:00", operation="program", usage=None,
                  cost=None, trace_id="ab" * 16, name="root"),
        book.call(number=11, started="2026-03-03T08:01", trace_id="ab" * 16, cost="0.125",
                  parent_span_id=parent[19:23] + parent[24:], inputs={"q": "hi"}),
        {"kind": "call_begin", "ts_us": us("2026-03-03T08:02"), "call_id": call_id(12),
         "trace_id": "ab" * 16, "started_us": us("2026-03-03T08:02"), "operation": "chat",
         "model": "gpt-4o", "parent_span_id": parent[19:23] + parent[24:]},
        {"kind": "call_begin", "ts_us": us("2026-03-03T08:01"), "call_id": call_id(11),
         "trace_id": "ab" * 16, "started_us": us("2026-03-03T08:01"), "operation": "chat"},
        source=SOURCE_B,
    )  # fmt: skip
    points = [(3, 30.0, {"split": "train"}), (1, 10.0, {"split": "train"}),
              (2, 20.0, {"split": "eval", "fold": "1"}), (None, 5.0, {})]  # fmt: skip
    book.envelope(
        *({"kind": "metric", "ts_us": us("2026-03-03T09:00") + place, "name": "loss",
           "value": value, "experiment": "run-1", "labels": labels}
          | ({} if step is None else {"step": step})
          for place, (step, value, labels) in enumerate(points)),
        {"kind": "metric", "ts_us": us("2026-03-03T09:05"), "name": "accuracy", "value": 0.5,
         "experiment": "run-2"},
        {"kind": "experiment", "ts_us": us("2026-03-03T09:00"), "slug": "run-1",
         "status": "running", "description": "A Baseline", "meta": {"lr": 0.1, "seed": 7}},
        {"kind": "experiment", "ts_us": us("2026-03-03T10:00"), "slug": "run-1",
         "status": "done", "meta": {"lr": 0.2}},
        {"kind": "experiment", "ts_us": us("2026-03-03T11:00"), "slug": "run-3",
         "status": "error", "error_name": "OOM", "meta": {"gpu": "a100"}},
        {"kind": "annotation", "ts_us": us("2026-03-03T11:00"), "text": "needs a Warmup",
         "experiment": "run-3"},
        {"kind": "refused", "reason": "bad_json", "detail": "no JSON", "line": "{nope"},
        source=SOURCE_C,
    )  # fmt: skip
    # SOURCE_C loses seq 1 and 2 (five events), is heard again, and says what it dropped itself.
    book.envelope(
        book.call(number=20, started="2026-03-03T12:00", cost="0.001"),
        source=SOURCE_C, seq=3, accepted=16, dropped={"queue_full": 4}, last=True,
    )  # fmt: skip
    book.envelope(source=SOURCE_C, seq=3, verdict="duplicate", accepted=16)
    book.envelope({"kind": "refused", "reason": "bad_header", "detail": "no JSON", "line": "xx"},
                  verdict="refused", reason="bad_header", project="", n=0,
                  source="00000000-0000-0000-0000-000000000000", seq=0, accepted=0)  # fmt: skip
    book.checkpoint()
    land(store, book.take(), token="shop")
    other = Book(partition=1, project="lab")
    other.envelope(other.call(number=30, cost="100", model="o1", tags={"team": "blue"}))
    other.checkpoint()
    land(store, other.take(), partition=1, token="lab")


def test_a_report_by_model(ask: Queries) -> None:
    report = ask.report(project="shop")
    rows = {row.key["model"]: row.figures for row in report.rows}
    assert set(rows) == {"gpt-4o", "gpt-4o-mini", "llama", ""}
    gpt = rows["gpt-4o"]
    assert (gpt.calls, gpt.attempts, gpt.failures) == (4, 6, 0)
    assert (gpt.input_tokens, gpt.output_tokens) == (130, 35)
    assert gpt.cost_usd == Decimal("0.776")  # 0.5 + 0.25 + 0.125 + 0.001 - 0.1 by correction
    assert gpt.latency_p50_ms == pytest.approx(1.0, rel=0.011)
    assert gpt.latency_p99_ms == pytest.approx(4.0, rel=0.011)


def test_unknown_is_none_and_counted(ask: Queries) -> None:
    rows = {row.key["model"]: row.figures for row in ask.report(project="shop").rows}
    mini = rows["gpt-4o-mini"]
    assert (mini.calls, mini.failures, mini.usage_unknown, mini.unpriced_calls) == (1, 1, 1, 0)
    assert (mini.input_tokens, mini.output_tokens, mini.cost_usd) == (None, None, None)
    assert (mini.latency_p50_ms, mini.latency_p95_ms, mini.latency_p99_ms) == (None, None, None)
    llama = rows["llama"]
    assert (llama.unpriced_calls, llama.cost_usd, llama.input_tokens) == (1, None, 10)


def test_money_apart_from_calls_adds_cost_and_no_calls(ask: Queries) -> None:
    rows = {row.key["provider"]: row.figures for row in ask.report(["provider"]).rows}
    assert rows["azure"].calls == 0
    assert rows["azure"].cost_usd == Decimal(3)


def test_programs_are_no_calls(ask: Queries) -> None:
    assert ask.report(["operation"], project="shop").totals.calls == 6
    assert [(r.key["operation"], r.operations) for r in ask.operations()] == [("program", 2)]
    assert "program" not in {row.key["operation"] for row in ask.report(["operation"]).rows}


def test_totals_cover_what_top_left_out(ask: Queries) -> None:
    report = ask.report(["model"], top=1)
    assert [row.key for row in report.rows] == [{"model": "o1"}]
    assert report.totals.calls == 7
    assert report.totals.cost_usd == Decimal("103.776")


@pytest.mark.parametrize(
    ("order", "first"),
    [("-calls", "gpt-4o"), ("model", ""), ("-model", "o1"), ("-cost_usd", "o1"),
     ("-attempts", "gpt-4o"), ("-unpriced_calls", "llama")],
)  # fmt: skip
def test_order(ask: Queries, order: str, first: str) -> None:
    assert ask.report(["model"], order=order).rows[0].key["model"] == first


def test_windows_ascend(ask: Queries) -> None:
    days = ask.report(["day"]).rows
    assert [row.key["day"] for row in days] == [when(f"2026-03-0{n}") for n in (1, 2, 3)]
    hours = ask.report(["hour"], project="shop", until=when("2026-03-02")).rows
    assert [(row.key["hour"], row.figures.calls) for row in hours] == [
        (when("2026-03-01T12:00"), 2)
    ]
    minutes = ask.report(["minute", "model"], since=when("2026-03-02"), until=when("2026-03-03"))
    assert [(r.key["minute"], r.figures.calls) for r in minutes.rows] == [
        (when("2026-03-02T09:15"), 1),
        (when("2026-03-02T09:16"), 1),
    ]


@pytest.mark.parametrize(
    ("since", "until", "calls"),
    [
        ("2026-03-01", "2026-03-02", 2),
        ("2026-03-01T12:00", "2026-03-01T12:30", 1),
        ("2026-03-01T12:01", "2026-03-02T09:16", 2),
        ("2026-03-01T12:01", "2026-03-03T08:02", 4),
        ("2026-03-01T12:30:30", "2026-03-01T12:30:40", 1),  # widened to the minute
    ],
)
def test_periods_are_half_open_and_equal_from_rollups_and_calls(
    ask: Queries, since: str, until: str, calls: int
) -> None:
    begin, end = when(since), when(until)
    report = ask.report([], since=begin, until=end, project="shop")
    assert report.totals.calls == calls
    assert report.since is not None
    assert report.until is not None
    # The same question from single calls: a filter that only they know, and that all pass.
    raw = ask.report(
        [], since=report.since, until=report.until, project="shop", filters={"node": ""}
    )
    for name in ("calls", "attempts", "failures", "input_tokens", "cost_usd", "usage_unknown"):
        assert getattr(raw.totals, name) == getattr(report.totals, name)


def test_dimensions_of_single_calls(ask: Queries) -> None:
    users = {r.key["user"]: r.figures.calls for r in ask.report(["user"], project="shop").rows}
    assert users == {"": 5, "ann": 1}
    teams = {r.key["tag:team"]: r.figures.calls for r in ask.report(["tag:team"]).rows}
    assert teams == {"": 5, "red": 1, "blue": 1}
    one = ask.report(["model"], filters={"tag:team": ["red", "green"]})
    assert [row.key["model"] for row in one.rows] == ["llama"]


def test_usage_by_unit(ask: Queries) -> None:
    rows = ask.usage(["model"], project="shop", filters={"model": "gpt-4o"})
    assert {row.unit: row.amount for row in rows} == {"input": 130, "output": 35, "cache_read": 60}


def test_errors(ask: Queries) -> None:
    (row,) = ask.errors()
    assert (row.calls, row.error_type, row.http_status, row.example) == (
        1, "RateLimitError", 429, "slow down",
    )  # fmt: skip
    assert row.example_call_id == call_id(3)


def test_calls_newest_first_page_by_page(ask: Queries) -> None:
    first = ask.calls(project="shop", limit=4)
    second = ask.calls(project="shop", limit=100, before=first[-1].started_at)
    ids = [row.call_id for row in (*first, *second)]
    assert ids == [call_id(n) for n in (20, 11, 10, 5, 4, 3, 2, 1)]
    row = next(row for row in first if row.call_id == call_id(11))
    assert row.inputs == '{"q":"hi"}'
    assert row.cost_usd == Decimal("0.125")
    assert row.trace_id == "ab" * 16


def test_a_trace_is_a_tree_with_what_is_still_open(ask: Queries) -> None:
    trace = ask.trace("AB" * 16)
    assert trace.calls == 3
    assert trace.cost_usd == Decimal("0.125")
    (root,) = trace.roots
    assert root.call.name == "root"
    assert [(span.call.call_id, span.call.status) for span in root.children] == [
        (call_id(11), "ok"),
        (call_id(12), "open"),
    ]
    assert ask.trace("cd" * 16).roots == []
    assert ask.trace("ab" * 16, project="lab").calls == 0


@pytest.mark.acceptance(170)
def test_a_series_by_name_and_labels(ask: Queries) -> None:
    by_step = ask.series("loss", experiment="run-1", order="step")
    assert list(by_step.steps) == [1, 2, 3, None]
    assert list(by_step.values) == [10.0, 20.0, 30.0, 5.0]
    assert len(by_step.steps) == len(by_step.timestamps) == len(by_step.values) == 4
    assert list(ask.series("loss", order="step", descending=True).steps) == [3, 2, 1, None]
    by_time = ask.series("loss", order="timestamp")
    assert list(by_time.values) == [30.0, 10.0, 20.0, 5.0]
    assert list(by_time.timestamps) == sorted(by_time.timestamps)
    backwards = ask.series("loss", order="timestamp", descending=True)
    assert list(backwards.values) == [5.0, 20.0, 10.0, 30.0]
    assert list(ask.series("loss", labels=["split"]).values) == [10.0, 20.0, 30.0]
    assert list(ask.series("loss", labels=["split=train"]).values) == [10.0, 30.0]
    assert list(ask.series("loss", labels=["split=eval", "fold"]).values) == [20.0]
    nothing = ask.series("loss", labels=["split=other"])
    assert (nothing.steps, nothing.timestamps, nothing.values) == ((), (), ())


@pytest.mark.acceptance(171)
def test_a_catalog_of_up_to_64_experiments(ask: Queries) -> None:
    entries = {entry.experiment: entry for entry in ask.catalog()}
    assert entries["run-1"].metrics == ["loss"]
    assert entries["run-1"].label_keys == ["fold", "split"]
    assert entries["run-1"].metadata_keys == ["lr", "seed"]
    assert entries["run-2"].metrics == ["accuracy"]
    assert entries["run-3"].metadata_keys == ["gpu"]
    assert [e.experiment for e in ask.catalog(experiments=["run-2"])] == ["run-2"]
    assert len(ask.catalog(experiments=[f"run-{n}" for n in range(64)])) == 3
    with pytest.raises(UsageError, match="64"):
        ask.catalog(experiments=[f"run-{n}" for n in range(65)])


def test_experiments_by_metadata_and_text(ask: Queries) -> None:
    rows = {row.slug: row for row in ask.experiments()}
    assert rows["run-1"].status == "done"
    assert rows["run-1"].description == "A Baseline"
    assert rows["run-1"].metadata == {"lr": 0.2, "seed": 7}
    assert (rows["run-3"].status, rows["run-3"].error_name) == ("error", "OOM")

    def found(**wanted) -> list[str]:
        return [row.slug for row in ask.experiments(**wanted)]

    assert found(metadata=["lr=0.2", "seed"]) == ["run-1"]
    assert found(metadata=["lr=0.1"]) == []
    assert found(metadata=["gpu=a100"]) == ["run-3"]
    assert found(text="baseline") == ["run-1"]
    assert found(text="WARMUP") == ["run-3"]
    assert found(project="lab") == []


def test_gaps_name_the_envelopes_and_count_their_events(ask: Queries) -> None:
    (gap,) = ask.gaps()
    assert (gap.source, gap.first, gap.last, gap.envelopes, gap.events) == (SOURCE_C, 1, 2, 2, 5)
    assert not gap.removed
    assert ask.gaps(source=SOURCE_B) == []
    assert ask.gaps(project="lab") == []


def test_sources_say_what_they_accepted_and_dropped(ask: Queries) -> None:
    rows = {row.source: row for row in ask.sources()}
    lossy = rows[SOURCE_C]
    assert (lossy.accepted, lossy.stored, lossy.missing, lossy.envelopes) == (16, 11, 5, 2)
    assert lossy.dropped == {"queue_full": 4}
    assert lossy.closed
    assert not rows[SOURCE_B].closed
    assert "00000000-0000-0000-0000-000000000000" not in rows


def test_dead_letters(ask: Queries) -> None:
    rows = {row.reason: row for row in ask.dead_letters()}
    assert (rows["bad_json"].line, rows["bad_json"].index) == ("{nope", 10)
    assert rows["bad_header"].whole_envelope
    assert [row.reason for row in ask.dead_letters(reason="bad_json")] == ["bad_json"]
    assert ask.dead_letters(since=when("2026-03-02")) == []


@pytest.mark.parametrize("text", INJECTIONS)
def test_nothing_a_user_types_becomes_sql(ask: Queries, store: ChdbStore, text: str) -> None:
    before = store.query("SELECT count() FROM calls").rows
    for dimension in ("project", "model", "user", "cost_source", "tag:x", f"tag:{text}"):
        assert ask.report(["model"], filters={dimension: text}).rows == []
    assert ask.report(["model"], project=text).rows == []
    tagged = ask.report([f"tag:{text}", f"attribute:{text}"], project="lab")
    assert [row.key for row in tagged.rows] == [{f"tag:{text}": "", f"attribute:{text}": ""}]
    for call in (
        lambda: ask.report([text]),
        lambda: ask.report(["model"], order=text),
        lambda: ask.report(["model"], order=f"-{text}"),
        lambda: ask.report(["model"], filters={text: "x"}),
        lambda: ask.operations([text]),
        lambda: ask.usage([text]),
        lambda: ask.trace(text),
        lambda: ask.gaps(source=text),
        lambda: ask.series("loss", order=text),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError):
            call()
    assert ask.calls(project=text) == ask.errors(project=text) == []
    assert ask.calls(filters={"session": [text]}) == []
    assert ask.usage(filters={"tag:a": text}) == ask.operations(project=text) == []
    assert ask.trace("ab" * 16, project=text).calls == 0
    assert ask.series(text, project=text, experiment=text, labels=[text]).values == ()
    assert ask.series("loss", labels=[f"split={text}", f"{text}x"]).values == ()
    assert ask.catalog(project=text, experiments=[text]) == []
    assert ask.experiments(project=text) == ask.experiments(text=text) == []
    assert ask.experiments(metadata=[text, f"lr={text}"]) == []
    assert ask.gaps(project=text) == ask.sources(project=text) == []
    assert ask.dead_letters(project=text, reason=text) == []
    assert store.query("SELECT count() FROM calls").rows == before


def test_limits_are_checked(ask: Queries) -> None:
    for call in (
        lambda: ask.report(top=0),
        lambda: ask.calls(limit=0),
        lambda: ask.errors(limit=10**9),
        lambda: ask.series("x", limit=0),
        lambda: ask.experiments(limit=0),
        lambda: ask.dead_letters(limit=0),
    ):
        with pytest.raises(UsageError):
            call()
