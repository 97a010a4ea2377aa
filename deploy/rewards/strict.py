"""A stricter reward to swap to: the right calls with the right arguments, or nothing.

Where no call is wanted it asks for a question, or for a refusal. Numbers compare by value and objects by their
keys, as Python compares them.
"""

import json
import re

REFUSES = re.compile(r"\b(can't|cannot|can not|won't|unable|sorry)\b", re.I)


def calls(response):
    found = []
    for block in re.findall(r"<tool_call>(.*?)</tool_call>", response, re.S):
        try:
            call = json.loads(block)
        except ValueError:
            return None
        if not isinstance(call, dict):
            return None
        found.append((call.get("name"), call.get("arguments", call.get("parameters", {}))))
    return found


def reward_function(response, ground_truth):
    found = calls(response)
    if found is None:
        return 0.0
    behavior = ground_truth.get("behavior")
    if behavior == "clarify":
        return float(not found and "?" in response and not REFUSES.search(response))
    if behavior == "refuse":
        return float(not found and REFUSES.search(response) is not None)
    wanted = ground_truth["tool_call"]
    return float(found == [(wanted["name"], wanted["parameters"])])
