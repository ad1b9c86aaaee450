"""The processor's work in a training step on a GPU, before and after, without a GPU.

    git worktree add ../before COMMIT
    python benchmarks/host_step.py --before ../before

A GPU's steps take as long as the processor needs to ask for them, if that is longer than the
computation. To see it without a GPU, the patches are so small that computing them takes no time,
and a clock stands in for the GPU's time (``--device-ms`` per step, from when the network is
called): whoever reads a number from the device waits for the clock. What real GPUs wait for in
addition, copies of ordinary memory, is only counted, so what was before is rather flattered.

The work of the thread that cuts and packs batches is measured with patches of real size. Every
figure is the median of ``--rounds`` runs that take turns, each in a process of its own. Prints two
tables, writes benchmarks/results/host_step.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "host_step.json"
BATCHES = (4, 16, 64)
PATCH, TINY, STEPS, WARM = 256, 16, 60, 10
WAYS = ("before", "now", "now, images on the device")


class Clock:
    """When the device will have finished what it was given."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, 0.0

    def work(self) -> None:
        self.end = max(time.perf_counter(), self.end) + self.seconds

    @staticmethod
    def wait(end: float) -> None:
        time.sleep(max(0.0, end - time.perf_counter()))


def trainer_of(tree: str, batch: int, patch: int, resident: bool, device: str = "cpu") -> Any:
    """A training with default settings by the code in this folder."""
    sys.path.insert(0, tree)
    import numpy as np
    import torch

    from unet.config.presets import architecture_of
    from unet.config.sections import TrainSection
    from unet.models.build import build
    from unet.training.augment import Augment
    from unet.training.checkpoint import Checkpoints
    from unet.training.losses import make_loss
    from unet.training.patch_targets import TargetSettings
    from unet.training.sampling import PatchSampler, TrainingImage
    from unet.training.trainer import Trainer

    torch.set_num_threads(1)
    where, rng = torch.device(device), np.random.default_rng(0)
    section = TrainSection(batch=batch, patch=patch, epochs=1, steps_per_epoch=10**6, ema=0.99)
    images = []
    for k in range(4):
        image = rng.standard_normal((1, 2 * patch, 2 * patch), dtype=np.float32)
        classes = (image[0] > 0).astype(np.uint8)
        images.append(TrainingImage(str(k), image, classes, None, TargetSettings(), cached=True))
    sampler = PatchSampler(images, (patch,) * 2, (0, 0), batch, section.foreground, 0)
    more: dict[str, Any] = {}
    if resident:
        from unet.training.device_images import DeviceImages

        more["resident"] = DeviceImages(images, where)
    run = Trainer(
        build(1, 2, architecture_of("unet-bn", width=1), 0), make_loss(section.loss, 2), sampler,
        Augment(section.augment), lambda network: (0.0, 0.0), section, 0, where, "float32",
        Checkpoints(Path(tempfile.gettempdir()), "benchmark"), **more,
    )  # fmt: skip
    if late(run):
        # As on a GPU.
        for group in run.optimizer.param_groups:
            group["fused"] = True
    return run


def late(run: Any) -> bool:
    """Whether the loss is read a step late."""
    return hasattr(run, "_read_losses")


class Piece:
    """A function that adds up this thread's time in it."""

    def __init__(self, owner: Any, name: str) -> None:
        self.function, self.seconds = getattr(owner, name), 0.0
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = time.thread_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.thread_time() - started


def step_times(run: Any, device_ms: float) -> dict[str, float]:
    """Milliseconds of a step: in all, of the thread that asks for it, and of its pieces."""
    import torch

    from unet.training import trainer

    pieces = {"optimizer, ms": Piece(run.optimizer, "step")}
    if late(run):
        pieces["average, ms"] = Piece(run._average, "update")
        pieces["augmentation, ms"] = Piece(run.source.augment, "apply")
    else:
        pieces["average, ms"] = Piece(trainer, "average_weights")
        pieces["augmentation, ms"] = Piece(run, "augment")
    clock = Clock(device_ms / 1000)
    run.network.register_forward_pre_hook(lambda *args: clock.work())
    if late(run):
        from unet.models.transfer import Late

        made, read = Late.__init__, Late.number

        def noted(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            self.end = clock.end

        def number(self: Any) -> float:
            clock.wait(self.end)
            return read(self)

        setattr(Late, "__init__", noted)  # noqa: B010
        setattr(Late, "number", number)  # noqa: B010
    else:
        as_float = torch.Tensor.__float__

        def waited(self: Any) -> float:
            clock.wait(clock.end)
            return as_float(self)

        setattr(torch.Tensor, "__float__", waited)  # noqa: B010

    def steps(number: int) -> None:
        for _ in range(number):
            value = run._step(batches)
            run.progress.step += 1
            if late(run):
                run._unread.append(value)
                run._read_losses(1)

    with ThreadPoolExecutor(1) as loader:
        batches = run._batches(loader)
        steps(WARM)
        for piece in pieces.values():
            piece.seconds = 0.0
        wall, own = time.perf_counter(), time.thread_time()
        steps(STEPS)
        wall, own = time.perf_counter() - wall, time.thread_time() - own
    seconds = {"step, ms": wall, "asking, ms": own}
    seconds |= {name: piece.seconds for name, piece in pieces.items()}
    return {name: 1e3 * value / STEPS for name, value in seconds.items()}


def loader_times(run: Any) -> dict[str, float]:
    """Milliseconds to cut and pack a batch, and what goes to the device."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    cut = run.source.packed if late(run) else partial(run.sampler.batch, rows=run.rows)
    for index in range(WARM):
        batch = cut(index)
    started = time.thread_time()
    for index in range(STEPS):
        batch = cut(index)
    found = {"cutting, ms": 1e3 * (time.thread_time() - started) / STEPS}
    if late(run):
        return {**found, "MB copied": 1e-6 * batch.parcel.size, "copies": 1}
    copies = Counter[str]()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = f(*args, **(kwargs or {}))
            tensors = [t for t in tree_leaves((args, kwargs, result)) if torch.is_tensor(t)]
            if len({t.device.type for t in tensors if t.ndim}) > 1:
                copies["number"] += 1
                copies["bytes"] += sum(t.nbytes for t in tensors if t.device.type == "cpu")
            return result

    # Augmentation on a device without memory; it has neither random numbers nor autocast.
    generator = torch.Generator
    setattr(torch, "Generator", lambda *device: generator())  # noqa: B010
    setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # noqa: B010
    meta = torch.device("meta")
    with Counting():
        images, targets = (torch.from_numpy(a).to(meta) for a in (batch.images, batch.targets))
        draw = torch.Generator().manual_seed(0)
        run.augment(images, targets[:, None], None, draw, (run.rows, len(images)))
    return {**found, "MB copied": 1e-6 * copies["bytes"], "copies": copies["number"]}


def measured(tree: str, way: str, batch: int, device_ms: float | None) -> dict[str, float]:
    """Times of steps; without a device's time, those of the loader."""
    resident = way == WAYS[2]
    if device_ms is not None:
        return step_times(trainer_of(tree, batch, TINY, resident), device_ms)
    run = trainer_of(tree, batch, PATCH, resident, "meta" if way != WAYS[0] else "cpu")
    return loader_times(run)


def child(tree: Path, way: str, batch: int, device_ms: float | None) -> dict[str, float]:
    """``measured`` in a process of its own."""
    what = json.dumps([str(tree), way, batch, device_ms])
    command = [sys.executable, __file__, "--child", what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(result: dict[str, Any]) -> str:
    """The result as Markdown: a line per code and batch, with all figures that it has."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in result["rows"]:
        cells = found.setdefault((row["code"], row["batch"]), {})
        for name, value in row.items():
            if name not in ("batch", "device, ms", "code"):
                given = row["device, ms"]
                at = f", device {given:g} ms" if name == "step, ms" else ""
                cells.setdefault(name + at, value)
    names = list(dict.fromkeys(name for cells in found.values() for name in cells))
    lines = [["code", "batch", *names], ["---", *["---:"] * (1 + len(names))]]
    for (code, batch), cells in sorted(found.items(), key=lambda item: item[0][1]):
        lines.append([code, str(batch), *(f"{cells[name]:.3g}" for name in names)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--before", type=Path, help="a checkout of the code to compare with")
    p.add_argument("--device-ms", type=float, nargs="+", default=[0.0, 8.0])
    p.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--out", type=Path, default=RESULT)
    p.add_argument("--show", action="store_true", help="print the table of a result")
    p.add_argument("--child", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.show:
        print(table(json.loads(args.out.read_text(encoding="utf-8"))))
        return
    if args.child:
        print(json.dumps(measured(*json.loads(args.child))))
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.machine import commit_of, load, torch_machine
    from unet.files import write_json

    ways = WAYS if args.before else WAYS[1:]
    rows = []
    for ms in (None, *args.device_ms):
        for batch in args.batches:
            found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(args.rounds):
                for way in ways:
                    tree = args.before.resolve() if way == WAYS[0] else ROOT
                    found[way].append(child(tree, way, batch, ms))
            for way in ways:
                medians = {
                    key: round(statistics.median(row[key] for row in found[way]), 3)
                    for key in found[way][0]
                }
                rows.append({"batch": batch, "device, ms": ms, "code": way, **medians})
                print(rows[-1], flush=True)
    about: dict[str, Any] = {"patch": PATCH, "tiny": TINY, "steps": STEPS, "rounds": args.rounds}
    if args.before:
        about |= {"before": commit_of(args.before), "now": commit_of(ROOT)}
    result = {"machine": torch_machine(), "load": load(), **about, "rows": rows}
    write_json(args.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
