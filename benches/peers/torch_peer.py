#!/usr/bin/env python3
"""What PyTorch and transformers take for the same work. One JSON line.

  torch_peer.py product                                    f32 matrix products, torch's and NumPy's
  torch_peer.py generate --model DIR --groups 16 …         transformers' `generate`
  torch_peer.py update   --model DIR --groups 16 …         one GRPO update of all completions as separate sequences

The update computes logits of completion tokens only, and packs nothing: each sequence repeats its prompt.
"""
import argparse

import measured


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["product", "generate", "update"])
    parser.add_argument("--model")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=192)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--micro", type=int, default=16, help="sequences that are learned at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side", type=int, default=2048, help="of the matrices of `product`")
    return parser.parse_args()


A = arguments()
measured.threads(A.threads)

import numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

torch.set_num_threads(A.threads)
torch.manual_seed(7)
transformers.logging.set_verbosity_error()


def product():
    a, b = torch.randn(A.side, A.side), torch.randn(A.side, A.side)
    c = torch.empty(A.side, A.side)
    repeats = 4 * A.repeats
    ours, others = measured.seconds(lambda: torch.mm(a, b, out=c), repeats)
    left, right, out = a.numpy(), b.numpy(), numpy.empty((A.side, A.side), numpy.float32)
    theirs, _ = measured.seconds(lambda: numpy.matmul(left, right, out=out), repeats)
    gflops = [2 * A.side**3 / min(samples) / 1e9 for samples in (ours, theirs)]
    measured.tell(ours, others, torch_gflops=gflops[0], numpy_gflops=gflops[1])


def load():
    return transformers.AutoModelForCausalLM.from_pretrained(A.model, dtype=torch.float32, attn_implementation="sdpa")


def ids(model, rows, columns):
    return torch.randint(5, min(4096, model.config.vocab_size), (rows, columns))


def generate():
    model = load().eval()
    prompts = ids(model, A.groups, A.prompt)

    def work():
        with torch.inference_mode():
            out = model.generate(
                input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=True, temperature=1.0, top_k=0,
                top_p=1.0, num_return_sequences=A.completions, min_new_tokens=A.new, max_new_tokens=A.new, use_cache=True)
        assert out.shape == (A.groups * A.completions, A.prompt + A.new), out.shape

    samples, others = measured.seconds(work, A.repeats)
    measured.tell(samples, others, tokens=A.groups * A.completions * A.new, versions=versions())


def update():
    model = load().train()
    sequences = A.groups * A.completions
    tokens, advantages = ids(model, sequences, A.prompt + A.new), torch.randn(sequences, 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0)
    parts = -(-sequences // A.micro)

    def work():
        optimiser.zero_grad(set_to_none=True)
        for first in range(0, sequences, A.micro):
            batch, advantage = tokens[first:first + A.micro], advantages[first:first + A.micro]
            logits = model(input_ids=batch, use_cache=False, logits_to_keep=A.new + 1).logits[:, :-1]
            logprobs = torch.log_softmax(logits, -1).gather(-1, batch[:, -A.new:, None])[..., 0]
            # On-policy: the recorded log-probabilities are these, so the ratio is 1 and its gradient is not.
            ratio = torch.exp(logprobs - logprobs.detach())
            clipped = torch.clamp(ratio, 0.8, 1.2)
            loss = -torch.min(ratio * advantage, clipped * advantage).mean() / parts
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    samples, others = measured.seconds(work, A.repeats)
    measured.tell(samples, others, tokens=sequences * (A.prompt + A.new), versions=versions())


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__}


{"product": product, "generate": generate, "update": update}[A.what]()
