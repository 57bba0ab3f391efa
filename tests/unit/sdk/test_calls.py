"""What a traced call says about itself."""

import uuid

import pytest

import callmeter
from callmeter import ids
from callmeter.schema.events import MODEL_OPERATIONS as SCHEMA_OPERATIONS
from callmeter.sdk.encode import MODEL_OPERATIONS
from callmeter.testing import Capture, capture, raising


def test_a_call_is_one_event_with_everything_it_was_told(captured: Capture) -> None:
    with callmeter.generation(
        "answer", model="gpt-4o-mini", provider="openai", temperature=0.7, stream=False, user="u1"
    ) as call:
        captured.clock.advance(0.25)
        call.first_token()
        captured.clock.advance(0.75)
        call.usage(input=12, output=7, cache_read=4)
        call.set(finish_reason="stop", response_model="gpt-4o-mini-2024", http_status=200)
    (event,) = captured.events
    assert event == {
        "kind": "call_end",
        "ts_us": 1_700_000_001_000_000,
        "call_id": call.id,
        "trace_id": call.trace_id,
        "started_us": 1_700_000_000_000_000,
        "operation": "chat",
        "name": "answer",
        "latency_us": 1_000_000,
        "ttft_us": 250_000,
        "status": "ok",
        "model": "gpt-4o-mini",
        "provider": "openai",
        "user": "u1",
        "finish_reason": "stop",
        "response_model": "gpt-4o-mini-2024",
        "http_status": 200,
        "attributes": {"temperature": "0.7", "stream": "false"},
        "usage": {"input": 12, "output": 7, "cache_read": 4},
    }


def test_the_fast_way_and_the_long_way_say_the_same(captured: Capture) -> None:
    told = {"model": "m", "provider": "p", "user": "u", "temperature": 0.5}
    with callmeter.generation("a", **told):
        pass
    with callmeter.generation("a", **told, tags={"x": 1}):  # a map is no plain value: the long way
        pass
    with captured.client.generation("a", **told):
        pass
    fast, long, method = captured.calls
    assert long.pop("tags") == {"x": "1"}
    for event in (fast, long, method):
        for own in ("call_id", "trace_id"):
            event.pop(own)
    assert fast == long == method


def test_ids_are_those_of_opentelemetry(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        pass
    assert uuid.UUID(call.id).version == 7
    assert uuid.UUID(call.id).int >> 80 == 1_700_000_000_000
    assert call.span_id == ids.span_id(call.id)
    assert call.trace_id == call.id.replace("-", "")


def test_a_million_ids_a_second_are_distinct(captured: Capture) -> None:
    seen = set()
    for _ in range(20_000):
        with callmeter.generation(model="m") as call:
            seen.add(call.id)
    assert len(seen) == 20_000  # the clock stood still: all of them within one millisecond


def test_usage_not_told_is_unknown_and_usage_of_none_is_known(captured: Capture) -> None:
    with callmeter.generation(model="m"):
        pass
    with callmeter.generation(model="m") as call:
        call.usage()
    unknown, none = captured.calls
    assert "usage" not in unknown
    assert none["usage"] == {"input": 0, "output": 0}


def test_nonsense_counts_are_left_out_of_the_usage(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        call.usage(input=-1, output=5, image="many", search=2.0, audio=float("nan"))  # type: ignore[arg-type]
    (event,) = captured.calls
    assert event["usage"] == {"output": 5, "search": 2}


def test_an_exception_reaches_the_caller_and_is_told(captured: Capture) -> None:
    class TeapotError(Exception):
        status_code = 418

    with pytest.raises(TeapotError, match="short and stout"), callmeter.generation(model="m"):
        raise TeapotError("short and stout")
    (event,) = captured.calls
    assert event["status"] == "error"
    assert event["error_type"].endswith("TeapotError")
    assert event["error_message"] == "short and stout"
    assert event["http_status"] == 418


def test_a_failure_without_an_exception(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        call.error(ValueError("swallowed"))
    with callmeter.generation(model="m") as call:
        call.failed("content_filter", "refused")
    swallowed, refused = captured.calls
    assert (swallowed["status"], swallowed["error_type"]) == ("error", "ValueError")
    assert (refused["error_type"], refused["error_message"]) == ("content_filter", "refused")


async def test_async_calls_are_calls(captured: Capture) -> None:
    async with callmeter.generation("answer", model="m") as call:
        call.usage(input=1, output=2)
    (event,) = captured.calls
    assert event["usage"] == {"input": 1, "output": 2}


def test_changing_what_was_given_changes_nothing_stored(captured: Capture) -> None:
    names, labels, tags = ["a"], {"split": "train"}, {"team": "x"}
    meta = {"deep": [1]}
    with callmeter.generation(model="m", names=names, tags=tags) as call:
        call.set(more=names)
        names.append("b")
        tags["team"] = "y"
    callmeter.metric("loss", 1.0, labels=labels)
    labels["split"] = "test"
    callmeter.annotation("note", metadata=meta)
    meta["deep"].append(2)
    call_end, metric, annotation = captured.events
    assert call_end["attributes"] == {"names": '["a"]', "more": '["a"]'}
    assert call_end["tags"] == {"team": "x"}
    assert metric["labels"] == {"split": "train"}
    assert annotation["metadata"] == {"deep": [1]}


def test_an_explicit_cost_is_kept_as_reported(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        call.cost("0.000123", source="provider")
    (event,) = captured.calls
    assert (event["cost_pico"], event["cost_source"]) == ("123000000", "provider")


def test_a_float_is_no_money(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        with pytest.raises(TypeError, match="not float"):
            call.cost(0.1)  # type: ignore[arg-type]
        with raising(False):
            call.cost(0.1)  # type: ignore[arg-type]
    (event,) = captured.calls
    assert "cost_pico" not in event


def test_a_model_is_required() -> None:
    with capture(), pytest.raises(TypeError, match="model"):
        callmeter.generation("answer")  # type: ignore[call-arg]


def test_values_that_are_too_long_for_a_field_are_cut_and_marked(captured: Capture) -> None:
    with callmeter.generation("n" * 300, model="m" * 300):
        pass
    (event,) = captured.calls
    assert (len(event["name"]), len(event["model"])) == (256, 256)
    assert event["cut"] == ["name", "model"]


def test_attributes_of_any_type_become_text(captured: Capture) -> None:
    with callmeter.generation(
        model="m", i=1, f=0.1, t=True, n=None, big=2**70, d={"a": [1, "x"]}, s="\ud800!", o=object
    ):
        pass
    (event,) = captured.calls
    assert event["attributes"] == {
        "i": "1",
        "f": "0.1",
        "t": "true",
        "big": str(2**70),
        "d": '{"a":[1,"x"]}',
        "s": "?!",
        "o": "<class 'object'>",
    }


def test_the_model_operations_are_those_of_the_schema() -> None:
    assert MODEL_OPERATIONS == SCHEMA_OPERATIONS


def test_ending_a_call_twice_counts_it_once(captured: Capture) -> None:
    call = callmeter.generation(model="m").start()
    call.finish()
    call.finish()
    assert len(captured.calls) == 1
