"""The flow: the trace of a method drawn as a graph with live shapes, formulas, parameters, MACs, and ms on demand."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from fusionviz.figures import flow_layout
from fusionviz.scales import ROLE_COLOURS
from fusionviz.study import StudyResult
from fusionviz.ui import words
from fusionviz.ui.components.equation import plain
from fusionviz.ui.words import of_method, say

_HERE = Path(__file__).parent
_FLOW = st.components.v2.component(
    "fusionviz_flow",
    html="""<div class="flow">
<header><span class="title"></span><span class="sum"></span><button class="ask" type="button"></button></header>
<div class="graph"></div></div>""",
    css=(_HERE / "flow.css").read_text("utf-8"),
    js=(_HERE / "flow.js").read_text("utf-8"),
)
_LETTER = 5.6
_WIDE = 10.0


def show(found: StudyResult, times_ms: dict[str, float] | None, asked: Callable[[], None], *, key: str) -> None:
    """Draw the flow of a study; `asked` is called when a person wants milliseconds.

    Args:
        times_ms: milliseconds by step, or None if nobody asked yet.
    """
    method = found.selection.method
    macs = found.step_macs()
    nodes = [flow_layout.Node(s.key, s.inputs, s.role, of_method(method, f"steps.{s.op}")) for s in found.result.trace]
    steps = {s.key: s for s in found.result.trace}
    merged = flow_layout.compact(flow_layout.gather(nodes))
    drawn, sizes = [], {}
    for node in merged:
        members = [steps[k] for k in node.members]
        costs = _costs(
            sum(s.parameters for s in members),
            sum(macs.get(s.key, 0) for s in members),
            None if times_ms is None else sum(times_ms.get(s.key, 0.0) for s in members),
        )
        shape = " × ".join(str(n) for n in members[-1].tensor.shape[1:])
        formulas = [plain(s.formula) for s in members if s.formula]
        title = node.title
        if len(members) > 1 and not node.inputs:  # many inputs in one box
            title, formulas = f"{title} × {len(members)}", [f"{formulas[0]} … {formulas[-1]}"]
            shape = shape if len({s.tensor.shape for s in members}) == 1 else ""
        tip = "\n".join([title, shape, *formulas, *costs])
        # A box shows its last formula, the tooltip all of them; an input has only a letter, which its colour says too.
        formula = formulas[-1] if formulas else ""
        words_of = {"title": title, "formula": formula, "shape": shape, "costs": costs}
        drawn.append({"key": node.key, "role": node.role, "tip": tip, **words_of})
        widest = max(_width(title, 1.2), _width(formula, 1.3), _width(shape), *map(_width, costs), 40.0)
        sizes[node.key] = (widest + 16, 9.0 + 12.5 * (2 + bool(formula) + len(costs)))
    placed = flow_layout.layout(merged, sizes, gap=(20.0, 12.0))
    total = found.costs()
    told = {name: count(n) for name, n in total.items()}
    colours = ROLE_COLOURS["dark" if words.is_dark() else "light"]
    _FLOW(
        data={
            "layout": {
                "width": placed.width,
                "height": placed.height,
                "boxes": {k: list(v) for k, v in placed.boxes.items()},
                "edges": [{"from": a, "to": b, "path": path} for a, b, path in placed.edges],
            },
            "nodes": drawn,
            "colours": colours,
            "texts": {
                "title": say("flow.title"),
                "sum": say("flow.sum" if total["macs"] else "flow.sum_parameters", **told),
                "ask": say("flow.ask"),
            },
        },
        key=key,
        on_asked_change=asked,
    )


def _width(text: str, factor: float = 1.0) -> float:
    return factor * sum(_WIDE if ord(c) > 0x2E80 else _LETTER for c in text)


def _costs(parameters: int, macs: int, ms: float | None) -> list[str]:
    parts = [say("flow.parameters", n=count(parameters))] if parameters else []
    parts += [say("flow.macs", n=count(macs))] if macs else []
    parts += [f"{ms:.2f} ms"] if ms is not None else []
    return parts


def count(number: int) -> str:
    """Write a large number with three digits: 4576, 31.9 k, 12.8 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            unit = 1e3 if letter == "k" else size
            return f"{number / unit:.3g} {letter}"
    return str(number)
