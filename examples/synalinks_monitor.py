"""Synalinks' Monitor hook: the import line is changed, the program is not.

callmeter up            # in another terminal: the collector, at the hook's default address
python examples/synalinks_monitor.py
"""

import asyncio

from callmeter.compat import synalinks

synalinks.enable_observability()


class Answer(synalinks.Module):
    """Answers a question."""

    async def call(self, inputs):
        return synalinks.DataModel(answer=f"You asked: {inputs.get_json()['question']}")


async def main() -> None:
    answer = Answer(name="answer", description="Answers a question.")
    reply = await answer(synalinks.DataModel(question="What is the capital of France?"))
    print(reply.get_json()["answer"])


asyncio.run(main())
