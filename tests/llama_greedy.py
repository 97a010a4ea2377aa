"""What llama.cpp writes greedily for some prompts. Needs the package xllamacpp.

    python tests/llama_greedy.py MODEL.gguf CASES.json

CASES becomes a list of prompts, with their special tokens written out, their number of tokens, and what the model
goes on with: text and token ids, at most 32, with their log-probabilities and their lead over the second choice.
The prompts hold what tokenizers differ in: digits, signs, white space, other languages, JSON.
"""

import json
import os
import sys

import xllamacpp

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTIONS = [
    "What is the capital of France?",
    "Count from 1 to 12.",
    "Add 1234 and 5678, and say 'it's' twice.",
    "Translate to French: good morning, my friends",
    "List the days of the week.",
    "Write {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Z\u00fcrich\", \"days\": 10}} again.",
    "Was ist 3,50\u00a0\u20ac plus 4,25\u00a0\u20ac?\n\n\tRechne  vor.",
    "Why is the sky blue?",
]
NEW = 32


def answer(result):
    return result if isinstance(result, dict) else json.loads(result)


def main():
    model, target = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_parallel = 1
    parameters.n_ctx = 512
    parameters.cpuparams.n_threads = 2
    parameters.cpuparams_batch.n_threads = 2
    parameters.verbosity = -1
    parameters.port = 0
    server = xllamacpp.Server(parameters)
    cases = []
    for question in QUESTIONS:
        prompt = (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
                  "<|im_start|>assistant\n")
        result = answer(server.handle_completions({
            "prompt": prompt, "max_tokens": NEW, "temperature": 0.0, "top_k": 1, "seed": 1,
            "cache_prompt": False, "logprobs": 2}))
        choice = result["choices"][0]
        tokens = choice["logprobs"]["content"]
        cases.append({
            "prompt": prompt, "prompt_tokens": result["usage"]["prompt_tokens"], "text": choice["text"],
            "finish": choice["finish_reason"], "ids": [token["id"] for token in tokens],
            "logprobs": [token["logprob"] for token in tokens],
            "margins": [token["top_logprobs"][0]["logprob"] - token["top_logprobs"][1]["logprob"]
                        for token in tokens]})
    with open(target, "w") as file:
        json.dump(cases, file, indent=1)
    print(len(cases), "continuations by", xllamacpp.BUILD_INFO, flush=True)
    os._exit(0)  # the engine's threads do not need an orderly end here


main()
