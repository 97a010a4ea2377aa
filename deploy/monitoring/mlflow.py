"""Carries a run's record into MLflow while it goes on: each line of metrics.jsonl becomes a step of a run there,
and the recipe its parameters. Standard library alone; ends when the run is complete.

Nothing is kept here: what MLflow has already is asked of MLflow, so it may be stopped and started at any time.

    mlflow.py RUN_DIRECTORY TRACKING_URL [EXPERIMENT]
"""

import json
import math
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

# MLflow takes at most 100 parameters a call, and of each 6,000 characters.
PARAMETERS, LONGEST = 100, 6000


def call(url, path, body, method="POST"):
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def flat(value, name=""):
    """The leaves of nested tables as (name, value), names joined by dots."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def numbers(line, stamp):
    step = line["step"]
    for name, value in flat(line):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield {"key": name, "value": value, "timestamp": stamp, "step": step}


def experiment(url, name):
    try:
        return call(url, "experiments/create", {"name": name})["experiment_id"]
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise
        found = call(url, f"experiments/get-by-name?experiment_name={name}", {}, "GET")
        return found["experiment"]["experiment_id"]


def begin(url, name, identity, recipe):
    """The run's id at MLflow, and the last step that is there."""
    within = experiment(url, name)
    known = f"tags.`octet.run` = '{identity}'"
    found = call(url, "runs/search", {"experiment_ids": [within], "filter": known}).get("runs", [])
    if found:
        run = found[0]
        last = max((metric["step"] for metric in run["data"].get("metrics", [])), default=0)
        return run["info"]["run_id"], int(last)
    tags = [{"key": "octet.run", "value": identity}, {"key": "mlflow.runName", "value": identity}]
    body = {"experiment_id": within, "start_time": int(time.time() * 1000), "tags": tags}
    run = call(url, "runs/create", body)["run"]["info"]["run_id"]
    keys = [{"key": key, "value": str(value)[:LONGEST]} for key, value in flat(recipe)]
    for at in range(0, len(keys), PARAMETERS):
        call(url, "runs/log-batch", {"run_id": run, "params": keys[at : at + PARAMETERS]})
    return run, 0


def carry(directory, url, name):
    while not (directory / "run.json").exists() or not (directory / "config.toml").exists():
        time.sleep(1)
    identity = json.loads((directory / "run.json").read_text())["run_id"]
    recipe = tomllib.loads((directory / "config.toml").read_text())
    run, last = begin(url, name, identity, recipe)
    print(f"{identity} is run {run} at {url}, which has {last} steps of it", flush=True)
    while True:
        # Looked for before the lines are read: when it is there, they all are.
        complete = (directory / "summary.json").exists()
        record = directory / "metrics.jsonl"
        for text in record.read_text().splitlines(keepends=True) if record.exists() else []:
            # The last line may be half written.
            if not text.endswith("\n"):
                break
            line = json.loads(text)
            if line["step"] > last:
                # A step is one call, so that it is there whole or not at all.
                metrics = list(numbers(line, int(time.time() * 1000)))
                call(url, "runs/log-batch", {"run_id": run, "metrics": metrics})
                last = line["step"]
        if complete:
            body = {"run_id": run, "status": "FINISHED", "end_time": int(time.time() * 1000)}
            call(url, "runs/update", body)
            print(f"complete with {last} steps", flush=True)
            return
        time.sleep(2)


if __name__ == "__main__":
    carry(Path(sys.argv[1]), sys.argv[2].rstrip("/"), sys.argv[3] if len(sys.argv) > 3 else "octet")
