"""Synalinks' program metrics over callmeter: calls, time and cost of a program, phase by phase.

python examples/synalinks_metrics.py
"""

import asyncio

import callmeter
from callmeter.compat import synalinks

callmeter.init(project="synalinks-example")

language_model = synalinks.LanguageModel(model="openai/gpt-4o-mini")
generator = synalinks.Generator(language_model=language_model, name="answer")
program = synalinks.Program(generator, [generator], name="qa")

metrics = [
    synalinks.metrics.ProgramCalls(),
    synalinks.metrics.ProgramElapsedTime(),
    synalinks.metrics.ProgramCallsPerSecond(),
    synalinks.metrics.ProgramCost(),
    synalinks.metrics.ProgramAvgCostPerInvocation(),
]
for metric in metrics:
    metric.bind_program(program)


async def main() -> None:
    with synalinks.op_scope("inference"):
        for question in ("Paris?", "Rome?"):
            await program(synalinks.DataModel(question=question))


asyncio.run(main())
for metric in metrics:
    print(f"{metric.name}: {metric.result()}")
callmeter.close()
