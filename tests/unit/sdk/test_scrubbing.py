"""Recorded text is opt-in, cut and redacted; the limits of an envelope are kept."""

import pytest

import callmeter
from callmeter.schema.envelope import MAX_BYTES
from callmeter.sdk.scrub import cut_text
from callmeter.testing import Capture, capture


def test_inputs_and_outputs_are_not_recorded_by_default(captured: Capture) -> None:
    with callmeter.generation(model="m", inputs="my secret prompt") as call:
        call.record({"choices": [{"message": {"content": "my secret answer"}}]})
    (event,) = captured.events
    assert "secret" not in str(event)


def test_recorded_text_is_cut_and_marked() -> None:
    with capture(record_inputs=True, record_outputs=True, max_text_chars=5) as captured:
        with callmeter.generation(model="m", inputs=[{"content": "0123456789"}]) as call:
            call.output("short")
        (event,) = captured.events
    assert event["inputs"] == [{"content": "01234"}]
    assert event["outputs"] == "short"
    assert event["cut"] == ["inputs"]


def test_inputs_are_frozen_when_they_are_given() -> None:
    with capture(record_inputs=True) as captured:
        messages = [{"role": "user", "content": "hi"}]
        with callmeter.generation(model="m", inputs=messages):
            messages[0]["content"] = "changed"
            messages.append({})
        (event,) = captured.events
    assert event["inputs"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc"),
        ("日本語テキスト", 3, "日本語"),
        ("cafe\u0301!", 4, "caf"),  # é made of two: both or none
        ("a👩\u200d💻b", 3, "a"),
        ("👍\U0001f3fd", 1, ""),
        ("", 0, ""),
    ],
)
def test_cutting_never_breaks_a_character(text: str, limit: int, cut: str) -> None:
    assert cut_text(text, limit) == cut


@pytest.mark.acceptance(227)
def test_redaction_at_any_depth_and_in_any_case() -> None:
    keys = ["api_key", "Authorization"]
    with capture(redact_keys=keys, record_inputs=True, record_outputs=True) as captured:
        with callmeter.generation(
            model="m",
            inputs={"headers": [{"AUTHORIZATION": "s3cret"}], "ok": 1},
            API_KEY="s3cret",
            options={"deep": {"Api_Key": "s3cret"}},
            tags={"api_key": "s3cret"},
        ) as call:
            call.output([{"api_key": ["s3cret"]}])
        callmeter.metric("x", 1.0, labels={"api_key": "s3cret"})
        callmeter.annotation("note", metadata={"a": {"api_KEY": "s3cret"}})
        callmeter.experiment("e", meta={"authorization": "s3cret"})
        events = captured.events
    assert "s3cret" not in str(events)
    assert events[0]["attributes"]["API_KEY"] == "[REDACTED]"
    assert events[0]["inputs"] == {"headers": [{"AUTHORIZATION": "[REDACTED]"}], "ok": 1}
    assert events[0]["attributes"]["options"] == '{"deep":{"Api_Key":"[REDACTED]"}}'
    assert events[1]["labels"] == {"api_key": "[REDACTED]"}
    assert events[2]["metadata"] == {"a": {"api_KEY": "[REDACTED]"}}


def test_an_event_too_large_loses_its_outputs_then_its_inputs() -> None:
    big = ["x" * 400] * 900
    with capture(record_inputs=True, record_outputs=True) as captured:
        with callmeter.generation(model="m", inputs=["small"]) as call:
            call.output(big)
        with callmeter.generation(model="m", inputs=big) as call:
            call.output(big)
        first, second = captured.calls
    assert first["inputs"] == ["small"]
    assert first["cut"] == ["outputs"]
    assert "outputs" not in first
    assert second["cut"] == ["outputs", "inputs"]


def test_an_event_too_large_has_its_long_attributes_cut(captured: Capture) -> None:
    with callmeter.generation(model="m", blob="x" * (MAX_BYTES + 1), short="y"):
        pass
    (event,) = captured.calls
    assert event["attributes"] == {"blob": "x" * 256, "short": "y"}
    assert event["cut"] == ["attributes"]


def test_an_event_that_no_cutting_makes_small_is_dropped_and_counted(captured: Capture) -> None:
    with callmeter.generation(model="m", **{f"k{i}": "x" * 300 for i in range(2000)}):
        pass
    callmeter.annotation("a" * (MAX_BYTES + 1))
    callmeter.metric("kept", 1.0)
    assert [event["kind"] for event in captured.events] == ["metric"]
    stats = captured.client.stats()
    assert stats.dropped == {"too_large": 2}
    assert stats.accepted == 3


def test_objects_of_any_kind_can_be_recorded() -> None:
    class Model:
        def model_dump(self) -> dict[str, object]:
            return {"text": "hello"}

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[object] = []
    loop.append(loop)
    with capture(record_inputs=True) as captured:
        with callmeter.generation(
            model="m", inputs=[Model(), Broken(), b"12", {1: (2, 3)}, "\ud800", 2**80]
        ):
            pass
        with callmeter.generation(model="m", inputs=loop):
            pass
        first, second = captured.calls
    assert first["inputs"] == [
        {"text": "hello"},
        "<Broken: RuntimeError>",
        "<2 bytes>",
        {"1": [2, 3]},
        "?",
        str(2**80),
    ]
    assert "…" in str(second["inputs"])
