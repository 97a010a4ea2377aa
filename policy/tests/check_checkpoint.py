"""Loads a model directory written by octet with transformers and compares. Needs torch, transformers.

    python policy/tests/check_checkpoint.py DIR LOGITS.safetensors CASES.json [TEXTS.json]

LOGITS holds "logits.0", "logits.1", ... for the token ids in CASES["sequences"]. TEXTS is a list of
{"messages", "tools", "add_generation_prompt", "text", "ids"} as octet rendered and tokenised them.
Prints one JSON object; exit status 1 when logits differ by more than --tolerance (default 1e-4), or
a text or an id differs.
"""

import argparse
import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("logits")
    parser.add_argument("cases")
    parser.add_argument("texts", nargs="?")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    model, info = AutoModelForCausalLM.from_pretrained(
        arguments.dir, dtype="auto", output_loading_info=True, local_files_only=True)
    problems = [f"{key}: {sorted(info[key])}" for key in ("missing_keys", "unexpected_keys")
                if info.get(key)]
    stored = str(next(model.parameters()).dtype)
    model = model.float().eval()
    expected = load_file(arguments.logits)
    with open(arguments.cases) as file:
        sequences = json.load(file)["sequences"]
    gap = 0.0
    for index, ids in enumerate(sequences):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        gap = max(gap, (logits - expected[f"logits.{index}"]).abs().max().item())
    if not gap <= arguments.tolerance:
        problems.append(f"logits differ by {gap}")

    texts = 0
    if arguments.texts:
        tokenizer = AutoTokenizer.from_pretrained(arguments.dir, local_files_only=True)
        with open(arguments.texts) as file:
            cases = json.load(file)
        for case in cases:
            text = tokenizer.apply_chat_template(
                case["messages"], tools=case["tools"], tokenize=False,
                add_generation_prompt=case["add_generation_prompt"])
            if text != case["text"]:
                problems.append(f"rendered {text!r}, expected {case['text']!r}")
            ids = tokenizer(case["text"], add_special_tokens=False)["input_ids"]
            if ids != case["ids"]:
                problems.append(f"tokenised {ids}, expected {case['ids']}")
            texts += 1
    print(json.dumps({"dtype": stored, "largest_logit_gap": gap, "texts": texts,
                      "problems": problems}))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
