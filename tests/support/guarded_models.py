"""Models that cost what they are told, for tests of budget guards."""

from __future__ import annotations

from typing import Any

import callmeter


class Model:
    """Each answer is a metered call of a known cost and known tokens."""

    def __init__(self, usd: str = "0.25", tokens: int = 0) -> None:
        self.usd = usd
        self.tokens = tokens
        self.asked = 0

    def generate(self, prompt: str, **more: Any) -> str:
        self.asked += 1
        with callmeter.generation(model="m", provider="p", user=more.get("user", "")) as call:
            call.usage(input=self.tokens)
            call.cost(self.usd)
        return f"answer to {prompt}"

    def stream(self, prompt: str) -> Any:
        yield "answer "
        self.generate(prompt)
        yield f"to {prompt}"


class AsyncModel(Model):
    async def generate(self, prompt: str, **more: Any) -> str:
        return super().generate(prompt, **more)

    async def stream(self, prompt: str) -> Any:
        yield "answer "
        super().generate(prompt)
        yield f"to {prompt}"
