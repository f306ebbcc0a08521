"""Calls everything that the two SDKs offer of what Weir knows, one call after another, and prints what
an application sees: texts, ends, usage."""

import json

from anthropic import Anthropic
from openai import OpenAI

QUESTION = [{"role": "user", "content": "Why do rivers bend? " * 5}]
CHAT = {"model": "gpt-4o", "messages": QUESTION, "max_tokens": 40}
MESSAGE = {"model": "claude-sonnet-4-6", "messages": QUESTION, "max_tokens": 40}

openai, anthropic = OpenAI(), Anthropic()
seen = {}


def usage(found):
    return found and found.to_dict()


def chat_stream(**options):
    text, ends, usages = "", [], []
    for chunk in openai.chat.completions.create(stream=True, **CHAT, **options):
        if chunk.usage or not chunk.choices:
            usages.append([len(chunk.choices), usage(chunk.usage)])
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
    return {"text": text, "ends": ends, "usages": usages}


chat = openai.chat.completions.create(n=2, **CHAT)
seen["chat"] = {"texts": [c.message.content for c in chat.choices], "usage": usage(chat.usage)}
seen["chat stream"] = chat_stream()
seen["chat stream with usage"] = chat_stream(stream_options={"include_usage": True})

answer = openai.responses.create(model="gpt-4o", input="Why do rivers bend?")
seen["response"] = {"text": answer.output_text, "usage": usage(answer.usage)}
events = list(openai.responses.create(model="gpt-4o", input="Why?", stream=True))
seen["response stream"] = {
    "kinds": [event.type for event in events],
    "text": events[-1].response.output_text,
    "usage": usage(events[-1].response.usage),
}

vectors = openai.embeddings.create(model="text-embedding-3-small", input=["a river", "a weir"])
seen["embeddings"] = {
    "sums": [round(sum(found.embedding), 3) for found in vectors.data],
    "usage": usage(vectors.usage),
}
seen["openai models"] = [model.id for model in openai.models.list()]

message = anthropic.messages.create(**MESSAGE)
seen["message"] = {"text": message.content[0].text, "usage": usage(message.usage)}
with anthropic.messages.stream(**MESSAGE) as stream:
    kinds = [event.type for event in stream]
    message = stream.get_final_message()
seen["message stream"] = {
    "kinds": kinds,
    "text": message.content[0].text,
    "end": message.stop_reason,
    "usage": usage(message.usage),
}
counted = anthropic.messages.count_tokens(model="claude-sonnet-4-6", messages=QUESTION)
seen["count"] = counted.input_tokens
seen["anthropic models"] = [model.id for model in anthropic.models.list()]

print(json.dumps(seen))
