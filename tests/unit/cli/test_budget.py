"""``callmeter budget``: definitions are made, changed and refused; statuses are shown."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from callmeter.cli.app import run
from callmeter.cli.budget import command
from callmeter.errors import CannotWriteError
from callmeter.log.definitions import edit_sqlite, read_definitions
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.budgets import Budget, Slo, next_version
from callmeter.schema.status import STATUS_VERSION, BudgetStatus, status_key
from callmeter_processors.watch.report import encode_status

FUTURE_US = 4_000_000_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with SqliteLog(tmp_path / "log.db", partitions=4):
        pass
    return tmp_path


def rows(home: Path) -> dict[bytes, bytes]:
    with SqliteLog(home / "log.db") as log:
        return log.rows("budgets", 0)


def budgets(home: Path) -> dict[str, Budget]:
    return read_definitions(rows(home))


def budget(home: Path, *args: str, code: int = 0, capsys=None) -> str:
    got = run(["budget", *args, "--dir", str(home)])
    assert got == code, capsys.readouterr() if capsys else args
    return "" if capsys is None else "".join(capsys.readouterr())


def say_status(home: Path, name: str, entity: str = "", **fields) -> None:
    base = {
        "v": STATUS_VERSION, "log": "l", "budget": name, "version": 1, "basis": 1,
        "entity": entity, "window": "day", "state": "ok", "action": "alert", "start_us": 0,
        "end_us": FUTURE_US, "spend_pico": "1500000000000", "tokens": 7, "calls": 2,
        "at_us": 1, "included": {}, "limit_pico": "5000000000000",
    }  # fmt: skip
    value = encode_status(BudgetStatus(**base | fields))
    with SqliteLog(home / "log.db") as log:
        log.append([NewRecord("budget-status", status_key(name, entity), value)])


def test_set_without_a_store_says_what_is_not_in(home, capsys):
    assert run(["budget", "set", "a", "--limit", "5", "--dir", str(home)]) == 0
    said = capsys.readouterr()
    assert "`callmeter up` does not run; `callmeter budget open a` brings it in" in said.err
    assert run(["budget", "set", "b", "--limit", "5", "--no-open", "--dir", str(home)]) == 0
    assert capsys.readouterr().err == ""


def test_set_stands_when_the_store_is_away(home, capsys):
    away = ["--store", "clickhouse://127.0.0.1:1/db"]
    assert run(["budget", "set", "a", "--limit", "5", "--dir", str(home), *away]) == 0
    assert "what a had spent before is not in: " in capsys.readouterr().err
    assert set(budgets(home)) == {"a"}


def test_set_makes_a_definition(home, capsys):
    said = budget(
        home, "set", "team", "--limit", "5", "--tokens", "1000", "--window", "month",
        "--scope", "model=gpt*", "--scope", "model=claude", "--scope", "tag:team=a",
        "--per", "user", "--thresholds", "80%, 4.50", "--action", "stop", "--note", "hello",
        "--no-open",
        capsys=capsys,
    )  # fmt: skip
    assert said == "set team, version 1: 5 USD and 1000 tokens\n"
    made = budgets(home)["team"]
    assert made.limit_pico == "5000000000000"
    assert made.limit_tokens == 1000
    assert made.scope == {"model": ["gpt*", "claude"], "tag:team": ["a"]}
    assert (made.window, made.per, made.action, made.note) == ("month", "user", "stop", "hello")
    assert made.thresholds == ["80%", "4.50"]
    assert made.terms_us == made.edited_us > 0


def test_objectives(home):
    budget(home, "set", "errors", "--max-error-rate", "2.5%", "--min-calls", "5")
    budget(home, "set", "slow", "--max-latency", "1.5s@p99.9", "--window", "hour")
    budget(home, "set", "hang", "--max-open", "2m", "--scope", "program=bot", code=64)
    budget(home, "set", "hang", "--max-open", "2m")
    found = budgets(home)
    assert found["errors"].slo == Slo(measure="error_rate", max_ppm=25_000, min_calls=5)
    assert found["slow"].slo == Slo(measure="latency", max_us=1_500_000, quantile_ppm=999_000)
    assert found["hang"].slo == Slo(measure="open", max_us=120_000_000)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--limit", "-5"], "must be above 0"),
        (["--limit", "0"], "must be above 0"),
        (["--limit", "five"], "no amount of USD"),
        (["--tokens", "-1"], "must be above 0"),
        (["--limit", "5", "--window", "year"], "unknown window 'year'"),
        (["--limit", "5", "--scope", "colour=red"], "unknown scope 'colour'"),
        (["--limit", "5", "--scope", "model"], "KEY=VALUE"),
        (["--limit", "5", "--per", "colour"], "unknown per 'colour'"),
        (["--limit", "5", "--thresholds", "most"], "'most' is none"),
        ([], "has no limit"),
        (["--limit", "5", "--max-open", "5m"], "make two rules"),
        (["--max-open", "5m", "--max-latency", "1s"], "one objective a rule"),
        (["--max-latency", "soon"], "a duration is written"),
        (["--max-latency", "1s@median"], "a quantile is written"),
        (["--max-error-rate", "5"], "an error rate is written"),
    ],
)
def test_bad_budgets_are_refused_in_one_line_and_change_nothing(home, capsys, args, says):
    said = budget(home, "set", "team", *args, code=64, capsys=capsys)
    assert says in said
    assert said.count("\n") == 1
    assert rows(home) == {}


def test_two_of_one_name_are_refused(home, capsys):
    budget(home, "set", "team", "--limit", "5")
    before = rows(home)
    capsys.readouterr()
    assert "there is a budget 'team'" in budget(
        home, "set", "team", "--limit", "7", code=64, capsys=capsys
    )
    assert rows(home) == before
    budget(home, "set", "team", "--limit", "7", "--replace")
    assert budgets(home)["team"].version == 2
    assert "to replace" in budget(
        home, "set", "nobody", "--limit", "7", "--replace", code=64, capsys=capsys
    )


def test_of_edits_that_race_one_changes_nothing(home):
    with SqliteLog(home / "log.db") as log, SqliteLog(home / "log.db") as other:
        winner = next_version(None, Budget(id="team", limit_pico="1"), 1)
        loser = next_version(None, Budget(id="team", limit_pico="2"), 1)

        def slow(known):
            edit_sqlite(other, lambda _: winner)
            return loser

        with pytest.raises(CannotWriteError, match="nothing was changed"):
            edit_sqlite(log, slow)
    assert budgets(home) == {"team": winner}


def test_raise_disable_enable_reset_delete(home, capsys):
    budget(home, "set", "team", "--limit", "5")
    budget(home, "raise", "team", "--limit", "7.5")
    assert budgets(home)["team"].limit_pico == "7500000000000"
    budget(home, "raise", "team", code=64)
    budget(home, "raise", "team", "--limit", "-7", code=64)
    budget(home, "disable", "team")
    assert budgets(home)["team"].state == "disabled"
    budget(home, "enable", "team")
    budget(home, "reset", "team")
    found = budgets(home)["team"]
    assert (found.state, found.resets, found.version, found.basis) == ("active", 1, 5, 1)
    budget(home, "delete", "team")
    capsys.readouterr()
    assert "there is no budget 'team'" in budget(home, "raise", "team", "--limit", "9", code=64,
                                                 capsys=capsys)  # fmt: skip
    budget(home, "set", "team", "--limit", "1")
    assert (budgets(home)["team"].version, budgets(home)["team"].basis) == (7, 7)


def test_status_and_list(home, capsys):
    budget(home, "set", "team", "--limit", "5", "-q")
    budget(home, "set", "idle", "--limit", "3", "-q")
    say_status(home, "team", state="warning")
    say_status(home, "forgotten")
    capsys.readouterr()
    found = orjson.loads(budget(home, "status", "--json", capsys=capsys))["rows"]
    by_name = {row["budget"]: row for row in found}
    assert set(by_name) == {"team", "idle"}
    assert by_name["team"]["spent_usd"] == "1.5"
    assert by_name["team"]["limit_usd"] == "5"
    assert by_name["team"]["limit_tokens"] is None
    assert by_name["idle"]["spent_usd"] == "0"
    table = list(csv.DictReader(io.StringIO(budget(home, "list", "--csv", capsys=capsys))))
    assert [row["budget"] for row in table] == ["idle", "team"]
    assert table[1]["limit"] == "5 USD"
    assert "warning" in budget(home, "status", "team", capsys=capsys)
    budget(home, "status", "nobody", code=64)


def test_a_window_that_is_over_shows_nothing_spent(home, capsys):
    budget(home, "set", "team", "--limit", "5", "-q")
    say_status(home, "team", state="exceeded", end_us=1)
    row = orjson.loads(budget(home, "status", "--json", capsys=capsys))["rows"][0]
    assert (row["state"], row["spent_usd"], row["tokens"]) == ("ok", "0", 0)
    budget(home, "check", "team")


def test_check_is_for_scripts(home, capsys):
    budget(home, "set", "team", "--limit", "5", "--per", "user", "-q")
    budget(home, "check", "team")
    say_status(home, "team", "alice", state="exceeded")
    say_status(home, "team", "bob")
    capsys.readouterr()
    assert budget(home, "check", "team", code=1, capsys=capsys) == (
        "team is exceeded by alice: 5 USD\n"
    )
    budget(home, "check", "team", "--entity", "bob")
    budget(home, "check", "nobody", code=64)


def test_a_place_must_be_there(tmp_path, capsys):
    assert "no log in" in budget(tmp_path, "list", code=78, capsys=capsys)
    assert run(["budget", "list", "--dir", str(tmp_path), "--kafka", "kafka://x:1"]) == 64


def test_help_names_every_verb():
    text = CliRunner().invoke(command, ["--help"]).output
    for verb in ("set", "list", "status", "check", "raise", "disable", "delete", "reset"):
        assert verb in text
