"""Every page in a real browser, with a replay's and a program's data, through a real ``up``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import callmeter as sdk
from support.browser import watched_page
from support.cli import PRICED, TRACE, callmeter
from support.embedded import Pipeline

PROJECT = "dashboard-replay"
LIVE = "dashboard-program"


@pytest.fixture(scope="module")
def replayed(embedded: Pipeline) -> Pipeline:
    """The real trace in a project of its own, stored."""
    ran = callmeter(
        "replay", TRACE, *PRICED, "--project", PROJECT, "--service", "replayed", "--dir",
        embedded.directory,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return embedded


@pytest.fixture(scope="module")
def program(embedded: Pipeline) -> Iterator[Pipeline]:
    """A program with traces, failures, streams, users and two experiments, stored."""
    client = sdk.init(embedded.url, project=LIVE, service="answers", tags={"team": "core"})
    try:
        for number in range(12):
            answer(number)
        for slug, rate in (("base", 0.1), ("large", 0.01)):
            run = sdk.experiment(
                slug, description=f"the {slug} one", meta={"rate": rate, "seed": 1}
            )
            for step in range(40):
                for part in ("train", "valid"):
                    run.metric("loss", 2 / (step + 1) + rate, step=step, labels={"part": part})
                if step == 20:
                    run.annotation(f"half way of {slug}")
        assert sdk.flush(30).ok
        stats = sdk.stats()
        embedded.settle(stats.source, stats.envelopes)
        embedded.wait(lambda: len(embedded.queries.experiments(project=LIVE)) == 2)
        yield embedded
    finally:
        client.close()


@sdk.track(name="answer a question")
def answer(number: int) -> None:
    """Two model calls under a program; every third second call fails."""
    with sdk.generation("draft", model="gpt-4o", provider="openai", user=f"u{number % 3}") as call:
        time.sleep(0.002)
        call.first_token()
        call.usage(input=1000 + number, output=100)
    try:
        with sdk.generation("check", model="gpt-4o-mini", provider="openai") as call:
            if number % 3 == 0:
                raise TimeoutError("no answer in time")
            call.usage(input=300, output=20)
    except TimeoutError:
        assert number % 3 == 0


def report(pipeline: Pipeline, *more: str) -> Any:
    return callmeter("report", "--json", "--dir", pipeline.directory, *more).json()


def figure(page: Page, tile: str) -> str:
    value = page.locator(f"#{tile} data").first.get_attribute("value")
    assert value is not None
    return value


def test_figures_of_the_overview_are_those_of_the_report(
    chromium: Browser, replayed: Pipeline
) -> None:
    said = report(replayed, "--project", PROJECT)
    with watched_page(chromium, replayed.url) as (page, _):
        page.goto(f"/?range=all&project={PROJECT}")
        totals = said["totals"]
        assert figure(page, "tile-cost") == totals["cost_usd"] == "5.8074795"
        assert int(figure(page, "tile-calls")) == totals["calls"] == 19_366
        assert int(figure(page, "tile-failures")) == totals["failures"]
        assert int(figure(page, "tile-input")) == totals["input_tokens"] == 22_361_870
        assert int(figure(page, "tile-output")) == totals["output_tokens"] == 4_088_665
        (row,) = said["rows"]
        models = page.locator("#models tbody tr")
        expect(models).to_have_count(1)
        expect(models).to_have_attribute("data-row", row["model"])
        assert models.locator("data").get_attribute("value") == row["cost_usd"]
        # The chart is drawn, and its table adds up to the whole (rounded as it is shown).
        expect(page.locator("#chart-cost canvas")).to_have_count(1)
        cells = page.locator("#table-cost tbody td").all_text_contents()
        shown = sum(Decimal(cell) for cell in cells)
        assert abs(shown - Decimal(totals["cost_usd"])) < Decimal("0.01")
        # The cursor over a bar reads its row of the table.
        page.locator("#chart-cost .u-over").hover()
        tip = page.locator("#chart-cost .tip")
        expect(tip.locator("div")).to_have_text(re.compile(r": [0-9.]+ USD$"))
        row_of = page.locator("#table-cost tbody tr", has_text=tip.locator("strong").inner_text())
        assert tip.locator("div").inner_text() == (
            f"{row['model']}: {row_of.locator('td').text_content()} USD"
        )
        hours = report(replayed, "--project", PROJECT, "--by", "minute")["rows"]
        assert len(cells) == len(hours)
        # Panels come after the page.
        expect(page.locator("#users tbody tr")).to_have_count(1)
        expect(page.locator("#errors tbody")).to_contain_text("No call has failed")


def test_durations_failures_users_and_unknowns(chromium: Browser, program: Pipeline) -> None:
    said = report(program, "--project", LIVE)
    users = report(program, "--project", LIVE, "--by", "user")
    with watched_page(chromium, program.url) as (page, _):
        page.goto(f"/?project={LIVE}")
        totals = said["totals"]
        assert figure(page, "tile-cost") == totals["cost_usd"]
        assert int(figure(page, "tile-calls")) == totals["calls"] == 24
        assert int(figure(page, "tile-failures")) == totals["failures"] == 4
        assert float(figure(page, "tile-latency")) == totals["latency_p95_ms"]
        expect(page.locator("#card-ttft")).to_contain_text(re.compile("whole time: p50 .*s, p95"))
        expect(page.locator("#unknowns")).to_contain_text("4 calls without usage")
        for chart in ("cost", "calls", "latency", "ttft"):
            expect(page.locator(f"#chart-{chart} canvas")).to_have_count(1)
        rows = page.locator("#users tbody tr")
        expect(rows).to_have_count(len(users["rows"]))
        for place, row in enumerate(users["rows"]):
            expect(rows.nth(place)).to_have_attribute("data-row", row["user"])
        expect(page.locator("#errors tbody tr")).to_have_count(1)
        expect(page.locator("#errors tbody tr")).to_contain_text("TimeoutError")
        expect(page.locator("#errors tbody tr")).to_contain_text("no answer in time")


def test_a_filter_is_a_link_and_the_link_is_the_view(chromium: Browser, program: Pipeline) -> None:
    said = report(program, "--project", LIVE, "--where", "model=gpt-4o")
    with watched_page(chromium, program.url) as (page, _):
        page.goto(f"/?project={LIVE}")
        page.locator("#models a", has_text=re.compile("^gpt-4o$")).click()
        expect(page).to_have_url(re.compile("model=gpt-4o$"))
        expect(page.locator("#tile-calls data")).to_have_attribute(
            "value", str(said["totals"]["calls"])
        )
        assert figure(page, "tile-cost") == said["totals"]["cost_usd"]
        page.locator("select[name=range]").select_option("1h")
        expect(page).to_have_url(re.compile("range=1h"))
        expect(page).to_have_url(re.compile("model=gpt-4o"))
        page.locator(".chip", has_text="model: gpt-4o").click()
        expect(page).not_to_have_url(re.compile("model="))


def test_calls_lead_to_their_trace(chromium: Browser, program: Pipeline) -> None:
    with watched_page(chromium, program.url) as (page, _):
        page.goto(f"/calls?project={LIVE}")
        rows = page.locator("#calls tbody tr")
        expect(rows).to_have_count(36)  # 12 programs and their 24 calls
        failed = page.locator("#calls tbody tr", has_text="TimeoutError")
        expect(failed).to_have_count(4)
        failed.first.locator("a").click()
        expect(page).to_have_url(re.compile("/trace/[0-9a-f]{32}"))
        spans = page.locator("#tree details")
        expect(spans).to_have_count(3)
        expect(spans.nth(0)).to_contain_text("answer a question")
        expect(spans.nth(1)).to_contain_text("draft")
        expect(spans.nth(2)).to_contain_text("TimeoutError")
        trace_id = page.url.rpartition("/")[2].partition("?")[0]
        trace = program.queries.trace(trace_id)
        assert figure(page, "tile-cost") == f"{trace.cost_usd:f}".rstrip("0")
        # By keyboard: a span opens and says what is known of it.
        spans.nth(2).locator("summary").focus()
        page.keyboard.press("Enter")
        expect(spans.nth(2).locator(".facts")).to_contain_text("no answer in time")
        expect(spans.nth(2).locator(".facts")).to_contain_text("core")


def test_older_calls_are_a_page_away(chromium: Browser, replayed: Pipeline) -> None:
    with watched_page(chromium, replayed.url) as (page, _):
        page.goto(f"/calls?range=all&project={PROJECT}")
        rows = page.locator("#calls tbody tr")
        expect(rows).to_have_count(50)
        first = [rows.nth(n).get_attribute("data-call") for n in range(50)]
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("heading", name=re.compile("Calls before"))).to_be_visible()
        second = [rows.nth(n).get_attribute("data-call") for n in range(50)]
        assert len({*first, *second}) >= 99  # the page boundary may show a call's moment twice
        calls = replayed.queries.calls(project=PROJECT, limit=100)
        assert [call.call_id for call in calls[:50]] == first


def test_experiments_are_searched_laid_over_each_other_and_compared(
    chromium: Browser, program: Pipeline
) -> None:
    with watched_page(chromium, program.url) as (page, _):
        page.goto(f"/experiments?project={LIVE}")
        expect(page.locator("#runs tbody tr")).to_have_count(2)
        page.get_by_label("Text").fill("half way of large")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#runs tbody tr")).to_have_count(1)
        expect(page.locator("#runs tbody tr")).to_have_attribute("data-run", f"{LIVE}/large")
        page.goto(f"/experiments?project={LIVE}")
        for slug in ("base", "large"):
            page.get_by_label(f"Show {LIVE}/{slug}").check()
        page.get_by_role("button", name="Show").click()
        chart = page.locator("#chart-m0")
        expect(chart.locator("canvas")).to_have_count(1)
        expect(page.locator("#legend-m0 li")).to_have_text(["large", "base"])
        page.get_by_label("Split by label").select_option("part")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#legend-m0 li")).to_have_text(
            ["large · train", "large · valid", "base · train", "base · valid"]
        )
        # The points are the ones that were sent, the notes stand at their step.
        cells = page.locator("#table-m0 tbody tr").nth(1).locator("td").all_text_contents()
        assert cells == ["1.01", "1.01", "1.1", "1.1"]
        expect(page.locator("#notes li")).to_have_count(2)
        expect(page.locator("#notes")).to_contain_text("half way of base")
        expect(page.locator("#compare tr.differs", has_text="rate")).to_contain_text("0.01")
        expect(page.locator("#compare tr", has_text="seed")).not_to_have_class("differs")


def test_data_health_tells_lag_sources_and_what_verify_says(
    chromium: Browser, program: Pipeline
) -> None:
    with watched_page(chromium, program.url) as (page, _):
        page.goto("/data-health")
        verdict = page.locator("[data-verify]")
        expect(verdict).to_have_attribute("data-verify", re.compile("equal|different"))
        expect(page.locator("#lag tbody tr")).to_have_count(4)
        page.get_by_role("button", name="Verify the last 24 hours").click()
        expect(page).to_have_url(re.compile("/data-health$"))
        page.goto(f"/data-health?project={LIVE}")
        source = sdk.stats().source
        row = page.locator("#sources tbody tr", has_text=source)
        expect(row).to_have_count(1)
        expect(row).to_contain_text("answers")


def test_budgets_stand_as_their_status_says(chromium: Browser, program: Pipeline) -> None:
    name = f"b-{LIVE}"
    ran = callmeter(
        "budget", "set", name, "--limit", "7", "--no-open", "--scope", f"project={LIVE}", "--dir",
        program.directory, "--note", "for the page",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    with watched_page(chromium, program.url) as (page, _):
        page.goto(f"/budgets?project={LIVE}")
        card = page.locator(f"[data-budget='{name}']")
        expect(card).to_contain_text("7 USD a day, over project")
        expect(card).to_contain_text("for the page")
        expect(card).to_contain_text("Nothing was spent in it yet.")
        answer(1)
        assert sdk.flush(30).ok
        # Without a reload: the page hears of it.
        spend = card.locator("tbody tr")
        expect(spend).to_have_count(1)
        status = program.queries.budget_status(budget=name)[0]
        expect(spend.locator("td data").first).to_have_attribute(
            "value", f"{status.spend_usd:f}".rstrip("0")
        )
        expect(spend.locator("[data-state]")).to_have_attribute("data-state", "ok")


def test_an_empty_view_says_so_and_leads_on(chromium: Browser, replayed: Pipeline) -> None:
    with watched_page(chromium, replayed.url) as (page, _):
        page.goto(f"/?project={PROJECT}&range=1h")
        expect(page.locator("#empty")).to_contain_text("No calls in this view")
        page.get_by_role("link", name="Show all time").click()
        expect(page.locator("#tile-calls data")).to_have_attribute("value", "19366")
        page.goto("/?project=nobody-sent-this")
        expect(page.locator("#empty")).to_contain_text("No calls yet")


def test_one_reads_it_by_landmarks_headings_and_tables(
    chromium: Browser, program: Pipeline
) -> None:
    with watched_page(chromium, program.url, dark=True) as (page, watched):
        for path in ("/", "/budgets", "/calls", "/experiments", "/data-health"):
            page.goto(f"{path}?project={LIVE}")
            for landmark in ("banner", "navigation", "main", "contentinfo"):
                expect(page.get_by_role(landmark).first).to_be_visible()  # type: ignore[arg-type]
            expect(page.locator("h1")).to_have_count(1)
            assert page.locator("nav a[aria-current=page]").count() == 1
            unlabelled = page.eval_on_selector_all(
                "input:not([type=hidden]), select",
                "all => all.filter(e => !e.labels?.length && !e.ariaLabel).map(e => e.name)",
            )
            assert unlabelled == []
            headless = page.eval_on_selector_all(
                "table", "all => all.filter(t => !t.querySelector('thead th[scope=col]')).length"
            )
            assert headless == 0
        # The first stop of the keyboard leads past the navigation.
        page.goto("/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        assert watched.abroad == []


def test_what_shifts_is_nothing(chromium: Browser, program: Pipeline) -> None:
    """The sum of layout shifts from first paint on, panels included (web.dev: good is ≤ 0.1)."""
    with watched_page(chromium, program.url) as (page, _):
        page.add_init_script(
            "window.shifted = 0; new PerformanceObserver(list => { for (const e of "
            "list.getEntries()) if (!e.hadRecentInput) window.shifted += e.value; })"
            ".observe({type: 'layout-shift', buffered: true});"
        )
        page.goto(f"/?project={LIVE}")
        expect(page.locator("#users tbody tr").first).to_be_visible()
        expect(page.locator("#errors tbody tr").first).to_be_visible()
        assert page.evaluate("window.shifted") <= 0.1


def test_a_chosen_time_is_half_open(chromium: Browser, replayed: Pipeline) -> None:
    began = datetime(2023, 11, 16, 18, 30, tzinfo=UTC)
    until = began + timedelta(minutes=10)
    said = report(
        replayed, "--project", PROJECT, "--since", began.isoformat(), "--until", until.isoformat()
    )["totals"]
    with watched_page(chromium, replayed.url) as (page, _):
        page.goto(f"/?project={PROJECT}")
        page.locator("summary", has_text="Filters").click()
        page.get_by_label("From (UTC)").fill("2023-11-16T18:30")
        page.get_by_label("Until (UTC)").fill("2023-11-16T18:40")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#tile-calls data")).to_have_attribute("value", str(said["calls"]))
        assert figure(page, "tile-cost") == said["cost_usd"]
        assert 0 < said["calls"] < 19_366
