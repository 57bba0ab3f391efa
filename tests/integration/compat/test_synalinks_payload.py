"""What the Monitor hook posts, over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from support.monitored import base, echo, own_endpoint, watched
from support.synalinks_standins import DataModel, SymbolicDataModel, synalinks_engine
from support.trace_endpoint import TraceEndpoint, endpoint

__all__ = ["base", "endpoint", "own_endpoint", "synalinks_engine"]  # fixtures

BEGIN = {"event", "call_id", "module_name", "module_description", "timestamp", "inputs"}
END = {
    "event", "call_id", "module_name", "module_description", "timestamp", "duration", "outputs",
    "exception", "success",
}  # fmt: skip


@pytest.mark.acceptance(32)
def test_call_begin_has_exactly_its_six_keys(base: TraceEndpoint) -> None:
    asyncio.run(watched(echo)(DataModel(q="Paris?")))
    base.wait_for(2)
    (begin,) = base.of("call_begin")
    assert set(begin) == BEGIN
    assert begin["module_name"] == "answer"
    assert begin["module_description"] == "Answers."
    assert begin["inputs"] == {"type": "data", "data": [{"q": "Paris?"}]}


@pytest.mark.acceptance(33)
def test_call_end_has_exactly_its_nine_keys(base: TraceEndpoint) -> None:
    asyncio.run(watched(echo)(DataModel(q="Paris?")))
    base.wait_for(2)
    (end,) = base.of("call_end")
    assert set(end) == END
    assert end["module_name"] == "answer"
    assert end["module_description"] == "Answers."
    assert end["outputs"] == {"type": "data", "data": [{"q": "Paris?"}]}


@pytest.mark.acceptance(34)
def test_1000_concurrent_calls_have_1000_ids_each_with_one_begin_and_one_end(
    base: TraceEndpoint,
) -> None:
    async def pause(*args: Any) -> Any:
        await asyncio.sleep(0)
        return args[0]

    async def run() -> None:
        program = watched(pause)
        await asyncio.gather(*(program(DataModel(n=n)) for n in range(1000)))

    asyncio.run(run())
    traces = base.wait_for(2000)
    seen = Counter((trace["call_id"], trace["event"]) for trace in traces)
    assert len(traces) == 2000
    assert len({call_id for call_id, _ in seen}) == 1000
    assert set(seen.values()) == {1}
    by_id = {trace["call_id"]: trace["inputs"] for trace in base.of("call_begin")}
    assert {end["call_id"]: end["outputs"] for end in base.of("call_end")} == by_id


@pytest.mark.acceptance(35)
def test_timestamps_are_epoch_seconds_and_agree_with_the_duration(base: TraceEndpoint) -> None:
    before = time.time()
    asyncio.run(watched(lambda *_: asyncio.sleep(0.05))(DataModel(q=1)))
    base.wait_for(2)
    (begin,), (end,) = base.of("call_begin"), base.of("call_end")
    assert isinstance(begin["timestamp"], float)
    assert before <= begin["timestamp"] <= time.time()
    assert end["duration"] > 0
    assert abs(end["timestamp"] - begin["timestamp"] - end["duration"]) < 0.001


@pytest.mark.acceptance(36)
def test_a_call_that_returns_is_a_success(base: TraceEndpoint) -> None:
    asyncio.run(watched(echo)(DataModel(q=1)))
    base.wait_for(2)
    (end,) = base.of("call_end")
    assert end["exception"] is None
    assert end["success"] is True


@pytest.mark.acceptance(37)
def test_a_call_that_raises_is_told_and_raised(base: TraceEndpoint) -> None:
    async def fail(*args: Any) -> Any:
        raise ValueError("x")

    with pytest.raises(ValueError, match=r"^x$"):
        asyncio.run(watched(fail)(DataModel(q=1)))
    base.wait_for(2)
    (end,) = base.of("call_end")
    assert (end["exception"], end["success"], end["outputs"]) == ("x", False, None)


@pytest.mark.acceptance(38)
def test_data_is_one_json_a_leaf_in_argument_order_without_nulls(base: TraceEndpoint) -> None:
    asyncio.run(watched(echo)(DataModel(q="a"), None, DataModel(q="b")))
    base.wait_for(2)
    assert base.of("call_begin")[0]["inputs"] == {
        "type": "data",
        "data": [{"q": "a"}, {"q": "b"}],
    }


@pytest.mark.acceptance(39)
def test_symbolic_inputs_give_schemas_and_no_data(base: TraceEndpoint) -> None:
    asyncio.run(watched(echo)(SymbolicDataModel("Query"), SymbolicDataModel("Context")))
    base.wait_for(2)
    assert base.of("call_begin")[0]["inputs"] == {
        "type": "symbolic",
        "schemas": [{"title": "Query"}, {"title": "Context"}],
    }


@pytest.mark.acceptance(40)
def test_no_inputs_and_no_outputs_are_null(base: TraceEndpoint) -> None:
    asyncio.run(watched(echo)())
    base.wait_for(2)
    assert base.of("call_begin")[0]["inputs"] is None
    assert base.of("call_end")[0]["outputs"] is None
    assert set(base.of("call_begin")[0]) == BEGIN


@pytest.mark.acceptance(41)
def test_nested_models_are_one_ordered_list(base: TraceEndpoint) -> None:
    one, two, three, four = (DataModel(n=n) for n in (1, 2, 3, 4))
    asyncio.run(watched(echo)({"z": [one, (two,)], "a": {"b": three}}, four))
    base.wait_for(2)
    data = base.of("call_begin")[0]["inputs"]["data"]
    assert data == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
