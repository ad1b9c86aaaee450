"""Images per second of a whole training step: ours, MONAI's BasicUNet, nnU-Net's PlainConvUNet.

    python benchmarks/train.py --setup      # once: installs the peers into .venv-peers
    .venv-peers/bin/python benchmarks/train.py

This includes the data: each library cuts patches from images in memory and augments them. All cases
run in turn, round by round, in one process. Prints a table and writes
benchmarks/results/train.json; docs/benchmarks.md lists what is equal and what is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import load, torch_machine, usable_cores, versions
from benchmarks.peers import environment
from benchmarks.peers.timing import Round, data_share, ratios, share_of_matmul, typical_rate

PACKAGES = ("torch", "monai", "nnunetv2", "dynamic_network_architectures", "batchgeneratorsv2")
RESULT = ROOT / "benchmarks" / "results" / "train.json"


class Case(Protocol):
    """A network with its trainer and its data path."""

    plain: Any

    def feed(self) -> Any: ...
    def step(self, pair: Any) -> None: ...


class Ours:
    """Our U-Net in our trainer, with the config's default settings.

    It calls the trainer's own step, as in real trainings; a thread cuts the patches, and they are
    augmented on the device.
    """

    def __init__(self, task: Any, setting: Any) -> None:
        import torch

        from unet.config.presets import architecture_of
        from unet.config.sections import TrainSection
        from unet.models.build import build
        from unet.models.devices import choose_precision
        from unet.training.augment import Augment
        from unet.training.checkpoint import Checkpoints
        from unet.training.losses import make_loss
        from unet.training.patch_targets import TargetSettings
        from unet.training.sampling import PatchSampler, TrainingImage
        from unet.training.trainer import Trainer

        self.setting = setting
        section = TrainSection(batch=task.batch, patch=task.patch, precision=setting.precision)
        precision = choose_precision(section.precision, task.device)
        images = [
            TrainingImage(str(k), image, label, None, TargetSettings(), cached=True)
            for k, (image, label) in enumerate(zip(task.images, task.labels, strict=True))
        ]
        network = build(
            task.channels, task.classes, architecture_of("unet-bn", width=task.width), 0
        )
        sampler = PatchSampler(
            images,
            (task.patch,) * 2,
            [fp.margin for fp in network.footprint],
            task.batch,
            section.foreground,
            0,
        )
        self.trainer = Trainer(
            network,
            make_loss(section.loss, task.classes),
            sampler,
            Augment(section.augment),
            lambda candidate: (0.0, 0.0),
            section,
            0,
            task.device,
            precision,
            Checkpoints(Path(tempfile.gettempdir()), "benchmark"),
        )
        self.plain = self.trainer.network
        if setting.compiled:
            compiled: Any = torch.compile(self.trainer.network)
            self.trainer.forward = compiled

    @contextmanager
    def feed(self) -> Iterator[Any]:
        with ThreadPoolExecutor(1) as loader:
            yield self.trainer._batches(loader)

    def step(self, pair: Any) -> None:
        self.trainer._step(iter([pair]))
        self.trainer.progress.step += 1


def settings_of(device: str) -> dict[str, list[Any]]:
    """The measured settings of each: its default, then others, of which the fastest is its best."""
    from benchmarks.peers.cases import Setting

    cuda = device == "cuda"
    quick = [Setting("bf16 channels_last", "bfloat16", True, best=True)]
    if cuda:
        quick.append(Setting("bf16 channels_last compiled", "bfloat16", True, True, best=True))
    half = Setting("default", "float16", compiled=True) if cuda else Setting("default")
    # Ours has no other memory layout.
    ours = [Setting("default", "auto", True), Setting("float32", "float32", True), *quick]
    return {"ours": ours, "monai": [Setting("default"), *quick], "nnunet": [half, *quick]}


def makers() -> dict[str, Callable[[Any, Any], Case]]:
    from benchmarks.peers.cases import monai, nnunet

    return {"ours": Ours, "monai": monai, "nnunet": nnunet}


def task_of(args: argparse.Namespace) -> Any:
    """Noise and blobs: the content of the images does not affect the speed."""
    import numpy as np
    import torch
    from scipy.ndimage import gaussian_filter

    from benchmarks.peers.cases import Task

    rng = np.random.default_rng(0)
    images, labels = [], []
    for _ in range(8):
        noise = rng.standard_normal((2 * args.patch,) * 2, dtype=np.float32)
        label = (gaussian_filter(noise, 8) > 0.02).astype(np.uint8)
        images.append((0.3 * noise + label)[None].astype(np.float32))
        labels.append(label)
    return Task(
        images,
        labels,
        2,
        args.patch,
        args.batch,
        args.width,
        torch.device(args.device),
        args.threads,
    )


def run_round(case: Case, task: Any, warmup: int, steps: int) -> Round:
    """Times some steps, after a warm-up that fills queues and caches."""
    waited = started = 0.0
    with case.feed() as batches:
        for number in range(warmup + steps):
            if number == warmup:
                synchronize(task.device)
                waited, started = 0.0, time.perf_counter()
            before = time.perf_counter()
            pair = next(batches)
            waited += time.perf_counter() - before
            case.step(pair)
        synchronize(task.device)
        seconds = time.perf_counter() - started
    return Round(steps * task.batch, seconds, waited)


def synchronize(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(dtype: str, device: Any, size: int) -> float:
    """The fastest of some products of square matrices, in FLOP per second."""
    import torch

    a = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    seconds = []
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        a @ a
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])


def flop_per_image(case: Case, task: Any) -> float:
    """FLOP of a forward and a backward pass, in its convolutions and products, per image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, task.channels, task.patch, task.patch, device=task.device)
    case.plain.eval()
    with FlopCounterMode(display=False) as counter:
        out = case.plain(x)
        (out[0] if isinstance(out, list | tuple) else out).sum().backward()
    case.plain.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def prepare_cases(args: argparse.Namespace, task: Any) -> tuple[dict[str, Case], dict[str, str]]:
    """The cases that can be built, and the reason for each that cannot."""
    built: dict[str, Case] = {}
    missing: dict[str, str] = {}
    for library, wanted in settings_of(args.device).items():
        for setting in wanted:
            name = f"{library}, {setting.name}"
            if args.only and not any(text in name for text in args.only):
                continue
            try:
                built[name] = makers()[library](task, setting)
            except ImportError as error:
                missing[name] = f"not installed ({error.name})"
    return built, missing


def measure(args: argparse.Namespace, task: Any, cases: dict[str, Case]) -> dict[str, list[Round]]:
    """Runs all cases in turn, so that other work on the machine affects all of them equally."""
    rounds: dict[str, list[Round]] = {name: [] for name in cases}
    for number in range(args.rounds):
        for name, case in cases.items():
            found = run_round(case, task, args.warmup, args.steps)
            rounds[name].append(found)
            print(f"round {number + 1}  {name}: {found.rate:.2f} images/s", flush=True)
    return rounds


def report(
    rounds: dict[str, list[Round]],
    flop: dict[str, float],
    matmul: dict[str, float],
    parameters: dict[str, int],
) -> dict[str, Any]:
    """Rates, shares and ratios for the result file."""
    rates = {name: typical_rate(found) for name, found in rounds.items()}
    rows = {
        name: {
            "images per second": rate,
            "rounds": [r.rate for r in rounds[name]],
            "data share": data_share(rounds[name]),
            "gigaflop per image": flop[name] / 1e9,
            "share of the bf16 matrix rate": share_of_matmul(rate, flop[name], matmul["bfloat16"]),
            "parameters": parameters[name],
        }
        for name, rate in rates.items()
    }
    return {"cases": rows, "ratios": ratios(rates, "ours", ("monai", "nnunet"))}


def table(found: dict[str, Any], missing: dict[str, str]) -> str:
    """The result as Markdown."""
    lines = [
        "| case | images/s | waiting for data | share of the bf16 matrix rate | parameters |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["cases"].items():
        lines.append(
            f"| {name} | {row['images per second']:.2f} | {100 * row['data share']:.1f} % "
            f"| {100 * row['share of the bf16 matrix rate']:.0f} % "
            f"| {row['parameters'] / 1e6:.2f} M |"
        )
    lines += [f"| {name} | {reason} | | | |" for name, reason in missing.items()]
    lines += ["", *(f"{name}: {value:.2f}" for name, value in found["ratios"].items())]
    return "\n".join(lines)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--setup", action="store_true", help="only install the peers")
    p.add_argument("--venv", type=Path, default=environment.DEFAULT)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--threads", type=int, default=usable_cores())
    p.add_argument("--width", type=int, default=32)
    p.add_argument("--patch", type=int, default=256)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, help="timed per round (default: 3, on a GPU 100)")
    p.add_argument("--warmup", type=int, help="before them (default: 1, on a GPU 30)")
    p.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose name has this in it")
    p.add_argument("--out", type=Path, default=RESULT)
    args = p.parse_args(argv)
    cuda = args.device == "cuda"
    args.steps = args.steps or (100 if cuda else 3)
    args.warmup = (30 if cuda else 1) if args.warmup is None else args.warmup
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.setup:
        environment.ensure(args.venv)
        return 0
    import torch

    torch.set_num_threads(args.threads)
    task = task_of(args)
    before = load()
    cases, missing = prepare_cases(args, task)
    for name, reason in missing.items():
        print(f"{name}: {reason}; python benchmarks/train.py --setup installs the peers")
    size = 8192 if args.device == "cuda" else 3072
    matmul = {d: matmul_rate(d, task.device, size) for d in ("float32", "bfloat16")}
    flop = {name: flop_per_image(case, task) for name, case in cases.items()}
    parameters = {n: sum(p.numel() for p in c.plain.parameters()) for n, c in cases.items()}
    found = report(measure(args, task, cases), flop, matmul, parameters)
    value = {
        "machine": {**torch_machine(), "load before": before, "load after": load()},
        "versions": versions(*PACKAGES),
        "settings": {
            k: getattr(args, k)
            for k in ("device", "threads", "width", "patch", "batch", "rounds", "steps", "warmup")
        },
        "matrix rate in teraflop/s": {d: rate / 1e12 for d, rate in matmul.items()},
        **found,
        "missing": missing,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    print("\n" + table(found, missing))
    print(f"\nwrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
