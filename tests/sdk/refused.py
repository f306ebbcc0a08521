"""Makes chat completions and messages of so many words, so many of each, one after another, and prints
what an application gets: answers, or exceptions."""

import json
import sys

import anthropic
import openai

words, calls = map(int, sys.argv[1:])
question = [{"role": "user", "content": "word " * words}]


def outcome(call):
    try:
        call()
        return "answer"
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return f"{type(error).__name__} {error.status_code}"


chat, messages = openai.OpenAI().chat.completions, anthropic.Anthropic().messages
options = {"messages": question, "max_tokens": 20}
seen = {"openai": [], "anthropic": []}
for _ in range(calls):
    seen["openai"].append(outcome(lambda: chat.create(model="gpt-4o", **options)))
    call = lambda: messages.create(model="claude-sonnet-4-6", **options)
    seen["anthropic"].append(outcome(call))
print(json.dumps(seen))
