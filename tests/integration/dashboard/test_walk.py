"""The walk of issue 8 in a browser, and producers' texts that would like to be scripts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Page, expect

import callmeter as sdk
from callmeter.ids import uuid7
from callmeter_sinks.dashboard.pages.experiments import value_of
from support.browser import watched_page
from support.cli import ROOT, callmeter, environment
from support.embedded import Pipeline, up_in
from support.openai_stub import OpenAIStub

SPENDER = ROOT / "tests" / "support" / "spender.py"
#: Every way that text has become a script or a tag in somebody's dashboard.
EVIL = (
    "<script>window.pwned = 1</script>\"'><img src=x onerror='window.pwned = 2'>"
    "<svg onload=alert(3)></svg></td></title>{{ 7 * 7 }}${7*7}&lt;b&gt;javascript:alert(4)"
)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline of this module's own: it is empty, and its budgets are nobody else's."""
    with up_in(tmp_path_factory.mktemp("walk")) as pipeline:
        yield pipeline


def test_from_the_first_call_to_the_trace_behind_an_alert(chromium: Browser, up: Pipeline) -> None:
    with watched_page(chromium, up.url) as (page, _), OpenAIStub() as stub:
        page.goto("/")
        expect(page.locator("#empty")).to_contain_text("No calls yet")
        expect(page.locator(".live-state")).to_have_text("Live")

        # The page hears of the program's calls by itself. The clock starts when they are made.
        program = subprocess.Popen(
            [sys.executable, ROOT / "examples" / "ten_lines.py"],
            stdout=subprocess.PIPE, text=True,
            env=environment(
                CALLMETER_URL=up.url, OPENAI_BASE_URL=stub.base_url, OPENAI_API_KEY="test"
            ),
        )  # fmt: skip
        with program:
            assert program.stdout is not None
            assert program.stdout.readline().strip() == "The answer is 42."
            called_s = time.monotonic()
            expect(page.locator("#tile-calls data")).to_have_attribute("value", re.compile("[12]"))
            print(f"\nfrom the first call to the live page: {time.monotonic() - called_s:.2f} s")
            expect(page.locator("#tile-calls data")).to_have_attribute("value", "2")
            expect(page.locator("#models tbody tr")).to_have_attribute("data-row", "gpt-4o-mini")
        assert program.returncode == 0

        ran = callmeter(
            "budget", "set", "walk", "--limit", "0.05", "--action", "stop", "--scope",
            "project=walk", "--dir", up.directory,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        page.get_by_role("link", name="Budgets").click()
        card = page.locator("[data-budget=walk]")
        expect(card).to_contain_text("Nothing was spent in it yet.")

        # A guarded program spends until the guard stops it; the page shows the open circuit.
        guarded = [sys.executable, str(SPENDER), up.url, "walk", "walk", "0.02", "1", "0.05"]
        with subprocess.Popen(
            guarded, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        ) as spender:
            out, _ = spender.communicate("go\n", timeout=90)
            assert '"stops":[{' in out.replace(" ", "")
        expect(card.locator("[data-circuit]")).to_have_attribute("data-circuit", "open")
        expect(card.locator("[data-state]")).to_have_attribute("data-state", "exceeded")
        expect(page.locator("#tile-stopped data")).to_have_attribute("value", "1")

        page.get_by_role("link", name="Calls").click()
        alert = page.locator("#alerts tbody tr", has_text="walk has reached 100%")
        expect(alert).to_contain_text("critical")
        alert.get_by_role("link", name=re.compile("Trace")).click()
        expect(page).to_have_url(re.compile("/trace/[0-9a-f]{32}"))
        expect(page.locator("#tree details")).to_have_count(1)
        expect(page.locator("#tile-cost data")).to_have_attribute("value", "0.02")
        page.locator("#tree summary").click()
        expect(page.locator("#tree .facts")).to_contain_text("walk")


def test_live_pages_come_back_after_a_loss_and_can_be_paused(
    chromium: Browser, up: Pipeline
) -> None:
    with watched_page(chromium, up.url) as (page, watched):
        page.goto("/?project=paused")
        state = page.locator(".live-state")
        expect(state).to_have_text("Live")
        page.get_by_role("button", name="Pause").click()
        expect(state).to_have_text("Paused")
        send(up, "paused")
        expect(page.locator("#empty")).to_be_visible()
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#tile-calls data")).to_have_attribute("value", "1")
        # The connection is lost and comes back; meanwhile something has changed.
        page.context.set_offline(True)
        expect(state).to_have_text(re.compile("lost|Not up to date"))
        send(up, "paused")
        page.context.set_offline(False)
        expect(page.locator("#tile-calls data")).to_have_attribute("value", "2")
        expect(state).to_have_text("Live")
        watched.errors.clear()  # the browser tells of the requests that failed


def send(up: Pipeline, project: str) -> None:
    client = sdk.init(up.url, project=project)
    with sdk.generation(model="gpt-4o-mini", provider="openai") as call:
        call.usage(input=10, output=5)
    assert sdk.flush(30).ok
    stats = sdk.stats()
    up.settle(stats.source, stats.envelopes)
    client.close()


@pytest.fixture(scope="module")
def hostile(up: Pipeline) -> str:
    """A project in which every text that a producer can send is hostile; returns a trace id."""
    client = sdk.init(
        up.url, project=EVIL[:200], environment=EVIL[:100], service=EVIL[:100],
        record_inputs=True, record_outputs=True, tags={EVIL[:60]: EVIL},
    )  # fmt: skip
    with (
        sdk.program(EVIL[:100]),
        sdk.generation(
            EVIL[:100], model=EVIL[:120], provider=EVIL[:100], user=EVIL[:100], session=EVIL[:100],
            inputs={"q": EVIL, EVIL[:50]: [EVIL]}, node=EVIL[:100], hostile=EVIL,
        ) as call,
    ):  # fmt: skip
        call.usage(input=3, output=4)
        call.record({"choices": [{"message": {"content": EVIL}}]})
    trace_id = call.trace_id
    with (
        pytest.raises(RuntimeError, match="pwned"),
        sdk.generation("fails", model=EVIL[:120], provider="p", user=EVIL[:100]),
    ):
        raise type(EVIL[:60], (RuntimeError,), {})(EVIL)
    run = sdk.experiment(EVIL[:100], description=EVIL, meta={EVIL[:50]: EVIL, "list": [EVIL]})
    for step in range(3):
        run.metric(EVIL[:80], 1.5, step=step, labels={EVIL[:40]: EVIL[:60]})
    run.annotation(EVIL)
    assert sdk.flush(30).ok
    stats = sdk.stats()
    up.settle(stats.source, stats.envelopes)
    up.wait(lambda: bool(up.queries.experiments(project=EVIL[:200])))
    client.close()
    return trace_id


def refuse_one(up: Pipeline) -> None:
    """An envelope whose header is hostile and whose line the meter refuses."""
    header = {
        "v": 1, "source": str(uuid7()), "seq": 0, "n": 1, "sent_us": time.time_ns() // 1000,
        "project": EVIL[:200], "environment": EVIL[:100], "service": EVIL[:100],
        "sdk": EVIL[:60], "accepted": 1, "dropped": {EVIL[:60]: 3},
    }  # fmt: skip
    line = {"kind": "metric", "name": EVIL, "value": "no number"}
    body = (
        f"{json.dumps(header, separators=(',', ':'))}\n{json.dumps(line, separators=(',', ':'))}\n"
    )
    request = Request(f"{up.url}/v1/envelopes", data=body.encode(), method="POST")
    with urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    up.wait(lambda: bool(up.queries.dead_letters(project=EVIL[:200])))


def test_no_text_of_a_producer_becomes_a_tag_or_a_script(
    chromium: Browser, up: Pipeline, hostile: str
) -> None:
    refuse_one(up)
    for number, more in enumerate((("--per", "user"), ("--scope", f"user={EVIL[:100]}"))):
        ran = callmeter(
            "budget", "set", f"evil-{number}", "--limit", "0.000000000001", "--note", EVIL,
            "--dir", up.directory, *more,
        )  # fmt: skip
        assert ran.code == 0, ran.err
    client = sdk.init(up.url, project=EVIL[:200])
    with sdk.generation(model="gpt-4o-mini", provider="openai", user=EVIL[:100]) as call:
        call.usage(input=1000)
    assert sdk.flush(30).ok
    client.close()
    up.wait(lambda: bool(up.queries.alerts(rule="evil-0")))
    here = quote(EVIL[:200], safe="")
    run = quote(value_of(EVIL[:200], EVIL[:100]), safe="")
    pages = {
        f"/?project={here}": ("#models", "#services", "#users", "#errors"),
        f"/?user={here}&tag:{quote(EVIL[:60], safe='')}=x": (".chips",),
        "/budgets": ("[data-budget=evil-0]", "[data-budget=evil-1]"),
        f"/calls?project={here}": ("#alerts", "#calls"),
        f"/trace/{hostile}": ("#tree",),
        f"/experiments?project={here}&run={run}": ("#runs", "#notes", "#compare", "#legend-m0"),
        f"/experiments?project={here}&run={run}&split={quote(EVIL[:40], safe='')}": ("#legend-m0",),
        f"/data-health?project={here}": ("#reasons", "#letters", "#sources"),
        f"/alert/{quote(re.sub('[/{}]', '', EVIL), safe='')}/trace": ("main",),
        f"/?range={here}": (".problem",),
    }
    with watched_page(chromium, up.url) as (page, watched):
        page.add_init_script("window.pwned = 0")
        for path, parts in pages.items():
            page.goto(path)
            for part in parts:
                if part != "main":
                    expect(page.locator(part).first).to_contain_text("<script>")
            page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            hover(page)
            assert page.evaluate("window.pwned") == 0, path
            strays = page.locator(
                "script:not([src]), img:not([src^='/assets/']), [onload], [onerror], main title, "
                "iframe, object, embed, [href^='javascript']"
            )
            assert strays.count() == 0, path
            assert "49" not in (page.locator("h1").text_content() or "")
        watched.errors[:] = [each for each in watched.errors if not expected_status(each)]


def hover(page: Page) -> None:
    """The cursor over every chart: what it says there is text too."""
    for chart in page.locator("[data-chart] .u-over").all():
        chart.hover()
        expect(page.locator(".tip:not([hidden])").first).to_be_visible()


def expected_status(message: str) -> bool:
    """Whether the browser speaks of the pages that were to answer 404 and 400."""
    return "404" in message or "400" in message
