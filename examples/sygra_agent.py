"""LangChain agents: their model calls are tracked by a callback."""

import asyncio

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from callmeter.compat.sygra import (
    MetadataTrackingCallback,
    get_metadata_collector,
    track_node,
)

usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
agent = GenericFakeChatModel(messages=iter([AIMessage("Hello", usage_metadata=usage)]))


async def main():
    callback = MetadataTrackingCallback(model_name="gpt-4o")
    with track_node("greeter", "agent", model="gpt-4o"):
        response = await agent.ainvoke("Hello", config={"callbacks": [callback]})
    print(response.content)


asyncio.run(main())
metadata = get_metadata_collector().get_metadata_summary()
print(metadata["models"]["gpt-4o"]["token_statistics"]["total_tokens"])
print(metadata["nodes"]["greeter"]["token_statistics"]["total_tokens"])
