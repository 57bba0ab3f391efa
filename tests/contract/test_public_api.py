"""What users type: names, signatures and types. A change here is a change for every user."""

import inspect
import subprocess
import sys
import typing
from decimal import Decimal

import pytest

import callmeter

SIGNATURES = {
    "generation": "(name=None, *, model, provider=None, operation='chat', inputs=None, "
    "parent=None, estimate=None, tags=None, **attributes)",
    "track": "(fn=None, *, name=None, operation='program', record_inputs=None, "
    "record_outputs=None)",
    "metric": "(name, value, *, step=None, ts=None, labels=None)",
    "annotation": "(text, *, call=None, experiment=None, metadata=None, ts=None)",
    "cost": "(usd, *, call=None, provider=None, model=None, started=None, source, note=None)",
    "experiment": "(slug, *, description=None, meta=None, resume=True)",
    "tags": "(**tags)",
    "phase": "(name)",
    "program": "(name)",
    "flush": "(timeout_s=5.0)",
    "flush_or_raise": "(timeout_s=5.0, retries=3)",
    "stats": "()",
    "close": "(timeout_s=5.0)",
    "instrument": "(*names)",
    "Call.usage": "(self, input=0, output=0, **units)",
    "Call.first_token": "(self)",
    "Call.cost": "(self, usd, source='provider')",
    "Call.set": "(self, /, **attributes)",
    "Call.error": "(self, exc)",
    "Experiment.metric": "(self, name, value, *, step=None, ts=None, labels=None)",
}
INIT = [
    "url",
    "project",
    "environment",
    "service",
    "api_key",
    "spool_dir",
    "durable",
    "max_queue_bytes",
    "drop",
    "flush_delay_s",
    "max_batch_events",
    "shutdown_timeout_s",
    "sample_rate",
    "redact_keys",
    "record_inputs",
    "record_outputs",
    "max_text_chars",
    "tags",
]
DEFAULTS = {
    "url": None,
    "durable": False,
    "max_queue_bytes": 64 * 2**20,
    "drop": "oldest",
    "flush_delay_s": 0.25,
    "max_batch_events": 500,
    "shutdown_timeout_s": 5.0,
    "sample_rate": 1.0,
    "redact_keys": (),
    "record_inputs": False,
    "record_outputs": False,
    "max_text_chars": 500,
    "tags": None,
}


def plain(signature: inspect.Signature) -> str:
    """A signature without its types."""
    empty = inspect.Signature.empty
    parameters = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=empty))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    target: object = callmeter
    for part in name.split("."):
        target = getattr(target, part)
    assert plain(inspect.signature(target)) == SIGNATURES[name]  # type: ignore[arg-type]


def test_init_takes_every_documented_setting_and_knows_its_default() -> None:
    parameters = list(inspect.signature(callmeter.init).parameters)
    assert parameters[: len(INIT)] == INIT
    settings = callmeter.Settings()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def test_every_public_name_is_there_documented_and_sorted() -> None:
    assert sorted(callmeter.__all__) == callmeter.__all__
    assert set(dir(callmeter)) >= set(callmeter.__all__)
    for name in callmeter.__all__:
        value = getattr(callmeter, name)
        # The error tree is drawn in one docstring, that of callmeter.errors.
        if callable(value) and not (isinstance(value, type) and issubclass(value, Exception)):
            assert value.__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = callmeter.nonsense  # type: ignore[attr-defined]


def test_result_fields_are_those_documented() -> None:
    assert list(callmeter.FlushResult.__dataclass_fields__) == [
        "ok",
        "accepted",
        "delivered",
        "pending",
        "spooled",
        "dropped",
        "error",
    ]


def test_money_is_typed_without_floats() -> None:
    hints = typing.get_type_hints(callmeter.cost)
    assert hints["usd"] == Decimal | str | int


def test_importing_and_even_metering_loads_no_client_library() -> None:
    program = """
import sys
import callmeter
bare = {m.partition(".")[0] for m in sys.modules}
callmeter.init("noop:")
with callmeter.generation(model="m") as call:
    call.usage(1, 2)
callmeter.metric("m", 1.0)
assert callmeter.flush().ok
callmeter.close()
used = {m.partition(".")[0] for m in sys.modules}
heavy = {"aiokafka", "aiohttp", "faust", "clickhouse_connect", "chdb", "httpx", "openai"}
assert not heavy & used, heavy & used
assert "orjson" not in bare, "importing the package alone loads nothing"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
