"""Bad input and missing parts: one line that says what to do, the documented exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import PRICED, TRACE, Ran, callmeter, environment, query, started

NOWHERE = "127.0.0.1:9"  # the discard port: nothing listens there


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """One line on the error stream that has all these words, nothing else said, this exit code."""
    assert ran.code == code, ran.err
    lines = ran.err.strip().splitlines()
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("callmeter: ")
    assert [word for word in words if word not in lines[0]] == [], lines[0]
    assert ran.out == ""


def test_wrong_columns(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")
    ran = callmeter("replay", file, *PRICED, "--dir", tmp_path / "data")
    assert_refused(ran, 65, "x.csv", "columns are 'a,b'", "TIMESTAMP,ContextTokens,GeneratedTokens")
    assert not (tmp_path / "data").exists(), "nothing is half-written"


def test_a_missing_file(tmp_path: Path) -> None:
    ran = callmeter("replay", tmp_path / "none.csv", "--dir", tmp_path / "data")
    assert_refused(ran, 65, "none.csv", "No such file")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_no_envelopes(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"kind":"metric"}\n')
    ran = callmeter("replay", file, "--dir", tmp_path / "data")
    assert_refused(ran, 65, "x.jsonl:1", "header")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "command",
    [("worker",), ("collector", "--port", "0"), ("topics", "apply"), ("prices", "update")],
)
def test_an_unreachable_kafka(command: tuple[str, ...]) -> None:
    assert_refused(callmeter(*command, "--kafka", f"kafka://{NOWHERE}"), 69, NOWHERE)


@pytest.mark.parametrize("command", [("migrate",), ("report",), ("verify",)])
def test_an_unreachable_clickhouse(command: tuple[str, ...]) -> None:
    ran = callmeter(*command, "--store", f"clickhouse://user:hidden@{NOWHERE}/db")
    assert_refused(ran, 69, NOWHERE)
    assert "hidden" not in ran.err, "secrets are never printed"


def test_no_data_yet(tmp_path: Path) -> None:
    assert_refused(callmeter("report", "--dir", tmp_path / "d"), 78, "no data in", "callmeter up")
    assert not (tmp_path / "d").exists()


def test_wrong_usage() -> None:
    assert_refused(callmeter("report", "--nonsense"), 64, "--nonsense", "callmeter report --help")
    assert_refused(callmeter("nonsense"), 64, "nonsense")
    assert_refused(callmeter("report", "--since", "yesterday"), 64, "yesterday", "2026-11-01")


def test_an_unknown_dimension(tmp_path: Path) -> None:
    small = tmp_path / "small.csv"
    small.write_text("\n".join(TRACE.read_text().splitlines()[:3]))
    assert callmeter("replay", small, "--dir", tmp_path / "d").code == 0
    assert_refused(
        callmeter("report", "--dir", tmp_path / "d", "--by", "colour"), 64, "colour", "model"
    )


def test_a_store_from_a_newer_version_is_not_written(tmp_path: Path) -> None:
    small = tmp_path / "small.csv"
    small.write_text("\n".join(TRACE.read_text().splitlines()[:3]))
    assert callmeter("replay", small, "--dir", tmp_path / "d").code == 0
    newer = (
        "import sys; from callmeter_sinks.clickhouse.opening import open_store\n"
        "store = open_store('chdb:' + sys.argv[1])\n"
        'store.command("INSERT INTO schema_migrations (version, name, checksum, state, program)'
        " VALUES (9999, 'later', 'x', 'done', '99.0')\")\n"
        "store.close()\n"
    )
    subprocess.run([sys.executable, "-c", newer, str(tmp_path / "d" / "store")], check=True)
    ran = callmeter("replay", TRACE, "--dir", tmp_path / "d")
    assert_refused(ran, 78, "9999", "upgrade callmeter")
    assert query(tmp_path / "d", "SELECT count() FROM calls") == [[2]]


def test_a_second_up_on_the_same_directory_names_the_first(tmp_path: Path) -> None:
    with started("up", "--dir", tmp_path, "--port", 0) as first:
        assert first.stdout is not None
        assert "callmeter is up" in first.stdout.readline()
        assert_refused(callmeter("up", "--dir", tmp_path, "--port", 0), 73, f"pid {first.pid}")
        first.send_signal(signal.SIGTERM)
        out, err = first.communicate(timeout=60)
    assert first.returncode == 0, out + err


def test_a_port_in_use(tmp_path: Path) -> None:
    with started("up", "--dir", tmp_path / "one", "--port", 0) as first:
        assert first.stdout is not None
        port = first.stdout.readline().split("http://127.0.0.1:")[1].split(",")[0]
        ran = callmeter("up", "--dir", tmp_path / "two", "--port", port)
        assert_refused(ran, 78, port, "listen")


def test_a_missing_extra_names_the_install() -> None:
    # A finder in front of all others that knows no aiokafka, as in an install without the extra.
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'aiokafka':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from callmeter.cli import main\n"
        "sys.exit(main(['topics', 'apply', '--kafka', 'kafka://127.0.0.1:9']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    assert_refused(ran, 78, "pip install 'callmeter[kafka]'")
