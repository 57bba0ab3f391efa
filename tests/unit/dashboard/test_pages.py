"""What pages make of rows: windows that ended, deep and broken trees, runs that differ."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from callmeter_sinks.dashboard.curves import Curve
from callmeter_sinks.dashboard.pages import alert, budgets, experiments, health, trace
from callmeter_sinks.queries.books import SourceRow
from callmeter_sinks.queries.budgets import BudgetRow
from callmeter_sinks.queries.calls import CallRow, Span
from callmeter_sinks.queries.experiments import ExperimentRow

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
_ZEROS: dict[str, Any] = {
    "str": "", "int": 0, "bool": False, "Decimal": Decimal(0), "datetime": NOW,
    "Sequence[str]": (),
}  # fmt: skip


def made(kind: type, **known: Any) -> Any:
    """A row with what a test names, and nothing in the rest."""
    rest = {
        field.name: {} if str(field.type).startswith("Mapping") else _ZEROS.get(str(field.type))
        for field in fields(kind)
    }
    return kind(**{**rest, **known})


def budget(**known: Any) -> BudgetRow:
    usual = {
        "budget": "b", "state": "exceeded", "action": "stop", "window": "day",
        "start_at": NOW - timedelta(hours=12), "end_at": NOW + timedelta(hours=12),
        "spend_usd": Decimal(6), "limit_usd": Decimal(5), "limit_tokens": None,
        "burn_long_usd": Decimal("0.5"),
    }  # fmt: skip
    return made(BudgetRow, **{**usual, **known})


def test_a_circuit_is_open_until_its_window_ends() -> None:
    row = budget()
    now = budgets.Standing.of(row, NOW)
    assert (now.state, now.circuit_open, now.used) == ("exceeded", True, 120.0)
    assert now.forecast_over
    later = budgets.Standing.of(row, NOW + timedelta(hours=12))
    assert (later.state, later.circuit_open, later.over, later.used) == ("ok", False, True, None)
    assert not budgets.Standing.of(replace(row, action="alert"), NOW).circuit_open
    disabled = replace(row, state="disabled")
    assert budgets.Standing.of(disabled, NOW + timedelta(days=2)).state == "disabled"


def test_what_is_forgiven_is_not_used_and_tokens_count_without_money() -> None:
    assert budgets.Standing.of(budget(forgiven_usd=Decimal(5)), NOW).used == 20.0
    tokens = budget(limit_usd=None, limit_tokens=200, tokens=50)
    standing = budgets.Standing.of(tokens, NOW)
    assert standing.used == 25.0
    assert not standing.forecast_over
    assert budgets.Standing.of(budget(limit_usd=None), NOW).used is None


def call(name: str, after_us: int = 0, latency_us: int | None = 1000, **known: Any) -> CallRow:
    return made(
        CallRow, call_id=name, name=name, operation="chat", status="ok",
        started_at=NOW + timedelta(microseconds=after_us), latency_us=latency_us, **known,
    )  # fmt: skip


def test_a_tree_of_any_depth_is_walked_in_order() -> None:
    root = Span(call("0"))
    at = root
    for depth in range(1, 5000):
        child = Span(call(str(depth)))
        at.children.append(child)
        at = child
    root.children.append(Span(call("last")))
    walked = list(trace.walk([root]))
    assert [each.name for each, _ in walked[:3]] == ["0", "1", "2"]
    assert walked[4999][1] == 4999
    assert walked[-1] == (walked[-1][0], 1)
    rows = trace._rows([root], {}, NOW, NOW + timedelta(microseconds=1000), NOW)
    assert len(rows) == trace.MOST_SPANS
    assert max(row.depth for row in rows) == 24


def test_bars_lie_within_the_trace_and_are_never_invisible() -> None:
    spans = [
        Span(call("whole", 0, 10_000, ttft_us=2_500)),
        Span(call("short", 9_999, 1)),
        Span(call("unknown", 10_000, None)),
        Span(call("open", 5_000, None, ttft_us=None)),
    ]
    rows = trace._rows(spans, {}, NOW, NOW + timedelta(microseconds=10_000), NOW)
    assert (rows[0].left, rows[0].width, rows[0].first_token) == (0, 100, 25)
    for row in rows:
        assert 0 <= row.left < 100
        assert row.width > 0
        assert row.left + min(row.width, 0.4) <= 100


def test_inputs_are_shown_as_json_or_as_they_are() -> None:
    assert trace._text('{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'
    assert trace._text('"<b>"') == "<b>"
    assert trace._text("{broken") == "{broken"
    assert trace._text("") == ""


def run(slug: str, **metadata: object) -> ExperimentRow:
    return ExperimentRow("p", slug, "running", "", "", "", metadata, NOW, NOW)


def test_runs_are_compared_key_by_key_what_differs_first() -> None:
    rows = experiments.compare([run("a", seed=1, rate=0.1), run("b", seed=1, extra=[1])])
    said = {row.label: (list(row.values), row.differs) for row in rows}
    assert said["seed"] == (["1", "1"], False)
    assert said["rate"] == (["0.1", "–"], True)
    assert said["extra"] == (["–", "[1]"], True)
    labels = [row.label for row in rows]
    assert labels.index("seed") > max(labels.index("rate"), labels.index("extra"))


def test_last_values_are_of_one_line_and_ends_of_all() -> None:
    def curve(slug: str, label: str, least: float, most: float) -> Curve:
        return Curve(("p", slug), "loss", label, [(0, most), (1, least)], 2, least, most, least)

    found = [curve("a", "train", 0.1, 1), curve("a", "valid", 0.2, 2), curve("b", "", 0.5, 3)]
    rows = experiments.compare_values([run("a"), run("b")], found, ["loss"])
    assert [list(row.values) for row in rows] == [["by label", "0.5"], ["0.1", "0.5"], ["2", "3"]]


def test_a_runs_name_in_an_address_may_hold_anything() -> None:
    assert experiments.value_of("shop", "night/run-1") == "shop/night/run-1"
    assert experiments.value_of("a/b", "c") == "a%2Fb/c"


def test_drops_of_all_programs_by_reason() -> None:
    rows = [
        made(SourceRow, dropped={"queue_full": 3, "too_large": 1}),
        made(SourceRow, dropped={"queue_full": 4}),
        made(SourceRow, dropped={}),
    ]
    assert health.drops(rows) == {"queue_full": 7, "too_large": 1}


def test_a_call_is_counted_by_exact_values_prefixes_and_tags() -> None:
    one = call("x", model="gpt-4o-mini", tags={"team": "core"})
    assert alert._counted(one, {"model": ["gpt-4o*"], "tag:team": ["core"]})
    assert not alert._counted(one, {"model": ["gpt-5*"]})
    assert not alert._counted(one, {"tag:team": ["other"]})
    assert not alert._counted(one, {"tag:absent": ["x"]})
    assert alert._counted(one, {})
