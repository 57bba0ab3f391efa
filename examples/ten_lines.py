"""Your own program in ten lines: every call of the OpenAI client is metered."""

from openai import OpenAI

import callmeter

callmeter.init(project="shop", service="answers")
callmeter.instrument("openai")
client = OpenAI()
question = [{"role": "user", "content": "What is the answer?"}]
reply = client.chat.completions.create(model="gpt-4o-mini", messages=question)
print(reply.choices[0].message.content)
for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=question, stream=True):
    print(chunk.choices[0].delta.content or "", end="")
