#!/usr/bin/env python3
"""Models with random weights, a tokenizer and prompts for the peers, all made here from one seed.

  tiny   Qwen2, 256 wide, 4 layers, 4 heads and 2 for keys, 688 inner, vocabulary 4096 (octet's `--shape tiny`)
  small  Llama, 576 wide, 30 layers, 9 heads and 3 for keys, 1536 inner, vocabulary 49152 (`smollm2-135m`)

`prompts.jsonl` holds prompts of exactly --prompt tokens, for trainers that want text.
"""
import argparse
import json
import os
import random

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SHAPES = {
    "tiny": ("Qwen2", 1e6, dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                                intermediate_size=688, vocab_size=4096)),
    "small": ("Llama", 1e5, dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                                 intermediate_size=1536, vocab_size=49152)),
}
SYLLABLES = [c + v for c in "b c d f g h j k l m n p r s t v w z br cl dr st tr sh".split() for v in "a e i o u ai ou".split()]


def word(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice([1, 2, 2, 3])))


def text(rng, words):
    """A request with a tool, and the call that answers it."""
    tool, value = f"{rng.choice(words)}_{rng.choice(words)}", " ".join(rng.choice(words) for _ in range(3))
    call = json.dumps({"name": tool, "arguments": {"value": value}})
    schema = json.dumps({"name": tool, "parameters": {"type": "object", "properties": {"value": {"type": "string"}}}})
    head = f"<|im_start|>system\nAnswer with one tool call. # Tools\n{schema}"
    return head, f"<|im_end|>\n<|im_start|>user\nPlease {tool} with {value}<|im_end|>\n<|im_start|>assistant\n", call


def tokenizer(rng, words):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=4096, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(("".join(text(rng, words)) for _ in range(8000)), trainer=trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   padding_side="left", model_max_length=4096)
    made.chat_template = TEMPLATE
    return made


def model(name, seed):
    import torch
    import transformers as tf

    torch.manual_seed(seed)
    family, theta, shape = SHAPES[name]
    config = getattr(tf, family + "Config")(
        **shape, tie_word_embeddings=True, max_position_embeddings=4096, bos_token_id=None,
        eos_token_id=SPECIAL.index("<|im_end|>"), pad_token_id=SPECIAL.index("<|endoftext|>"),
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    return getattr(tf, family + "ForCausalLM")(config).float()


def prompts(rng, words, encode, tokens, count):
    """Texts of exactly so many tokens: the system message is filled up with words."""
    made = []
    while len(made) < count:
        head, rest, call = text(rng, words)
        for _ in range(4 * tokens):
            missing = tokens - len(encode(head + rest))
            if missing <= 0:
                break
            head += " " + rng.choice(words) if missing > 3 else "."
        if missing == 0:
            made.append({"prompt": head + rest, "expected": call})
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=192, help="tokens of each prompt")
    parser.add_argument("--count", type=int, default=256, help="prompts")
    a = parser.parse_args()
    rng = random.Random(a.seed)
    words = [word(rng) for _ in range(6000)]
    made = tokenizer(rng, words)
    for name in SHAPES:
        folder = os.path.join(a.out, name)
        model(name, a.seed).save_pretrained(folder)
        made.save_pretrained(folder)
    rows = prompts(rng, words, lambda t: made(t)["input_ids"], a.prompt, a.count)
    with open(os.path.join(a.out, "prompts.jsonl.part"), "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    # Last, and at once: who finds this file finds the rest whole.
    os.replace(os.path.join(a.out, "prompts.jsonl.part"), os.path.join(a.out, "prompts.jsonl"))


if __name__ == "__main__":
    main()
