"""Totals, rates, averages, percentiles, costs (rows 70, 79 to 96, 98, 112)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from callmeter.compat.sygra import latency_statistics, track_model_request
from callmeter.sdk import api


def model_block(collector, name="gpt-4o-mini"):
    return collector.get_metadata_summary()["models"][name]


def aggregate(collector):
    return collector.get_metadata_summary()["aggregate_statistics"]


@pytest.mark.acceptance(70)
def test_ten_threads(collector):
    def hundred():
        for _ in range(100):
            collector.record_model_request("gpt-4o-mini", prompt_tokens=1)

    with ThreadPoolExecutor(10) as pool:
        for done in [pool.submit(hundred) for _ in range(10)]:
            done.result()
    found = collector.get_metadata_summary()
    assert found["aggregate_statistics"]["requests"]["total_requests"] == 1000
    assert found["aggregate_statistics"]["tokens"] == {
        "total_prompt_tokens": 1000,
        "total_completion_tokens": 0,
        "total_tokens": 1000,
    }
    assert found["models"]["gpt-4o-mini"]["performance"]["total_requests"] == 1000


@pytest.mark.acceptance(79)
def test_record_counts(collector):
    assert aggregate(collector)["records"] == {
        "total_processed": 0,
        "total_failed": 0,
        "success_rate": 0.0,
    }
    collector.record_processed_record()
    collector.record_processed_record(success=False)
    collector.record_processed_record(True)
    assert aggregate(collector)["records"] == {
        "total_processed": 3,
        "total_failed": 1,
        "success_rate": 0.6667,
    }


@pytest.mark.acceptance(80)
def test_aggregate_tokens_are_the_models_together(collector):
    collector.record_model_request("a", prompt_tokens=3, completion_tokens=4)
    collector.record_model_request("a", prompt_tokens=5, completion_tokens=6)
    collector.record_model_request("b", prompt_tokens=7, completion_tokens=8, total_tokens=20)
    found = collector.get_metadata_summary()
    for key, total in (
        ("total_prompt_tokens", 15),
        ("total_completion_tokens", 18),
        ("total_tokens", 38),
    ):
        assert found["aggregate_statistics"]["tokens"][key] == total
        assert sum(m["token_statistics"][key] for m in found["models"].values()) == total


def four_requests(collector):
    """200, 429, and both again as retries."""
    for code, retry in ((200, False), (429, False), (429, True), (200, True)):
        collector.record_model_request("gpt-4o-mini", response_code=code, is_retry=retry)


@pytest.mark.acceptance(81)
def test_aggregate_requests(collector):
    four_requests(collector)
    assert aggregate(collector)["requests"] == {
        "total_requests": 4,
        "total_retries": 2,
        "total_failures": 2,
        "retry_rate": 0.5,
        "failure_rate": 0.5,
    }


@pytest.mark.acceptance(82)
def test_aggregate_cost(collector):
    collector.record_model_request("a", cost_usd=0.001)
    collector.record_model_request("b", cost_usd=0.0012)
    for _ in range(3):
        collector.record_processed_record()
    assert aggregate(collector)["cost"] == {
        "total_cost_usd": 0.0022,
        "average_cost_per_record": 0.000733,
    }


@pytest.mark.acceptance(83)
def test_model_identity(collector):
    config = {
        "type": "OpenAI",
        "url": "https://api.openai.com/v1",
        "parameters": {"max_tokens": 500, "temperature": 0.7},
    }
    collector.record_model_request("gpt-4o-mini", model_config=config)
    collector.record_model_request("bare")
    block = model_block(collector)
    assert block["model_name"] == "gpt-4o-mini"
    assert block["model_type"] == "OpenAI"
    assert block["model_url"] == "https://api.openai.com/v1"
    assert block["parameters"] == {"max_tokens": 500, "temperature": 0.7}
    bare = model_block(collector, "bare")
    assert (bare["model_type"], bare["model_url"], bare["parameters"]) == ("unknown", None, {})


def test_secrets_of_a_configuration_are_not_kept(collector, captured):
    config = {
        "url": "https://user:hush@host/v1?key=hush",
        "parameters": {"api_key": "hush", "temperature": 0.7},
    }
    collector.record_model_request("m", model_config=config)
    assert "hush" not in str(collector.get_metadata_summary())
    assert "hush" not in str(captured.events)
    assert model_block(collector, "m")["model_url"] == "https://host/v1"


@pytest.mark.acceptance(84)
def test_parameters_are_those_of_the_first_request(collector):
    parameters = {"temperature": 0.7, "stop": ["a"]}
    collector.record_model_request("m", model_config={"parameters": parameters})
    parameters["stop"].append("b")
    collector.record_model_request("m", model_config={"parameters": {"temperature": 1.0}})
    assert model_block(collector, "m")["parameters"] == {"temperature": 0.7, "stop": ["a"]}


@pytest.mark.acceptance(85)
def test_averages_are_over_requests_with_tokens(collector):
    for tokens in ((100, 50, 150), (0, 0, 0), (100, 50, 150)):
        collector.record_model_request(
            "m", prompt_tokens=tokens[0], completion_tokens=tokens[1], total_tokens=tokens[2]
        )
    block = model_block(collector, "m")
    assert block["token_statistics"]["avg_total_tokens"] == 150.0
    assert block["token_statistics"]["total_tokens"] == 300
    assert block["performance"]["total_requests"] == 3


@pytest.mark.acceptance(86)
def test_null_tokens(collector, captured):
    collector.record_model_request(
        "m", prompt_tokens=None, completion_tokens=None, total_tokens=None
    )
    collector.record_model_request("m", prompt_tokens=10, completion_tokens=None)
    block = model_block(collector, "m")
    assert block["performance"]["total_requests"] == 2
    assert block["token_statistics"]["total_tokens"] == 10
    assert block["token_statistics"]["avg_total_tokens"] == 10.0
    assert "usage" not in captured.calls[0]  # unknown, where it is stored
    assert captured.calls[1]["usage"] == {"input": 10, "output": 0}


@pytest.mark.acceptance(87)
def test_latency_totals(collector):
    for latency, code in ((1.0, 200), (0.5, 429), (0.5, 200), (1.0, 500)):
        collector.record_model_request("m", latency=latency, response_code=code)
    performance = model_block(collector, "m")["performance"]
    assert performance["total_latency_seconds"] == 3.0
    assert performance["average_latency_seconds"] == 0.75


@pytest.mark.acceptance(88)
def test_tokens_per_second(collector):
    collector.record_model_request(
        "m", latency=2.0, response_code=200, prompt_tokens=10, completion_tokens=100
    )
    collector.record_model_request("m", latency=1.0, response_code=500)
    collector.record_model_request("failing", latency=1.0, response_code=500)
    assert model_block(collector, "m")["performance"]["tokens_per_second"] == 50.0
    assert model_block(collector, "failing")["performance"]["tokens_per_second"] == 0.0


@pytest.mark.acceptance(89)
def test_percentiles_of_a_hundred(collector):
    for n in range(100, 0, -1):
        collector.record_model_request("m", latency=n / 10)
    assert model_block(collector, "m")["performance"]["latency_statistics"] == {
        "min": 0.1,
        "max": 10.0,
        "mean": 5.05,
        "median": 5.05,
        "std_dev": 2.901,
        "p50": 5.05,
        "p95": 9.595,
        "p99": 9.999,
    }


@pytest.mark.acceptance(90)
def test_percentiles_of_few(collector):
    assert set(latency_statistics([]).values()) == {0.0}
    assert len(latency_statistics([])) == 8
    collector.record_model_request("one", latency=1.5)
    one = model_block(collector, "one")["performance"]["latency_statistics"]
    assert one.pop("std_dev") == 0.0
    assert one == dict.fromkeys(("min", "max", "mean", "median", "p50", "p95", "p99"), 1.5)
    collector.record_model_request("two", latency=1.0)
    collector.record_model_request("two", latency=2.0)
    two = model_block(collector, "two")["performance"]["latency_statistics"]
    assert two["p50"] == 1.5
    assert (two["p95"], two["p99"]) == (2.0, 2.0)  # never above what was measured


@pytest.mark.acceptance(91)
def test_model_cost(collector):
    for _ in range(20):
        collector.record_model_request("m", cost_usd=0.000031)
    assert model_block(collector, "m")["cost"] == {
        "total_cost_usd": 0.00062,
        "average_cost_per_request": 0.000031,
    }


@pytest.mark.acceptance(92)
def test_response_codes(collector):
    four_requests(collector)
    block = model_block(collector)
    assert block["response_code_distribution"] == {"200": 2, "429": 2}
    assert sum(block["response_code_distribution"].values()) == 4
    assert block["performance"]["total_requests"] == 4


@pytest.mark.acceptance(93)
def test_any_code_but_200_is_a_failure(collector, captured):
    for code in (200, 201, 302, 404, 429, 500, 999, 0):
        collector.record_model_request("m", response_code=code)
    performance = model_block(collector, "m")["performance"]
    assert (performance["total_requests"], performance["total_failures"]) == (8, 7)
    assert [call["status"] for call in captured.calls] == ["ok"] + ["error"] * 7


@pytest.mark.acceptance(94)
def test_a_request_that_raises(collector, captured, model):
    model.answers = [ValueError("no")]
    with pytest.raises(ValueError, match="no"):
        model.ask("question")
    block = model_block(collector)
    assert block["response_code_distribution"] == {"999": 1}
    assert block["token_statistics"]["total_tokens"] == 0
    (call,) = captured.calls
    assert (call["status"], call["error_type"], call["http_status"]) == ("error", "ValueError", 999)
    assert "usage" not in call


@pytest.mark.acceptance(95)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_retries_are_requests(collector, model, asynchronous):
    ask = model.ask_async if asynchronous else model.ask
    good = SimpleNamespace(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
    model.answers = [(good, 200), ("slow down", 429), ("slow down", 429), (good, 200)]
    prompt = "the same"
    before = ask("another")
    if asynchronous:
        await before
    collector.reset()
    for _ in range(3):
        answer = ask(prompt)
        if asynchronous:
            await answer
    block = model_block(collector)
    assert block["performance"]["total_requests"] == 3
    assert block["performance"]["total_retries"] == 2
    assert block["performance"]["total_failures"] == 2
    assert block["token_statistics"]["total_tokens"] == 15  # once: what was left of before is not


def test_another_question_after_a_failure_is_no_retry(collector, model):
    model.answers = [("slow down", 429), ("fine", 200)]
    model.ask("one")
    model.ask("two")
    assert aggregate(collector)["requests"]["total_retries"] == 0


def test_nothing_stale_of_a_class_with_slots(collector):
    class Slotted:
        __slots__ = ("_last_request_usage", "answers")
        name = "gpt-4o-mini"
        said = {"prompt_tokens": 10, "completion_tokens": 5}  # noqa: RUF012  # the same each time

        @track_model_request
        def ask(self):
            code = self.answers.pop(0)
            if code == 200:
                self._last_request_usage = self.said
            return "answer", code

    slotted = Slotted()
    slotted.answers = [200, 429, 429, 200]
    for _ in range(4):
        slotted.ask()
    block = model_block(collector)
    assert block["token_statistics"]["total_tokens"] == 30
    assert block["performance"]["total_retries"] == 2


@pytest.mark.acceptance(96)
async def test_fifty_at_once_on_one_model(collector):
    class Shared:
        name = "gpt-4o-mini"
        _last_request_usage = None

        @track_model_request
        async def ask(self, n):
            await asyncio.sleep(0)
            self._last_request_usage = {
                "prompt_tokens": n,
                "completion_tokens": 2 * n,
                "total_tokens": 3 * n,
            }
            await asyncio.sleep(0)  # others write theirs before this one returns
            await asyncio.sleep(0)
            return "answer", 200

    shared = Shared()
    await asyncio.gather(*(shared.ask(n) for n in range(1, 51)))
    assert aggregate(collector)["tokens"] == {
        "total_prompt_tokens": 1275,
        "total_completion_tokens": 2550,
        "total_tokens": 3825,
    }
    assert model_block(collector)["performance"]["total_requests"] == 50


@pytest.mark.acceptance(96)
def test_fifty_threads_on_one_model(collector):
    import threading

    together = threading.Barrier(50)

    class Shared:
        name = "gpt-4o-mini"

        @track_model_request
        def ask(self, n):
            self._last_request_usage = {"prompt_tokens": n, "completion_tokens": 0}
            together.wait(30)
            return "answer", 200

    shared = Shared()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(shared.ask, range(1, 51)))
    assert aggregate(collector)["tokens"]["total_prompt_tokens"] == 1275


@pytest.mark.slow
@pytest.mark.acceptance(112)
def test_a_million_small_costs(collector):
    before = api.swap(None)  # this row is about the sum, not about a million events
    try:
        for _ in range(1_000_000):
            collector.record_model_request("m", cost_usd=4e-7)
        found = collector.get_metadata_summary()
    finally:
        api.swap(before)
    assert found["models"]["m"]["cost"]["total_cost_usd"] == 0.4
    assert found["aggregate_statistics"]["cost"]["total_cost_usd"] == 0.4
    assert found["models"]["m"]["performance"]["total_requests"] == 1_000_000
