"""SynapseKit's Prometheus program: only the import line of the metrics is callmeter's.

CALLMETER_URL=http://127.0.0.1:4248 python examples/synapsekit_prometheus.py
"""

import asyncio

from synapsekit import LLMConfig, OpenAILLM

from callmeter.compat.synapsekit import CostTracker, PrometheusMetrics


async def main():
    llm = OpenAILLM(LLMConfig(model="gpt-4o-mini", api_key="sk-..."))

    # Start a Prometheus HTTP server on port 8000
    prom = PrometheusMetrics(start_server=True, port=8000)

    # Wrap with CostTracker to get cost data
    tracker = CostTracker(llm)

    questions = ["What is RAG?", "Explain embeddings.", "What is an LLM?"]

    for question in questions:
        await tracker.generate(question)

        # Record metrics after each call
        last_record = tracker.records[-1]
        prom.record_llm(
            model=last_record.model,
            provider=last_record.provider,
            cost_usd=last_record.total_cost_usd,
            total_tokens=last_record.input_tokens + last_record.output_tokens,
            latency_ms=None,  # not in a CostRecord; spans have it
        )

    print(f"Total cost: ${tracker.cost_so_far:.4f}")
    # Prometheus scrape endpoint is now live at http://0.0.0.0:8000


asyncio.run(main())
