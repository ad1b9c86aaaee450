"""Small trainings for tests."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unet.config.heads import HEADS
from unet.config.presets import architecture_of
from unet.config.sections import AugmentSection, TrainSection
from unet.config.stage_settings import TrainSettings
from unet.models.build import build
from unet.models.model_file import load_model
from unet.models.network import Network
from unet.paths import Paths
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.losses import make_loss
from unet.training.patch_targets import TargetSettings
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.train import train_fold
from unet.training.trainer import Trainer
from unet.training.training_job import TrainingData, TrainingOutputs, TrainingResources

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
ARCH = architecture_of("unet-bn", width=2, depth=1)
TIMES = {"images_per_s", "data_share", "seconds"}
PLAIN: dict[str, Any] = dict.fromkeys(
    ("rotate_deg", "scale", "elastic_px", "gamma", "contrast", "brightness", "noise", "blur_px"), 0
)
TINY: dict[str, Any] = {
    "patch": 32, "batch": 2, "epochs": 3, "steps_per_epoch": 4, "precision": "float32",
    "warmup_steps": 2,
}  # fmt: skip


def augmentation(**changes: Any) -> AugmentSection:
    """Only flips and right-angle rotations, apart from the changes."""
    return AugmentSection(**{**PLAIN, "intensity_probability": 0.5, **changes})


def settings_of(
    arch: Any = ARCH, head: str = "classes", seed: int = 0, **train: Any
) -> TrainSettings:
    """Settings of the train stage."""
    return TrainSettings.made(
        architecture=arch,
        memory_gb=None,
        given=None,
        anisotropic=False,
        head=head,
        border_width=2,
        head_names=HEADS[head].names(("background", "foreground")),
        train=TrainSection(**{**TINY, **train}),
        device="cpu",
        seed=seed,
    )


def data_of(
    paths: Paths, sentinel: dict[str, Any], train: str = "ab", val: str = "c"
) -> TrainingData:
    """Training data with images whose ids are these letters."""
    return TrainingData(paths.prepared("d"), sentinel, list(train), list(val))


def outputs_of(paths: Paths, name: str = "m") -> TrainingOutputs:
    where = ("d", name, 0)
    return TrainingOutputs(paths.checkpoints(*where), paths.model(*where), paths.history(*where))


def train(paths: Paths, sentinel: dict[str, Any], name: str = "m", **settings: Any) -> Any:
    """Trains with the stage's function; returns the model and the history's rows."""
    seconds = settings.pop("checkpoint_seconds", 30.0)
    resources = TrainingResources(seconds, threads=1)
    data, outputs = data_of(paths, sentinel), outputs_of(paths, name)
    train_fold(data, settings_of(**settings), 0, outputs, resources)
    return load_model(paths.model("d", name, 0)), history(paths, name)


def history(paths: Paths, name: str = "m") -> list[dict[str, str]]:
    with paths.history("d", name, 0).open(newline="") as handle:
        return list(csv.DictReader(handle))


def same_weights(a: Any, b: Any) -> bool:
    return list(a.weights) == list(b.weights) and all(
        torch.equal(a.weights[k], b.weights[k]) for k in a.weights
    )


def trainer(
    folder: Path,
    score: Callable[[Network], tuple[float, float]] = lambda network: (1.0, 0.5),
    arch: Any = ARCH,
    **train: Any,
) -> Trainer:
    """A trainer on noise images, with the given validation."""
    section = TrainSection(**{**TINY, **train})
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 40, 40)).astype(np.float32)
    classes = (image[0] > 0).astype(np.uint8)
    images = [TrainingImage("x", image, classes, None, TargetSettings(), cached=True)]
    sampler = PatchSampler(images, (section.patch,) * 2, (0, 0), section.batch, 0.3, seed=0)
    return Trainer(
        build(1, 2, arch, 0), make_loss(section.loss, 2, None), sampler, Augment(augmentation()),
        score, section, 0, CPU, "float32", Checkpoints(folder, "k" * 64),
    )  # fmt: skip
