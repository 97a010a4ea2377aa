"""Writes fixtures/muon.json: three updates of Muon on a wide and on a tall matrix, in f64.

The arithmetic is that of the published reference (momentum as a running sum, Nesterov, five quintic
Newton-Schulz iterations) with the scale that matches AdamW's, 0.2 * sqrt(max(rows, columns)), and decoupled weight
decay. Pure Python: python3 learner/tests/make_muon_fixtures.py
"""

import json
import math
import pathlib
import random

MOMENTUM, LEARNING_RATE, WEIGHT_DECAY, STEPS = 0.95, 0.02, 0.1, 3


def product(a, b):
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def transposed(a):
    return [list(column) for column in zip(*a)]


def combined(*terms):
    shape = terms[0][1]
    return [[sum(f * m[i][j] for f, m in terms) for j in range(len(shape[0]))] for i in range(len(shape))]


def orthogonal(matrix):
    if len(matrix) > len(matrix[0]):
        return transposed(orthogonal(transposed(matrix)))
    norm = math.sqrt(sum(value * value for row in matrix for value in row))
    x = [[value / norm for value in row] for row in matrix]
    for _ in range(5):
        square = product(x, transposed(x))
        polynomial = combined((-4.775, square), (2.0315, product(square, square)))
        x = combined((3.4445, x), (1.0, product(polynomial, x)))
    return x


def flat(matrix):
    return [value for row in matrix for value in row]


def case(rows, columns, draw):
    matrix = lambda: [[round(draw.uniform(-1, 1), 3) for _ in range(columns)] for _ in range(rows)]
    values, gradients = matrix(), [matrix() for _ in range(STEPS)]
    made = {"shape": [rows, columns], "values": flat(values), "gradients": [flat(g) for g in gradients], "after": []}
    momentum = [[0.0] * columns for _ in range(rows)]
    step = LEARNING_RATE * 0.2 * math.sqrt(max(rows, columns))
    for gradient in gradients:
        momentum = combined((MOMENTUM, momentum), (1.0, gradient))
        direction = orthogonal(combined((1.0, gradient), (MOMENTUM, momentum)))
        values = combined((1 - LEARNING_RATE * WEIGHT_DECAY, values), (-step, direction))
        made["after"].append(flat(values))
    return made


draw = random.Random(1)
fixture = {
    "momentum": MOMENTUM,
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "cases": [case(3, 5, draw), case(6, 4, draw)],
}
path = pathlib.Path(__file__).parent / "fixtures" / "muon.json"
path.write_text(json.dumps(fixture, indent=1) + "\n")
