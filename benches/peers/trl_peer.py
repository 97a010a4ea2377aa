#!/usr/bin/env python3
"""Seconds of a step of TRL's GRPOTrainer on the CPU, with settings tuned for it. One JSON line.

f32 and no gradient checkpointing: what TRL does by default (bf16 autocast, checkpointing) is far slower on a CPU.
Completions are as long as they may be, so that the work is known. The first step is not counted.
"""
import argparse
import json
import os
import tempfile
import time

import measured


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True, help="JSON lines with `prompt` and `expected`")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--micro", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


A = arguments()
measured.threads(A.threads)

import datasets  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402

torch.set_num_threads(A.threads)
datasets.disable_progress_bars()
STEPS = []


def reward(completions, expected, **_):
    """Something that differs between random completions: a group of equal rewards teaches nothing."""
    return [1.0 if text == call else sum(c in '{}":, ' for c in text) / max(1, len(text))
            for text, call in zip(completions, expected)]


class Clock(transformers.TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.company, self.start = measured.Company(), time.perf_counter()

    def on_step_end(self, *_, **__):
        STEPS.append((time.perf_counter() - self.start, self.company.others()))


def main():
    sequences = A.groups * A.completions
    with open(A.prompts) as file:
        rows = datasets.Dataset.from_list([json.loads(line) for line in file])
    with tempfile.TemporaryDirectory() as out:
        config = trl.GRPOConfig(
            output_dir=out, use_cpu=True, per_device_train_batch_size=A.micro,
            gradient_accumulation_steps=sequences // A.micro, num_generations=A.completions,
            max_completion_length=A.new, generation_kwargs={"min_new_tokens": A.new}, max_steps=1 + A.repeats,
            beta=0.0, temperature=1.0, learning_rate=1e-6, bf16=False, gradient_checkpointing=False,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False)
        trainer = trl.GRPOTrainer(
            model=transformers.AutoModelForCausalLM.from_pretrained(A.model, dtype=torch.float32),
            reward_funcs=reward, args=config, train_dataset=rows,
            processing_class=transformers.AutoTokenizer.from_pretrained(A.model), callbacks=[Clock()])
        # What the trainer prints does not belong into standard output.
        keep = os.dup(1)
        os.dup2(2, 1)
        trainer.train()
        os.dup2(keep, 1)
    samples, others = zip(*STEPS[1:])
    measured.tell(list(samples), max(others), sequences=sequences, versions={"trl": trl.__version__, "torch": torch.__version__})


main()
