"""Memory of a training step: compares the estimate of ``unet.training.auto.memory`` with real
steps.

    python -m benchmarks.step_memory            # a table
    python -m benchmarks.step_memory --device cuda

Each case runs in its own process. On the CPU, a step's memory is the peak of the resident memory
minus its size before the network was built; on a GPU, the allocator's peak of reserved memory. The
figures and the machine are saved in benchmarks/results/step_memory_<device>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import load, torch_machine
from unet import allocator
from unet.config.presets import Architecture, architecture_of
from unet.files import write_json
from unet.training.auto.memory import Numerics, step_bytes

ROOT = Path(__file__).resolve().parent.parent


def net(preset: str, **changes: Any) -> Architecture:
    arch = architecture_of(preset, **changes)
    if not isinstance(arch, Architecture):
        raise TypeError(preset)
    return arch


FLAT: dict[str, Any] = {
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "pools": ((1, 2, 2), (2, 2, 2)),
}
# name: (architecture, input size, batch)
CASES: dict[str, tuple[Architecture, tuple[int, ...], int]] = {
    "bn-8": (net("unet-bn", width=8), (256, 256), 4),
    "bn-16": (net("unet-bn", width=16), (256, 256), 4),
    "bn-32": (net("unet-bn", width=32, max_width=512), (256, 256), 8),
    "bn-32-deep": (net("unet-bn", width=32, max_width=512, depth=6), (384, 384), 2),
    "bn-norm-act": (net("unet-bn", width=32, order="norm-act"), (256, 256), 2),
    "plain-valid": (net("unet2015", width=16), (316, 316), 2),
    "res-32": (net("unet-res", width=32), (256, 256), 4),
    "res-16-large": (net("unet-res", width=16), (512, 512), 4),
    "res-group-nearest": (net("unet-res", norm="group", up="nearest", width=16), (256, 256), 4),
    "res-3d": (net("unet-res", width=16, max_width=320, depth=3, dims=3), (32, 64, 64), 2),
    "bn-3d-flat": (net("unet-bn", width=16, depth=2, dims=3, **FLAT), (16, 96, 96), 2),
}  # fmt: skip


def resident() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would begin with the peak of the process that started this one.
        line = next(
            x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM")
        )
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, precision: str, device: str) -> float:
    """Peak memory of two training steps beyond the idle program, in bytes."""
    import torch

    from unet.models.build import build
    from unet.models.engines import autocast, memory_format
    from unet.models.inference import to_device
    from unet.training.losses import make_loss
    from unet.training.schedule import OPTIMIZERS
    from unet.training.supervision import supervised_loss

    arch, patch, batch = CASES[name]
    where = torch.device(device)
    torch.set_num_threads(1)
    # Loads the modules of optimizers and compiler before memory is measured.
    warm = OPTIMIZERS["adamw"]([torch.nn.Parameter(torch.zeros(1, device=where))], 1e-3, 0.9, 0.0)
    warm.zero_grad()
    before = resident()
    network = to_device(build(1, 2, arch), where).train()
    optimizer = OPTIMIZERS["adamw"](network.parameters(), 1e-3, 0.9, 1e-4)
    loss = make_loss("ce-dice", 2)
    x = torch.randn(batch, 1, *patch).to(where).contiguous(memory_format=memory_format(network))
    y = torch.randint(0, 2, (batch, 1, *patch)).to(where)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, where):
            scores = network(x)
        outputs = scores if isinstance(scores, list) else [scores]
        strides = arch.strides[: len(outputs)]
        supervised_loss(loss, outputs, y, {}, strides).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
    if device == "cuda":
        return float(torch.cuda.max_memory_reserved())
    return float(resident() - before)


def estimate(name: str, precision: str, device: str) -> float:
    arch, patch, batch = CASES[name]
    kind: Any = device
    return step_bytes(arch, 1, 2, patch, batch, Numerics(kind, precision))


def measured(name: str, precision: str, device: str) -> float:
    """:func:`measure` in its own process."""
    command = [sys.executable, "-m", "benchmarks.step_memory", "--device", device, "--one", name]
    done = subprocess.run(
        [*command, "--precision", precision],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | allocator.settings_for(os.environ),  # as the train stage
    )  # fmt: skip
    return float(json.loads(done.stdout))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--precision", choices=("float32", "bfloat16"))
    p.add_argument("--one", choices=tuple(CASES), help="measure this case, print bytes")
    args = p.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.precision or "float32", args.device)))
        return
    rows = []
    print("| network | input | batch | precision | estimate, MB | step, MB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, (_, patch, batch) in CASES.items():
        for precision in ("float32", "bfloat16"):
            guess = estimate(name, precision, args.device)
            real = measured(name, precision, args.device)
            size = " x ".join(map(str, patch))
            print(
                f"| {name} | {size} | {batch} | {precision} | {guess / 1e6:.0f} | "
                f"{real / 1e6:.0f} | {guess / real:.2f} |",
                flush=True,
            )
            rows.append(
                {"network": name, "input": patch, "batch": batch, "precision": precision,
                 "estimate_bytes": guess, "step_bytes": real}
            )  # fmt: skip
    value = {"machine": torch_machine(), "load": load(), "cases": rows}
    write_json(ROOT / "benchmarks" / "results" / f"step_memory_{args.device}.json", value)


if __name__ == "__main__":
    main()
