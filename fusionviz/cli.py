"""The command line: `python -m fusionviz doctor | list | fetch | run | render | train | bench`.

Exit 0 on success; 2 and one sentence on stderr for a user's mistake; never a traceback for one.
"""

import argparse
import json
import math
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from fusionviz import state, texts
from fusionviz.errors import FusionvizError, PictureError, WeightsError
from fusionviz.selection import FITS, Selection


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if hasattr(sys.stdout, "reconfigure"):  # a terminal or a file name may know fewer letters than the texts
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(argv)
        code = options.command(options) or 0
        sys.stdout.flush()  # here, where a reader that went away can be answered
        return code
    except FusionvizError as mistake:
        print(f"fusionviz: {mistake}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader went away (`| head`): not a mistake. Keep Python from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one sentence, where argparse prints the whole usage before it."""

    def error(self, message: str) -> None:
        raise FusionvizError("cli.usage", message=message, prog=self.prog)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m fusionviz", description=texts.text("cli.about"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run) -> argparse.ArgumentParser:  # noqa: ANN001 - a function of this file
        sub = commands.add_parser(name, help=texts.text(f"cli.{name}"), description=texts.text(f"cli.{name}"))
        sub.set_defaults(command=run)
        return sub

    doctor = command("doctor", _doctor)
    doctor.add_argument("--json", action="store_true")

    listing = command("list", _list)
    listing.add_argument("what", choices=("methods", "backbones", "images"))
    listing.add_argument("--json", action="store_true")

    fetch = command("fetch", _fetch)
    fetch.add_argument("names", nargs="+", metavar="BACKBONE")

    run = command("run", _run)
    _choices(run)
    run.add_argument("--json", action="store_true")

    bench = command("bench", _bench)
    bench.add_argument("--backbone", default="resnet50")
    bench.add_argument("--method", default="aff")
    bench.add_argument("--rounds", type=int, default=15)
    bench.add_argument("--device", metavar="auto|cuda:0|mps|cpu")
    bench.add_argument("--json", action="store_true")

    train = command("train", _train)
    train.add_argument("--backbone", nargs="+", metavar="B", help=texts.text("training.options.backbone"))
    train.add_argument("--method", nargs="+", default=[], metavar="M", help=texts.text("training.options.method"))
    train.add_argument("--part", nargs="+", metavar="PART", help=texts.text("training.options.part"))
    train.add_argument("--steps", type=int, metavar="N", help=texts.text("training.options.steps"))
    train.add_argument("--seeds", type=int, metavar="N", help=texts.text("training.options.seeds"))
    train.add_argument("--jobs", type=int, metavar="N", help=texts.text("training.options.jobs"))
    train.add_argument("--quick", action="store_true", help=texts.text("training.options.quick"))
    train.add_argument("--out", type=Path, metavar="FOLDER", help=texts.text("training.options.out"))

    render = command("render", _render)
    _choices(render)
    render.add_argument("--link", help=texts.text("cli.options.link"))
    render.add_argument("--lang", choices=texts.LANGUAGES, default="en")
    render.add_argument("--dark", action="store_true")
    render.add_argument("--out", required=True, metavar="FILE.png|.svg|.pdf")
    return parser


def _choices(parser: argparse.ArgumentParser) -> None:
    plain = Selection()
    parser.add_argument("--image", metavar="FILE|sample:NAME|folder:NAME")
    parser.add_argument("--backbone")
    parser.add_argument("--weights", metavar="auto|random|FILE", help=texts.text("cli.options.weights"))
    parser.add_argument("--method")
    parser.add_argument("--phrase", metavar="WORDS", help=texts.text("cli.options.phrase"))
    parser.add_argument("--site", metavar="KIND:BLOCK", help=texts.text("cli.options.site"))
    parser.add_argument("--low", metavar="LEVEL")
    parser.add_argument("--high", metavar="LEVEL")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help=texts.text("cli.options.set"))
    parser.add_argument("--size", type=int, metavar="PX")
    parser.add_argument("--fit", choices=FITS)
    parser.add_argument("--seed", type=int, help=f"default {plain.seed}")
    parser.add_argument("--at", type=float, metavar="0…1", help=texts.text("cli.options.at"))
    parser.add_argument("--device", metavar="auto|cuda:0|mps|cpu")


def _selection(options: argparse.Namespace) -> Selection:
    """A link first, if there is one; what else is given stands above it."""
    from fusionviz import api, fusion
    from fusionviz.state import LinkError

    selection = Selection()
    if getattr(options, "link", None):
        selection, notices = state.read(state.parse_text(options.link), api.catalogue())
        for notice in notices:
            print(f"fusionviz: {notice}", file=sys.stderr)
    given: dict[str, object] = {}
    if options.backbone not in (None, selection.backbone):  # what belonged to the link's backbone is let go
        given = {"low": None, "high": None, "size": None, "site": None}
    if options.site is not None:
        given |= {"low": None, "high": None, "site": options.site or None}
    given |= {
        key: getattr(options, key)
        for key in ("backbone", "low", "high", "size", "fit", "seed", "phrase")
        if getattr(options, key) is not None
    }
    if options.at is not None:
        given["frame"] = options.at
    if options.method is not None:
        if options.method != selection.method:
            given |= {"params": (), "channels": (), "pin_channel": None}
        given["method"] = options.method
    if options.image is not None:
        known = options.image.startswith(("sample:", "folder:", "file:", "scene:"))
        given["picture"] = options.image if known else f"file:{options.image}"
    if options.weights is not None:
        given["weights"] = options.weights if options.weights in ("auto", "random") else f"file:{options.weights}"
    selection = selection.with_(**given)
    spec = fusion.spec(selection.method)
    knobs = selection.knobs
    for pair in options.set:
        key, sign, value = pair.partition("=")
        if not sign:
            raise LinkError("cli.set", value=pair)
        knobs[key] = spec.param(key).parse(value, spec.key)
    return selection.with_(params=tuple(knobs.items()))


def _study(options: argparse.Namespace):  # noqa: ANN202 - StudyResult, which loads torch
    from fusionviz import study

    found = study.run(_selection(options), on=options.device)
    if options.at is not None and found.sweep is None:
        print(f"fusionviz: {texts.text('cli.no_slider')}", file=sys.stderr)
    return found


def _print_json(value: object) -> None:
    """Print JSON that any reader takes, wherever it goes: ASCII, and null for what is not a finite number."""
    print(json.dumps(_finite(value), allow_nan=False, indent=1))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- commands ------------------------------------------------------------------------------------
def _run(options: argparse.Namespace) -> None:
    from fusionviz import study

    report = study.report(_study(options))
    if options.json:
        _print_json(report)
        return
    where = " · ".join(filter(None, (report["backbone"]["key"], report["backbone"]["site"])))
    print(f"{report['picture']['key']} · {where} · {report['method']['key']}")
    _print_outputs(report)
    for a in report["attention"]:
        print(f"{a['name']} ({a['kind']}, {a['axes']}): {a['minimum']:.3f} … {a['maximum']:.3f}, mean {a['mean']:.3f}")
    if report["balance"]:
        at = report["balance"]["at"]
        facts = next(f for f in report["balance"]["curve"] if f["value"] == at)
        print(" · ".join([f"balance {at:g}", *(f"{k} {v:.3f}" for k, v in facts.items() if k != "value")]))
    print(" · ".join(f"{k} {v:.1f} ms" for k, v in report["timings_ms"].items()) + f" · {report['device']}")


def _print_outputs(report: dict) -> None:
    shapes = {name: " × ".join(map(str, m["shape"])) for name, m in report["outputs"].items()}
    method, provenance = report["method"], report["provenance"]
    if method["low"] and "fused" in shapes:
        print(f"{method['low']} + {method['high']} -> {shapes['fused']} · {provenance}")
    else:
        print(f"{', '.join(shapes)} · {provenance}")
    if method["phrase"]:
        print(method["phrase"])
    for out in report["outputs"].values():
        for found in out.get("detections", ()):
            box = " ".join(f"{v:.0f}" for v in found["box"])
            print(f"{found['class']} {found['score']:.2f} · {found['level']} · {box}")
        if "words" in out:
            print(" ".join(out["words"]))
        if "answers" in out:
            print(" → ".join(out["answers"]))


def _train(options: argparse.Namespace) -> None:
    from fusionviz import pack
    from fusionviz.backbones import bundled
    from fusionviz.training import rebuild

    parts = options.part or rebuild.parts_of(options.method)
    for given, known in (
        (options.backbone or (), bundled.names()),
        (options.method, (*rebuild.methods(), *rebuild.wholes.names())),
        (parts, rebuild.PARTS),
    ):
        for name in given:
            if name not in known:
                raise FusionvizError("training.unknown", received=name, known=", ".join(known))
    for name, number in (("--steps", options.steps), ("--seeds", options.seeds), ("--jobs", options.jobs)):
        if number is not None and number < 1:
            raise FusionvizError("training.number", name=name, received=number)
    budget = rebuild.changed(rebuild.QUICK if options.quick else rebuild.FULL, options.steps, options.seeds)
    rebuild.rebuild(
        options.out or (Path("out/weights") if options.quick else pack.folder()),
        budget,
        backbones=options.backbone or bundled.names(),
        parts=parts,
        which=options.method,
        jobs=options.jobs or os.cpu_count() or 1,
        say=lambda key, values: print(texts.text(f"training.{key}", **values), flush=True),
    )


def _render(options: argparse.Namespace) -> None:
    from fusionviz import api
    from fusionviz.figures import slide

    kind = slide.kind_of(options.out)  # before the work, so that a wrong ending costs nothing
    language, notice = slide.language_for(options.lang)
    if notice:
        print(f"fusionviz: {texts.text(notice)}", file=sys.stderr)
    figure = api.draw(_study(options), language=language, dark=options.dark)
    slide.save(figure, Path(options.out), kind)
    print(options.out)


def _list(options: argparse.Namespace) -> None:
    rows = {"methods": _methods, "backbones": _backbones, "images": _images}[options.what]()
    if options.json:
        _print_json(rows)
        return
    for row in rows:
        print(f"{row['key']:24} {row['about']}")


def _methods() -> list[dict]:
    from fusionviz import fusion, systems

    rows = []
    for key in (*fusion.names(), *systems.names()):
        spec = fusion.spec(key)
        knobs = [
            {
                "key": p.key,
                "kind": p.kind,
                "default": p.default,
                "choices": list(p.choices),
                "low": p.low,
                "high": p.high,
            }
            for p in spec.params
        ]
        rows.append(
            {
                "key": key,
                "title": texts.method_text(key, "title"),
                "about": texts.method_text(key, "idea"),
                "family": spec.family,
                "takes": spec.takes,
                "stands": spec.stands,
                "align": spec.align,
                "equation": spec.equation,
                "paper": spec.paper,
                "link": spec.link,
                "year": spec.year,
                "params": knobs,
            }
        )
    return rows


def _backbones() -> list[dict]:
    from fusionviz import backbones, pack, weights

    rows = []
    for key in backbones.names():
        info = backbones.info(key)
        levels = [
            {
                "name": v.name,
                "channels": v.channels,
                "stride": list(v.stride),
                "offset": list(v.offset),
                "stage": v.stage,
            }
            for v in info.levels
        ]
        reason = texts.text(info.exception) if info.exception else ""
        rows.append(
            {
                "key": key,
                "title": info.title,
                "family": info.family,
                "about": reason or " ".join(f"{v['name']}:{v['channels']}" for v in levels),
                "levels": levels,
                "sites": [site.name for site in info.sites],
                "strides": [v["stride"][0] for v in levels],
                "channels": [v["channels"] for v in levels],
                "input_px": info.preprocessing.crop_px,
                "fixed_size": info.preprocessing.fixed,
                "weights": info.weights,
                "cached": pack.backbone_card(key) is not None or weights.cached(key) is not None,
                "parameters": info.parameters,
                "reason": reason,
            }
        )
    return rows


def _images() -> list[dict]:
    from fusionviz import pictures

    rows = []
    for key in pictures.keys():
        try:
            opened = pictures.open_picture(key)
        except PictureError as broken:  # one bad file of a folder does not hide the others
            rows.append({"key": key, "title": key, "about": str(broken), "size": None, "credit": ""})
            continue
        size = [opened.pixels.shape[1], opened.pixels.shape[0]]
        rows.append({"key": key, "title": opened.title, "about": opened.title, "size": size, "credit": opened.credit})
    return rows


def _fetch(options: argparse.Namespace) -> None:
    from fusionviz import backbones, pack, systems, weights

    for name in options.names:
        if name not in systems.networks():
            backbones.info(name)  # an unknown name is answered before anything is downloaded
    for name in options.names:
        if pack.backbone_card(name) is not None:
            print(texts.text("cli.fetch_bundled", name=name))
            continue
        known = weights.published(name)
        if (path := weights.cached(name)) is not None:
            try:
                weights.verify(path)
                print(texts.text("cli.fetch_there", name=name, path=path))
                continue
            except WeightsError as damaged:  # fetching it again is what mends it
                print(f"fusionviz: {damaged}", file=sys.stderr)
        bar = _Bar(f"{name} ({known.name})")
        path = weights.fetch(name, progress=bar)
        bar.end()
        print(path)


class _Bar:
    """A progress line on a terminal; silent where stderr is a file."""

    def __init__(self, title: str) -> None:
        self.title, self.last = title, -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if sys.stderr.isatty() and percent != self.last:
            self.last = percent
            print(f"\r{self.title}  {percent:3d} %  {done / 1e6:.1f} / {total / 1e6:.1f} MB", end="", file=sys.stderr)

    def end(self) -> None:
        if self.last >= 0:
            print(file=sys.stderr)


def _bench(options: argparse.Namespace) -> None:
    from fusionviz import bench

    found = bench.run(options.backbone, options.method, rounds=options.rounds, on=options.device)
    if options.json:
        _print_json(found)
        return
    low, high = found["study_over_bare_spread"]
    print(f"{found['backbone']} + {found['method']} on {found['device']} ({found['device_title']})")
    ratio, rounds = found["study_over_bare"], found["rounds"]
    print(f"study.run / bare forward   {ratio:.3f}  ({low:.3f} … {high:.3f}, {rounds} pairs)")
    print(f"prepare / bare forward     {found['prepare_over_bare']:.3f}")
    if "fit" in found["ms"]:
        print(f"fit to the picture         {found['ms']['fit']:.0f} ms, once for each picture")


def _doctor(options: argparse.Namespace) -> int:
    """Say what works here; exit 1 and the fix if something a lecture needs does not."""
    from fusionviz import backbones, device, fits, pictures, weights

    problems = []
    try:
        pictures.folder()
    except PictureError as lost:
        problems.append(str(lost))
    versions = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "streamlit", "matplotlib", "scikit-image"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            problems.append(texts.text("cli.doctor_missing", name=name))
    folder = weights.cache_folder()
    if not _writable(folder):
        problems.append(texts.text("cli.doctor_cache", path=folder))
    cached = [key for key in backbones.names() if weights.cached(key) is not None]
    devices = device.available()
    report = {
        "device": devices[0],
        "device_title": device.title(devices[0]),
        "devices": list(devices),
        "versions": versions,
        "cache": str(folder),
        "cached_weights": cached,
        "fits": {"folder": str(fits.folder()), "count": len(fits.files())},
        "problems": problems,
    }
    if options.json:
        _print_json(report)
    else:
        print(f"device    {report['device']} ({report['device_title']})")
        print("versions  " + " · ".join(f"{k} {v}" for k, v in versions.items()))
        print(f"weights   {len(cached)} in {folder}" + (f": {', '.join(cached)}" if cached else ""))
        if not cached:
            print("          " + texts.text("cli.doctor_no_weights"))
        print(f"fits      {len(fits.files())} in {fits.folder()}")
    for problem in problems:
        print(f"fusionviz: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
