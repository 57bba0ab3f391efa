"""Lines joined from pieces: byte for byte what the encoder makes of the same calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import callmeter
from callmeter.sdk import call_line
from callmeter.sdk.call import Call
from callmeter.sdk.encode import Encoder

TEXTS = st.one_of(
    st.sampled_from(["gpt-4o", "acme", "é", 'say "no"', "a\\b", "tab\there", "", "x" * 257]),
    st.text(max_size=80),
)
VALUES = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(-5, 2_000_000),
    st.sampled_from([0.0, -0.0, 0.7, 1e300, float("inf"), 2**70, ["a", 1], {"k": None}]),
    st.floats(),
)
NAMES = st.sampled_from(
    ["user", "session", "node", "phase", "name", "status", "operation", "finish_reason",
     "response_model", "service_tier", "http_status", "attempts", "error_type", "secret", "Token",
     "temperature", "route", "weiß", 'q"', "ts_us", "kind"]
)  # fmt: skip
UNITS = st.one_of(
    st.none(),
    st.fixed_dictionaries({}, optional={"input": VALUES, "output": VALUES, "cache_read": VALUES}),
)


def lines(encoder: Encoder, call: Call) -> tuple[bytes | None, bytes]:
    return encoder._call_lines.line(call), encoder._dumps(encoder.call_end(call))


def ended(client: callmeter.Client, **more: Any) -> Call:
    with client.generation("answer", model="gpt-4o", provider="acme", **more) as call:
        call.usage(input=3, output=4)
    return call


@pytest.fixture(scope="module")
def client():
    settings = callmeter.Settings(url="noop:", tags={"team": "blue"})
    made = callmeter.Client(settings, threaded=False)
    yield made
    made.close()


ENCODERS = {
    "plain": Encoder(callmeter.Settings(url="noop:")),
    "tags": Encoder(callmeter.Settings(url="noop:", tags={"team": "blue", "secret": "x"})),
    "redacting": Encoder(
        callmeter.Settings(url="noop:", redact_keys=["secret", "token"], tags={"token": "x"})
    ),
}


@given(
    st.sampled_from(sorted(ENCODERS)),
    TEXTS,
    st.dictionaries(NAMES, VALUES, max_size=8),
    st.dictionaries(NAMES, VALUES, max_size=4),
    UNITS,
    st.booleans(),
    st.integers(1, 3),
)
@example("plain", "answer", {"user": "u" * 257}, {}, None, False, 1)
@example("redacting", "", {}, {}, None, False, 1)
@example("plain", "200", {"http_status": "200"}, {"user": "200"}, None, False, 3)
@example("plain", "answer", {"operation": ""}, {"operation": None}, None, False, 1)
@example("plain", "answer", {"flag": True, "one": 1}, {"one": 1.0}, None, True, 2)
@example("redacting", "answer", {"user": "u", "Token": "t"}, {"secret": "s"}, {}, True, 1)
def test_what_is_joined_is_what_would_have_been_encoded(  # noqa: PLR0917
    client, encoder, name, fields, later, units, nested, times
):
    for _ in range(times):  # what was remembered the first time is looked up the next
        with client.generation("around", model="m") as outer:
            call = client.generation(name, model="gpt-4o", parent=None if nested else outer)
            call.fields = {**call.fields, **fields}
            with call:
                call.later = dict(later) or None
                call.units = units
        fast, slow = _both(ENCODERS[encoder], call)
        assert fast in (None, slow)


def _both(encoder: Encoder, call: Call) -> tuple[bytes | None, bytes | None]:
    fast = encoder._call_lines.line(call)
    try:
        return fast, encoder._dumps(encoder.call_end(call))
    except TypeError:
        return fast, None  # nothing can say it: then the pieces must not either


def test_an_ordinary_call_is_joined(client):
    encoder = ENCODERS["plain"]
    call = ended(client, user="u-1", temperature=0.7, max_tokens=512, stream=True)
    fast, slow = lines(encoder, call)
    assert fast is not None
    assert fast == slow


@pytest.mark.parametrize("units", [None, (5, 7, {}), (5, 7, {"cache_read": 2}), {"image": 1}])
def test_so_is_one_with_any_usage(client, units):
    call = ended(client)
    call.units = units
    fast, slow = lines(ENCODERS["plain"], call)
    assert fast == slow


def test_a_failed_call_and_recorded_text_are_left_to_the_encoder(client):
    failed = ended(client)
    failed.failed("Timeout")
    assert ENCODERS["plain"]._call_lines.line(failed) is None


def test_what_varies_is_no_longer_remembered(client):
    encoder = Encoder(callmeter.Settings(url="noop:"))
    known = encoder._call_lines._texts
    for number in range(call_line.MAX_SHAPES + 50):
        fast, slow = lines(encoder, ended(client, request=f"request-{number}"))
        assert fast == slow
    kept = len(known)
    for number in range(1_000, 1_050):
        fast, slow = lines(encoder, ended(client, request=f"request-{number}"))
        assert fast == slow
    assert len(known) == kept


def test_only_the_text_that_varies_most_leaves_the_shapes(client):
    encoder = Encoder(callmeter.Settings(url="noop:"))
    for number in range(call_line.MAX_SHAPES + 50):
        call = ended(client, request=f"request-{number}", tenant=f"tenant-{number % 3}")
        fast, slow = lines(encoder, call)
        assert fast == slow
    (plan,) = encoder._call_lines._plans.values()
    assert plan is not None
    assert [list(call.fields)[place] for _, place, _ in plan.varied] == ["request"]
    assert len(plan.shapes) == 3


@pytest.mark.parametrize("started_ns", [0, 1_700_000_000_000_000_000, 2**60, 2**63])
def test_each_nanosecond_has_its_own_digits(client, started_ns):
    encoder = Encoder(callmeter.Settings(url="noop:"))
    call = ended(client)
    for after_ns in (0, 1, 999, 1_000, 499_999, 999_999, 1_000_000, 1_000_001, 999_999, -1, 10**12):
        call.anchor, call.start_ns, call.end_ns = (started_ns, 5), 5 + after_ns, 17 + after_ns
        try:
            slow = encoder._dumps(encoder.call_end(call))
        except OverflowError:  # before 1970: nothing has digits for that
            with pytest.raises(OverflowError):
                encoder.line(call)
        else:
            assert encoder.line(call) == slow


def test_memory_is_bounded_whatever_names_and_texts_come(client, monkeypatch):
    monkeypatch.setattr(call_line, "MAX_ALL_SHAPES", 20)
    monkeypatch.setattr(call_line, "MAX_PLANS", 8)
    monkeypatch.setattr(call_line, "MAX_TEXTS", 16)
    encoder = Encoder(callmeter.Settings(url="noop:"))
    made = encoder._call_lines
    for number in range(100):
        with callmeter.tags(run=str(number)):
            call = ended(client, **{f"name-{number}": f"value-{number}"})
        fast, slow = lines(encoder, call)
        assert fast in (None, slow)
        assert max(len(made._plans), len(made._labels)) <= 8
        assert max(len(made._texts), len(made._names)) <= 16
        assert sum(len(plan.shapes) for plan in made._plans.values() if plan) <= 20
