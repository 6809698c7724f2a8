"""Writing what ships: numbers at half precision, cards that say how they were made, and marks that betray staleness."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

import fusionviz
from fusionviz import fusion, pack, scenes
from fusionviz.records import LevelInfo
from fusionviz.systems import System
from fusionviz.training.data import TEST, TRAIN
from fusionviz.training.heads import BASELINES, Head, head_params

REBUILD = "python -m fusionviz train"
"""What to run when the pack is stale."""


# --- marks ---------------------------------------------------------------------------------------
def fingerprint(method: str, head: Head) -> str:
    """Return a mark of everything that must not change between training and use: knobs, and names and shapes."""
    shapes = [(name, list(tensor.shape)) for name, tensor in head.state_dict().items()]
    known: list[object] = []
    if method not in BASELINES:
        spec = fusion.spec(method)
        known = [spec.takes, spec.align, [(p.key, p.default, p.choices, p.refit) for p in spec.params]]
    return hashlib.sha256(json.dumps([method, known, shapes]).encode()).hexdigest()[:16]


@torch.inference_mode()
def probe(head: Head, levels: Sequence[LevelInfo]) -> tuple[float, ...]:
    """Return what a head answers to a fixed input, in a few numbers: a changed equation changes them.

    The input comes from no random generator, so every version of torch makes the same one.
    """
    finest, maps = levels[0].stride[0], []
    for i, level in enumerate(levels):
        side = max(round(8 * finest / level.stride[0]), 1)
        count = torch.arange(level.channels * side * side, dtype=torch.float64)
        maps.append((torch.sin((count + 1) * (12.9898 + i)) + 0.5).float().view(1, level.channels, side, side))
    scores = head.eval()(maps, (16, 16))
    picked = scores.flatten()[:: max(scores.numel() // 6, 1)][:6]
    return tuple(round(float(v), 4) for v in (scores.mean(), scores.std(), *picked))


def same_probe(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether two answers agree, to within what another machine's rounding may change."""
    scale = max(abs(v) for v in (*a, 1e-3))
    return len(a) == len(b) and all(math.isclose(x, y, abs_tol=2e-3 * scale) for x, y in zip(a, b, strict=True))


# --- files ---------------------------------------------------------------------------------------
def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict at half precision, in the memory order that files have.

    Raises:
        ValueError: if a number is not finite, or too large for half precision.
    """
    out = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        out[name] = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        if not out[name].isfinite().all():
            raise ValueError(f"{name} has numbers that half precision cannot hold")
    return out


def made(steps: int, scenes_seen: int, seed: int, *, first: int = TRAIN) -> dict[str, object]:
    """Return how something was made, for its card.

    Args:
        first: seed of the first scene that was fitted.
    """
    return {
        "data_seed": first,
        "test_seed": TEST,
        "scenes": scenes_seen,
        "steps": steps,
        "seed": seed,
        "commit": commit(),
        "torch": torch.__version__,
        "fusionviz": fusionviz.__version__,
        "licence": "MIT",
    }


def commit() -> str:
    """Return the commit of the code that trains, marked where it was not committed; "" outside a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def write_backbone(
    folder: Path,
    key: str,
    state: Mapping[str, Tensor],
    metrics: Mapping[str, float],
    how: Mapping[str, object],
    *,
    occluded: Mapping[str, float],
) -> None:
    """Write a network's numbers and its card; the card last, so that it never describes a file that is not there.

    Args:
        metrics, occluded: its figures on scenes where nothing hides anything, and where things may.
    """
    file = f"{key}.safetensors"
    digest = _write_tensors(folder / file, halved(state))
    card = {"key": key, "file": file, "sha256": digest, "classes": list(scenes.KINDS)}
    figures = {"metrics": dict(metrics), "occluded": dict(occluded)}
    write_json(folder / f"{key}.json", {**card, **figures, "made": dict(how)})


def head_entry(
    method: str,
    head: Head,
    levels: Sequence[LevelInfo],
    metrics: Mapping[str, float],
    *,
    width: int,
    steps: int,
    seed: int,
) -> dict[str, object]:
    """Return a head's own part of the card. `head` must hold the numbers as they ship, at half precision."""
    return {
        "method": method,
        "low": levels[0].name,
        "high": levels[-1].name,
        "levels": [level.name for level in levels],
        "params": head_params(method, width),
        "metrics": dict(metrics),
        "steps": steps,
        "seed": seed,
        "parameters": sum(p.numel() for p in head.parameters()),
        "fingerprint": fingerprint(method, head),
        "probe": list(probe(head, levels)),
    }


def write_heads(
    folder: Path,
    backbone: str,
    setting: str,
    heads: Mapping[str, tuple[Head, Mapping[str, object]]],
    *,
    prediction: str,
    width: int,
    how: Mapping[str, object],
    keep: bool = False,
) -> None:
    """Write heads of a network and setting as one file with one card.

    Args:
        heads: by method, the head and its entry.
        keep: whether the heads of other methods that are there already stay.
    """
    file = f"{backbone}.{setting}.safetensors"
    tensors = {
        f"{method}/{name}": tensor
        for method, (head, _) in heads.items()
        for name, tensor in halved(head.state_dict()).items()
    }
    entries = {method: dict(entry) for method, (_, entry) in heads.items()}
    if keep and pack.heads(backbone, setting):
        others = json.loads((folder / f"{backbone}.{setting}.json").read_text("utf-8"))["heads"]
        stay = {method: entry for method, entry in others.items() if method not in entries}
        for card in (pack.heads(backbone, setting)[method] for method in stay):
            tensors |= {f"{card.method}/{name}": tensor for name, tensor in halved(pack.head_state(card)).items()}
        entries = {**stay, **entries}
    digest = _write_tensors(folder / file, tensors)
    network = json.loads((folder / f"{backbone}.json").read_text("utf-8"))
    shared = {
        "backbone": backbone,
        "setting": setting,
        "prediction": prediction,
        "width": width,
        "classes": list(scenes.CLASSES),
        "file": file,
        "sha256": digest,
    }
    card = {"backbone_sha256": network["sha256"], "shared": shared, "made": dict(how), "heads": entries}
    write_json(folder / f"{backbone}.{setting}.json", card)


def write_system(
    folder: Path,
    backbone: str,
    module: System,
    figures: Sequence[Mapping[str, float]],
    how: Mapping[str, object],
    *,
    more: Mapping[str, object] | None = None,
    apart: Sequence[str] = (),
) -> None:
    """Write a system's numbers, as they ship, and its card.

    Args:
        module: of the first seed.
        figures: on test scenes, of every seed.
        more: what else was measured.
        apart: knobs with another training each: they are part of the file's name.
    """
    params = dict(module.params)
    name = pack.system_name(backbone, module.spec.key, {k: params[k] for k in apart})
    digest = _write_tensors(folder / f"{name}.safetensors", halved(module.state_dict()))
    network = json.loads((folder / f"{backbone}.json").read_text("utf-8"))
    spread = {k: round(statistics.stdev(f[k] for f in figures), 4) for k in figures[0]} if len(figures) > 1 else {}
    card = {
        "backbone": backbone,
        "backbone_sha256": network["sha256"],
        "system": module.spec.key,
        "params": params,
        "metrics": {k: round(statistics.fmean(f[k] for f in figures), 4) for k in figures[0]},
        "spread": spread,
        "seeds": len(figures),
        "figures": dict(more or {}),
        "parameters": sum(p.numel() for p in module.parameters()),
        "fingerprint": system_fingerprint(module),
        "made": dict(how),
        "file": f"{name}.safetensors",
        "sha256": digest,
    }
    write_json(folder / f"{name}.json", card)


def system_fingerprint(module: System) -> str:
    """Return a mark of a system's knobs, and of the names and shapes of its numbers."""
    spec, shapes = module.spec, [(name, list(tensor.shape)) for name, tensor in module.state_dict().items()]
    known = [spec.takes, [(p.key, p.default, p.choices, p.refit) for p in spec.params]]
    return hashlib.sha256(json.dumps([spec.key, known, shapes]).encode()).hexdigest()[:16]


def as_shipped(head: nn.Module) -> nn.Module:
    """Round a head's numbers to half precision in place, so that what is measured is what ships."""
    with torch.no_grad():
        for tensor in (*head.parameters(), *head.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(torch.float16))
    return head.eval()


def write_json(path: Path, content: object) -> None:
    """Write a card, whole or not at all."""
    _replace(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    content = safetensors.torch.save(dict(tensors))
    _replace(path, content)
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)
