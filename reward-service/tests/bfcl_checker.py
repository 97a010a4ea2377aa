"""Asks the leaderboard's own AST checker for verdicts: one JSON object a line in, one a line out.

In: {"id", "category", "calls": [{"name", "arguments"}]}. Out: the checker's error_type, "valid", or "exception: …".
With the argument --data it prints the folder of the package's data instead.
"""

import json
import os
import sys
import types

import bfcl_eval

# The list of models brings in every provider's client; the checker asks it one thing, of one model.
models = types.ModuleType("bfcl_eval.constants.model_config")
models.MODEL_CONFIG_MAPPING = {"octet": types.SimpleNamespace(underscore_to_dot=False)}
sys.modules[models.__name__] = models

from bfcl_eval.constants.enums import Language  # noqa: E402
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # noqa: E402

DATA = os.path.join(os.path.dirname(os.path.abspath(bfcl_eval.__file__)), "data")


def rows(*path):
    with open(os.path.join(DATA, *path), encoding="utf-8") as file:
        return {row["id"]: row for row in map(json.loads, file)}


def main():
    questions, answers = {}, {}
    for line in sys.stdin:
        asked = json.loads(line)
        category, name = asked["category"], f"BFCL_v4_{asked['category']}.json"
        if category not in questions:
            questions[category] = rows(name)
            answers[category] = rows("possible_answer", name)
        calls = [{call["name"]: call["arguments"]} for call in asked["calls"]]
        functions = questions[category][asked["id"]]["function"]
        truth = answers[category][asked["id"]]["ground_truth"]
        try:
            verdict = ast_checker(functions, calls, truth, Language.PYTHON, category, "octet")
            said = "valid" if verdict["valid"] else verdict["error_type"]
        except Exception as error:
            said = f"exception: {error!r}"
        print(json.dumps(said))


if "--data" in sys.argv:
    print(DATA)
else:
    main()
