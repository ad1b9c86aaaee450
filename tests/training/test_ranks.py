"""Several processes that train together: the weights, history and log of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unet.errors import UserError
from unet.training.ranks import Ranks

ROOT = Path(__file__).resolve().parents[2]

# Trains on two images of discs; every process is given the same arguments.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from tests.conftest import discs
from tests.trainings import augmentation
from unet.config.sections import TrainSection
from unet.models.build import build
from unet.models.model_file import ModelFile
from unet.models.inference import Predictor
from unet.config.presets import architecture_of
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.losses import make_loss
from unet.training.ranks import joined
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.patch_targets import TargetSettings
from unet.training.trainer import Trainer
from unet.training.start.start_differences import StartSide
from unet.training.start.started import put_weights
from unet.training.validation import validate

torch.set_num_threads(1)
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
section = TrainSection(
    patch=32, batch=4, epochs=2, steps_per_epoch=3, precision="float32", lr=1e-3, warmup_steps=1,
    **options["train"],
)
images = [TrainingImage(str(s), *discs(s, (50, 44)), TargetSettings(), True) for s in range(3)]
arch = architecture_of("unet-bn", width=4, depth=2, **options["arch"])
sampler = PatchSampler(images[:2], (32, 32), (0, 0), 4, 0.3, seed=5)
with joined() as ranks:
    network = build(1, 2, arch, seed=1)
    started = None
    if "from" in options["train"]:
        names, weights = ("background", "foreground"), build(1, 2, arch, seed=7).state_dict()
        side = StartSide(arch, "instances", names, 1, (0.5, 0.5), {})
        file = ModelFile(
            arch, 1, names, names, None, "instances", {}, (0.5, 0.5), {}, {}, 0.5, 9, weights
        )
        started = put_weights(file, network, side, section)
    score = lambda net: validate(
        Predictor([net], torch.device("cpu"), "float32"), images, 64, ranks
    )
    trainer = Trainer(
        network, make_loss(section.loss, 2), sampler,
        Augment(augmentation(rotate_deg=30.0, noise=0.5, elastic_px=3.0)), score, section, 9,
        torch.device("cpu"), "float32", Checkpoints(folder, "k" * 64), ranks, started,
    )
    trainer.run()
    if ranks.first:
        torch.save(
            {"weights": trainer.network.state_dict(), "history": trainer.progress.history},
            folder / "result.pt",
        )
"""


def result(folder: Path, processes: int, **options: dict[str, Any]) -> dict[str, Any]:
    """Weights and history of the training above, by so many processes."""
    import json

    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    words = [str(script), str(folder), json.dumps({"train": {}, "arch": {}, **options})]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(folder / "result.pt", weights_only=True)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"arch": {"norm": "instance", "deep_supervision": True, "residual": True}},
        {"train": {"loss": "dice", "accumulate": 2, "ema": 0.9}, "arch": {"norm": "none"}},
        {"train": {"from": "model.pt", "freeze": 1}},
        {"train": {"from": "model.pt", "norm_statistics": "keep"}},
    ],
    ids=["batch-norm", "deep-supervision", "accumulated", "frozen-levels", "kept-statistics"],
)
def test_two_processes_are_one_with_the_whole_batch(tmp_path: Path, options: Any) -> None:
    one = result(tmp_path / "one", 1, **options)
    two = result(tmp_path / "two", 2, **options)
    assert one["weights"].keys() == two["weights"].keys()
    for name, values in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], values, rtol=2e-3, atol=2e-4, msg=name)
    for a, b in zip(one["history"], two["history"], strict=True):
        for key in ("train_loss", "val_loss", "val_score", "lr", "step"):
            # The start, epoch 0, has no training loss.
            assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-4, nan_ok=True), key


def test_rows_are_shared_without_gap_or_overlap() -> None:
    rows = [r for rank in range(3) for r in range(12)[Ranks(rank, 3).rows(12)]]
    assert rows == list(range(12))


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(UserError, match="write a multiple of 4"):
        Ranks(0, 4).rows(6)


def test_alone() -> None:
    alone = Ranks()
    x = torch.ones(2)
    assert alone.gathered(x) is x
    assert alone.from_each(3) == [3]
    assert alone.from_first("a") == "a"
    assert alone.first
    assert not alone.any(False)


def test_the_launcher_ends_as_its_processes_do(tmp_path: Path) -> None:
    """One line of each process, and no report of torchrun's own."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nsys.stderr.write('error: bad\\n')\nsys.exit(len(sys.argv) - 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "unet.training.launch", "--standalone", "--nproc-per-node=2",
         "--", str(script), "--log", "a.log"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert set(done.stderr.splitlines()) == {"error: bad"}
