"""An application that knows nothing of Weir: the official SDK, and a loop.

THREADS callers ask one after the other, PAUSE seconds apart. Every ten seconds it says how many answers
and exceptions there were since the start.
"""

import os
import threading
import time

from openai import OpenAI

client = OpenAI(max_retries=0)
counts = {"answers": 0, "exceptions": 0}
lock = threading.Lock()


def ask():
    while True:
        try:
            answer = client.chat.completions.create(
                model="gpt-4o",
                max_tokens=16,
                messages=[{"role": "user", "content": "hello"}],
            )
            assert answer.usage.total_tokens > 0
            outcome, said = "answers", None
        except Exception as exception:
            outcome, said = "exceptions", repr(exception)[:200]
        with lock:
            counts[outcome] += 1
            if said:
                print("exception", said, flush=True)
            elif counts["answers"] == 1:
                print("first answer", flush=True)
        time.sleep(float(os.environ["PAUSE"]))


for _ in range(int(os.environ["THREADS"])):
    threading.Thread(target=ask, daemon=True).start()
while True:
    time.sleep(10)
    with lock:
        print("so far", counts["answers"], "answers", counts["exceptions"], "exceptions", flush=True)
