"""What each facade costs its caller over the bare function and over callmeter's own call.

    python benchmarks/bench_facades.py                    # for people
    python benchmarks/bench_facades.py --only sygra --json
    python benchmarks/bench_facades.py --requests 1000    # a shorter run of the waiting part

One section for each facade: a function that takes the options and returns ``Section``. Everything
ships to ``--url`` (default: a transport that encodes and throws away). Bursts are taken in turns,
so what else runs on the machine falls on all of them alike; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import callmeter

BURST = 400
ROUNDS = 60
#: Requests of one kind, before it is the other kind's turn.
BLOCK = 50
WAIT_S = 0.01
now = time.perf_counter_ns


@dataclass
class Section:
    """Figures by name, and the targets among them."""

    figures: dict[str, float] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)


def bursts(cases: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median microseconds of a call of each case, in bursts that are taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, call in cases.items():
            begin = now()
            for _ in range(BURST):
                call()
            taken[name].append((now() - begin) / BURST / 1000)
            callmeter.flush(30)
    return {name: statistics.median(times) for name, times in taken.items()}


def sdk_call() -> None:
    """Callmeter's own way to say the same."""
    with callmeter.generation("answer", model="gpt-4o-mini", provider="openai") as call:
        call.usage(440, 920)


# -- SyGra ---------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 440, "completion_tokens": 920, "total_tokens": 1360}


class Plain:
    """A model as its author wrote it."""

    wait_s = 0.0

    def __init__(self) -> None:
        self._last_request_usage: dict[str, int] | None = None
        self.model_config = {"type": "OpenAI", "parameters": {"max_tokens": 500}}

    def name(self) -> str:
        return "gpt-4o-mini"

    def ask(self, prompt: str) -> tuple[str, int]:
        if self.wait_s:
            time.sleep(self.wait_s)
        self._last_request_usage = USAGE
        return "answer", 200


def sygra(options: argparse.Namespace) -> Section:
    """The decorator on a model's method; then a whole run of requests that wait 10 ms."""
    from callmeter.compat.sygra import run, track_model_request

    class Tracked(Plain):
        ask = track_model_request(Plain.ask)

    section = Section()
    plain, tracked = Plain(), Tracked()
    with run(task="bench"):
        tracked.ask("warm up")
        us = bursts(
            {
                "bare": lambda: plain.ask("question"),
                "sdk": sdk_call,
                "facade": lambda: tracked.ask("question"),
            }
        )
    above, own = us["facade"] - us["bare"], us["sdk"]
    section.figures["sygra_request_us"] = round(above, 2)
    section.figures["sygra_over_sdk_ratio"] = round(above / own, 2)
    print(f"sygra: a tracked request costs {above:.1f} µs, the SDK's own call {own:.1f} µs")

    # The whole of it: git, prices, events, and the document at the end.
    plain.wait_s = tracked.wait_s = WAIT_S
    spent = {"plain": 0, "tracked": 0}

    def block(name: str, model: Plain, requests: int) -> None:
        begin = now()
        for _ in range(requests):
            model.ask("question")
        spent[name] += now() - begin

    left = options.requests
    begin = now()
    with run(task="bench") as this:
        spent["tracked"] += now() - begin
        while left > 0:
            requests = min(BLOCK, left)
            block("plain", plain, requests)
            block("tracked", tracked, requests)
            left -= requests
        begin = now()
    spent["tracked"] += now() - begin
    assert this.metadata_path is not None
    document = json.loads(this.metadata_path.read_text(encoding="utf-8"))
    recorded = document["aggregate_statistics"]["requests"]["total_requests"]
    assert recorded == options.requests, f"{recorded} of {options.requests} requests recorded"
    percent = (spent["tracked"] / spent["plain"] - 1) * 100
    section.figures["sygra_requests"] = options.requests
    section.figures["sygra_plain_s"] = round(spent["plain"] / 1e9, 3)
    section.figures["sygra_tracked_s"] = round(spent["tracked"] / 1e9, 3)
    section.targets.append(
        {
            "what": f"sygra: % of wall time, {options.requests} requests of 10 ms",
            "value": round(percent, 3),
            "target": 1.0,
            "holds": percent < 1.0,
        }
    )
    return section


#: Facade → its section. The SyGra facade's metadata go to a temporary directory.
SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {"sygra": sygra}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SECTIONS), action="append")
    parser.add_argument("--requests", type=int, default=10_000, help="of 10 ms, for row 118")
    parser.add_argument("--url", default="noop:")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    callmeter.init(options.url, project="bench")
    figures: dict[str, float] = {}
    targets: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        for name in options.only or SECTIONS:
            section = SECTIONS[name](options)
            figures.update(section.figures)
            targets += section.targets
    callmeter.close()
    for target in targets:
        word = "holds" if target["holds"] else "FAILS"
        print(f"{word:7}{target['what']}: {target['value']} ({target['target']})")
    if options.json:
        machine = (
            f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}"
        )
        print(
            json.dumps(
                {"name": "facades", "machine": machine, "figures": figures, "targets": targets}
            )
        )


if __name__ == "__main__":
    main()
