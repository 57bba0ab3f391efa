"""callmeter's own records of an engine's calls, read back from the store of a real pipeline."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import callmeter
from callmeter.compat import synalinks
from callmeter_sinks.queries.calls import CallRow
from support.embedded import Pipeline
from support.synalinks_standins import (
    DataModel,
    Generator,
    LanguageModel,
    Module,
    Program,
    Reply,
    SymbolicDataModel,
    synalinks_engine,
)

__all__ = ["synalinks_engine"]  # a fixture

QUESTION = DataModel(messages=[{"role": "user", "content": "Paris?"}])


class Stored:
    """Meters into the pipeline; ``rows`` reads everything of this test's project back."""

    def __init__(self, pipeline: Pipeline, project: str) -> None:
        self._pipeline = pipeline
        self._project = project

    def run(self, *calls: Awaitable[Any]) -> list[Any]:
        """Run calls one after the other; failures come back as exceptions."""

        async def all_of_them() -> list[Any]:
            answers: list[Any] = []
            for call in calls:
                try:
                    answers.append(await call)
                except ValueError as exc:
                    answers.append(exc)
            return answers

        return asyncio.run(all_of_them())

    @property
    def rows(self) -> list[CallRow]:
        assert callmeter.flush(20.0).ok
        stats = callmeter.stats()
        self._pipeline.settle(stats.source, stats.envelopes)
        self._pipeline.wait(lambda: self._in_ledger(stats.source) == len(self._calls()))
        return self._calls()

    def _calls(self) -> list[CallRow]:
        return self._pipeline.queries.calls(project=self._project)

    def _in_ledger(self, source: str) -> int:
        """Calls that the ledger knows: its view may be filled just before that of the calls."""
        sql = "SELECT sum(call_ends) FROM envelopes WHERE source = {source:UUID}"
        ((number,),) = self._pipeline.store.query(sql, {"source": source}).rows
        return int(number)

    @property
    def by_name(self) -> dict[str, CallRow]:
        rows = self.rows
        assert len({row.name for row in rows}) == len(rows)
        return {row.name: row for row in rows}


@pytest.fixture
def stored(embedded: Pipeline, project: str, synalinks_engine: ModuleType) -> Iterator[Stored]:
    callmeter.init(embedded.url, project=project, record_outputs=True, record_inputs=True)
    synalinks.instrument()
    yield Stored(embedded, project)
    callmeter.close()


@pytest.mark.acceptance(52)
def test_parents_follow_the_calls_one_after_the_other(stored: Stored) -> None:
    d = Module(name="D")
    b, c = Module(name="B"), Program(d, name="C")

    async def work(x: Any) -> Any:
        await b(x)
        return await c(x)

    stored.run(Program(work, name="A")(QUESTION))
    rows = stored.by_name
    assert rows["A"].parent_span_id == ""
    assert rows["B"].parent_span_id == rows["A"].span_id
    assert rows["C"].parent_span_id == rows["A"].span_id
    assert rows["D"].parent_span_id == rows["C"].span_id
    assert len({row.trace_id for row in rows.values()}) == 1


@pytest.mark.acceptance(52)
def test_parents_follow_the_calls_at_the_same_time(stored: Stored) -> None:
    both_inside = asyncio.Barrier(2)
    d = Module(name="D")

    async def meet(x: Any) -> Any:
        await both_inside.wait()
        return x

    async def meet_then_d(x: Any) -> Any:
        await both_inside.wait()
        return await d(x)

    b, c = Program(meet, name="B"), Program(meet_then_d, name="C")

    async def work(x: Any) -> Any:
        return await asyncio.gather(b(x), c(x))

    stored.run(Program(work, name="A")(QUESTION))
    rows = stored.by_name
    assert rows["A"].parent_span_id == ""
    assert rows["B"].parent_span_id == rows["A"].span_id
    assert rows["C"].parent_span_id == rows["A"].span_id
    assert rows["D"].parent_span_id == rows["C"].span_id


@pytest.mark.acceptance(53)
def test_a_record_says_symbolic_class_cost_and_parent(stored: Stored) -> None:
    model = LanguageModel(script=[Reply(12, 3, cost=0.0021)], name="lm")

    async def fail(x: Any) -> Any:
        raise ValueError("x")

    generator, failing = Generator(model, name="gen"), Program(fail, name="failing")

    async def work(x: Any) -> Any:
        await generator(x)
        return await failing(x)

    stored.run(Program(work, name="qa")(QUESTION), Module(name="symbolic")(SymbolicDataModel("Q")))
    rows = stored.by_name
    assert rows["symbolic"].attributes["is_symbolic"] == "true"
    assert rows["gen"].attributes["is_symbolic"] == "false"
    assert rows["gen"].attributes["module"] == "Generator"
    assert rows["lm"].attributes["module"] == "LanguageModel"
    assert rows["lm"].cost_usd == Decimal("0.0021")
    assert rows["gen"].attributes["cost_usd"] == rows["qa"].attributes["cost_usd"] == "0.0021"
    assert rows["gen"].cost_usd is None  # shown, and billed once only
    assert rows["gen"].status == "ok"
    assert rows["gen"].attributes["parent_call_id"] == rows["qa"].call_id
    assert rows["failing"].status == "error"
    assert rows["failing"].attributes["parent_call_id"] == rows["qa"].call_id
    assert rows["failing"].parent_span_id == rows["gen"].parent_span_id == rows["qa"].span_id


@pytest.mark.acceptance(54)
def test_a_streamed_call_is_a_success_without_outputs(stored: Stored) -> None:
    async def chunks() -> AsyncIterator[dict[str, str]]:
        yield {"content": "Pa"}
        yield {"content": "ris"}

    model = LanguageModel(script=[Reply(chunks=chunks)], name="lm")

    async def read() -> str:
        return "".join([chunk["content"] async for chunk in await model(QUESTION)])

    assert stored.run(read()) == ["Paris"]
    row = stored.by_name["lm"]
    assert (row.status, row.outputs, row.error_message) == ("ok", "", "")
    assert row.ttft_us is not None
    assert row.inputs != ""  # outputs are empty because there are none, not because none are kept


@pytest.mark.acceptance(55)
def test_usage_and_cost_are_on_the_record(stored: Stored) -> None:
    priced = LanguageModel("openai/gpt-4o-mini", [Reply(12, 3, cost=0.0021)], name="priced")
    silent = LanguageModel("nobody/no-such-model", [Reply(12, 3)], name="silent")
    stored.run(priced(QUESTION), silent(QUESTION))
    rows = stored.by_name
    row = rows["priced"]
    assert row.usage == {"input": 12, "output": 3}  # no cache keys at all
    assert (row.input_tokens, row.output_tokens) == (12, 3)
    assert row.attributes["total_tokens"] == "15"
    assert (row.cost_usd, row.cost_source) == (Decimal("0.0021"), "litellm")
    assert (row.provider, row.model) == ("openai", "gpt-4o-mini")
    assert rows["silent"].usage == {"input": 12, "output": 3}
    assert rows["silent"].cost_usd is None  # unknown, not 0
    assert rows["silent"].unpriced


@pytest.mark.acceptance(56)
def test_a_null_after_all_retries_is_a_failure_with_the_error_text(stored: Stored) -> None:
    script: list[Reply | Exception] = [
        ValueError("one"),
        ValueError("two"),
        ValueError("overloaded"),
    ]
    model = LanguageModel(script=script, name="lm")
    assert stored.run(model(QUESTION)) == [None]
    row = stored.by_name["lm"]
    assert (row.status, row.error_message) == ("error", "overloaded")
    assert row.error_type == "ValueError"
    assert row.usage_unknown
    assert model.attempts == 3


@pytest.mark.acceptance(57)
def test_usage_is_only_on_the_fallback_that_answered(stored: Stored) -> None:
    second = LanguageModel("openai/gpt-4o", [Reply(12, 3, cost=0.0021)], name="second")
    first = LanguageModel(script=[ValueError("down")], retry=1, fallback=second, name="first")
    (answer,) = stored.run(first(QUESTION))
    assert answer.get_json()["content"] == "Paris"
    rows = stored.by_name
    assert (rows["first"].status, rows["first"].error_message) == ("error", "down")
    assert rows["first"].attributes["fallback"] == "true"
    assert rows["first"].usage == {}
    assert rows["first"].cost_usd is None
    assert (rows["second"].status, rows["second"].cost_usd) == ("ok", Decimal("0.0021"))
    assert rows["second"].usage == {"input": 12, "output": 3}
    assert "fallback" not in rows["second"].attributes
    assert rows["second"].parent_span_id == rows["first"].span_id


@pytest.mark.acceptance(58)
def test_a_second_identical_call_is_a_cache_hit_without_usage(stored: Stored) -> None:
    model = LanguageModel(script=[Reply(12, 3, cost=0.0021)], cache=True, name="lm")
    stored.run(model(QUESTION), model(QUESTION))
    hit, miss = stored.rows  # newest first
    assert miss.usage == {"input": 12, "output": 3}
    assert "cache_hit" not in miss.attributes
    assert hit.attributes["cache_hit"] == "true"
    assert hit.usage == {}
    assert not hit.usage_unknown
    assert hit.cost_usd == Decimal(0)
    assert hit.status == "ok"


@pytest.mark.acceptance(59)
def test_trace_context_covers_every_trace_in_it_and_the_inner_one_wins(stored: Stored) -> None:
    def module(name: str) -> Awaitable[Any]:
        return Program(Module(name=f"{name}/inside"), name=name)(QUESTION)

    async def blocks() -> None:
        with synalinks.trace_context(user="ann", session="s1", tags={"team": "blue", "run": "1"}):
            await module("outer1")
            with synalinks.trace_context(user="bob", tags={"team": "red"}):
                await module("inner")
            await module("outer2")
        await module("outside")

    stored.run(blocks())
    rows = stored.by_name

    def seen(name: str) -> tuple[str, str, dict[str, str]]:
        return rows[name].user, rows[name].session, dict(rows[name].tags)

    for name in ("outer1", "outer1/inside", "outer2", "outer2/inside"):
        assert seen(name) == ("ann", "s1", {"team": "blue", "run": "1"})
    for name in ("inner", "inner/inside"):
        assert seen(name) == ("bob", "s1", {"team": "red", "run": "1"})
    assert seen("outside") == ("", "", {})


@pytest.mark.acceptance(59)
def test_concurrent_requests_never_see_each_others_context(stored: Stored) -> None:
    inside = asyncio.Barrier(20)

    async def meet(x: Any) -> Any:
        await inside.wait()
        return x

    async def request(n: int) -> None:
        with synalinks.trace_context(user=f"u{n}", session=f"s{n}", tags={"n": n}):
            await Program(meet, name=f"r{n}")(QUESTION)

    async def all_at_once() -> None:
        await asyncio.gather(*(request(n) for n in range(20)))

    stored.run(all_at_once())
    rows = stored.by_name
    assert {n: (r.user, r.session, r.tags) for n, r in rows.items()} == {
        f"r{n}": (f"u{n}", f"s{n}", {"n": str(n)}) for n in range(20)
    }


@pytest.mark.acceptance(60)
def test_the_root_names_program_and_phase_and_totals_follow_the_real_one(stored: Stored) -> None:
    program = Program(Module(name="inside"), name="qa")
    calls = synalinks.metrics.ProgramCalls()
    calls.bind_program(program)

    async def both() -> None:
        await program(QUESTION)
        with synalinks.op_scope("reward"):
            await program(QUESTION)

    stored.run(both())
    roots = [row for row in stored.rows if row.parent_span_id == ""]
    in_reward, without = roots
    assert [root.program for root in roots] == ["qa", "qa"]
    assert (without.phase, without.attributes["phase_label"]) == ("", "inference")
    assert (in_reward.phase, in_reward.attributes["phase_label"]) == ("reward", "reward")
    assert calls.result() == 0  # the label says inference, the totals do not
    assert program.reward_cumulated_invocations == 1
    assert program.cumulated_invocations == 2
    inside = [row for row in stored.rows if row.name == "inside"]
    assert all("phase_label" not in row.attributes for row in inside)


@pytest.mark.acceptance(61)
def test_the_recorder_writes_one_line_a_language_model_call(stored: Stored, tmp_path: Path) -> None:
    script: list[Reply | Exception] = [Reply(12, 3, cost=0.0021), Reply(1, 1), ValueError("down")]
    model = LanguageModel(script=script, retry=1, name="lm")
    generator = Generator(model, name="gen")
    program = Program(generator, [generator], name="qa")
    synalinks.record_traces(tmp_path)
    stored.run(program(QUESTION), program(QUESTION), program(QUESTION))
    (path,) = tmp_path.glob("qa/gen/gen_*.jsonl")
    first, second, failed = (json.loads(line) for line in path.read_text().splitlines())
    assert first["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "total_tokens": 15,
        "cached_tokens": 0,
        "cache_creation_tokens": 0,
        "reasoning_tokens": 0,
    }
    assert first["cost"] == 0.0021
    asked = [{"role": "user", "content": "Paris?"}]
    assert first["messages"] == [*asked, {"role": "assistant", "content": "Paris"}]
    plain = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    assert first["inputs_hash"] == hashlib.sha256(plain).hexdigest()
    config = json.dumps(first["config"], sort_keys=True, separators=(",", ":")).encode()
    assert first["config_hash"] == hashlib.sha256(config).hexdigest()
    assert (first["program"], first["module"]) == ("qa", "gen")
    assert second["cost"] is None
    assert second["inputs_hash"] == first["inputs_hash"]
    assert second["config_hash"] == first["config_hash"]
    assert (failed["usage"], failed["exception"]) == (None, "down")
    assert failed["messages"] == asked
    assert {row.call_id for row in stored.rows if row.name == "lm"} == {
        line["call_id"] for line in (first, second, failed)
    }


def test_a_hook_on_the_same_collector_counts_nothing_twice(
    stored: Stored, embedded: Pipeline, project: str
) -> None:
    port = embedded.url.rpartition(":")[2]
    synalinks.set_api_base(f"http://localhost:{port}")  # the same place under another name
    try:
        monitor = synalinks.enable_observability()
        own = Module(name=f"{project}-own", hooks=[synalinks.Monitor()])
        stored.run(Program(own, name=project)(QUESTION))
    finally:
        synalinks.set_api_base(None)
    assert sorted(stored.by_name) == [project, f"{project}-own"]
    assert monitor.stats().submitted == 0


def test_a_generation_around_the_model_only_wraps_it(stored: Stored) -> None:
    model = LanguageModel("openai/gpt-4o-mini", [Reply(12, 3, cost=0.0021)], name="lm")

    async def wrapped() -> None:
        with callmeter.generation("mine", model="gpt-4o-mini", provider="openai"):
            await model(QUESTION)

    stored.run(wrapped())
    rows = stored.by_name
    assert (rows["mine"].operation, rows["lm"].operation) == ("invoke_model", "chat")
    assert rows["lm"].cost_usd == Decimal("0.0021")
    assert rows["mine"].cost_usd is None
