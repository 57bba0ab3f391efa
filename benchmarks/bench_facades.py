"""What each facade costs its caller over the bare function and over callmeter's own call.

    python benchmarks/bench_facades.py                    # for people
    python benchmarks/bench_facades.py --only sygra --json
    python benchmarks/bench_facades.py --requests 1000    # a shorter run of the waiting part

One section for each facade: a function that takes the options and returns ``Section``. Everything
ships to ``--url`` (default: a transport that encodes and throws away). Bursts are taken in turns,
so what else runs on the machine falls on all of them alike; figures are medians. The original
packages of SynapseKit and Syvain are measured in an environment of their own (``--originals``), or
a word says why not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import callmeter

# The stand-ins for engines and models are the tests' own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

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


def abursts(cases: dict[str, Callable[[], Awaitable[Any]]]) -> dict[str, float]:
    """``bursts`` of coroutines, each awaited before the next."""

    async def burst(call: Callable[[], Awaitable[Any]]) -> float:
        begin = now()
        for _ in range(BURST):
            await call()
        return (now() - begin) / BURST / 1000

    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, call in cases.items():
            taken[name].append(asyncio.run(burst(call)))
            callmeter.flush(30)
    return {name: statistics.median(times) for name, times in taken.items()}


async def asdk_call() -> None:
    """The same, in a task."""
    sdk_call()


def section_of(name: str, us: dict[str, float]) -> Section:
    """What a facade costs above the bare function, and against callmeter's own call."""
    above, own = us["facade"] - us["bare"], us["sdk"]
    print(f"{name}: a call costs {above:.1f} µs above the bare one, the SDK's own {own:.1f} µs")
    return Section({f"{name}_us": round(above, 2), f"{name}_over_sdk_ratio": round(above / own, 2)})


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
    section = section_of("sygra", us)

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


# -- Synalinks -----------------------------------------------------------------------------------


def synalinks(options: argparse.Namespace) -> Section:  # noqa: ARG001
    """One call of a language model of the engine's shape; the bare one is not metered."""
    from callmeter.compat import synalinks as facade
    from support.synalinks_standins import DataModel, LanguageModel, Reply

    question = DataModel(q=1)

    async def ask() -> None:
        model.script.append(Reply(440, 920))
        await model(question)

    model = LanguageModel("openai/gpt-4o-mini", retry=1)
    bare = abursts({"bare": ask})
    with facade.instrument(LanguageModel):
        us = abursts({"facade": ask, "sdk": asdk_call})
    return section_of("synalinks", bare | us)


# -- SynapseKit ----------------------------------------------------------------------------------


def synapsekit(options: argparse.Namespace) -> Section:
    """``generate`` through the tracer and the cost tracker."""
    from callmeter.compat.synapsekit import CostTracker, TokenTracer
    from support.synapsekit_standins import StubLLM

    llm = StubLLM(("answer", 440, 920))
    tracker = CostTracker(llm)
    tracer = TokenTracer(tracker)

    async def bare() -> None:
        llm.asked.clear()
        await llm.generate("question")

    async def facade() -> None:
        llm.asked.clear()
        await tracer.generate("question")

    section = section_of("synapsekit", abursts({"bare": bare, "facade": facade, "sdk": asdk_call}))
    if options.originals:
        original(section, "synapsekit_original_us", _SYNAPSEKIT)
    return section


# -- Syvain --------------------------------------------------------------------------------------


def syvain(options: argparse.Namespace) -> Section:
    """A metric into a local file."""
    from callmeter.compat.syvain import JsonlCollector

    experiment = JsonlCollector(path=Path("syvain.jsonl")).experiment("bench")
    step = iter(range(10**9))
    with experiment.run():
        us = bursts(
            {
                "bare": lambda: next(step),
                "sdk": lambda: callmeter.metric("loss", 0.42, step=next(step)),
                "facade": lambda: experiment.metric("loss", 0.42, step=next(step)),
            }
        )
        experiment.flush_or_raise()
    section = section_of("syvain_metric", us)
    if options.originals:
        original(section, "syvain_original_us", _SYVAIN)
    return section


# -- LangChain -----------------------------------------------------------------------------------


def langchain(options: argparse.Namespace) -> Section:  # noqa: ARG001
    """``invoke`` of a chat model with the callback; the bare one has one that does nothing."""
    from langchain_core.callbacks import BaseCallbackHandler

    from callmeter.integrations.langchain import CallmeterCallback
    from support.facades import Ask, ChainModel

    model = ChainModel(ask=Ask("gpt-4o-mini", 440, 920))
    idle: Any = {"callbacks": [BaseCallbackHandler()]}
    config: Any = {"callbacks": [CallmeterCallback()]}
    return section_of(
        "langchain",
        bursts(
            {
                "bare": lambda: model.invoke("question", config=idle),
                "sdk": sdk_call,
                "facade": lambda: model.invoke("question", config=config),
            }
        ),
    )


# -- The original packages -----------------------------------------------------------------------

_TIMED = """
import json, statistics, sys, time
times = []
for _ in range(40):
    begun = time.perf_counter_ns()
    for i in range(400):
        call(i)
    times.append((time.perf_counter_ns() - begun) / 400 / 1000)
    done()
print(json.dumps(statistics.median(times)))
"""
_SYNAPSEKIT = """
from synapsekit import CostTracker, TokenTracer
tracker, tracer = CostTracker(), TokenTracer("gpt-4o-mini")
def call(i):
    tracker.record("gpt-4o-mini", 440, 920, 120.0)
    tracer.record(440, 920, 120.0)
def done(): pass
"""
_SYVAIN = """
import tempfile
from syvain_metrics_collector import JsonlCollector
experiment = JsonlCollector(tempfile.mktemp()).experiment("bench")
def call(i): experiment.metric("loss", 0.42, step=i)
def done(): experiment.flush_or_raise()
"""


@cache
def originals() -> Path:
    """An environment with the original packages; what ``uv`` raises if it cannot be had."""
    directory = tempfile.mkdtemp(prefix="originals-")
    python = Path(directory) / "bin" / "python"
    _quietly("uv", "venv", "-q", directory)
    packages = ("synapsekit", "syvain-metrics-collector")
    _quietly("uv", "pip", "install", "-q", "--python", str(python), *packages)
    return python


def original(section: Section, name: str, program: str) -> None:
    """Microseconds a call of the original, which meters into its own memory or file."""
    try:
        said = _quietly(str(originals()), "-c", program + _TIMED)
        section.figures[name] = round(float(said.splitlines()[-1]), 2)
        print(f"  {name}: {section.figures[name]} µs")
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as exc:
        print(f"  {name}: could not be tried: {type(exc).__name__}")


def _quietly(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


#: Facade → its section. What facades write goes to a temporary directory.
SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "sygra": sygra,
    "synalinks": synalinks,
    "synapsekit": synapsekit,
    "syvain": syvain,
    "langchain": langchain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SECTIONS), action="append")
    parser.add_argument("--requests", type=int, default=10_000, help="of 10 ms, for row 118")
    parser.add_argument("--originals", action="store_true", help="install and measure them too")
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
