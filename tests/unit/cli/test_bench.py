"""``callmeter bench``: lists what there is, runs one, refuses what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.cli import bench
from callmeter.cli.app import run


def test_lists_every_benchmark_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"meter", "sdk", "sink", "chain", "queries"} <= set(listed)
    assert all(len(about) > 20 for about in listed.values())


def test_runs_one_with_its_own_options_and_returns_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bench_mine.py"
    program.write_text("import sys; sys.exit(7 if sys.argv[1:] == ['--json', '3'] else 1)")
    monkeypatch.setattr(bench, "find_benchmarks", lambda: {"mine": program})
    assert run(["bench", "mine", "--json", "3"]) == 7


def test_an_unknown_name_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "nothing"]) == 64
    assert "there are: " in capsys.readouterr().err


def test_without_the_source_tree_it_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "c" / "bench.py"))
    assert run(["bench"]) == 78
    assert "clone the repository" in capsys.readouterr().err
