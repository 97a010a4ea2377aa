"""Timing that the peers' scripts share: a warm-up, repetitions, and who else used the machine meanwhile."""
import json
import os
import resource
import statistics
import time

TICKS = os.sysconf("SC_CLK_TCK")


def _busy():
    """Busy seconds of all cores: user, nice, system and interrupts."""
    with open("/proc/stat") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:8])) / TICKS


def _own():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Company:
    """How many cores other processes used since this was made."""

    def __init__(self):
        self.since, self.busy, self.own = time.perf_counter(), _busy(), _own()

    def others(self):
        seconds = max(time.perf_counter() - self.since, 1e-6)
        return max(0.0, ((_busy() - self.busy) - (_own() - self.own)) / seconds)


def threads(count):
    """Before numpy or torch are imported: they read these once."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def seconds(work, repeats):
    """Seconds of each repetition after one that is not counted, and the others' cores meanwhile."""
    work()
    company, samples = Company(), []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return samples, company.others()


def tell(samples, others, **more):
    """The one line of standard output that `compare.py` reads."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"seconds": statistics.median(samples), "samples": samples, "others_cores": others, "peak_mib": peak}
    print(json.dumps({**line, **more}), flush=True)
