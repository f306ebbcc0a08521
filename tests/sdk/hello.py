"""The application of a newcomer: it finds OPENAI_BASE_URL set, and prints the answer it gets."""

import json

from openai import OpenAI

question = [{"role": "user", "content": "Why do rivers bend?"}]
answer = OpenAI().chat.completions.create(model="any-model", messages=question)
print(json.dumps(answer.choices[0].message.content))
