"""The example programs run as their readers run them, over a stand-in engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.embedded import Pipeline
from support.trace_endpoint import TraceEndpoint, endpoint

__all__ = ["endpoint"]  # a fixture

ROOT = Path(__file__).parents[3]

#: What the example finds as the installed engine: its models answer from a script.
_ENGINE = """
from support.synalinks_standins import *
from support import synalinks_standins as _s

class LanguageModel(_s.LanguageModel):
    def __init__(self, model):
        replies = [_s.Reply(12, 3, cost=0.0021), _s.Reply(10, 2, cost=0.0019)]
        super().__init__(model, replies)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    (tmp_path / "synalinks.py").write_text(_ENGINE)
    return tmp_path


def ran(example: str, installed: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", ROOT / "examples" / example],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT / 'tests'}", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_monitor_example(installed: Path, endpoint: TraceEndpoint) -> None:
    out = ran("synalinks_monitor.py", installed, SYNALINKS_API_BASE=endpoint.url)
    assert out == "You asked: What is the capital of France?\n"
    begin, end = endpoint.wait_for(2)
    assert (begin["event"], begin["module_name"]) == ("call_begin", "answer")
    assert begin["inputs"]["data"] == [{"question": "What is the capital of France?"}]
    assert (end["event"], end["success"], end["call_id"]) == ("call_end", True, begin["call_id"])


def test_the_metrics_example(installed: Path, embedded: Pipeline) -> None:
    lines = ran("synalinks_metrics.py", installed, CALLMETER_URL=embedded.url).splitlines()
    shown = dict(line.split(": ") for line in lines)
    assert shown["program_calls"] == "2"
    assert shown["program_cost"] == "0.004"
    assert shown["program_avg_cost_per_invocation"] == "0.002"
    assert float(shown["program_elapsed_time"]) > 0
    assert float(shown["program_calls_per_second"]) > 0
    queries = embedded.queries
    embedded.wait(lambda: len(queries.calls(project="synalinks-example")) == 6)
    costs = [row.cost_usd for row in queries.calls(project="synalinks-example") if row.cost_usd]
    assert sorted(map(str, costs)) == ["0.001900000000", "0.002100000000"]
