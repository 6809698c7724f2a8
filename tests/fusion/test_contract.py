"""What every method keeps to, from the day it is registered: no list of methods stands here."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from matplotlib.mathtext import MathTextParser
from torch import Tensor, nn

from fusionviz import fusion
from fusionviz.errors import ParameterError, ShapeError
from fusionviz.fusion import FusionModule
from fusionviz.records import ANALYTIC, FeatureMap, FusionResult
from fusionviz.registry import Param, write
from fusionviz.trace import NullTrace, Trace, costs

METHODS = fusion.names()
EVEN = ((16, 16), (8, 8), (4, 4))
ODD = ((15, 13), (8, 7), (4, 4))
LARGE_ODD = ((65, 65), (33, 33), (17, 17))
WIDTH = 8
"""Every width in these tests: what holds for 8 channels holds for 256, and sooner."""


# --- inputs, and every way to build a method -----------------------------------------------------
def count(key: str) -> int:
    takes = fusion.spec(key).takes
    known = {"one": 1, "pair": 2, "pyramid": 3, "branches": 4}
    assert takes in known, f"{key} takes {takes!r}: say in this file which inputs the contract should give it"
    return known[takes]


def channels(key: str, same: int = 0) -> tuple[int, ...]:
    return ((same,) * 4 if same else (4, 6, 8, 10))[: count(key)]


def strides(key: str) -> tuple[float, ...]:
    """Of the levels: octaves; branches stand on one grid."""
    return (4.0,) * 4 if fusion.spec(key).takes == "branches" else (4.0, 8.0, 16.0)


def levels(key: str, sizes: tuple = EVEN, batch: int = 2, seed: int = 0, same: int = 0) -> tuple[Tensor, ...]:
    """Maps of unit variance with a mean of its own for each picture and channel, so that pooling finds something."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (sizes[0],) * 4 if fusion.spec(key).takes == "branches" else sizes
    return tuple(
        torch.randn(batch, c, *size, generator=generator) + 2 * torch.randn(batch, c, 1, 1, generator=generator)
        for c, size in zip(channels(key, same), sizes, strict=False)
    )


def plain(key: str) -> dict[str, object]:
    return {p.key: WIDTH for p in fusion.spec(key).params if p.key == "width"}


def build(key: str, *, seed: int = 0, same: int = 0, **params: object) -> FusionModule:
    return fusion.build(key, channels(key, same), seed=seed, **{**plain(key), **params})


def values(param: Param) -> tuple[object, ...]:
    """Return every choice of a knob; of a number both bounds, but no width that only takes memory."""
    if param.kind == "choice":
        return param.choices
    if param.kind == "bool":
        return (False, True)
    return (param.low, min(param.high, 64) if param.refit else param.high)


def variants(only: str = "choice bool int float") -> Iterator[object]:
    for key in METHODS:
        for param in fusion.spec(key).params:
            for value in values(param) if param.kind in only.split() else ():
                yield pytest.param(key, {param.key: value}, id=f"{key}-{param.key}={write(value)}")


def real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def everything(result: FusionResult) -> dict[str, Tensor]:
    return {
        **{f"output {k}": v.tensor for k, v in result.outputs.items()},
        **{f"attention {k}": v.tensor for k, v in result.attention.items()},
    }


def on_a_level(out: FeatureMap, sizes: tuple) -> bool:
    """Say whether every cell of a map is a cell of a level, given as a bare tensor: all of them, or all but an edge."""
    (size,) = [s for s, stride in zip(sizes, (4.0, 8.0, 16.0), strict=True) if out.stride == (stride, stride)]
    begin = [(o - s / 2) / s for o, s in zip(out.offset, out.stride, strict=True)]
    whole = begin == [0, 0] and out.size == size
    inside = all(b >= 1 and b == int(b) and b + n < end for b, n, end in zip(begin, out.size, size, strict=True))
    return whole or inside


def same(a: FusionResult, b: FusionResult) -> bool:
    one, other = everything(a), everything(b)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def left_out(module: FusionModule, key: str) -> tuple[str, ...]:
    """Return which of "low" and "high" a knob such as on=low keeps from every output: found out, not looked up."""
    maps = [m.requires_grad_() for m in levels(key)]
    total = sum(real(o.tensor).square().sum() for o in module(*maps, trace=NullTrace()).outputs.values())
    told = torch.autograd.grad(total, maps, allow_unused=True)
    names = ("low", *("" for _ in maps[2:]), "high")
    return tuple(n for n, g in zip(names, told, strict=False) if g is None or not g.any())


DEFAULTS = [pytest.param(key, {}, id=key) for key in METHODS]
every_method = pytest.mark.parametrize("key", METHODS)
every_variant = pytest.mark.parametrize(("key", "params"), list(variants()))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # maps this small are slower in company
    yield
    torch.set_num_threads(threads)


def test_methods_are_found() -> None:
    assert {"add", "concat", "aff"} <= set(METHODS)
    assert len(set(METHODS)) == len(METHODS)


# --- shapes and numbers --------------------------------------------------------------------------
@every_method
@pytest.mark.parametrize("sizes", [EVEN, ODD, LARGE_ODD], ids=["even", "odd", "65"])
def test_outputs_lie_on_the_grids_of_their_levels_and_are_finite(key: str, sizes: tuple) -> None:
    maps = levels(key, sizes, batch=1)
    given = [
        FeatureMap(f"s{s:g}", m, (s, s), (s / 2 - 0.5,) * 2, i)
        for i, (m, s) in enumerate(zip(maps, strides(key), strict=False), start=1)
    ]
    result = build(key)(*given)
    grids = {m.size: (m.stride, m.offset) for m in given}
    if fusion.spec(key).takes == "pair":
        assert result.fused.size == given[0].size
    for name, out in result.outputs.items():
        assert out.tensor.shape[0] == 1
        assert (out.stride, out.offset) == grids[out.size], name
        assert torch.isfinite(real(out.tensor)).all(), name
    for name, attention in result.attention.items():
        assert attention.tensor.shape[0] == 1
        assert torch.isfinite(attention.tensor).all(), name
        if "h" in attention.axes.split():
            assert grids[tuple(attention.tensor.shape[-2:])] == (attention.stride, attention.offset), name
    if result.aligned is not None:
        assert {m.size for m in result.aligned} == {result.fused.size}
        assert {(m.stride, m.offset) for m in result.aligned} == {(result.fused.stride, result.fused.offset)}


@every_variant
def test_every_value_of_every_knob_runs(key: str, params: dict) -> None:
    result = build(key, **params)(*levels(key, ODD))
    assert on_a_level(result.fused, ODD)
    assert torch.isfinite(real(result.fused.tensor)).all()
    for attention in result.attention.values():
        attention.check()


@every_method
def test_result_depends_on_the_seed_and_on_nothing_else(key: str) -> None:
    maps = levels(key)
    first, again, other = (build(key, seed=s)(*maps) for s in (0, 0, 1))
    assert same(first, again)
    if first.provenance.kind == "random":
        assert not torch.equal(first.fused.tensor, other.fused.tensor)
    else:
        assert same(first, other)


@every_method
def test_building_leaves_the_global_generator_alone(key: str) -> None:
    before = torch.random.get_rng_state()
    build(key)
    assert torch.equal(torch.random.get_rng_state(), before)


@every_method
def test_provenance_is_random_exactly_where_numbers_are(key: str) -> None:
    maps = levels(key, same=4)
    module = build(key, same=4)
    names = {name for name, _ in module.named_parameters()}
    assert set(module.by_hand) <= names
    drawn = names - set(module.by_hand) - {"alignment.up.weight"}
    assert (module(*maps).provenance == ANALYTIC) is (not drawn)
    first, other = (dict(build(key, same=4, seed=s).named_parameters()) for s in (0, 1))
    for name in names - drawn:
        assert torch.equal(first[name], other[name]), f"{name} is said to be no random number, but depends on the seed"


@every_method
def test_inputs_are_untouched(key: str) -> None:
    maps = levels(key)
    copies, versions = [m.clone() for m in maps], [m._version for m in maps]
    build(key)(*maps)
    assert all(torch.equal(m, c) for m, c in zip(maps, copies, strict=True))
    assert [m._version for m in maps] == versions


@every_method
def test_a_batch_is_its_pictures(key: str) -> None:
    maps = levels(key, ODD)
    module = build(key)
    whole = everything(module(*maps))
    singles = [everything(module(*(m[n : n + 1] for m in maps))) for n in range(2)]
    for name, tensor in whole.items():
        alone = torch.cat([s[name] for s in singles])
        torch.testing.assert_close(tensor, alone, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@every_method
def test_one_map_given_as_every_level_still_is_several_inputs(key: str) -> None:
    one = levels(key, same=4)[0]
    module = fusion.build(key, channels(key, 4), (4,) * count(key), **plain(key))
    inputs = [s for s in module(*[one] * count(key)).trace if s.op == "input"]
    assert len(inputs) == count(key)
    copies = [one.clone() for _ in range(count(key))]
    assert same(module(*[one] * count(key)), module(*copies))


@every_method
def test_every_level_is_heard_by_default(key: str) -> None:
    assert left_out(build(key), key) == ()


# --- attention -----------------------------------------------------------------------------------
@every_method
def test_attention_keeps_its_law_and_stands_in_the_trace(key: str) -> None:
    module = build(key)
    handed_out = []

    def listen(*args: object, **kwargs: object) -> object:
        handed_out.append(fuse(*args, **kwargs))
        return handed_out[0]

    fuse, module.fuse = module.fuse, listen
    result = module(*levels(key))
    names = [a.name for a in handed_out[0].attention]
    assert len(set(names)) == len(names), "two weights of one name: one of them would be lost"
    assert set(result.attention) == set(names)
    steps = {id(s.tensor) for s in result.trace}
    for attention in result.attention.values():
        attention.check()
        assert attention.grain
        assert id(attention.tensor) in steps, f"{attention.name} is used but no step shows how it was made"


@every_method
def test_weighs_names_a_weight_of_low_and_without_one_there_are_terms(key: str) -> None:
    spec, result = fusion.spec(key), build(key)(*levels(key))
    if spec.weighs:
        weight = result.attention[spec.weighs]
        assert weight.of == "low"
        assert weight.sums in ("with_high", "branches")
    else:
        assert result.terms is not None, f"{key} neither weighs its levels nor says what each contributes"


@pytest.mark.parametrize("key", [key for key in METHODS if not fusion.spec(key).weighs])
def test_share_of_low_follows_the_levels(key: str) -> None:
    module, maps = build(key), levels(key, ODD)
    shares = {}
    for name, given in {
        "both": maps,
        "low": (maps[0], *(torch.zeros_like(m) for m in maps[1:])),
        "high": (torch.zeros_like(maps[0]), *maps[1:]),
        "none": [torch.zeros_like(m) for m in maps],
    }.items():
        share = module(*given).share_of_low()
        share.check()
        assert share.tensor.shape == (2, 1, *module(*given).fused.size)
        assert not share.tensor.is_complex()
        shares[name] = share.tensor
    assert bool((shares["low"] == 1).all())
    assert bool((shares["high"] == 0).all())
    assert bool((shares["none"] == 0.5).all())
    assert 0 < shares["both"].mean() < 1


# --- the trace -----------------------------------------------------------------------------------
@every_variant
def test_trace_is_closed_and_ends_in_the_result(key: str, params: dict) -> None:
    module = build(key, **params)
    result = module(*levels(key))
    seen: list[str] = []
    for step in result.trace:
        assert set(step.inputs) <= set(seen), f"{step.key} comes before what it is made of"
        seen.append(step.key)
    assert len(set(seen)) == len(seen)
    assert [s.op for s in result.trace].count("input") == count(key)
    assert [s for s in result.trace if s.role == "fused"][-1].tensor is result.fused.tensor
    used = {name for step in result.trace for name in step.inputs}
    outputs = {id(o.tensor) for o in result.outputs.values()}
    loose = [s for s in result.trace if s.key not in used and id(s.tensor) not in outputs]
    loose = [s.key for s in loose if not s.key.startswith(left_out(module, key))]
    assert not loose, f"steps that nothing is made of: {loose}"
    assert sum(s.parameters for s in result.trace) == sum(p.numel() for p in module.parameters())


@every_method
def test_without_a_trace_the_numbers_are_the_same(key: str) -> None:
    module, maps = build(key), levels(key, ODD)
    silent = module(*maps, trace=NullTrace())
    assert silent.trace == ()
    assert same(module(*maps, trace=Trace()), silent)


@every_method
def test_costs_are_counted_for_every_step_without_computing(key: str) -> None:
    module, maps = build(key), levels(key)
    counted = costs(module, tuple(tuple(m.shape) for m in maps))
    assert list(counted) == [s.key for s in module(*maps).trace]
    assert all(macs >= 0 for macs in counted.values())
    assert next(module.parameters(), maps[0]).device.type == "cpu"


def test_costs_equal_closed_forms() -> None:
    c, d, w, r = 16, 24, 8, 4
    shapes = ((1, c, 10, 6), (1, d, 5, 3))
    low, high, inner = 10 * 6, 5 * 3, w // r
    aligned = {"low_project": c * w * low, "high_project": d * w * high}
    add = costs(fusion.build("add", (c, d), width=w), shapes)
    assert {k: v for k, v in add.items() if v} == aligned
    aff = costs(fusion.build("aff", (c, d), width=w, r=r), shapes)
    bottleneck = 2 * w * inner
    assert {k: v for k, v in aff.items() if v} == {**aligned, "local": bottleneck * low, "global": bottleneck}
    reduced = costs(fusion.build("concat", (c, d), reduce=w), shapes)
    assert {k: v for k, v in reduced.items() if v} == {"fused": (c + d) * w * low}


# --- formulas ------------------------------------------------------------------------------------
COMMANDS = set(
    re.findall(
        r"\\[A-Za-z]+",
        r"\alpha \beta \gamma \delta \theta \lambda \mu \sigma \tau \phi \psi \omega \Delta \Sigma \mathrm \mathbf "
        r"\mathit \mathcal \mathbb \bar \hat \tilde \frac \sqrt \sum \prod \max \min \exp \log \otimes \oplus \odot "
        r"\uplus \cdot \times \ast \circ \uparrow \downarrow \rightarrow \leftarrow \leq \geq \neq \approx \in "
        r"\ell \infty \top \langle \rangle \Vert \vert \quad \qquad \left \right \ldots \cdots",
    )
)
"""Commands that KaTeX and matplotlib's mathtext both know."""


def formulas(key: str, **params: object) -> dict[str, str]:
    steps = build(key, **params)(*levels(key)).trace
    return {"equation": fusion.spec(key).equation, **{s.key: s.formula for s in steps if s.formula}}


@pytest.mark.parametrize(("key", "params"), [*DEFAULTS, *variants("choice bool"), *variants("float")])
def test_formulas_are_set_by_mathtext_and_katex(key: str, params: dict) -> None:
    parser = MathTextParser("path")
    for name, formula in formulas(key, **params).items():
        parser.parse(f"${formula}$")
        unknown = set(re.findall(r"\\[A-Za-z]+", formula)) - COMMANDS
        assert not unknown, f"{name}: {formula} has {unknown}; check both, then add to COMMANDS"
        assert not re.search(r"[^\x20-\x7e]", formula), f"{name}: {formula} is TeX, so it is ASCII"


# --- the equation at one element -----------------------------------------------------------------
def substitute(template: str, numbers: dict[str, object]) -> tuple[Tensor, Tensor]:
    """Return both sides of a template such as "{z} = {low} · {x} + (1 − {low}) · {y}", for all elements at once."""
    assert not re.sub(r"\{\w+\}|[\d\s=+−·()]", "", template), f"{template} has more than sums and products"
    python = re.sub(r"\{(\w+)\}", r"numbers['\1']", template).replace("·", "*").replace("−", "-")
    return tuple(eval(side, {"__builtins__": {}, "numbers": numbers}) for side in python.split("="))


@pytest.mark.parametrize(
    ("key", "params"), [v for v in [*DEFAULTS, *variants()] if fusion.spec(v.values[0]).arithmetic]
)
def test_arithmetic_under_the_crosshair_comes_out(key: str, params: dict) -> None:
    spec, module = fusion.spec(key), build(key, **params)
    result = module(*levels(key, ODD))
    x, y = (m.tensor for m in result.aligned)
    weights = {k: a.tensor[:, 0] if a.grain == "branch" else a.tensor for k, a in result.attention.items()}
    knobs = {k: v for k, v in module.params.items() if isinstance(v, int | float)}
    z, worked_out = substitute(spec.arithmetic, {**knobs, **weights, "x": x, "y": y, "z": result.fused.tensor})
    torch.testing.assert_close(worked_out, z, atol=1e-4, rtol=1e-4)


# --- learning ------------------------------------------------------------------------------------
def gradients(module: FusionModule, key: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    loss = torch.zeros(())
    for out in module(*levels(key, batch=6), trace=NullTrace()).outputs.values():
        tensor = real(out.tensor)
        loss = loss + (tensor * torch.randn(tensor.shape, generator=generator)).sum()
    # A level that is left out is still aligned, for the board shows it; its alignment has nothing to learn.
    unused = tuple(f"alignment.{'up' if level == 'high' else level}" for level in left_out(module, key))
    unused += tuple(f"alignment.{level}_" for level in left_out(module, key))
    learned = {n: p for n, p in module.named_parameters() if not n.startswith(unused)}
    if learned:
        loss.backward()
    missing = [name for name, p in learned.items() if p.grad is None]
    assert not missing, f"parameters that nothing depends on: {missing}"
    return {name: p.grad for name, p in learned.items()}


@pytest.mark.parametrize(("key", "params"), [*DEFAULTS, *variants("choice bool")])
def test_every_parameter_learns(key: str, params: dict) -> None:
    for name, gradient in gradients(build(key, **params), key).items():
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, f"{name} is never told anything"


@every_variant
def test_gradients_are_finite_in_training(key: str, params: dict) -> None:
    module = build(key, **params).train()
    assert all(torch.isfinite(g).all() for g in gradients(module, key).values())


@every_method
def test_training_with_one_picture_works_or_says_why_not(key: str) -> None:
    module, maps = build(key).train(), levels(key, batch=1)
    if module.pools_to_one:
        with pytest.raises(ShapeError, match="batch of one"):
            module(*maps)
    else:
        assert torch.isfinite(real(module(*maps).fused.tensor)).all()


@every_method
def test_state_travels(key: str) -> None:
    maps, source, target = levels(key), build(key, seed=0), build(key, seed=1)
    target.load_state_dict(source.state_dict())
    assert same(source(*maps), target(*maps))


@pytest.mark.parametrize(
    ("key", "params"), [v for v in variants() if not fusion.spec(v.values[0]).param(*v.values[1]).refit]
)
def test_a_live_knob_keeps_trained_weights(key: str, params: dict) -> None:
    default, changed = ({k: v.shape for k, v in build(key, **p).state_dict().items()} for p in ({}, params))
    assert default == changed


# --- nothing is kept, so everything is shared ----------------------------------------------------
def state(module: nn.Module) -> dict[str, object]:
    found = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            inside = value.items() if isinstance(value, dict) else ()
            found[f"{path}.{name}"] = id(value)
            found |= {f"{path}.{name}.{k}": (id(v), getattr(v, "_version", 0)) for k, v in inside}
    return found


@every_method
def test_a_forward_pass_leaves_nothing_on_the_module(key: str) -> None:
    module = build(key)
    module(*levels(key))
    before = state(module)
    module(*levels(key, seed=1))
    assert state(module) == before


@every_method
def test_threads_share_a_module(key: str) -> None:
    module = build(key)
    inputs = [levels(key, ODD, seed=s) for s in range(6)]
    alone = [module(*maps) for maps in inputs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda maps: module(*maps), inputs))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


# --- alignment -----------------------------------------------------------------------------------
ALIGNED = [k for k in METHODS if fusion.spec(k).takes == "pair" and fusion.spec(k).align != "none"]


@pytest.mark.parametrize("key", ALIGNED)
def test_maps_that_agree_are_not_aligned(key: str) -> None:
    for resize, norm in product(("nearest", "bilinear", "transposed"), ("bn", "none")):
        own = {p.key for p in fusion.spec(key).params}
        params = {k: v for k, v in {"resize": resize, "norm": norm}.items() if k in own}
        module = fusion.build(key, (4, 4), (8, 8), **plain(key), **params)
        assert not list(module.alignment.parameters())
        maps = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
        result = module(*maps)
        assert [m.tensor.data_ptr() for m in result.aligned] == [m.data_ptr() for m in maps]
        assert not [s for s in result.trace if s.op in ("project", "norm") and s.key.startswith(("low_", "high_"))]


# --- mistakes ------------------------------------------------------------------------------------
@every_method
def test_maps_that_do_not_fit_are_refused_with_numbers(key: str) -> None:
    module, maps = build(key), levels(key)
    with pytest.raises(ShapeError, match=rf"{key} (takes {count(key)} levels, but {count(key) + 1}|was built for)"):
        module(*maps, maps[-1])
    with pytest.raises(ShapeError):
        module(*maps[:-1])
    wrong = (torch.randn(2, 5, 8, 8), *maps[1:])
    with pytest.raises(ShapeError, match=f"{key} was built for levels with {channels(key)[0]}.*with 5"):
        module(*wrong)
    with pytest.raises(ShapeError, match="b c h w"):
        module(maps[0][0], *maps[1:])


@every_method
def test_strides_without_a_level_are_refused(key: str) -> None:
    with pytest.raises(ShapeError, match="strides"):
        fusion.build(key, channels(key), (4,) * (count(key) + 1), **plain(key))


@every_method
def test_an_unknown_alignment_is_refused_with_the_choices(key: str) -> None:
    with pytest.raises(ParameterError, match=r"align.*stretch.*none, size, size\+channels"):
        fusion.build(key, channels(key), align="stretch", **plain(key))


NONSENSE = {"choice": ("nonsense", None, 10**9), "bool": ("maybe", 2, None), "number": ("nonsense", "", None, "nan")}


@pytest.mark.parametrize(
    ("key", "param"), [pytest.param(k, p, id=f"{k}-{p.key}") for k in METHODS for p in fusion.spec(k).params]
)
def test_knobs_refuse_nonsense_and_list_what_is_allowed(key: str, param: Param) -> None:
    bad = list(NONSENSE.get(param.kind, NONSENSE["number"]))
    allowed = [write(c) for c in param.choices] or ["on", "off"]
    if param.kind in ("int", "float"):
        bad += [param.low - 1, param.high + 1, float("inf"), *([1.5] if param.kind == "int" else [])]
        allowed = [write(param.low), write(param.high)]
    for value in bad:
        with pytest.raises(ParameterError) as refusal:
            fusion.spec(key).parse({param.key: value})
        for language in ("en", "zh"):
            said = refusal.value.text(language)
            assert key in said
            assert all(a in said for a in (param.key, *allowed)), said


@every_method
def test_knobs_are_whole(key: str) -> None:
    params = fusion.spec(key).params
    assert len({p.key for p in params}) == len(params)
    for param in params:
        assert param.parse(param.default, key) == param.default
        for value in values(param):
            assert param.parse(write(value), key) == value
        if param.kind in ("int", "float"):
            assert param.low <= param.default <= param.high
            assert param.step > 0
    with pytest.raises(ParameterError, match="no knob 'colour'"):
        fusion.build(key, channels(key), colour="blue")


# --- devices -------------------------------------------------------------------------------------
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares CPU and GPU; this machine has no CUDA device")
@every_method
def test_gpu_gives_what_cpu_gives(key: str) -> None:
    module, maps = build(key), levels(key, ODD)
    here = everything(module(*maps))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        there = everything(build(key).cuda()(*(m.cuda() for m in maps)))
    for name, tensor in here.items():
        torch.testing.assert_close(there[name].cpu(), tensor, atol=1e-4, rtol=1e-4)
