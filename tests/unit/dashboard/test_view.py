"""A URL becomes a view and a view a URL; nonsense is refused in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from callmeter.errors import UsageError
from callmeter_sinks.dashboard.access import Reader
from callmeter_sinks.dashboard.view import RANGES, View, starts, window_for

NOW = datetime(2026, 3, 5, 12, 34, 56, tzinfo=UTC)
ALL = Reader()


def view(text: str = "", reader: Reader = ALL) -> View:
    return View.of(MultiDict(parse_qsl(urlsplit(text).query, keep_blank_values=True)), reader, NOW)


def test_a_range_begins_with_a_whole_window_and_has_no_end() -> None:
    usual = view("/")
    assert (usual.range, usual.window) == ("24h", "hour")
    assert usual.since == datetime(2026, 3, 4, 12, tzinfo=UTC)
    assert usual.until is None
    assert view("/?range=30d").since == datetime(2026, 2, 3, tzinfo=UTC)
    assert view("/?range=all").since is None


@pytest.mark.parametrize(
    "query",
    ["range=7y", "since=yesterday", "since=0001-01-01T00:00", "until=9999-01-01",
     "since=2026-02-01&until=2026-01-01", f"project={'x' * 600}"],
)  # fmt: skip
def test_nonsense_is_refused(query: str) -> None:
    with pytest.raises(UsageError) as refused:
        view(f"/?{query}")
    assert "\n" not in str(refused.value)


def test_a_chosen_time_wins_over_the_range_and_sets_the_window() -> None:
    chosen = view("/?range=7d&since=2026-01-01T00:00&until=2026-01-01T06:00%2B01:00")
    assert chosen.range == "custom"
    assert chosen.until == datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert chosen.window == "minute"
    assert window_for(None, NOW) == "day"
    assert window_for(NOW - timedelta(days=3), NOW) == "hour"


def test_a_reader_of_some_projects_sees_one_of_them() -> None:
    mine = Reader(frozenset({"web", "api"}))
    assert view("/", mine).project == "api"
    assert view("/?project=web", mine).project == "web"
    # Not theirs: the same as one that nobody has sent to.
    assert view("/?project=secret", mine).project == ""
    assert view("/", Reader(frozenset())).project == ""
    assert view("/").project is None


def test_a_link_keeps_the_view_but_for_its_changes() -> None:
    held = view("/?range=7d&project=a%26b&model=x&model=y&tag:team=core")
    assert view(held.url("/calls")) == held
    assert view(held.url("/", range="1h")).range == "1h"
    assert view(held.url("/", project=None)).project is None
    only = view(held.only("/", "model", "<z>"))
    assert only.filters == {"model": ["<z>"], "tag:team": ["core"]}
    assert "model" not in view(held.url("/", drop=("model",))).filters


@given(
    project=st.text(max_size=40),
    model=st.text(min_size=1, max_size=40),
    range_=st.sampled_from([*RANGES, "all"]),
)
def test_any_text_comes_through_a_link_unchanged(project: str, model: str, range_: str) -> None:
    held = View.of(MultiDict({"range": range_, "project": project, "model": model}), ALL, NOW)
    assert view(held.url("/")) == held
    assert held.url("/").isascii()


def test_unknown_parameters_are_no_filters_and_values_are_bounded() -> None:
    held = view("/?utm=1&model=&" + "&".join(f"user=u{n}" for n in range(30)))
    assert set(held.filters) == {"user"}
    assert len(held.filters["user"]) == 20


def test_windows_are_dense_and_bounded() -> None:
    first = datetime(2026, 1, 1, 0, 20, tzinfo=UTC)
    assert [at.hour for at in starts("hour", first, first + timedelta(hours=2))] == [0, 1, 2]
    many = starts("minute", first, first + timedelta(days=30), most=100)
    assert len(many) == 100
    assert many[-1] == first + timedelta(days=30)
