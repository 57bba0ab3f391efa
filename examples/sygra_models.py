"""Custom models: the decorator, and where token counts come from."""

import asyncio
from types import SimpleNamespace

from callmeter.compat.sygra import TokenUsage, get_metadata_collector, track_model_request


class OpenAILike(TokenUsage):
    """Works with OpenAI, Azure OpenAI, vLLM and any OpenAI-compatible server."""

    def __init__(self, model):
        self.model = model
        self.model_config = {"type": "OpenAI", "url": "https://api.openai.com/v1"}

    def name(self):
        return "gpt-4o"

    @track_model_request
    async def _generate_response(self, input, model_params):  # noqa: A002
        response = await self.model.ainvoke(input)
        self._extract_token_usage(response)
        return response, 200


class Tgi(TokenUsage):
    """TGI counts tokens only if the request asks for details."""

    model_type = "TGI"

    def __init__(self, post):
        self.post = post

    def name(self):
        return "llama"

    @track_model_request
    async def _generate_response(self, input, model_params):  # noqa: A002
        response_data = await self.post(self._tgi_request(input, model_params))
        self._extract_tgi_token_usage(response_data)
        return response_data["generated_text"], 200


class StubModel:
    async def ainvoke(self, input):  # noqa: A002
        usage = SimpleNamespace(prompt_tokens=10, completion_tokens=5, total_tokens=15)
        return SimpleNamespace(content="Hello", usage=usage)


async def stub_tgi(body):
    details = {"generated_tokens": 7, "prefill": [{"id": n} for n in range(4)]}
    return {
        "generated_text": "Hello",
        "details": details if body["parameters"]["details"] else None,
    }


async def main():
    await OpenAILike(StubModel())._generate_response("Hello", {})
    await Tgi(stub_tgi)._generate_response("Hello", {"max_new_tokens": 7})


asyncio.run(main())
for name, block in get_metadata_collector().get_metadata_summary()["models"].items():
    tokens = block["token_statistics"]
    print(name, block["model_type"], tokens["total_prompt_tokens"], tokens["total_tokens"])
