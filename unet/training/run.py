"""The train stage: everything built, the trainer run, the results written."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unet.config import TrainSection
from unet.data.store import Prepared
from unet.errors import UserError
from unet.files import digest, replacing
from unet.models.inference import Predictor, choose_device, choose_precision
from unet.models.modelfile import ModelFile, save_model
from unet.models.presets import Architecture
from unet.models.unet import UNet, build
from unet.training.augment import Augment, AugmentSettings
from unet.training.checkpoint import Checkpoints
from unet.training.losses import make_loss
from unet.training.sampling import PatchSampler, TargetSettings, TrainingImage, open_images
from unet.training.targets import balanced_class_weights
from unet.training.trainer import Trainer
from unet.training.validation import validate
from unet.versions import library_versions

log = logging.getLogger(__name__)

COLUMNS = (
    "epoch", "step", "lr", "train_loss", "val_loss", "val_score", "images_per_s", "data_share",
    "seconds",
)  # fmt: skip
# Validation windows: large enough to waste little on the halo, small enough for any machine.
VALIDATION_TILE = 1024


def training_key(
    settings: Mapping[str, Any], images: Mapping[str, Any], train: Sequence[str], val: Sequence[str]
) -> str:
    """Hash of all that determines the weights: settings, and content of the images used.

    An image that is added to the test part changes nothing here, so that the finished training is
    found again.
    """
    used = {name: images[name]["key"] for name in (*train, *val)}
    return digest({"settings": dict(settings), "train": used, "val": sorted(val)})


def train_fold(
    prepared_path: Path,
    prepared: Mapping[str, Any],
    train: Sequence[str],
    val: Sequence[str],
    settings: Mapping[str, Any],
    seed_offset: int,
    checkpoints: Path,
    model_path: Path,
    history_path: Path,
    checkpoint_seconds: float = 30.0,
    cache_gb: float = 4.0,
    threads: int = 2,
) -> None:
    """Trains one model on one fold and writes ``model.pt`` and ``history.csv``.

    Args:
        prepared_path: the prepared store; ``prepared`` is its sentinel.
        train, val: ids of the images to learn from and to choose the best weights by.
        settings: the slice made by :func:`unet.slices.train`.
        seed_offset: the fold, so that folds differ in more than their images.
        checkpoints: folder for the checkpoints.
        checkpoint_seconds, cache_gb, threads: change no weight (threads: to rounding).

    Raises:
        UserError: no images to train on, labels missing, a loss that is no longer a number.
        Stopped: told to end; the next call goes on from there.
    """
    if not train:
        raise UserError("split: no image is left to train on; lower split.test or split.val")
    torch.set_num_threads(threads)
    section = TrainSection.model_validate(
        {**settings["train"], "checkpoint_seconds": checkpoint_seconds}
    )
    device = choose_device(settings["device"])
    store = Prepared(prepared_path)
    head = tuple(settings["head_names"])
    targets = TargetSettings(
        head=settings["head"],
        border_width=settings["border_width"],
        weight_map=section.loss == "border-ce",
        w0=section.w0,
        sigma=section.sigma,
        cells=None if section.cells is None else prepared["class_names"].index(section.cells),
    )
    images = open_images(store, train, targets, cache_gb * 1e9)
    seed = settings["seed"] + 1000 * seed_offset
    arch = Architecture(**settings["architecture"])
    network = build(int(prepared["channels"]), len(head), arch, seed)
    sampler = PatchSampler(
        images, section.patch, network.footprint.margin, section.batch, section.foreground, seed
    )
    weights = _class_weights(section, images, targets, len(head))
    precision = choose_precision(section.precision, device)
    log.info(
        "training on %d images, validating on %d; %s, %s, %.1f M parameters",
        len(train), len(val), device, precision,
        sum(p.numel() for p in network.parameters()) / 1e6,
    )  # fmt: skip
    if not val:
        log.warning("no validation images: the last weights are kept")
    held_out = open_images(store, val, targets, cache_gb * 1e9)
    key = training_key(settings, prepared["images"], train, val)
    keeper = Checkpoints(checkpoints, key)

    def score(candidate: UNet) -> tuple[float, float]:
        if not held_out:
            return math.nan, math.nan
        return validate(
            Predictor([candidate], device, section.precision), held_out, VALIDATION_TILE
        )

    trainer = Trainer(
        network, make_loss(section.loss, len(head), weights), sampler,
        Augment(AugmentSettings(**section.augment.model_dump())), score, section, seed, device,
        precision, keeper,
    )  # fmt: skip
    with keeper.locked():
        trainer.run()
    first = prepared["images"][train[0]]
    values = prepared.get("class_values")
    save_model(
        model_path,
        ModelFile(
            architecture=arch,
            in_channels=network.in_channels,
            head=head,
            class_names=tuple(prepared["class_names"]),
            class_values=None if values is None else tuple(values),
            task=str(prepared["task"]),
            normalize=dict(prepared.get("normalize", {})),
            pixel_size_um=None if first["pixel_size_um"] is None else tuple(first["pixel_size_um"]),
            settings=dict(settings),
            versions=library_versions(),
            score=trainer.progress.best_score,
            step=trainer.progress.best_step,
            weights={k: v.contiguous() for k, v in trainer.best.items()},
        ),
    )
    write_history(history_path, trainer.progress.history)
    log.info(
        "best validation score %.4f at step %d; wrote %s",
        trainer.progress.best_score, trainer.progress.best_step, model_path,
    )  # fmt: skip


def _class_weights(
    section: TrainSection,
    images: Sequence[TrainingImage],
    targets: TargetSettings,
    num_classes: int,
) -> list[float] | None:
    """The loss's class weights; ``auto`` balances the classes over the training images."""
    if section.class_weights is None:
        return None
    if section.class_weights != "auto":
        return list(section.class_weights)
    counts = [0] * num_classes
    for image in images:
        target = image.read([(0, n) for n in image.shape]).target
        for index in range(num_classes):
            counts[index] += int((target == index).sum())
    return balanced_class_weights(counts)


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes ``history.csv``: a row per epoch; a score that was not taken is empty."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            cells = [row[name] for name in COLUMNS]
            writer.writerow(["" if math.isnan(v) else f"{v:.6g}" for v in cells])
