"""Talks to a server as users of the `openai` package do: python openai_client.py http://host:port/v1

Each step asserts; the last line is printed when all held.
"""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)

# What the bundled policy was trained with.
SYSTEM = (
    "You call tools. If a required value is missing, ask for it. "
    "If no tool fits or the request is harmful, refuse."
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_forecast",
            "description": "Forecast for a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_match_score",
            "description": "Score of a match",
            "parameters": {
                "type": "object",
                "properties": {"team": {"type": "string"}},
                "required": ["team"],
            },
        },
    },
]


def conversation(text):
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

# A call, and the conversation that goes on with its result.
messages = conversation("Please get the forecast with city Paris and days 3.")
asked = dict(model=model, tools=TOOLS, temperature=0, seed=1, max_completion_tokens=64)
answer = client.chat.completions.create(messages=messages, **asked)
choice = answer.choices[0]
assert choice.finish_reason == "tool_calls", answer
call = choice.message.tool_calls[0]
assert call.function.name == "get_forecast", call
assert json.loads(call.function.arguments) == {"city": "Paris", "days": 3}, call
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
assert answer.system_fingerprint.startswith("octet-")
messages.append(choice.message.model_dump())
messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"sky": "clear"}'})
after = client.chat.completions.create(messages=messages, **asked)
assert after.usage.prompt_tokens > answer.usage.prompt_tokens

# The same in pieces, put together by hand, and by the package's own helper.
parts = {"name": "", "arguments": ""}
stream = client.chat.completions.create(
    messages=messages[:2], stream=True, stream_options={"include_usage": True}, **asked
)
usage = None
for chunk in stream:
    usage = chunk.usage or usage
    for piece in chunk.choices:
        for delta in piece.delta.tool_calls or []:
            parts["name"] += delta.function.name or ""
            parts["arguments"] += delta.function.arguments or ""
assert parts["name"] == "get_forecast" and json.loads(parts["arguments"]) == {"city": "Paris", "days": 3}, parts
assert usage == answer.usage, (usage, answer.usage)
# The helper takes strict tools alone.
strict = [{"type": "function", "function": tool["function"] | {"strict": True}} for tool in TOOLS]
with client.chat.completions.stream(messages=messages[:2], **(asked | {"tools": strict})) as events:
    final = events.get_final_completion()
assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments

# Text, several choices, log-probabilities, and the same seed.
plain = dict(
    model=model,
    messages=conversation("Write a poem about cats."),
    n=2,
    seed=5,
    temperature=1.2,
    max_tokens=24,
    logprobs=True,
    top_logprobs=4,
)
first, again = (client.chat.completions.create(**plain) for _ in range(2))
texts = [choice.message.content for choice in first.choices]
assert texts == [choice.message.content for choice in again.choices] and len(set(texts)) == 2, texts
for choice in first.choices:
    assert all(len(token.top_logprobs) == 4 and token.logprob <= 0 for token in choice.logprobs.content)
pieces = ["", ""]
for chunk in client.chat.completions.create(stream=True, **plain):
    for piece in chunk.choices:
        pieces[piece.index] += piece.delta.content or ""
assert pieces == texts, (pieces, texts)

# A tool that must be called.
forced = {"type": "function", "function": {"name": "get_match_score"}}
named = client.chat.completions.create(
    messages=conversation("Please get the score with team Leeds."), tool_choice=forced, **asked
)
assert named.choices[0].message.tool_calls[0].function.name == "get_match_score", named

# What is refused arrives as the package's own errors.
for bad, kind in [
    (dict(model="gpt-4"), openai.NotFoundError),
    (dict(temperature=9), openai.BadRequestError),
    (dict(messages=[{"role": "user", "content": "word " * 3000}]), openai.BadRequestError),
    (dict(frequency_penalty=1.0), openai.BadRequestError),
]:
    try:
        client.chat.completions.create(**(plain | bad))
    except kind as error:
        assert error.body["message"] and error.body["type"] == "invalid_request_error", error.body
    else:
        raise AssertionError(f"{bad} was not refused")

print("all held, with openai", openai.__version__)
