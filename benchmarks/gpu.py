"""A GPU in a few minutes: ceilings, training steps, prediction, variants, and what is waited for.

    python benchmarks/gpu.py                    # all parts, then a table
    python benchmarks/gpu.py steps variants     # these parts
    python benchmarks/gpu.py --tiny --device cpu --out FILE     # tries the program itself

Each part runs in its own process, with a time limit; the most telling ones come first. The result
file is written after each part, so a run that is cut off has the parts before: --out, by default
benchmarks/results/gpu.json. Times are medians of five.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import load, torch_machine, versions
from unet.config.presets import architecture_of
from unet.config.sections import TrainSection
from unet.files import write_json
from unet.models.build import build
from unet.models.devices import choose_precision
from unet.models.engines import autocast
from unet.models.exact import activate
from unet.models.inference import Predictor, to_device
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.device_images import DeviceImages
from unet.training.losses import make_loss
from unet.training.patch_targets import TargetSettings
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.trainer import Trainer

RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
Result = dict[str, Any]


RESIDENT, COMPILED = "images on the device", "compiled"
# Width, batch, and what else.
STEP_SIZES: tuple[tuple[Any, ...], ...] = (
    (32, 16), (32, 16, RESIDENT), (32, 4), (32, 4, RESIDENT), (32, 64, RESIDENT),
    (16, 16, RESIDENT), (64, 16, RESIDENT), (64, 64, RESIDENT),
    (32, 16, RESIDENT, COMPILED), (32, 4, RESIDENT, COMPILED),
)  # fmt: skip


class Bench:
    """The device and how much to measure."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = torch.device(device), tiny

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Waits until the device has done all that it was given."""
        if self.gpu:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], number: int = 10, warm: int = 3) -> float:
        """Seconds of a call: the median of five times the mean over ``number`` calls."""
        for _ in range(warm):
            call()
        found = []
        for _ in range(5):
            self.wait()
            started = time.perf_counter()
            for _ in range(1 if self.tiny else number):
                call()
            self.wait()
            found.append((time.perf_counter() - started) / (1 if self.tiny else number))
        return median(found)


# Parts.


def ceilings(b: Bench) -> Result:
    """What the device and the way to it can do at best."""
    found: Result = {}
    n = 256 if b.tiny else 8192
    for dtype in (torch.float32, torch.bfloat16):
        m = torch.randn(n, n, device=b.device).to(dtype)
        seconds = b.seconds(lambda m=m: m @ m, 3)  # type: ignore[misc]
        found[f"matmul, {dtype}, TFLOP/s".replace("torch.", "")] = 2e-12 * n**3 / seconds
    x = torch.empty(2**20 if b.tiny else 2**30, dtype=torch.uint8, device=b.device)
    y = torch.empty_like(x)
    found["copy on the device, GB/s"] = 2e-9 * x.numel() / b.seconds(lambda: y.copy_(x))
    here = torch.empty(2**20 if b.tiny else 2**26, dtype=torch.uint8)
    there = here.to(b.device)
    kinds = {"ordinary": here, **({"pinned": here.pin_memory()} if b.gpu else {})}
    for name, memory in kinds.items():
        ways = {
            "to the device": lambda memory=memory: there.copy_(memory, non_blocking=True),
            "from it": lambda memory=memory: memory.copy_(there, non_blocking=True),
        }
        for way, copy in ways.items():
            found[f"{way}, {name} memory, GB/s"] = 1e-9 * here.numel() / b.seconds(copy)
    return found


def trainer_of(
    b: Bench, width: int, batch: int, patch: int, resident: bool = False, compiled: bool = False
) -> Trainer:
    """A training with the config's default settings, on four images in memory.

    Args:
        resident: whether the images are on the device.
        compiled: whether the network is compiled.
    """
    rng = np.random.default_rng(0)
    section = TrainSection(
        batch=batch, patch=patch, epochs=1, steps_per_epoch=10**6, compile=compiled
    )
    images = []
    for k in range(4):
        y = np.add.outer(np.sin(np.arange(2 * patch) / 9 + k), np.cos(np.arange(2 * patch) / 7)) > 0
        x = rng.standard_normal((1, *y.shape), dtype=np.float32) + 2 * y
        images.append(TrainingImage(str(k), x.astype(np.float32), y.astype(np.uint8), None,
                                    TargetSettings(), cached=True))  # fmt: skip
    network = build(1, 2, architecture_of("unet-bn", width=width), 0)
    margin = [fp.margin for fp in network.footprint]
    sampler = PatchSampler(images, (patch,) * 2, margin, batch, section.foreground, 0)
    return Trainer(
        network, make_loss(section.loss, 2), sampler, Augment(section.augment),
        lambda network: (0.0, 0.0), section, 0, b.device,
        choose_precision(section.precision, b.device),
        Checkpoints(Path(tempfile.mkdtemp()), "benchmark"),
        resident=DeviceImages(images, b.device) if resident else None,
    )  # fmt: skip


def steps(b: Bench) -> Result:
    """Training steps: time, share that the device is busy, operations, what is waited for."""
    found: Result = {}
    for width, batch, *ways in [(4, 2)] if b.tiny else STEP_SIZES:
        on = {"resident": RESIDENT in ways, "compiled": COMPILED in ways}
        run = trainer_of(b, width, batch, 64 if b.tiny else 256, **on)
        if b.gpu:
            torch.cuda.reset_peak_memory_stats()
        with ThreadPoolExecutor(1) as loader:
            cut = list(islice(run._batches(loader), 8))
            ready = cycle(cut)

            def step(run: Trainer = run, ready: Any = ready) -> None:
                run._unread.append(run._step(ready))
                run.progress.step += 1
                run._read_losses(1)

            row = {"ms, batches ready": 1e3 * b.seconds(step, 20), **_profiled(b, step)}
            fresh = run._batches(loader)

            def whole(run: Trainer = run, fresh: Any = fresh) -> None:
                run._unread.append(run._step(fresh))
                run.progress.step += 1
                run._read_losses(1)

            row["ms, with cutting"] = 1e3 * b.seconds(whole, 20)
        row["patches/s"] = 1e3 * batch / row["ms, with cutting"]
        if b.gpu:
            row["busy"] = row["device ms"] / row["ms, with cutting"]
            row["peak GB"] = 1e-9 * torch.cuda.max_memory_reserved()
        found[", ".join([f"width {width}", f"batch {batch}", *ways])] = row
    return found


def _profiled(b: Bench, step: Callable[[], None]) -> Result:
    """Time, number and the longest of the device's operations in a step, and where it is waited
    for."""
    if not b.gpu:
        return {}
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            step()
        b.wait()
    events: Any = profiler.key_averages()
    own = sorted(
        (e for e in events if e.device_type.name == "CUDA"), key=lambda e: -e.self_device_time_total
    )
    return {
        "waits": [f"{Path(n.filename).name}:{n.lineno}" for n in noted],
        "device ms": sum(e.self_device_time_total for e in own) / 5e3,
        "operations": sum(e.count for e in own) / 5,
        "longest, ms": {e.key[:60]: round(e.self_device_time_total / 5e3, 3) for e in own[:10]},
    }


def prediction(b: Bench) -> Result:
    """Prediction of windows in memory, in Mpx/s: one by one, two at a time, the network alone, and
    the pieces between."""
    found = {}
    n = 128 if b.tiny else 2048
    cases = [(4, False)] if b.tiny else [(32, False), (16, False), (64, False), (32, True)]
    for width, tta in cases:
        network = build(1, 3, architecture_of("unet-bn", width=width), 0)
        apply = Predictor([network], b.device, "auto", tta)
        window = np.random.default_rng(0).standard_normal((1, 1, n, n), dtype=np.float32)
        mpx, x = 1e-6 * n * n, torch.from_numpy(window).to(b.device)
        row = {"one by one": mpx / b.seconds(lambda: apply(window), 5)}  # noqa: B023
        late = [apply.begin(window)]

        def two(apply: Predictor = apply, window: np.ndarray = window, late: Any = late) -> None:
            late.append(apply.begin(window))
            late.pop(0).result()

        row["two at a time"] = mpx / b.seconds(two, 10)
        with torch.inference_mode():
            forward = apply._forwards[0]
            scores = forward(x)
            p = activate(scores.float(), 3)
            pieces: dict[str, Callable[[], Any]] = {
                "the network": lambda: forward(x),  # noqa: B023
                "softmax": lambda: activate(scores.float(), 3),  # noqa: B023
                "to ordinary memory": lambda: p.contiguous().cpu(),  # noqa: B023
            }
            row |= {name: mpx / b.seconds(piece, 5) for name, piece in pieces.items()}
        if b.gpu:
            torch.cuda.reset_peak_memory_stats()
            apply(window)
            row["peak bytes per px and width"] = torch.cuda.max_memory_allocated() / n / n / width
        found[f"width {width}{', tta' if tta else ''}, Mpx/s"] = row
    return found


def variants(b: Bench) -> Result:
    """What network and optimizer alone would gain: compiled, as a graph, in other layouts."""
    found: Result = {}
    batch, patch, width = (2, 64, 4) if b.tiny else (16, 256, 32)
    x = torch.randn(batch, 1, patch, patch, device=b.device)
    y = torch.randint(0, 2, (batch, patch, patch), device=b.device)

    def case(name: str, last: bool = True, fused: bool = True, **compiled: Any) -> None:
        network: Any = build(1, 2, architecture_of("unet-bn", width=width), 0)
        network = to_device(network, b.device) if last else network.to(b.device)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=(fused and b.gpu) or None)
        run = torch.compile(network, **compiled["compile"]) if compiled else network
        images = x.contiguous(memory_format=torch.channels_last) if last else x

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast("bfloat16", b.device):
                scores = run(images)
            torch.nn.functional.cross_entropy(scores.float(), y).backward()
            optimizer.step()

        started = time.perf_counter()
        try:
            step()
            b.wait()
            first = time.perf_counter() - started
            found[name] = {"ms": 1e3 * b.seconds(step, 20), "first step, s": first}
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error)[:200]}"

    case("as it is")
    case("channels first", last=False)
    case("one operation per weight", fused=False)
    if not b.tiny:
        case("compiled", compile={})
        case("compiled, as a graph", compile={"mode": "reduce-overhead"})
    return found


# Part: seconds at most.
PARTS: dict[str, tuple[Callable[[Bench], Result], int]] = {
    "steps": (steps, 180),
    "prediction": (prediction, 90),
    "ceilings": (ceilings, 45),
    "variants": (variants, 120),
}


def measure(part: str, device: str, tiny: bool) -> Result:
    """One part, in a process of its own; what went wrong, if it did."""
    code, limit = "from benchmarks import gpu; gpu.child()", PARTS[part][1]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, part, device, str(int(tiny))], cwd=ROOT, timeout=limit,
            capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {limit} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["?"]
        # Below the traceback; a message may have many lines.
        said = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
        return {"error": (said or lines)[-1][:500]}
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def child() -> None:
    """Measures one part, and prints it as the last line."""
    part, device, tiny = sys.argv[1:]
    print(json.dumps(PARTS[part][0](Bench(device, tiny == "1"))))


def table(result: Result) -> str:
    """The figures, by part and case."""
    lines = []
    for part, cases in result["parts"].items():
        lines += ["", part]
        for case, values in cases.items():
            if not isinstance(values, dict):
                values = {"": values}
            shown = (
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in values.items()
                if not isinstance(value, dict)
            )
            lines.append(f"  {case}: {', '.join(shown)}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    p.add_argument("--device", default="cuda", help="default %(default)s")
    p.add_argument("--tiny", action="store_true", help="small sizes, to try the program")
    p.add_argument("--out", type=Path, default=RESULT, help="the result file")
    args = p.parse_args(argv)
    if unknown := set(args.parts) - set(PARTS):
        p.error(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        p.error("there is no GPU; --tiny --device cpu tries the program")
    if args.device == "cpu" and args.out == RESULT:
        p.error("--device cpu needs --out: the result file is for GPUs")
    result: Result = {
        "machine": torch_machine(), "versions": versions("torch", "numpy"), "load_before": load(),
        "tiny": args.tiny, "parts": {},
    }  # fmt: skip
    for part in args.parts or PARTS:
        started = time.monotonic()
        result["parts"][part] = measure(part, args.device, args.tiny)
        result["load_after"] = load()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, result)
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
    print(table(result))
    return int(any("error" in cases for cases in result["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
