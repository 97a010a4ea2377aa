#!/usr/bin/env python3
"""Measures octet and its peers in turns, one line after the other, and prints what came out.

Each line is measured in rounds: octet, peer, octet, peer, every time in a process of its own. The median of a side's
rounds counts. Results stay in FOLDER/results, one file a line, so a comparison that was stopped goes on where it was.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = {"tiny": "tiny", "small": "smollm2-135m"}
# Cores of other processes from which on a measurement is not to be trusted.
COMPANY = 0.25


class Side:
    """What one side's rounds found."""

    def __init__(self):
        self.rounds = []

    def __getitem__(self, name):
        return statistics.median(found[name] for found in self.rounds)

    def company(self):
        return max(found["others_cores"] or 0.0 for found in self.rounds)


class Bench:
    """Runs both sides."""

    def __init__(self, arguments):
        self.a = arguments
        self.models = os.path.join(arguments.folder, "models-smoke" if arguments.smoke else "models")

    def size(self, groups, prompt, new, completions=8):
        """The size of the work; next to nothing for a smoke test."""
        if self.a.smoke:
            groups, prompt, new = min(groups, 2), 24, 4
        return {"groups": groups, "completions": completions, "prompt": prompt, "new": new}

    def octet(self, part, shape, size, **more):
        flags = self.flags({**size, **more, "shape": SHAPES[shape], "repeats": self.a.repeats, "threads": self.a.threads})
        lines = self.run([self.a.octet, "bench", part, "--json", *flags]).splitlines()
        found = {"others_cores": 0.0}
        for line in map(json.loads, lines):
            found[line["name"]] = line["value"]
            found["others_cores"] = max(found["others_cores"], line["conditions"].get("others_cores") or 0.0)
        return found

    def peer(self, script, *words, **settings):
        flags = self.flags({**settings, "repeats": self.a.repeats, "threads": self.a.threads})
        return json.loads(self.run([sys.executable, os.path.join(HERE, script), *words, *flags]).splitlines()[-1])

    def torch(self, what, shape, size, **more):
        return self.peer("torch_peer.py", what, model=os.path.join(self.models, shape), **size, **more)

    def rounds(self, *sides):
        """Every side once a round, in turns."""
        found = [Side() for _ in sides]
        for number in range(self.a.rounds):
            print(f"  round {number + 1} of {self.a.rounds}", file=sys.stderr, flush=True)
            for side, measure in zip(found, sides):
                side.rounds.append(measure())
        return found

    @staticmethod
    def flags(settings):
        words = []
        for name, value in settings.items():
            words += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)]
        return words

    def run(self, command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=self.a.timeout)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def prepare(self):
        """Models and prompts, once."""
        if not os.path.exists(os.path.join(self.models, "prompts.jsonl")):
            print(f"making models in {self.models}", file=sys.stderr)
            prompt = ["--prompt", "96", "--count", "32"] if self.a.smoke else []
            self.run([sys.executable, os.path.join(HERE, "models.py"), "--out", self.models, *prompt])


def row(line, ours, peer, ratio, wanted, *sides):
    """A row of the table. `wanted` is what the ratio shall be at least, or at most, or None."""
    return {"line": line, "ours": ours, "peer": peer, "ratio": ratio, "wanted": wanted,
            "company": max((side.company() for side in sides), default=0.0)}


def at_least(ratio):
    return ["at least", ratio]


def at_most(ratio):
    return ["at most", ratio]


def work(size):
    return f"{size['groups']} × {size['completions']}, {size['prompt']} + {size['new']}"


def fastest(ours, product):
    """The fastest two-thread f32 product that anybody computed here, and whose it was."""
    speeds = {"octet's": ours["machine.all_threads.flops"], "torch's": product["torch_gflops"],
              "NumPy's": product["numpy_gflops"]}
    whose = max(speeds, key=speeds.get)
    return speeds[whose], f"{speeds[whose]:.0f} GFLOP/s, {whose} product"


def machine(b):
    size = b.size(16, 192, 64)
    ours, product = b.rounds(lambda: b.octet("machine", "tiny", size), lambda: b.peer("torch_peer.py", "product"))
    found = ours["machine.all_threads.flops"]
    return [row(f"f32 product, {name}", f"{found:.0f} GFLOP/s", f"{product[key]:.0f} GFLOP/s", found / product[key], None,
                ours, product) for name, key in (("torch", "torch_gflops"), ("NumPy", "numpy_gflops"))]


def sampling(shape, groups, prompt, new, wanted):
    def measure(b):
        size = b.size(groups, prompt, new)
        ours, peer = b.rounds(lambda: b.octet("sampling", shape, size), lambda: b.torch("generate", shape, size))
        found, theirs = ours["sampling.whole.tokens"], peer["tokens"] / peer["seconds"]
        return [row(f"sampling, {shape}, {work(size)}", f"{found:.0f} tokens/s", f"{theirs:.0f} tokens/s, generate",
                    found / theirs, at_least(wanted), ours, peer)]
    return measure


def learning(shape, groups, prompt, new, micro, wanted, memory=False):
    def measure(b):
        size = b.size(groups, prompt, new)
        ours, peer, product = b.rounds(
            lambda: b.octet("learning", shape, size), lambda: b.torch("update", shape, size, micro=micro),
            lambda: b.peer("torch_peer.py", "product"))
        seconds, theirs = ours["learning.update.seconds"], peer["seconds"]
        limit, whose = fastest(ours, product)
        what = f"{shape}, {work(size)}"
        rows = [row(f"learning, {what}", f"{seconds:.2f} s", f"{theirs:.2f} s, PyTorch", theirs / seconds,
                    at_least(wanted), ours, peer)]
        for name, key, share in (("products of learning", "products", 0.8), ("whole update", "update", 0.6)):
            speed = ours[f"learning.{key}.flops"]
            rows.append(row(f"{name}, {what}", f"{speed:.0f} GFLOP/s", whose, speed / limit, at_least(share), ours, product))
        if memory:
            peak, planned = ours["learning.memory.peak"], ours["learning.memory.planned"]
            rows.append(row(f"memory of learning, {what}", f"{peak:.0f} MiB", f"{planned:.0f} MiB, the plan",
                            peak / planned, ["from 0.9 to", 1.1], ours))
            rows.append(row(f"memory of learning, {what}", f"{peak:.0f} MiB", f"{peer['peak_mib']:.0f} MiB, PyTorch",
                            peak / peer["peak_mib"], at_most(0.5), ours, peer))
        return rows
    return measure


def decode(b):
    size = b.size(8, 128, 32)
    ours, product = b.rounds(lambda: b.octet("sampling", "small", size), lambda: b.peer("torch_peer.py", "product"))
    speed, (limit, whose) = ours["sampling.decode.flops"], fastest(ours, product)
    return [row(f"decode, small, {8 * size['groups']} rows, prompt {size['prompt']}", f"{speed:.0f} GFLOP/s", whose,
                speed / limit, at_least(0.6), ours, product)]


def step(b):
    size = b.size(16, 192, 64)
    prompts = os.path.join(b.models, "prompts.jsonl")
    ours, peer = b.rounds(
        lambda: b.octet("step", "tiny", size),
        lambda: b.peer("trl_peer.py", model=os.path.join(b.models, "tiny"), prompts=prompts, groups=size["groups"],
                       completions=8, new=size["new"], micro=min(16, 8 * size["groups"])))
    found, theirs = ours["step.whole.seconds"], peer["seconds"]
    return [row(f"whole step, tiny, {work(size)}", f"{found:.2f} s", f"{theirs:.2f} s, TRL", theirs / found, at_least(5),
                ours, peer)]


def llama(b):
    size = b.size(1, 128, 64)
    settings = {"slots": 8, "prompt": size["prompt"], "new": size["new"]}
    ours, own, shared = b.rounds(
        lambda: b.octet("sampling", "small", size), lambda: b.peer("llama_peer.py", **settings),
        lambda: b.peer("llama_peer.py", shared=True, **settings))
    found = ours["sampling.whole.tokens"]
    theirs = max(peer["tokens"] / peer["seconds"] for peer in (own, shared))
    return [row(f"decode, small, 8 completions, {size['prompt']} + {size['new']}", f"{found:.0f} tokens/s, f32",
                f"{theirs:.0f} tokens/s, llama.cpp Q4_1", found / theirs, at_least(1), ours, own, shared)]


def sweep(b):
    rows = []
    for shape in ["tiny"] if b.a.smoke else ["tiny", "small"]:
        size = b.size(2, 192, 64)
        (ours,) = b.rounds(lambda: b.octet("sweep", shape, size))
        worst = max((found["sweep.worst.difference"] for found in ours.rounds), key=abs)
        rows.append(row(f"cost P + 8·C, {shape}, P from 64 to 2048", f"{worst:+.0f} % at worst", "predicted cost",
                        abs(worst) / 100, at_most(0.25), ours))
    return rows


LINES = {
    "machine": machine,
    "sampling-tiny": sampling("tiny", 16, 192, 64, 6),
    "sampling-small": sampling("small", 2, 128, 32, 3),
    "sampling-small-512": sampling("small", 2, 512, 32, 5),
    "learning-tiny": learning("tiny", 16, 192, 64, 16, 2.5),
    "learning-small": learning("small", 2, 128, 32, 4, 2.7, memory=True),
    "learning-small-512": learning("small", 2, 512, 32, 4, 4.5, memory=True),
    "step-tiny": step,
    "decode-small": decode,
    "llama": llama,
    "sweep": sweep,
}


def holds(ratio, wanted):
    word, bound = wanted
    if word == "at most":
        return ratio <= bound
    return ratio >= (0.9 if word.startswith("from") else bound) and (word == "at least" or ratio <= bound)


def table(folder):
    """Every result so far, in the order of the lines."""
    head, rows = ("line", "ours", "peer", "ratio", "wanted"), []
    for name in LINES:
        path = os.path.join(folder, name + ".json")
        if not os.path.exists(path):
            rows.append((name, "not measured", "", "", ""))
            continue
        with open(path) as file:
            found = json.load(file)
        if "error" in found:
            rows.append((name, "failed: " + found["error"].splitlines()[0][:60], "", "", ""))
        for r in found.get("rows", []):
            wanted = "" if r["wanted"] is None else f"{r['wanted'][0]} {r['wanted'][1]}"
            if r["wanted"] and not holds(r["ratio"], r["wanted"]):
                wanted += ", missed"
            if r["company"] >= COMPANY:
                wanted += f" (not quiet: {r['company']:.1f} cores)"
            rows.append((r["line"], r["ours"], r["peer"], f"{r['ratio']:.2f}", wanted))
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(5)]
    for r in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(r, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="lines: " + ", ".join(LINES))
    parser.add_argument("lines", nargs="*", metavar="LINE", help="all that have no result yet, without any")
    parser.add_argument("--octet", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--folder", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--repeats", type=int, default=2, help="repetitions within a turn, after a warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that a turn of one side may take")
    parser.add_argument("--smoke", action="store_true", help="next to no work, one round")
    parser.add_argument("--table", action="store_true", help="only show what was measured so far")
    a = parser.parse_args()
    for name in a.lines:
        if name not in LINES:
            parser.error(f"no line {name}: expected one of {', '.join(LINES)}")
    if a.smoke:
        a.rounds = a.repeats = 1
    results = os.path.join(a.folder, "smoke" if a.smoke else "results")
    os.makedirs(results, exist_ok=True)
    bench = Bench(a)
    failed = False
    if not a.table:
        bench.prepare()
        for name in a.lines or [name for name in LINES if a.smoke or not measured(results, name)]:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                found = {"rows": LINES[name](bench), "measured": time.strftime("%Y-%m-%d %H:%M:%S")}
            except (RuntimeError, subprocess.TimeoutExpired, KeyError, ValueError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                found, failed = {"error": f"{type(error).__name__}: {error}"}, True
            part = os.path.join(results, name + ".part")
            with open(part, "w") as file:
                json.dump(found, file, indent=1)
            os.replace(part, os.path.join(results, name + ".json"))
    table(results)
    sys.exit(1 if failed else 0)


def measured(results, name):
    path = os.path.join(results, name + ".json")
    if not os.path.exists(path):
        return False
    with open(path) as file:
        return "rows" in json.load(file)


main()
