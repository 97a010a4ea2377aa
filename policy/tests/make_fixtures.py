"""Makes the fixtures of the text and parity tests. Needs torch, transformers, tokenizers, safetensors.

    python policy/tests/make_fixtures.py

models/NAME   a random-weight model as `save_pretrained` writes it, with
              logits.safetensors     "logits.0", "logits.1": float32 [tokens, vocabulary]
              gradients.safetensors  the gradient of every parameter, under its own name
              cases.json             the token ids of both, and the loss that the gradients belong to:
                                     loss = sum of coefficient * log p(ids[position] | ids[:position])
chat/         templates, conversations, and what transformers renders and tokenises from them

Hand-written in chat/: conversations.json, features.jinja, llama3.jinja, qwen2.5.jinja and qwen3.jinja
(the templates that Qwen2.5-Instruct and Qwen3 models carry, Apache-2.0). The compact template is read from src/template.
"""

import datetime
import json
import pathlib
import shutil

import jinja2
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers
from transformers import (LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
CHAT = HERE / "fixtures" / "chat"
MODELS = HERE / "fixtures" / "models"
VOCAB = 320
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>",
           "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SHAPE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             max_position_embeddings=128, bos_token_id=None, eos_token_id=2, pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64)


def plain_rope(theta):
    return dict(rope_type="default", rope_theta=theta)


# Every difference between the families at least once: ties, biases, grouping, head width, norms of
# heads, scaling.
SHAPES = {
    "qwen2-tied": (Qwen2ForCausalLM, Qwen2Config(
        **SHAPE, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
        tie_word_embeddings=True, rope_parameters=plain_rope(1e6)), "5GB"),
    "qwen2-untied-sharded": (Qwen2ForCausalLM, Qwen2Config(
        **SHAPE, num_attention_heads=4, num_key_value_heads=1, rms_norm_eps=1e-6,
        tie_word_embeddings=False, rope_parameters=plain_rope(1e4)), "60KB"),
    "qwen3-tied": (Qwen3ForCausalLM, Qwen3Config(
        **SHAPE, num_attention_heads=4, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-6,
        tie_word_embeddings=True, rope_parameters=plain_rope(1e6)), "5GB"),
    "llama-tied": (LlamaForCausalLM, LlamaConfig(
        **SHAPE, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_parameters=plain_rope(1e4)), "5GB"),
    "llama3-untied-biased": (LlamaForCausalLM, LlamaConfig(
        **SHAPE, num_attention_heads=2, num_key_value_heads=2, head_dim=24, rms_norm_eps=1e-5,
        tie_word_embeddings=False, attention_bias=True, rope_parameters=LLAMA3), "5GB"),
}


def randomise(model, generator):
    """Spreads the logits: with the usual 0.02 every answer would be nearly uniform."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = 1 + 0.2 * noise
        elif "embed_tokens" in name or "lm_head" in name:
            value = 0.5 * noise
        else:
            value = 0.2 * noise
        parameter.data.copy_(value)


def make_model(name, build, config, shard):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    model = build(config).eval()
    randomise(model, generator)
    folder = MODELS / name
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)

    sequences = [torch.randint(0, VOCAB, (length,), generator=generator) for length in (23, 7)]
    with torch.no_grad():
        logits = {f"logits.{i}": model(ids[None]).logits[0].contiguous()
                  for i, ids in enumerate(sequences)}
    save_file(logits, folder / "logits.safetensors")

    ids = torch.randint(0, VOCAB, (12,), generator=generator)
    positions = torch.tensor([1, 5, 6, 7, 10, 11])
    coefficients = torch.tensor([0.5, -1.0, 0.25, 2.0, -0.75, 1.0])
    logprobs = model(ids[None]).logits[0].log_softmax(-1)[positions - 1, ids[positions]]
    loss = (coefficients * logprobs).sum()
    model.zero_grad()
    loss.backward()
    gradients = {n: p.grad.contiguous() for n, p in model.named_parameters()}
    save_file(gradients, folder / "gradients.safetensors")
    cases = {
        "sequences": [ids.tolist() for ids in sequences],
        "gradient": {"ids": ids.tolist(), "positions": positions.tolist(),
                     "coefficients": coefficients.tolist(), "logprobs": logprobs.tolist(),
                     "loss": loss.item()},
    }
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(name, f"{sum(p.numel() for p in model.parameters()):,} parameters,",
          f"logits' standard deviation {logits['logits.0'].std():.2f}, loss {loss.item():.4f}")


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    byte_level = dict(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(**byte_level)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False, **byte_level)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(t, special="tool_call" not in t, normalized=False) for t in SPECIAL])
    # The vocabulary, and with it all ids, is older than the last template.
    texts = [path.read_text() for path in sorted(CHAT.glob("*.jinja")) if path.stem != "qwen3"]
    tokenizer.train_from_iterator(texts + [(CHAT / "conversations.json").read_text()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>", clean_up_tokenization_spaces=False, model_max_length=128)


class FixedClock(datetime.datetime):
    """What `strftime_now` answers in octet unless it is told otherwise."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, tzinfo=tz)


def make_chats(tokenizer):
    chat_template_utils.datetime = FixedClock
    templates = {path.name: path.read_text() for path in sorted(CHAT.glob("*.jinja"))}
    templates["compact.jinja"] = (HERE.parent / "src" / "template" / "compact.jinja").read_text()
    conversations = json.loads((CHAT / "conversations.json").read_text())
    expected = []
    for template, source in sorted(templates.items()):
        for conversation in conversations:
            for add_generation_prompt in (True, False):
                extra = {"enable_thinking": False} if add_generation_prompt else {}
                arguments = dict(tools=conversation.get("tools"), chat_template=source,
                                 add_generation_prompt=add_generation_prompt, **extra)
                case = dict(template=template, conversation=conversation["name"],
                            add_generation_prompt=add_generation_prompt, extra=extra)
                try:
                    text = tokenizer.apply_chat_template(
                        conversation["messages"], tokenize=False, **arguments)
                except jinja2.UndefinedError:
                    # Not the template's own refusal: it was not written for such a message.
                    continue
                except Exception as error:
                    case["refused"] = str(error)
                else:
                    case["text"] = text
                    case["ids"] = tokenizer(text, add_special_tokens=False)["input_ids"]
                expected.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in expected)
    (CHAT / "expected.json").write_text(f"[\n{lines}\n]\n")
    print(len(expected), "renderings,", sum("refused" in case for case in expected), "refused")


def main():
    torch.set_num_threads(1)
    print("torch", torch.__version__, "transformers", transformers.__version__)
    shutil.rmtree(MODELS, ignore_errors=True)
    for name, (build, config, shard) in SHAPES.items():
        make_model(name, build, config, shard)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(MODELS / "qwen2-tied")
    make_chats(tokenizer)


if __name__ == "__main__":
    main()
