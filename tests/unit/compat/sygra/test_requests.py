"""The decorator, token extraction and prices (rows 102, 103, 106 to 111, 118)."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from callmeter.compat.sygra import TokenUsage, calculate_cost, token_counts, track_model_request


def models(collector):
    return collector.get_metadata_summary()["models"]


def tokens(prompt, completion):
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


@pytest.mark.acceptance(102)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_sync_and_async(collector, captured, model, asynchronous):
    class Timed(type(model)):
        def _next(self):
            captured.clock.advance(2.0)
            return super()._next()

    timed = Timed()
    timed.answers = [({"usage": tokens(440, 920)}, 200)]
    answered = await timed.ask_async("q") if asynchronous else timed.ask("q")
    assert answered == ({"usage": tokens(440, 920)}, 200)
    block = models(collector)["gpt-4o-mini"]
    assert block["performance"]["total_latency_seconds"] == 2.0
    assert block["performance"]["tokens_per_second"] == 460.0
    assert block["token_statistics"]["total_tokens"] == 1360
    assert block["response_code_distribution"] == {"200": 1}
    assert block["cost"]["total_cost_usd"] == 0.000618
    (call,) = captured.calls
    assert (call["latency_us"], call["usage"]) == (2_000_000, {"input": 440, "output": 920})
    assert (call["model"], call["provider"]) == ("gpt-4o-mini", "openai")


@pytest.mark.acceptance(102)
def test_name_and_docstring_are_kept(model):
    assert (model.ask.__name__, model.ask.__doc__) == ("ask", "Ask at once.")
    assert (model.ask_async.__name__, model.ask_async.__doc__) == ("ask_async", "Ask in a task.")
    assert asyncio.iscoroutinefunction(model.ask_async)
    assert not asyncio.iscoroutinefunction(model.ask)


@pytest.mark.acceptance(103)
def test_a_model_without_a_name(collector):
    class Nameless:
        model_config = "no dict"

        @track_model_request
        def ask(self):
            return "answer", 200

    class Broken:
        _config = 7

        def name(self):
            return ""

        @track_model_request
        def ask(self):
            return "answer"

    assert Nameless().ask() == ("answer", 200)
    assert Broken().ask() == "answer"

    @track_model_request
    def function():
        return "answer", 200

    assert function() == ("answer", 200)
    assert models(collector)["unknown"]["performance"]["total_requests"] == 3
    assert models(collector)["unknown"]["model_type"] == "unknown"


@pytest.mark.acceptance(106)
@pytest.mark.parametrize(
    "answer",
    [
        SimpleNamespace(usage=SimpleNamespace(**tokens(10, 5))),
        {"usage": tokens(10, 5)},
        SimpleNamespace(usage=tokens(10, 5)),
    ],
)
def test_openai_usage(collector, answer):
    assert token_counts(answer) == tokens(10, 5)

    class Bare:
        name = "gpt-4o"

        @track_model_request
        def ask(self):
            return answer, 200

    class Custom(TokenUsage):
        name = "custom"

        @track_model_request
        def ask(self):
            self._extract_token_usage(answer)
            return "text", 200

    Bare().ask()
    Custom().ask()
    for name in ("gpt-4o", "custom"):
        statistics = models(collector)[name]["token_statistics"]
        assert statistics["total_prompt_tokens"] == 10
        assert statistics["total_completion_tokens"] == 5
        assert statistics["total_tokens"] == 15


@pytest.fixture
def tgi():
    """A TGI server that answers with details if it is asked for them, and remembers bodies."""
    bodies, details = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            asked = body["parameters"].get("details")
            answer = json.dumps(
                {"generated_text": "text", "details": details.pop(0) if asked else None}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}", bodies=bodies, details=details
    )
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.acceptance(107)
def test_tgi_usage(collector, captured, tgi):
    class Tgi(TokenUsage):
        model_type = "TGI"

        def __init__(self, name):
            self.name = name

        @track_model_request
        def ask(self, prompt):
            body = json.dumps(self._tgi_request(prompt, {"max_new_tokens": 7})).encode()
            with urllib.request.urlopen(tgi.url, body, timeout=10) as answer:
                data = json.load(answer)
            self._extract_tgi_token_usage(data)
            return data["generated_text"], 200

    tgi.details += [
        {"generated_tokens": 7, "prefill": [{"id": n} for n in range(4)]},
        {"generated_tokens": 7, "prefill": None},
        None,
    ]
    for name in ("full", "bare", "none"):
        assert Tgi(name).ask("hello") == ("text", 200)
    found = {name: block["token_statistics"] for name, block in models(collector).items()}
    keys = ("total_prompt_tokens", "total_completion_tokens", "total_tokens")
    assert [found["full"][key] for key in keys] == [4, 7, 11]
    assert [found["bare"][key] for key in keys] == [0, 7, 7]
    assert [found["none"][key] for key in keys] == [0, 0, 0]
    assert "usage" not in captured.calls[-1]
    assert len(tgi.bodies) == 3
    assert all(body["parameters"]["details"] is True for body in tgi.bodies)
    assert tgi.bodies[0]["parameters"]["max_new_tokens"] == 7


@pytest.mark.acceptance(108)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"prompt_eval_count": 12, "eval_count": 34, "response": "text"}, tokens(12, 34)),
        (SimpleNamespace(prompt_eval_count=12, eval_count=34), tokens(12, 34)),
        ({"usage": {"input_tokens": 12, "output_tokens": 34}}, tokens(12, 34)),
        (SimpleNamespace(usage=SimpleNamespace(input_tokens=12, output_tokens=34)), tokens(12, 34)),
    ],
)
def test_ollama_and_anthropic_usage(collector, answer, expected):
    assert token_counts(answer) == expected

    class Own(TokenUsage):
        name = "own"

        @track_model_request
        def ask(self):
            self._extract_token_usage(answer)
            return "text", 200

    Own().ask()
    statistics = models(collector)["own"]["token_statistics"]
    assert {key: statistics[f"total_{key}"] for key in ("prompt_tokens", "completion_tokens")} == {
        "prompt_tokens": 12,
        "completion_tokens": 34,
    }
    assert statistics["total_tokens"] == 46


@pytest.mark.acceptance(109)
def test_the_cost_table(collector):
    assert calculate_cost("gpt-4o-mini", 440, 920) == 0.000618
    assert calculate_cost("claude-3-haiku", 1000, 1000, "Bedrock") == 0.0015
    for name in ("gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini"):
        assert calculate_cost(name, 1000, 1000) > 0
        assert calculate_cost(name, 1000, 1000, "AzureOpenAI") > 0
    for name in ("claude-3-opus", "claude-3-sonnet", "claude-3-haiku"):
        assert calculate_cost(name, 1000, 1000) > 0
        assert calculate_cost(name, 1000, 1000, "Bedrock") > 0
    config = {"type": "OpenAI"}
    collector.record_model_request(
        "gpt-4o-mini", prompt_tokens=440, completion_tokens=920, model_config=config
    )
    config = {"type": "Bedrock"}
    collector.record_model_request(
        "claude-3-haiku", prompt_tokens=1000, completion_tokens=1000, model_config=config
    )
    assert models(collector)["gpt-4o-mini"]["cost"]["total_cost_usd"] == 0.000618
    assert models(collector)["claude-3-haiku"]["cost"]["total_cost_usd"] == 0.0015


@pytest.mark.acceptance(110)
def test_azure_and_bedrock_names(collector):
    azure = calculate_cost("gpt-35-turbo", 1000, 1000, "AzureOpenAI")
    assert azure == calculate_cost("gpt-3.5-turbo", 1000, 1000, "AzureOpenAI") == 0.002
    assert calculate_cost("gpt-35-turbo", 1000, 1000) == 0.002
    regional = "us.anthropic.claude-3-sonnet-20240229-v1:0"
    base = "anthropic.claude-3-sonnet-20240229-v1:0"
    for kind in ("Bedrock", "unknown"):
        assert calculate_cost(regional, 1000, 1000, kind) == 0.018
        assert calculate_cost(base, 1000, 1000, kind) == 0.018


@pytest.mark.acceptance(111)
def test_a_model_without_a_price(collector, captured):
    collector.record_model_request(
        "gpt-4o", prompt_tokens=10, completion_tokens=5, model_config={"type": "vLLM"}
    )
    collector.record_model_request("our-own-model", prompt_tokens=10, completion_tokens=5)
    assert calculate_cost("our-own-model", 10, 5) == 0.0
    for name in ("gpt-4o", "our-own-model"):
        block = models(collector)[name]
        assert block["cost"] == {"total_cost_usd": 0.0, "average_cost_per_request": 0.0}
        assert block["token_statistics"]["total_tokens"] == 15
    assert all("cost_pico" not in call for call in captured.calls)  # unknown, never 0


@pytest.mark.acceptance(118)
def test_ten_thousand_requests_pass_through_unchanged(collector, captured):
    """What overhead costs is in benchmarks/bench_facades.py."""
    answers = []

    class Stub:
        name = "gpt-4o-mini"

        @track_model_request
        def ask(self, n):
            captured.clock.advance(0.01)
            answers.append(object())
            return answers[-1], 200

    stub = Stub()
    for n in range(10_000):
        answer, code = stub.ask(n)
        assert answer is answers[-1]
        assert code == 200
    performance = models(collector)["gpt-4o-mini"]["performance"]
    assert performance["total_requests"] == 10_000
    assert performance["total_latency_seconds"] == 100.0
    assert performance["average_latency_seconds"] == 0.01
    assert len(captured.calls) == 10_000


def test_a_wrapped_model_is_priced_by_its_own_name(collector, captured):
    collector.record_model_request(
        "my label", prompt_tokens=440, completion_tokens=920,
        model_config={"model_type": "azure_openai", "model": "gpt-4o-mini", "api_version": "v1"},
    )  # fmt: skip
    block = models(collector)["my label"]
    assert block["cost"]["total_cost_usd"] > 0
    assert block["model_type"] == "azure_openai"
    assert block["parameters"] == {"api_version": "v1"}
    assert (captured.calls[0]["model"], captured.calls[0]["provider"]) == ("gpt-4o-mini", "azure")


def test_a_name_that_raises_does_not_reach_the_caller(collector):
    from callmeter.testing import raising

    class Odd:
        def name(self):
            raise RuntimeError("no name today")

        @track_model_request
        def ask(self):
            return "answer", 200

    with raising(False):
        assert Odd().ask() == ("answer", 200)
    assert models(collector)["unknown"]["performance"]["total_requests"] == 1


def test_cached_tokens_are_priced_as_such(collector, captured, model):
    usage = {**tokens(1000, 0), "prompt_tokens_details": {"cached_tokens": 1000}}
    model.answers = [({"usage": usage}, 200)]
    model.ask("question")
    assert captured.calls[0]["usage"] == {"input": 1000, "output": 0, "cache_read": 1000}
    cost = models(collector)["gpt-4o-mini"]["cost"]["total_cost_usd"]
    assert cost == 0.000075  # half of what fresh ones cost
