"""Runs the command line as its users do: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "examples" / "data" / "AzureLLMInferenceTrace_conv.csv"
#: How the trace is priced everywhere: gpt-4o-mini at 0.15 and 0.60 USD per million tokens.
PRICED = ("--provider", "openai", "--model", "gpt-4o-mini")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def environment(**extra: str) -> dict[str, str]:
    """The process's environment without settings of callmeter that somebody may have set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CALLMETER_")}
    return {**kept, "COLUMNS": "200", **extra}


@contextmanager
def started(
    *arguments: object, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; killed at the end, if nobody has ended it before."""
    with subprocess.Popen(
        [sys.executable, "-m", "callmeter", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(env or environment()),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def callmeter(
    *arguments: object, timeout_s: float = 120, env: Mapping[str, str] | None = None
) -> Ran:
    """Run one command to its end."""
    with started(*arguments, env=env) as process:
        out, err = process.communicate(timeout=timeout_s)
    return Ran(process.returncode, out, err)


def query(directory: Path, sql: str) -> list[list[Any]]:
    """Ask the embedded store of a directory at rest, in a process of its own (one engine each)."""
    code = (
        "import sys, orjson\n"
        "from callmeter_sinks.clickhouse.opening import open_store\n"
        "store = open_store('chdb:' + sys.argv[1])\n"
        "rows = store.query(sys.argv[2]).rows\n"
        "sys.stdout.buffer.write(orjson.dumps(rows, default=str))\n"
        "store.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory / "store"), sql],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows
