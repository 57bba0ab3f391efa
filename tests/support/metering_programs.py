"""Programs of a few lines that meter into a file, and what the file holds in the end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import orjson

from callmeter.schema.envelope import Header, decode_header, split_envelopes, split_lines

#: Every child is waited for no longer than this; none comes near it.
PATIENCE_S = 60


def run_program(tmp_path: Path, program: str, *, code: int = 0, **environ: str) -> str:
    """Run a program that meters into ``calls.jsonl``; its output."""
    script = tmp_path / "program.py"
    preamble = """
        import os, signal, sys, threading, time
        import callmeter
        def start(**settings):
            return callmeter.init("jsonl:calls.jsonl", flush_delay_s=30.0, **settings)
        def emit(tag, count=100):
            for i in range(count):
                callmeter.metric(f"{tag}{i}", 1.0)
    """
    script.write_text(textwrap.dedent(preamble) + textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def stored(tmp_path: Path) -> tuple[list[Header], Counter[str]]:
    """Headers and how often each metric came."""
    headers, names = [], Counter[str]()
    for data in split_envelopes((tmp_path / "calls.jsonl").read_bytes()):
        lines = split_lines(data)
        headers.append(decode_header(lines[0]))
        events = [orjson.loads(line) for line in lines[1:]]
        names.update(e["name"] for e in events if e["kind"] == "metric")
    return headers, names


def all_once(*tags: str, count: int = 100) -> Counter[str]:
    """Each metric of these tags, once."""
    return Counter({f"{tag}{i}": 1 for tag in tags for i in range(count)})


def clean_ends(headers: list[Header]) -> int:
    """How many sources said that they ended."""
    return sum(header.last for header in headers)
