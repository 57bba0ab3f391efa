"""The real LiteLLM, in an environment of its own, against a local stub: what is metered of it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from support.locked_environment import ROOT, locked_python

USAGE = {"input": 12, "output": 7, "cache_read": 4, "reasoning": 2}
#: What LiteLLM's own table says of that usage, in USD: 8 × 0.15, 4 × 0.075, 7 × 0.6 a million.
COST_PICO = "5700000"
#: Making the environment may have to fetch 75 MB, the first import compiles 100 MB of source.
PATIENCE_S = 240

Told = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """What the program's scenarios gave: calls that were metered, costs that LiteLLM told of."""
    out = tmp_path_factory.mktemp("litellm") / "told.json"
    python = locked_python("litellm")
    kept = ("PYTHONDONTWRITEBYTECODE", "CALLMETER_URL", "OPENAI_API_KEY")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    environment |= {
        "PYTHONPATH": f"{ROOT / 'producers'}{os.pathsep}{ROOT / 'tests'}",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its own table: a test speaks to nobody outside
    }
    program = [
        str(python),
        "-W",
        "ignore",
        str(ROOT / "tests/support/litellm_program.py"),
        str(out),
    ]
    done = subprocess.run(
        program, env=environment, cwd=out.parent, capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Told] = json.loads(out.read_text())
    return found


def only(told: Told) -> dict[str, Any]:
    (call,) = told["calls"]
    return dict(call)


def test_a_completion(told: dict[str, Told]) -> None:
    call = only(told["completion"])
    assert (call["provider"], call["model"]) == ("openai", "gpt-4o-mini")
    assert call["response_model"] == "gpt-4o-mini-2024-07-18"
    assert (call["operation"], call["status"], call["finish_reason"]) == ("chat", "ok", "stop")
    assert call["usage"] == USAGE
    assert call["user"] == "u1"
    assert call["inputs"] == [{"role": "user", "content": "What is the answer?"}]
    assert call["outputs"][0]["message"]["content"] == "The answer is 42."


def test_the_cost_is_what_litellm_reports(told: dict[str, Told]) -> None:
    for name in ("completion", "stream"):
        call = only(told[name])
        assert (call["cost_pico"], call["cost_source"]) == (COST_PICO, "litellm")
        (reported,) = told[name]["costs"]
        assert round(reported * 10**12) == int(COST_PICO)


def test_a_stream(told: dict[str, Told]) -> None:
    call = only(told["stream"])
    assert call["usage"] == USAGE
    assert call["ttft_us"] >= 0


@pytest.mark.parametrize("name", ["stream_without_usage", "reply_without_usage"])
def test_zeros_that_litellm_makes_up_are_unknown(told: dict[str, Told], name: str) -> None:
    call = only(told[name])
    assert call["status"] == "ok"
    assert "usage" not in call
    assert "cost_pico" not in call
    assert told[name]["costs"] == [0.0]


def test_embeddings(told: dict[str, Told]) -> None:
    call = only(told["embedding"])
    assert call["operation"] == "embeddings"
    assert call["usage"]["input"] == 12
    assert call["cost_pico"] == "240000"
    assert "outputs" not in call


def test_a_failure(told: dict[str, Told]) -> None:
    call = only(told["failure"])
    assert (call["status"], call["http_status"]) == ("error", 400)
    assert call["error_type"] == "litellm.exceptions.BadRequestError"
    assert "usage" not in call
    assert "cost_pico" not in call


def test_async(told: dict[str, Told]) -> None:
    calls = told["acompletion"]["calls"]
    failed, plain, streamed = sorted(calls, key=lambda call: (call["status"], "ttft_us" in call))
    assert (failed["status"], failed["http_status"]) == ("error", 400)
    for call in (plain, streamed):
        assert (call["usage"], call["cost_pico"]) == (USAGE, COST_PICO)
    assert streamed["ttft_us"] >= 0
    assert "ttft_us" not in plain


@pytest.mark.parametrize(
    "name", ["completion_over_openai", "stream_over_openai", "acompletion_over_openai"]
)
def test_over_an_instrumented_client_one_call_is_billed(told: dict[str, Told], name: str) -> None:
    calls = {call["operation"]: call for call in told[name]["calls"]}
    assert len(told[name]["calls"]) == 2
    billed, wrapper = calls["chat"], calls["invoke_model"]
    assert billed["usage"] == USAGE
    assert billed["trace_id"] == wrapper["trace_id"]
    assert billed["parent_span_id"] == wrapper["call_id"].replace("-", "")[-16:]
    assert "usage" not in wrapper
    assert "cost_pico" not in wrapper
    assert told[name]["requests"] == 1


def test_instrumented_twice_a_call_counts_once(told: dict[str, Told]) -> None:
    assert told["instrumented_twice"]["requests"] == 2
    assert len(told["instrumented_twice"]["calls"]) == 2


def test_undone_nothing_is_metered(told: dict[str, Told]) -> None:
    assert told["undone"]["requests"] == 2
    assert len(told["undone"]["calls"]) == 1
