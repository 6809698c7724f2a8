"""The equation for one element with its numbers: `6.83 = 0.760 · 7.78 + (1 − 0.760) · 3.73`."""

import ast
import math
import operator
import re

import numpy as np

from fusionviz.board import Arithmetic, Board, Map, PanelView
from fusionviz.figures.canvas import cells
from fusionviz.scales import number

ROLES = {"x": "low", "y": "high", "z": "fused"}

_NAME = re.compile(r"\{(\w+)\}")
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_FUNCTIONS = {"max": max, "min": min, "exp": math.exp, "tanh": math.tanh, "sqrt": math.sqrt, "abs": abs}


def cell_of(view: PanelView, m: Map, pin: tuple[int, int]) -> tuple[int, int]:
    """Return (row, column) of a map's cell that holds a pixel (x, y): its centre is the nearest to the pixel's."""
    stride, offset = view.cells(m)
    return tuple(
        int(cells(m.values.shape[axis], stride[axis], offset[axis], np.array(pin[1 - axis] + 0.5))) for axis in (0, 1)
    )


def value_at(view: PanelView, pin: tuple[int, int], channel: int | None) -> float | None:
    """Return the number that a view has for a place and channel, or None if it shows none."""
    if view.kind in ("bars", "numbers"):
        return None if channel is None else next((b.value for b in view.bars if b.channel == channel), None)
    alone = len(view.maps) == 1 and view.maps[0].channel is None
    found = view.maps[0] if alone else next((m for m in view.maps if m.channel == channel), None)
    if found is None or found.values.ndim != 2:
        return None
    return float(found.values[cell_of(view, found, pin)])


def filled(board: Board, pin: tuple[int, int], channel: int | None) -> list[tuple[str, str]] | None:
    """Return the equation as (text, role) parts, or None where a number is missing.

    The sign is `=` if the numbers as they are written give the result as it is written, else an honest `≈`.
    """
    arithmetic = board.arithmetic
    if arithmetic is None or "=" not in arithmetic.template:
        return None
    values = _values(board, arithmetic, pin, channel)
    if values is None:
        return None
    left, right = _simple(arithmetic)
    shown = {name: number(value) for name, value in values.items()}
    # Whole constants are written as they are: 2, not 2.00.
    shown |= {name: number(value, trim=True) for name, value in arithmetic.constants.items()}
    side = [_parts(text, shown) for text in (left, right)]
    wanted, got = (evaluate(_NAME.sub(lambda m: f"({shown[m[1]]})", text)) for text in (left, right))
    return [*side[0], (" = " if _reads_same(wanted, got) else " ≈ ", ""), *side[1]]


def _values(board: Board, arithmetic: Arithmetic, pin: tuple[int, int], channel: int | None) -> dict[str, float] | None:
    values = dict(arithmetic.constants)
    views = {(p.id, v.key): v for p in board.panels for v in p.views}
    for name, source in arithmetic.sources.items():
        view = views.get(tuple(source))
        value = None if view is None else value_at(view, pin, channel)
        if value is None:
            return None
        values[name] = value
    known = all(name in values for name in _NAME.findall(arithmetic.template))
    return values if known else None


def _simple(arithmetic: Arithmetic) -> tuple[str, str]:
    """Drop factors of exactly 1, and brackets that then hold a whole side: they are noise."""
    left, right = (side.strip() for side in arithmetic.template.split("=", 1))
    for name, value in arithmetic.constants.items():
        if value == 1:
            right = right.replace(f"{{{name}}} · ", "")
    if right.startswith("(") and right.endswith(")"):
        depth, closes = 0, -1
        for i, sign in enumerate(right):
            depth += (sign == "(") - (sign == ")")
            if depth == 0:
                closes = i
                break
        right = right[1:-1] if closes == len(right) - 1 else right
    return left, right


def _parts(text: str, shown: dict[str, str]) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    for piece in re.split(r"(\{\w+\})", text):
        name = _NAME.fullmatch(piece)
        if name is None:
            parts += [(piece, "")] if piece else []
            continue
        word = shown[name[1]]
        follows = parts and parts[-1][0].rstrip().endswith(("+", "−", "·", "×", "/"))
        parts.append((f"({word})" if follows and word.startswith("−") else word, ROLES.get(name[1], "weight")))
    return parts


def _reads_same(wanted: float | None, got: float | None) -> bool:
    if wanted is None or got is None or not math.isfinite(got):
        return False
    return number(wanted) == number(got) or (wanted == 0 and abs(got) < 5e-4)


_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def evaluate(text: str) -> float | None:
    """Return the value of a sum as it is written, `(1 − 0.76) · 3.73`, or None if it is no arithmetic."""
    text = re.sub(r"×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "e" + m[1].translate(_RAISED), text)
    for sign, plain in (("·", "*"), ("×", "*"), ("⊗", "*"), ("⊙", "*"), ("−", "-"), ("–", "-"), ("²", "**2")):
        text = text.replace(sign, plain)
    try:
        return float(_value(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, OverflowError):
        return None


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _value(node.left) ** 2
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _FUNCTIONS[node.func.id](*map(_value, node.args))
    raise ValueError(ast.dump(node))
