"""Fitting a head while people watch: on scenes drawn for it, in small portions, stopped and gone on with at any step.

    fit = FITS.start(subject, device)      the same fit for every session that asks for it
    fit.now()                              where it stands: phase, step, loss, mIoU, seconds left
    fit.stop(); FITS.start(subject, device)

A fit has a thread of its own, but computes on the device's one worker, in portions of a few steps, so that pictures of
other sessions come in between. Every number depends on the seed and on no clock: on the same CPU, a fit that was
stopped ends in the same weights as one that was not, also in another process.

Environment:
    FUSIONVIZ_FIT_STEPS: how many steps a fit has, for a machine on which 400 take too long.
    FUSIONVIZ_FIT_SCENES: the most scenes that are drawn for one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fusionviz import device, fits, models
from fusionviz.backbones import Backbone
from fusionviz.errors import FusionvizError
from fusionviz.fits import READERS, Fit, Moment, Subject
from fusionviz.records import FeaturePyramid, FusionResult
from fusionviz.trace import NullTrace
from fusionviz.training.data import TRAIN, VALIDATION, Samples, class_weights, draw, features
from fusionviz.training.heads import Head
from fusionviz.training.loop import BATCH, Fitting, classes_of, enlarged, fitting

STEPS = 400
SCENES = 384
"""At most; some of them are not fitted to but measured on, see `fits.held`."""

FEWEST = 96
BUDGET_MACS, BUDGET_BYTES = 250 << 30, 256 << 20
"""What looking at the scenes may cost: multiply-accumulates of the backbone, and bytes of its maps. A heavy backbone
sees fewer scenes, and a light one is ready in two or three seconds."""

SCENES_FROM = TRAIN + 700_000
"""Neither the shipped networks nor their heads were fitted to these."""

MOMENTS = (0, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 400)
"""Steps at which the head is measured and kept: often while it changes fast."""

AT_ONCE = 2
_REMEMBERED = 8
_PORTION_S = 0.05
_WRITE_S = 2.0
_CHUNK = 32


# --- scenes and their maps -----------------------------------------------------------------------
@dataclass(frozen=True)
class Data:
    """What fits of one backbone share.

    Attributes:
        train, held: maps by level, fine to coarse, [n c h w] at half precision: fitted to, and measured on.
        labels, held_labels: classes [n h w] uint8.
    """

    train: Mapping[str, Tensor]
    labels: Tensor
    held: Mapping[str, Tensor]
    held_labels: Tensor

    def of(self, levels: tuple[str, ...]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Return the maps of these levels: those to fit to, those to measure on."""
        return {name: self.train[name] for name in levels}, {name: self.held[name] for name in levels}


@torch.inference_mode()
def counts(backbone: Backbone, size: int, levels: tuple[str, ...], where: torch.device, most: int) -> tuple[int, int]:
    """Return how many scenes are fitted to and how many measured on; it depends on the network, not on the machine."""
    with FlopCounterMode(display=False) as counter:
        pyramid, _ = backbone(torch.zeros(1, 3, size, size, device=where))
    number_of = sum(pyramid[name].tensor.numel() for name in levels)
    macs = max(counter.get_total_flops() // 2, 1)
    count = min(BUDGET_MACS // macs, BUDGET_BYTES // (2 * number_of))
    count = min(max(count, FEWEST), most)
    return count - fits.held(count), fits.held(count)


# --- one fit -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Now:
    """Where a fit stands.

    Attributes:
        phase: "waiting" (for other fits) | "preparing" (scenes and their maps) | "fitting" (the method) |
            "baselines" (one level by itself, twice) | "stopped" | "done" | "failed".
        ready, scenes: how many scenes are drawn and looked at, of how many; 0 of 0 before that is known.
        step, steps: of the method.
        loss: of the last batches, smoothed; None before the first.
        moments: what was measured so far.
        seconds_left: until all is done, as it goes now; None where that cannot be said yet.
        mistake: why it failed.
    """

    phase: str
    ready: int
    scenes: int
    step: int
    steps: int
    loss: float | None
    moments: tuple[Moment, ...]
    seconds_left: float | None
    mistake: FusionvizError | None = None

    @property
    def running(self) -> bool:
        return self.phase in ("waiting", "preparing", "fitting", "baselines")


class LiveFit:
    """One fit under way; see the module.

    Args:
        room: of which fits wait their turn and share scenes.
        found: the fit as far as it came before, to go on with.
    """

    def __init__(self, subject: Subject, where: torch.device, room: Room, found: Fit | None = None) -> None:
        self.subject, self.where, self.room = subject, where, room
        self.steps, self.most = (found.steps, found.drawn) if found else (room.steps, room.scenes)
        self._phase, self._mistake = "waiting", None
        self._ready = self._scenes = 0
        self._step, self._loss = (found.done["fused"] if found else 0), None
        self._done = dict(found.done) if found else dict.fromkeys(READERS, 0)
        self._kept = found.kept() if found else {}
        self._state = found.state() if found else {}
        # What was kept where somebody stopped belongs to no fit that goes on.
        planned = {step for step in MOMENTS if step < self.steps} | {self.steps}
        self._planned = tuple(sorted(planned))
        self._moments = tuple(m for m in found.moments if m.step in planned) if found else ()
        kept = {f"fused/{m.step}/" for m in self._moments}
        self._kept = {
            k: v for k, v in self._kept.items() if not k.startswith("fused/") or f"{k.rpartition('/')[0]}/" in kept
        }
        self._pace: dict[str, float] = {}
        self._ask = threading.Event()
        self._written = 0.0
        self._thread = threading.Thread(target=self._run, name="fusionviz-fit", daemon=True)

    # --- what others see and do ------------------------------------------------------------------
    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the step that runs; what was reached is written down."""
        self._ask.set()

    def wait(self, timeout_s: float | None = None) -> Now:
        """Wait until it stands still, and return where."""
        self._thread.join(timeout_s)
        return self.now()

    def now(self) -> Now:
        return Now(
            self._phase,
            self._ready,
            self._scenes,
            self._step,
            self.steps,
            self._loss,
            self._moments,
            self._seconds_left(),
            self._mistake,
        )

    def head_at(self, step: int) -> Head:
        """Return the head as it was kept at one of the moments."""
        start = f"fused/{step}/"
        state = {k.removeprefix(start): v for k, v in self._kept.items() if k.startswith(start)}
        head = self.subject.build()
        head.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        return head.to(self.where).eval()

    def _seconds_left(self) -> float | None:
        if self._phase not in ("fitting", "baselines") or "fused" not in self._pace and self._step < self.steps:
            return None
        method = self._pace.get("fused", 0.0)
        # A baseline that was not met yet takes about half of the method's time.
        left = {reader: (self.steps - self._done[reader]) for reader in READERS}
        return sum(n * self._pace.get(reader, method / 2) for reader, n in left.items())

    # --- the work --------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            with self.room.turn(self):
                self._phase = "stopped" if self._ask.is_set() else self._work()
        except FusionvizError as mistake:
            self._phase, self._mistake = "failed", mistake
        except Exception as cause:  # a thread's traceback would be seen by nobody
            reason = (str(cause) or repr(cause)).splitlines()[0]
            self._mistake = FusionvizError("live.failed", reason=reason)
            self._phase = "failed"

    def _work(self) -> str:
        """Fit the method, then the baselines; return "done" or "stopped"."""
        self._phase = "preparing"
        data = self.room.data(self)
        if data is None:
            return "stopped"
        for reader in READERS:
            self._phase = "fitting" if reader == "fused" else "baselines"
            if self._done[reader] < self.steps and not self._fit(reader, data):
                return "stopped"
        return "done"

    def _fit(self, reader: str, data: Data) -> bool:
        """Fit one head to its end; return whether it came there."""
        subject = self.subject
        train, held = data.of(subject.levels if reader == "fused" else (subject.low, subject.high))
        head = subject.build(reader).to(self.where)
        under_way = fitting(head, train, data.labels, self.steps, seed=subject.seed)
        if self._done[reader]:
            under_way.go_on(self._done[reader], self._state)
        weights = class_weights(data.labels, classes_of(head)).to(self.where)
        watch = (lambda: self._keep(head, under_way, held, data.held_labels, weights)) if reader == "fused" else None
        if watch and not self._moments:
            device.submit(self.where, watch)
        while under_way.step < self.steps and not self._ask.is_set():
            began, before = time.perf_counter(), under_way.step
            device.submit(self.where, lambda: self._portion(under_way, watch))
            took = (time.perf_counter() - began) / (under_way.step - before)
            self._pace[reader] = 0.8 * self._pace.get(reader, took) + 0.2 * took
            self._done[reader] = under_way.step
            if reader == "fused":
                self._step = under_way.step
            self._checkpoint(under_way)
        if watch and self._moments[-1].step != under_way.step:
            device.submit(self.where, watch)
        complete = under_way.step == self.steps
        if complete and reader != "fused":
            self._kept |= {f"{reader}/{k}": v for k, v in fits.halved(head.state_dict()).items()}
        self._write(under_way)
        return complete

    def _portion(self, under_way: Fitting, watch: Callable[[], None] | None) -> None:
        """Take some steps: up to the next moment, and no longer than others should wait.

        One core is left to the page, which would otherwise stand still just while people watch it.
        """
        end, threads = time.perf_counter() + _PORTION_S, torch.get_num_threads()
        torch.set_num_threads(max(1, threads - 1))
        try:
            for now in under_way:
                self._loss = now.loss if self._loss is None or now.step == 1 else 0.9 * self._loss + 0.1 * now.loss
                if watch and now.step in self._planned:
                    watch()
                if now.step in self._planned or time.perf_counter() > end or self._ask.is_set():
                    return
        finally:
            torch.set_num_threads(threads)

    def _keep(
        self, head: Head, under_way: Fitting, held: Mapping[str, Tensor], labels: Tensor, weights: Tensor
    ) -> None:
        loss, miou = measure(head, held, labels, weights)
        step = under_way.step
        self._kept |= {f"fused/{step}/{k}": v for k, v in fits.halved(head.state_dict()).items()}
        self._moments = (*self._moments, Moment(step, loss, miou))

    def _checkpoint(self, under_way: Fitting) -> None:
        """Write down where the fit stands, now and then, so that a process that is killed has not worked in vain."""
        if self._moments[-1].step == self._step and time.perf_counter() - self._written > _WRITE_S:
            self._write(under_way)

    def _write(self, under_way: Fitting) -> None:
        if not self._step:
            return
        last = self._done["high_only"] == self.steps
        now = {} if last or under_way.step == self.steps else under_way.state()
        fits.save(
            self.subject,
            self._kept,
            now,
            steps=self.steps,
            done=self._done,
            moments=self._moments,
            drawn=self._scenes,
        )
        self._written = time.perf_counter()


@torch.inference_mode()
def measure(head: Head, maps: Mapping[str, Tensor], labels: Tensor, weights: Tensor) -> tuple[float, float]:
    """Return loss and mIoU in percent, over every second pixel of every second row.

    Args:
        maps: of scenes that the head was not fitted to.
        labels: their classes [n h w].
        weights: of the classes in the loss.
    """
    head.eval()
    n, total = len(weights), 0.0
    pairs = torch.zeros(n * n, dtype=torch.int64, device=labels.device)
    for at in range(0, len(labels), _CHUNK):
        truth = labels[at : at + _CHUNK]
        scores = enlarged(head.scores([v[at : at + _CHUNK].float() for v in maps.values()])[0], truth.shape[-2:], 0, 0)
        truth = truth[:, ::2, ::2].long()
        total += float(F.cross_entropy(scores, truth, weights)) * len(truth)
        pairs += torch.bincount((truth * n + scores.argmax(1)).flatten(), minlength=n * n)
    confusion = pairs.view(n, n).double()
    both = confusion.diagonal()
    there = confusion.sum(1) > 0
    iou = (both / (confusion.sum(0) + confusion.sum(1) - both))[there]
    return total / len(labels), 100 * float(iou.mean())


# --- what one picture shows of it ----------------------------------------------------------------
@dataclass(frozen=True)
class Look:
    """What a head makes of one picture at one moment.

    Attributes:
        classes: of every pixel, uint8 [h w].
        weight: of the low level by place [h w], or None where the method has no such weight; `share`: it is none, but
            how much of the fused map comes from the low level.
    """

    classes: Tensor
    weight: Tensor | None
    share: bool


def look(fit: LiveFit, step: int, pyramid: FeaturePyramid, size: tuple[int, int]) -> Look:
    """Return what the head of a moment makes of maps that the board has already.

    Args:
        size: (h, w) of the picture.
    """

    @torch.inference_mode()
    def compute() -> Look:
        head = fit.head_at(step)
        result = head.fusion(*(pyramid[name] for name in fit.subject.levels), trace=NullTrace())
        classes = head.read(result.fused.tensor, size).argmax(1)[0].to(torch.uint8).cpu()
        weight, share = _weight(result)
        return Look(classes, None if weight is None else weight.float().cpu(), share)

    return device.submit(fit.where, compute)


def _weight(result: FusionResult) -> tuple[Tensor | None, bool]:
    chosen = next((a for a in result.attention.values() if a.of == "low" and a.grain in ("place", "element")), None)
    if chosen is not None and chosen.sums == "with_high":
        return chosen.tensor[0].mean(0), False
    if chosen is not None or result.attention:
        return None, False
    share = result.share_of_low()
    return (None, False) if share is None else (share.tensor[0, 0], True)


def estimate_s(macs: int, size: int, where: torch.device) -> float:
    """Return very roughly how long a fit takes, before anything is measured.

    Args:
        macs: multiply-accumulates of the method for one picture.
        size: side of the network's input in pixels.
    """
    step_s = 6e-3
    if where.type == "cpu":  # a batch there and back, at 10 GMAC/s for each core of the worker
        step_s += 3 * BATCH * macs / (10e9 * max(1, (os.cpu_count() or 2) - 1))
    drawing_s = FITS.scenes * 4e-3 * (size / 128) ** 2
    # Looking takes about as long as drawing, and both baselines together about as long as the method.
    return 2 * drawing_s + 2 * FITS.steps * step_s


# --- all fits of this process --------------------------------------------------------------------
class Room:
    """The fits of a process: one for each subject, few at once, and what they share.

    Args:
        steps: of every fit that begins here.
        scenes: the most that are drawn for one.
        at_once: how many run at the same time; the others wait.
    """

    def __init__(self, steps: int = STEPS, scenes: int = SCENES, at_once: int = AT_ONCE) -> None:
        self.steps, self.scenes = steps, scenes
        self._fits: dict[str, LiveFit] = {}
        self._guard = threading.Lock()
        self._turns = threading.BoundedSemaphore(at_once)
        self._data: OrderedDict[tuple, Data] = OrderedDict()
        self._making = threading.Lock()

    def start(self, subject: Subject, where: torch.device) -> LiveFit:
        """Return the subject's fit under way; begin it, or go on with it where it was stopped."""
        with self._guard:
            fit = self._fits.get(subject.digest)
            if fit is None or not fit.now().running:
                found, _ = fits.find(subject)
                fit = LiveFit(found.subject if found else subject, where, self, found)
                self._fits[subject.digest] = fit
                still = [key for key, other in self._fits.items() if not other.now().running]
                for key in still[:-_REMEMBERED]:
                    del self._fits[key]
                fit.start()
        return fit

    def of(self, subject: Subject) -> LiveFit | None:
        """Return the subject's fit of this process, running or not."""
        return self._fits.get(subject.digest)

    def forget(self, subject: Subject) -> None:
        """Stop the subject's fit, and delete what was kept of it.

        Raises:
            WeightsError: if the file cannot be deleted.
        """
        with self._guard:
            fit = self._fits.pop(subject.digest, None)
        if fit is not None:
            fit.stop()
            fit.wait()
        fits.forget(subject)

    @contextmanager
    def turn(self, fit: LiveFit) -> Iterator[None]:
        """Wait until fewer than `at_once` others run, or the fit is told to stop."""
        while not (mine := self._turns.acquire(timeout=0.1)) and not fit._ask.is_set():
            continue
        try:
            yield
        finally:
            if mine:
                self._turns.release()

    def data(self, fit: LiveFit) -> Data | None:
        """Return scenes and their maps, made once for all methods of a backbone; None if the fit was stopped.

        Raises:
            FusionvizError: if the backbone's weights are damaged, or its maps do not fit into half precision.
        """
        subject = fit.subject
        levels = tuple(dict.fromkeys((subject.low, *subject.levels, subject.high)))
        key = (subject.backbone, subject.weights, levels, subject.size, fit.most, str(fit.where))
        with self._making:
            if key not in self._data:
                made = self._make(fit, levels)
                if made is None:
                    return None
                self._data[key] = made
                while len(self._data) > 2:
                    self._data.popitem(last=False)
            self._data.move_to_end(key)
            data = self._data[key]
        fit._ready = fit._scenes = len(data.labels) + len(data.held_labels)
        return data

    def _make(self, fit: LiveFit, levels: tuple[str, ...]) -> Data | None:
        subject, where = fit.subject, fit.where
        opened, notices = models.backbone(subject.backbone, subject.source, seed=subject.seed, device=where)
        if notices:  # it would be another network than the one whose fit this is
            raise notices[0]
        train, held = device.submit(where, lambda: counts(opened, subject.size, levels, where, fit.most))
        fit._scenes = train + held
        parts = [*_ranges(SCENES_FROM, train), *_ranges(VALIDATION, held)]
        maps: dict[str, list[Tensor]] = {name: [] for name in levels}
        labels: list[Tensor] = []
        with ThreadPoolExecutor(1, thread_name_prefix="fusionviz-draw") as pen:
            drawn = [pen.submit(draw, first, count, subject.size) for first, count in parts]
            for part in drawn:
                if fit._ask.is_set():
                    pen.shutdown(cancel_futures=True)
                    return None
                samples = part.result()
                found = device.submit(where, lambda: features(opened, _on(samples, where), levels))  # noqa: B023
                for name in levels:
                    maps[name].append(found[name])
                labels.append(samples.classes.to(where))
                fit._ready += len(samples)
        whole = {name: torch.cat(found) for name, found in maps.items()}
        if not all(bool(v.isfinite().all()) for v in whole.values()):
            raise FusionvizError("live.overflow", backbone=subject.backbone)
        classes = torch.cat(labels)
        return Data(
            {k: v[:train] for k, v in whole.items()},
            classes[:train],
            {k: v[train:] for k, v in whole.items()},
            classes[train:],
        )


def _ranges(first: int, count: int) -> list[tuple[int, int]]:
    """Return (seed, how many) of portions."""
    return [(first + at, min(_CHUNK, count - at)) for at in range(0, count, _CHUNK)]


def _on(samples: Samples, where: torch.device) -> Samples:
    return Samples(samples.pictures.to(where), samples.classes, samples.instances)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() and int(value) > 0 else default


FITS = Room(_number("FUSIONVIZ_FIT_STEPS", STEPS), _number("FUSIONVIZ_FIT_SCENES", SCENES))
"""Of the app."""
