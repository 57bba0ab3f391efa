"""Names as clouds and tools spell them (rows 109, 110, 111, 180, 183 of the acceptance table)."""

from __future__ import annotations

import pytest

from callmeter.money import format_usd, to_pico
from callmeter.pricing import Pricer, installed_book

AT_US = 1_735_689_600_000_000  # 2025-01-01
THOUSAND = {"input": 1000, "output": 1000}


@pytest.fixture(scope="module")
def pricer() -> Pricer:
    return Pricer(installed_book())


def usd(pricer, provider, model, usage=THOUSAND, at_us=AT_US):
    priced = pricer.price(provider, model, at_us, usage)
    return None if priced is None else format_usd(priced.cost_pico)


def test_gpt_4o_mini(pricer):
    assert usd(pricer, "openai", "gpt-4o-mini", {"input": 440, "output": 920}) == "0.000618"


@pytest.mark.parametrize(
    "provider", ["aws", "bedrock", "aws.bedrock", "amazon-bedrock", "amazon_bedrock"]
)
@pytest.mark.parametrize(
    "model",
    [
        "claude-3-haiku",
        "anthropic.claude-3-haiku-20240307-v1:0",
        "eu.anthropic.claude-3-haiku-20240307-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0",
    ],
)
def test_claude_3_haiku_on_bedrock(pricer, provider, model):
    assert usd(pricer, provider, model) == "0.0015"


@pytest.mark.parametrize(
    ("model", "both"),
    [
        ("gpt-4", "0.09"),
        ("gpt-4-turbo", "0.04"),
        ("gpt-3.5-turbo", "0.002"),
        ("gpt-4o", "0.0125"),
        ("gpt-4o-mini", "0.00075"),
    ],
)
@pytest.mark.parametrize("provider", ["openai", "azure", "azure.ai.openai", "azure_openai"])
def test_openai_models_on_both_sellers(pricer, provider, model, both):
    assert usd(pricer, provider, model) == both


@pytest.mark.parametrize(
    ("model", "both"), [("opus", "0.09"), ("sonnet", "0.018"), ("haiku", "0.0015")]
)
@pytest.mark.parametrize("provider", ["anthropic", "bedrock"])
def test_claude_3(pricer, provider, model, both):
    assert usd(pricer, provider, f"claude-3-{model}") == both


@pytest.mark.parametrize("model", ["gpt-35-turbo", "gpt-35-turbo-0125", "GPT-35-Turbo"])
@pytest.mark.parametrize("provider", ["azure", "azure.ai.openai", "Azure"])
def test_azure_spells_gpt_3_5_without_its_dot(pricer, provider, model):
    assert usd(pricer, provider, model) == usd(pricer, "azure", "gpt-3.5-turbo") == "0.002"


@pytest.mark.parametrize("provider", ["bedrock", None, ""])
def test_a_regional_bedrock_name_is_the_base_model(pricer, provider):
    regional = usd(pricer, provider, "us.anthropic.claude-3-sonnet-20240229-v1:0")
    assert regional == usd(pricer, "bedrock", "anthropic.claude-3-sonnet-20240229-v1:0") == "0.018"


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("vllm", "meta-llama/Llama-3-8b"),
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-4o"),
        ("azure", "our-own-deployment"),
        (None, "no-such-model"),
        (None, None),
        (None, ""),
        ("openai", ""),
        ("openai", "gpt-4o" * 1000),
        (None, "no-such-provider/gpt-4o"),
    ],
)
def test_what_is_unknown_is_unpriced_and_not_free(pricer, provider, model):
    assert pricer.price(provider, model, AT_US, THOUSAND) is None
    assert pricer.parts(provider, model, AT_US, THOUSAND) is None
    assert pricer.estimate(provider, model, AT_US, 1000, 1000) is None


def test_input_and_output_apart(pricer):
    usage = {"input": 1000, "output": 500}
    parts = pricer.parts("openai", "gpt-4o-mini", AT_US, usage)
    total = pricer.price("openai", "gpt-4o-mini", AT_US, usage)
    assert parts is not None
    assert total is not None
    assert parts.input_pico == to_pico("0.00015")
    assert parts.output_pico == to_pico("0.0003")
    assert parts.other_pico == 0
    assert total.cost_pico == to_pico("0.00045")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        (None, "gpt-4o-mini"),
        (None, "openai/gpt-4o-mini"),
        ("litellm", "openai/gpt-4o-mini"),
        ("litellm", "gpt-4o-mini"),
        (None, "azure/gpt-4o-mini"),
        ("openai", "gpt-4o-mini-2024-07-18"),
        ("openai", "gpt-4o-mini-20240718"),
        (" OpenAI ", "GPT-4o-mini"),
    ],
)
def test_spellings_of_one_model(pricer, provider, model):
    assert usd(pricer, provider, model) == "0.00075"


def test_the_replayed_trace_of_november_2023(pricer):
    """gpt-4o-mini did not exist then; its first price holds for all earlier times."""
    first_us, calls = 1_700_158_546_000_000, 19_366
    total_input, total_output, cost_pico = 22_361_870, 4_088_665, 0
    for call in range(calls):
        usage = {
            "input": total_input // calls + (call < total_input % calls),
            "output": total_output // calls + (call < total_output % calls),
        }
        priced = pricer.price("openai", "gpt-4o-mini", first_us + call * 180_000, usage)
        assert priced is not None
        cost_pico += priced.cost_pico
    assert format_usd(cost_pico) == "5.8074795"
