"""Calls as fast as answers come, from so many threads per SDK, for so many seconds; every second call
is a stream. Prints how many answers there were, and every exception."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from anthropic import Anthropic
from openai import OpenAI

threads, seconds = int(sys.argv[1]), float(sys.argv[2])
question = {"messages": [{"role": "user", "content": "Why do rivers bend?"}], "max_tokens": 20}
end = time.monotonic() + seconds


def chat(client, stream):
    answer = client.chat.completions.create(model="gpt-4o", stream=stream, **question)
    return list(answer) if stream else answer.choices[0].message.content


def message(client, stream):
    answer = client.messages.create(model="claude-sonnet-4-6", stream=stream, **question)
    return list(answer) if stream else answer.content[0].text


def loop(name, call, client):
    answers, errors = 0, []
    while time.monotonic() < end:
        try:
            answers += bool(call(client, answers % 2 == 1))
        except Exception as error:
            errors.append(repr(error))
    return name, answers, errors


clients = [("openai", chat, OpenAI()), ("anthropic", message, Anthropic())]
seen = {name: {"answers": 0, "errors": []} for name, _, _ in clients}
with ThreadPoolExecutor(threads * len(clients)) as pool:
    for name, answers, errors in pool.map(lambda work: loop(*work), clients * threads):
        seen[name]["answers"] += answers
        seen[name]["errors"] += errors
print(json.dumps(seen))
