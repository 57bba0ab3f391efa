"""bill import: three forms of bills against metered cost, booked once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from callmeter.cli.billruns import BillRun
from callmeter.errors import DataError
from callmeter_sinks.bill import BillRow
from callmeter_sinks.bill_forms import BillKey, canonical, read_bill
from callmeter_sinks.verify import verify
from support.cli import callmeter
from support.embedded import Pipeline
from support.wire_producer import WireProducer, send

DAY = datetime.now(UTC).date()
#: Three calls of 100 and 10 tokens in an envelope, at an explicit cost.
COST = {"cost_pico": "2000000000000", "cost_source": "provider"}

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "bill.csv"
        path.write_text(text)
        return path

    return write


def test_the_plain_form(written: Written) -> None:
    bill = read_bill(
        written(
            "date,model,usd,provider,project\n"
            "2026-11-01,gpt-4o,1.25,openai,shop\n"
            "2026-11-01,gpt-4o,0.000000000001,openai,shop\n"
            "2026-11-02,claude,-3,anthropic,\n"
        ),
        project="rest",
    )
    assert bill.form == "plain"
    assert bill.amounts == {
        BillKey(date(2026, 11, 1), "openai", "shop", "gpt-4o"): 1_250_000_000_001,
        BillKey(date(2026, 11, 2), "anthropic", "rest", "claude"): -3 * 10**12,
    }
    assert bill.days == (date(2026, 11, 1), date(2026, 11, 2))


def test_openais_cost_export(written: Written) -> None:
    header = (
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,"
        "project_id,organization_id,organization_name"
    )
    bill = read_bill(
        written(
            f"{header}\n"
            '1759622400,1759708800,x,y,0.8958740000000000,usd,"gpt-4o-2024-08-06, input",p,o,n\n'
            '1759622400,1759708800,x,y,0.1,usd,"gpt-4o-2024-08-06, cached input",p,o,n\n'
            "1759968000,1760054400,x,y,,,,,,\n"
        ),
        project="shop",
    )
    assert bill.form == "openai"
    assert bill.amounts == {
        BillKey(date(2025, 10, 5), "openai", "shop", "gpt-4o-2024-08-06"): 995_874_000_000
    }


def test_anthropics_cost_export(written: Written) -> None:
    header = (
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,"
        "list_price_usd,cost_type,inference_geo,speed"
    )
    bill = read_bill(
        written(
            f"{header}\n"
            "2026-04-06,Claude Sonnet 4.5,Default,k,m,≤ 200k,input_no_cache,0.01,0.01,token,,\n"
            "2026-04-06,Claude Sonnet 4.5,Default,k,m,≤ 200k,output,18.71,18.71,token,,\n"
        )
    )
    assert bill.form == "anthropic"
    (key,) = bill.amounts
    assert (key.provider, canonical(key.model)) == ("anthropic", "claude-sonnet-4-5")
    assert bill.amounts[key] == 18_720_000_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "not a bill that is known"),
        ("date,model,usd\n2026-11-01,m,much\n", "line 2"),
        ("date,model,usd\n2026-11-01,m,NaN\n", "line 2: 'NaN' is no amount"),
        ("date,model,usd\n1 Nov,m,1\n", "line 2"),
        ("date,model,usd\n", "no line with an amount"),
        ("date,model,usd\n2026-11-01,m\n", "line 2"),
        ("start_time,amount_value,amount_currency\n1759622400,1,eur\n", "only usd"),
    ],
)
def test_what_cannot_be_read_is_named(written: Written, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_bill(written(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Claude Sonnet 4.5", "claude-sonnet-4-5-20250929"),
        ("Claude Haiku 3.5", "claude-haiku-3-5-latest"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("GPT-4.1", "gpt-4.1"),
    ],
)
def test_one_model_by_any_of_its_names(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def metered(embedded: Pipeline, project: str, provider: str, **fields: object) -> None:
    """Two envelopes of three calls: 12 USD."""
    producer = WireProducer(project, fields={"provider": provider, **COST, **fields})
    # Not over midnight: all of them begin now.
    producer.fields["started_us"] = producer.fields["ts_us"] = int(time.time() * 1e6)
    send(embedded.url, [producer.envelope(), producer.envelope()])
    embedded.settle(producer.source, 2)


def spent(embedded: Pipeline, project: str) -> str:
    ran = callmeter("report", "--dir", embedded.directory, "--project", project, "--json")
    return str(ran.json()["totals"]["cost_usd"])


def test_the_difference_is_shown_by_day_and_model_and_booked_once(
    embedded: Pipeline, project: str, written: Written
) -> None:
    metered(embedded, project, project, model="gpt-4o", response_model="gpt-4o-2024-08-06")
    bill = written(
        "date,model,usd,provider,project\n"
        f"{DAY},gpt-4o,12.5,{project},{project}\n"
        f"{DAY},o3,0.25,{project},{project}\n"
    )
    arguments = ("bill", "import", bill, "--dir", embedded.directory)
    first = callmeter(*arguments, "--json").json()
    assert [
        (r["model"], r["calls"], r["metered_usd"], r["difference_usd"]) for r in first["rows"]
    ] == [
        ("gpt-4o-2024-08-06", 6, "12", "0.5"),
        ("o3", 0, "0", "0.25"),
    ]
    assert first["booked"] is None
    assert first["totals"]["difference_usd"] == "0.75"
    assert spent(embedded, project) == "12"  # shown, and nothing written

    booked = callmeter(*arguments, "--book", "--json").json()
    assert booked["booked"] == 2
    assert booked["totals"]["difference_usd"] == "0"
    assert spent(embedded, project) == "12.75"
    rows = embedded.store.query(
        "SELECT model, cost_source FROM costs WHERE project = {p:String} ORDER BY 1",
        {"p": project},
    ).rows
    assert rows == [("gpt-4o-2024-08-06", "bill"), ("o3", "bill")]

    again = callmeter(*arguments, "--book")
    assert again.code == 0
    assert "nothing to book, or booked before" in again.out
    assert spent(embedded, project) == "12.75"
    result = verify(embedded.store)
    assert [check for check in result.checks if not check.equal] == []


def test_a_bill_without_models_is_compared_by_day(
    embedded: Pipeline, project: str, written: Written
) -> None:
    metered(embedded, project, project, model="a")
    metered(embedded, project, project, model="b")
    bill = written(f"date,model,usd\n{DAY},,20\n")
    ran = callmeter(
        "bill", "import", bill, "--provider", project, "--dir", embedded.directory, "--csv"
    )
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[1].endswith(",12,0,20,24,-4")


def test_refuses_what_is_not_said(embedded: Pipeline, written: Written) -> None:
    bill = written(f"date,model,usd\n{DAY},m,1\n")
    ran = callmeter("bill", "import", bill, "--dir", embedded.directory)
    assert (ran.code, "whose bill is it?" in ran.err) == (64, True)
    ran = callmeter(
        "bill", "import", bill, "--dir", embedded.directory, "--provider", "x", "--book"
    )
    assert (ran.code, "on which project" in ran.err) == (64, True)
    tomorrow = written(f"date,model,usd,provider,project\n{DAY + timedelta(days=2)},m,1,x,x\n")
    ran = callmeter("bill", "import", tomorrow, "--dir", embedded.directory, "--book")
    assert (ran.code, "has not begun (UTC); nothing was booked" in ran.err) == (65, True)


@pytest.mark.parametrize("hour", [0, 11, 12, 23])
def test_a_difference_of_today_is_booked_at_a_time_that_has_come(hour: int) -> None:
    day = date(2026, 11, 22)
    now_us = int(datetime(2026, 11, 22, hour, 30, tzinfo=UTC).timestamp()) * 1_000_000
    (line,) = BillRun("d" * 64, "p", 0).lines([BillRow(day, "x", "p", "m")], now_us)
    cost = orjson.loads(line)
    assert cost["started_us"] <= cost["ts_us"] == now_us
    assert datetime.fromtimestamp(cost["started_us"] / 1e6, UTC).date() == day
