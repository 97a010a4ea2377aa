"""Runs one user's reward function for octet. Speaks length-framed JSON over its standard input and output:
four bytes, big-endian, then that many bytes of JSON.

Invariant: nothing that the function prints, raises or leaves behind reaches the frames but as a field of an
answer; each request is answered once, or the process ends.

First frame in: {"file", "source", "function", "shape", "memory"}. Answered with {"name", "shape", "modules"}
or {"refused"}. Every further frame in is {"row", "completion"}, answered with {"reward", "verdict", "detail",
"printed"} or {"failure", "message", "printed"}. A reward is text, so that NaN arrives as what it is.
"""

import asyncio
import contextlib
import hashlib
import inspect
import io
import json
import numbers
import os
import queue
import random
import re
import struct
import sys
import threading
import traceback
import types

PRINTED = 16 * 1024
LONGEST = 16 * 1024
DETAIL = 400

# Which function of a file is meant, if several could be: what one calls the others for comes first.
ENTRIES = ("lambda_handler", "compute_score", "reward_function", "reward", "reward_func", "reward_fn")
SHAPES = ("aws", "verl", "trl", "trl-text", "lambda", "lambda-batch")
# What TRL passes besides the columns and a reward service cannot know, or may not depend on.
UNKNOWABLE = {
    "completion_ids": "token ids, which a reward is not given: score the text",
    "completions_ids": "token ids, which a reward is not given: score the text",
    "trainer_state": "the trainer's state, but a reward may not depend on how far the run is: swap the reward instead",
}


class Refused(Exception):
    """The file holds no function that can be run."""


class BadReturn(Exception):
    """The function gave something that its shape does not allow."""


class NotANumber(Exception):
    """The reward is no number."""


class Context:
    """What a Lambda function is told of its surroundings."""

    function_name = "octet-reward"
    function_version = "$LATEST"
    memory_limit_in_mb = 0
    aws_request_id = "octet"
    invoked_function_arn = "arn:aws:lambda:local:000000000000:function:octet-reward"
    log_group_name = log_stream_name = "octet-reward"

    def get_remaining_time_in_millis(self):
        return 1000


def limit_memory(limit):
    if not limit:
        return
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def load(file, source):
    folder = os.path.dirname(file)
    # The file's folder stands in for the current one, as if the file were run.
    sys.path[:] = [folder] + [path for path in sys.path if path]
    sys.argv = [file]
    name = re.sub(r"\W", "_", os.path.splitext(os.path.basename(file))[0])
    module = types.ModuleType(name)
    module.__file__ = file
    # Data classes and pickles look their module up.
    sys.modules[name] = module
    exec(compile(source, file, "exec"), module.__dict__)
    return module


def parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def is_texts(annotation):
    return re.fullmatch(r"(typing\.)?(list|List|Sequence)\[str\]", annotation_text(annotation)) is not None


def annotation_text(annotation):
    if isinstance(annotation, str):
        return annotation.replace(" ", "")
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return str(annotation).replace(" ", "")


def shape_of(function):
    """The shape that a signature shows, or None."""
    known = parameters(function)
    names = list(known)
    if "completions" in names:
        return "trl-text" if is_texts(known["completions"].annotation) else "trl"
    if "solution_str" in names:
        return "verl"
    if names[:2] == ["event", "context"] or getattr(function, "__name__", "") == "lambda_handler":
        return "lambda"
    needed = [
        p for p in known.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if "ground_truth" in names[:2] and len(needed) <= 2:
        return "aws"
    return None


def choose(module, wanted, shape):
    """The function and its shape."""
    def show(name):
        known = parameters(getattr(module, name))
        return "%s(%s)" % (name, ", ".join(known))

    own = [
        name for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isroutine(value) and getattr(value, "__module__", None) == module.__name__
    ]
    if wanted:
        function = getattr(module, wanted, None)
        if not callable(function):
            raise Refused("expected a function %s, found %s" % (wanted, ", ".join(map(show, own)) or "no function"))
    else:
        fitting = [name for name in own if shape_of(getattr(module, name))]
        entries = [name for name in ENTRIES if name in (own if shape else fitting)]
        if entries:
            wanted = entries[0]
        elif len(fitting) == 1:
            wanted = fitting[0]
        elif shape and len(own) == 1:
            wanted = own[0]
        else:
            found = ", ".join(map(show, fitting or own)) or "no function"
            raise Refused(
                "expected one function of a known shape, found %s; name it: FILE.py:FUNCTION, and its shape with --shape" % found
            )
        function = getattr(module, wanted)
    shape = shape or shape_of(function)
    if shape not in SHAPES:
        raise Refused(
            "expected reward_function(response, ground_truth), compute_score(data_source, solution_str, ground_truth, "
            "extra_info), reward(prompts, completions, **columns) or lambda_handler(event, context), found %s; name the "
            "shape with --shape %s" % (show(wanted), "|".join(SHAPES))
        )
    if shape.startswith("trl"):
        for name, parameter in parameters(function).items():
            if name in UNKNOWABLE and parameter.default is parameter.empty:
                raise Refused("%s wants %s, %s" % (show(wanted), name, UNKNOWABLE[name]))
    return wanted, function, shape


def own_modules(folder, file):
    """The digests of what the file imported from its own folder."""
    found = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not path or not path.endswith(".py"):
            continue
        path = os.path.realpath(path)
        inside = os.path.commonpath([folder, path]) == folder and path != os.path.realpath(file)
        if inside and "site-packages" not in path:
            with open(path, "rb") as opened:
                found[os.path.relpath(path, folder)] = hashlib.sha256(opened.read()).hexdigest()
    return sorted(found.items())


def accepted(function, given):
    """Of what could be passed by name, what the function takes."""
    known = parameters(function)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return given
    return {name: value for name, value in given.items() if name in known}


def call(function, shape, row, completion):
    truth = row.get("reward_model", {}).get("ground_truth")
    if shape == "aws":
        return function(completion, truth)
    if shape == "verl":
        given = {
            "data_source": row.get("data_source") or "",
            "solution_str": completion,
            "ground_truth": truth,
            "extra_info": row.get("extra_info") or {},
        }
        return function(**accepted(function, given))
    if shape in ("trl", "trl-text"):
        columns = {name: [value] for name, value in row.items() if name not in ("prompt", "completion", "completion_ids")}
        columns.setdefault("ground_truth", [truth])
        if shape == "trl":
            columns["prompts"] = [row.get("prompt")]
            columns["completions"] = [[{"role": "assistant", "content": completion}]]
        else:
            asked = [m.get("content") or "" for m in row.get("prompt", []) if m.get("role") == "user"]
            columns["prompts"] = [asked[-1] if asked else ""]
            columns["completions"] = [completion]
        known = parameters(function)
        for name in ("log_extra", "log_metric"):
            if name in known:
                columns[name] = lambda *values: None
        return function(**accepted(function, columns))
    sample = dict(row)
    sample["id"] = "0"
    sample["messages"] = list(row.get("prompt") or []) + [{"role": "assistant", "content": completion}]
    sample.setdefault("reference_answer", truth)
    sample.setdefault("metadata", {**(row.get("extra_info") or {}), "reference_answer": truth})
    return function({"batch": [sample]} if shape == "lambda-batch" else [sample], Context())


def unwrap_lambda(result):
    if isinstance(result, dict) and "aggregate_reward_score" not in result:
        status = result.get("statusCode", 200)
        body = result.get("body", result)
        if isinstance(body, (str, bytes)):
            body = json.loads(body)
        if status != 200 or (isinstance(body, dict) and "error" in body):
            raise BadReturn("expected statusCode 200, found %s with %s" % (status, json.dumps(body)[:DETAIL]))
        result = body
    if isinstance(result, dict):
        result = [result]
    return one(result)


def one(result):
    if hasattr(result, "tolist"):
        result = result.tolist()
    if not isinstance(result, (list, tuple)):
        raise BadReturn("expected a list of 1 reward, found %s" % named(result))
    if len(result) != 1:
        raise BadReturn("expected a list of 1 reward, found a list of %d" % len(result))
    return result[0]


def named(value):
    return "%s of type %s" % (steady(repr(value))[:80], type(value).__name__)


def unwrap(shape, result):
    """The reward, a label and a line for a person."""
    if inspect.isawaitable(result):
        async def finish():
            return await result
        result = asyncio.run(finish())
    if shape.startswith("lambda"):
        result = unwrap_lambda(result)
    elif shape.startswith("trl"):
        result = one(result)
    verdict, rest = "scored", {}
    if isinstance(result, dict):
        rest = dict(result)
        key = next((k for k in ("aggregate_reward_score", "score", "reward") if k in rest), None)
        if key is None:
            raise BadReturn("expected a number or an object with a score, found the keys %s" % sorted(map(str, rest)))
        result = rest.pop(key)
        rest.pop("id", None)
        label = rest.pop("verdict", None)
        if isinstance(label, str) and 0 < len(label) <= 64:
            verdict = label
    return number(result), verdict, line(rest)


def number(value):
    if isinstance(value, (str, bytes)) or value is None:
        raise NotANumber("expected a number, found %s" % named(value))
    if not isinstance(value, numbers.Real):
        # What numpy and torch give for a single number.
        if hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, numbers.Real):
            raise NotANumber("expected a number, found %s" % named(value))
    return float(value)


def line(rest):
    metrics = rest.pop("metrics_list", None)
    if isinstance(metrics, list):
        for metric in metrics:
            if isinstance(metric, dict) and "name" in metric:
                rest[str(metric["name"])] = metric.get("value")
    said = rest.pop("detail", None)
    parts = [said] if isinstance(said, str) else []
    parts += ["%s %s" % (name, steady(str(value))) for name, value in rest.items()]
    return " ".join(", ".join(parts).split())[:DETAIL]


def steady(text):
    """Without addresses, which differ from process to process."""
    return re.sub(r"\b0x[0-9a-fA-F]{6,}", "0x…", text)


def failure(kind, error):
    # This script has no file: its own frames tell a user nothing.
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != "<string>"]
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    where = "".join(traceback.format_list(own))
    return {"failure": kind, "message": steady("%s\n%s" % (text, where)).strip()[:LONGEST]}


def answer(function, shape, request):
    row, completion = request["row"], request["completion"]
    # A function that draws gets the same numbers for the same request, whoever scores it.
    random.seed(hashlib.sha256(json.dumps([row, completion]).encode()).digest())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            reward, verdict, detail = unwrap(shape, call(function, shape, row, completion))
        told = {"reward": repr(reward), "verdict": verdict, "detail": detail}
    except MemoryError as error:
        told = failure("out-of-memory", error)
    except NotANumber as error:
        told = {"failure": "not-a-number", "message": str(error)}
    except BadReturn as error:
        told = {"failure": "bad-return", "message": str(error)}
    except BaseException as error:
        told = failure("threw", error)
    told["printed"] = printed.getvalue()[:PRINTED]
    return told


def main():
    taken, given = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What native code and sub-processes print is no frame.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)

    def take():
        head = taken.read(4)
        if len(head) < 4:
            os._exit(0)
        return json.loads(taken.read(struct.unpack(">I", head)[0]))

    def give(message):
        body = json.dumps(message).encode()
        given.write(struct.pack(">I", len(body)) + body)
        given.flush()

    begin = take()
    limit_memory(begin["memory"])
    Context.memory_limit_in_mb = begin["memory"] >> 20
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            module = load(begin["file"], begin["source"])
        name, function, shape = choose(module, begin["function"], begin["shape"])
        modules = own_modules(os.path.realpath(os.path.dirname(begin["file"])), begin["file"])
    except Refused as error:
        return give({"refused": str(error)})
    except BaseException as error:
        return give({"refused": failure("threw", error)["message"]})
    give({"name": name, "shape": shape, "modules": modules, "printed": printed.getvalue()[:PRINTED]})

    # Read on a thread of its own, so that a function that hangs ends with the process that asks.
    requests = queue.Queue(1)

    def read():
        while True:
            requests.put(take())

    threading.Thread(target=read, daemon=True).start()
    while True:
        give(answer(function, shape, requests.get()))


main()
