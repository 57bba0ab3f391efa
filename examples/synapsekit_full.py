"""SynapseKit's full setup: only the import line of the observability is callmeter's.

CALLMETER_URL=http://127.0.0.1:4248 python examples/synapsekit_full.py
"""

import asyncio

from synapsekit import (
    RAG,
    InMemoryVectorStore,
    LLMConfig,
    OpenAILLM,
    RAGConfig,
    SynapsekitEmbeddings,
)

from callmeter.compat.synapsekit import (
    BudgetGuard,
    BudgetLimit,
    CostTracker,
    OTelExporter,
    TracingMiddleware,
)


async def main():
    llm = OpenAILLM(LLMConfig(model="gpt-4o-mini", api_key="sk-..."))

    guarded_llm = BudgetGuard(
        llm=CostTracker(llm),
        limit=BudgetLimit(max_cost_usd=5.00, window="day"),
    )

    OTelExporter(endpoint="http://localhost:4317", insecure=True).install()

    store = InMemoryVectorStore(SynapsekitEmbeddings())
    config = RAGConfig(llm=guarded_llm, vector_store=store)
    rag = RAG(config)
    traced_rag = TracingMiddleware(rag)

    await traced_rag.aadd(["SynapseKit is an async-first Python library."])
    answer = await traced_rag.aquery("What is SynapseKit?")
    print(answer)


asyncio.run(main())
