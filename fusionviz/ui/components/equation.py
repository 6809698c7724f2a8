"""Equations in KaTeX whose terms carry the colours of their levels: X low, Y high, Z fused."""

import re

from fusionviz.scales import ROLE_COLOURS

_LETTERS = {"X": "low", "Y": "high", "Z": "fused"}
# A letter that is a term of its own: not part of a command such as \otimes or of a word in \mathrm{...}.
_TERM = re.compile(r"\\[A-Za-z]+|(?<![A-Za-z\\])([XYZ])(?![A-Za-z])")
_NAMED = re.compile(r"\\(?:mathrm|text|operatorname)\{[^}]*\}")


def coloured(tex: str, *, dark: bool) -> str:
    """Return TeX with \\textcolor around the terms X, Y and Z."""
    colours = ROLE_COLOURS["dark" if dark else "light"]

    def paint(match: re.Match) -> str:
        letter = match.group(1)
        return rf"\textcolor{{{colours[_LETTERS[letter]]}}}{{{letter}}}" if letter else match.group(0)

    parts, last = [], 0
    for named in _NAMED.finditer(tex):
        parts += [_TERM.sub(paint, tex[last : named.start()]), named.group(0)]
        last = named.end()
    return "".join(parts) + _TERM.sub(paint, tex[last:])


def in_markdown(body: str, *, dark: bool) -> str:
    """Return Markdown with every formula between dollar signs coloured."""
    return re.sub(r"(\$\$?)(.+?)\1", lambda m: m[1] + coloured(m[2], dark=dark) + m[1], body, flags=re.S)


_SIGNS = {
    r"\otimes": " ⊗ ", r"\odot": " ⊙ ", r"\oplus": " ⊕ ", r"\cdot": " · ", r"\times": " × ", r"\sigma": "σ",
    r"\delta": "δ", r"\alpha": "α", r"\theta": "θ", r"\gamma": "γ", r"\beta": "β", r"\lambda": "λ", r"\sum": "Σ",
    r"\uparrow": "↑", r"\downarrow": "↓", r"\,": " ", r"\;": " ", r"\ ": " ", r"\|": "‖", r"\in": " ∈ ", r"\to": " → ",
    r"\uplus": " ⊎ ", r"\rho": "ρ", r"\phi": "φ", r"\mu": "μ", r"\tau": "τ", r"\ell": "ℓ", r"\Delta": "Δ",
    r"\Sigma": "Σ",    r"\Vert": "‖", r"\min": "min", r"\max": "max", r"\sim": " ~ ", r"\pi": "π", r"\quad": " ",
    r"\ast": " ∗ ", r"\top": "T", r"\ldots": "…", r"\sqrt": "√",
}  # fmt: skip
_SMALL = str.maketrans("0123456789+-=()iaehklmnoprstuvxρφβγ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ᵢₐₑₕₖₗₘₙₒₚᵣₛₜᵤᵥₓᵨᵩᵦᵧ")
_HIGH = str.maketrans("0123456789+-×HTdou", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ˣᴴᵀᵈᵒᵘ")


def plain(tex: str) -> str:
    """Return a formula as one line of text, for places where no TeX can stand (boxes of the flow, tooltips)."""
    tex = re.sub(r"\\overline\{([A-Za-z])\}", "\\1\u0304", tex)
    tex = re.sub(r"\\(?:mathrm|mathcal|text|operatorname|mathbf|mathit)\{([^}]*)\}", r"\1", tex)
    tex = re.sub(r"\\(?:hat|tilde|bar)\{?([A-Za-z])\}?", r"\1", tex)
    tex = re.sub(r"\\frac\{([^}]*)\}\{([^}]*)\}", r"\1/\2", tex)
    for sign in sorted(_SIGNS, key=len, reverse=True):
        tex = tex.replace(sign, _SIGNS[sign])
    tex = re.sub(r"_\{([^}]*)\}|_(\w)", lambda m: _lowered(m[1] or m[2]), tex)
    tex = re.sub(r"\^\{([^}]*)\}|\^(\w)", lambda m: _raised(m[1] or m[2]), tex)
    tex = re.sub(r"\\([A-Za-z]+)", r"\1", tex)
    return re.sub(r"\s+", " ", re.sub(r"[{}]", "", tex)).replace("-", "−").strip()


def _raised(text: str) -> str:
    small = text.replace(" ", "").translate(_HIGH)
    return small if not set(small) & set(text.replace(" ", "")) else f"^{text}"


def _lowered(text: str) -> str:
    small = text.translate(_SMALL)
    # Only if every sign has a small form; else it would read as a mixture.
    return small if all(a != b for a, b in zip(small, text, strict=True)) else f"_{text}"
