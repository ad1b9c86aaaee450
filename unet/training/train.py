"""The train stage: builds everything, runs the trainer and writes the results."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unet.config.anisotropy import fitted
from unet.config.geometry import footprint, sizes_for
from unet.config.heads import HEADS, classes_among
from unet.config.loss_table import LOSS_TABLE
from unet.config.presets import AnyArchitecture, Architecture
from unet.config.sections import TrainSection
from unet.config.stage_settings import TrainSettings
from unet.data.appearance import training_appearance
from unet.errors import UserError
from unet.files import digest, file_sha256, write_json
from unet.models.build import build
from unet.models.devices import choose_device, choose_precision
from unet.models.inference import Predictor
from unet.models.model_file import ModelFile, save_model
from unet.models.network import Network
from unet.models.read_model import read_model
from unet.models.resnet_unet import load_encoder
from unet.tables import write_table
from unet.training.augment import Augment
from unet.training.auto.planned import planned, spare_memory
from unet.training.balance import common_score, parted, pixel_weights
from unet.training.checkpoint import Checkpoints
from unet.training.device_images import DeviceImages, device_bytes
from unet.training.finished import Finished
from unet.training.losses import DistanceLoss, Loss, make_loss
from unet.training.patch_targets import TargetSettings
from unet.training.ranks import Ranks
from unet.training.sampling import PatchSampler, TrainingImage, open_images
from unet.training.start.start_differences import StartSide
from unet.training.start.started import account, put_weights
from unet.training.targets import balanced_class_weights
from unet.training.trainer import Trainer
from unet.training.training_job import TrainingData, TrainingOutputs, TrainingResources
from unet.training.validation import validate
from unet.versions import library_versions

log = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "epoch", "step", "lr", "train_loss", "val_loss", "val_score", "images_per_s", "data_share",
    "seconds",
)  # fmt: skip

# Threads that cut batches if not all images are in memory: reading and decoding takes longer than a
# step on a GPU. More would wait for each other.
READERS = 4
# Side of the validation windows: large enough for a small halo, small enough for any machine.
VALIDATION_TILE = 1024


def training_key(settings: TrainSettings, data: TrainingData) -> str:
    """Hash of everything that determines the weights: settings, and content of the images used.

    A new test image does not change it, so the finished training is still found.
    """
    images = data.prepared["images"]
    used = {name: images[name]["key"] for name in (*data.train, *data.val)}
    key = {"settings": settings.to_json(), "train": used, "val": sorted(data.val)}
    return digest(key if data.start is None else {**key, "start": data.start.content})


@dataclass(frozen=True)
class Design:
    """The network to train, and the sizes that fit it.

    Attributes:
        arch: the layers.
        patch: input size per spatial axis.
        batch: patches per step.
    """

    arch: AnyArchitecture
    patch: tuple[int, ...]
    batch: int


def design(
    settings: TrainSettings,
    data: TrainingData,
    device: torch.device,
    ranks: Ranks,
    kept_plan: Path,
    plan_path: Path,
    start: ModelFile | None = None,
) -> Design:
    """The config's network, adapted to the images; or the network that ``auto`` chooses: that of
    the start, if there is one.

    Args:
        kept_plan, plan_path: where ``auto`` stores its plan for later attempts, and for the user.

    Raises:
        UserError: network and images differ in the number of spatial axes.
    """
    arch, first = settings.architecture, data.first
    if arch is None and start is not None:
        arch = start.architecture
    elif arch is None:
        plan = planned(settings, data, device, ranks, kept_plan, plan_path)
        return Design(plan.architecture, plan.patch, plan.batch)
    dims, spacing = len(first["shape"]) - 1, first["pixel_size_um"]
    if arch.dims != dims:
        raise UserError(
            f"models: the network has {arch.dims} spatial axes, the images {dims} "
            f"({first['axes']}); write dims: {dims} under the model"
        )
    if settings.architecture and settings.anisotropic and isinstance(arch, Architecture):
        adapted = fitted(arch, spacing)
        if adapted != arch:
            log.info(
                "voxels of %s um: kernels %s, poolings %s", spacing, adapted.kernels, adapted.pools
            )
        arch = adapted
    footprints = footprint(arch)
    wanted = sizes_for(settings.train.patch, footprints)
    patch = tuple(fp.fit_below(n) for n, fp in zip(wanted, footprints, strict=True))
    if patch != wanted:
        log.info("train.patch: %s instead of %s, to fit the network", list(patch), list(wanted))
    return Design(arch, patch, settings.train.batch)


def train_fold(
    data: TrainingData,
    settings: TrainSettings,
    fold: int,
    outputs: TrainingOutputs,
    resources: TrainingResources | None = None,
) -> list[str]:
    """Trains one model on one fold and writes ``model.pt`` and ``history.csv``; with a start also
    ``start.json``.

    If the outputs of the same training are kept, they are restored instead.

    Args:
        fold: part of the seed, so that folds differ in more than their images.

    Returns:
        Warnings about how it trained.

    Raises:
        UserError: no images to train on, labels missing, a loss that is NaN or infinite.
        Stopped: a signal stopped the training; the next call continues it.
    """
    if not data.train:
        raise UserError("split: no images left to train on; lower split.test or split.val")
    resources = resources or TrainingResources()
    ranks, key = resources.ranks, training_key(settings, data)
    files = [outputs.model, outputs.history]
    if data.start is not None:
        files.append(outputs.start)
    elif settings.architecture is None:  # preset auto
        files.append(outputs.plan)
    finished = Finished(files, key)
    if finished.is_kept():
        if ranks.first:
            finished.restore()
            log.info("already trained: restored %s from %s", outputs.model, finished.folder)
        return []
    torch.set_num_threads(max(1, resources.threads // ranks.size))
    device = choose_device(settings.device, ranks.local)
    checkpoints = Checkpoints(outputs.checkpoints, key)
    plan_file = checkpoints.folder / "plan.json"
    start = None if data.start is None else read_model(data.start.path)
    network_design = design(settings, data, device, ranks, plan_file, outputs.plan, start)
    trainer = _trainer(settings, data, fold, network_design, device, checkpoints, resources, start)
    resources.meter.begin([device])
    with checkpoints.locked() if ranks.first else nullcontext():
        trainer.run()
    resources.meter.add(trainer.step_seconds, trainer.busy_seconds)
    if not ranks.first:
        return []
    save_model(outputs.model, _model_file(settings, data, network_design.arch, trainer))
    write_history(outputs.history, trainer.progress.history)
    if start is not None and trainer.started is not None:
        write_json(outputs.start, account(start, trainer.started, trainer.progress))
    finished.keep()
    log.info(
        "best validation score %.4f at step %d; wrote %s",
        trainer.progress.best_score, trainer.progress.best_step, outputs.model,
    )  # fmt: skip
    return trainer.warnings


def _trainer(
    settings: TrainSettings,
    data: TrainingData,
    fold: int,
    network_design: Design,
    device: torch.device,
    checkpoints: Checkpoints,
    resources: TrainingResources,
    start: ModelFile | None,
) -> Trainer:
    """Builds everything that the training loop needs."""
    sizes = {"batch": network_design.batch, "patch": network_design.patch}
    chosen = {"checkpoint_seconds": resources.checkpoint_seconds, "compile": resources.compile}
    section = settings.train.model_copy(update={**sizes, **chosen})
    store, cache = data.open(), resources.cache_gb * 1e9
    targets = _targets(settings, data)
    images = open_images(store, data.train, targets, cache)
    seed = settings.seed + 1000 * fold
    head, channels = settings.head_names, int(data.prepared["channels"])
    network = build(channels, len(head), network_design.arch, seed)
    if settings.encoder_weights:
        _start_encoder(network, data.encoder_weights, settings.encoder_weights)
    started = None
    if start is not None:
        size = data.first["pixel_size_um"]
        own = StartSide(
            network.arch, data.prepared["task"], head, channels, size, _normalization(data)
        )
        started = put_weights(start, network, own, section)
    weights = _pixel_weights(settings, data, images)
    sampler = PatchSampler(
        images, network_design.patch, [fp.margin for fp in network.footprint],
        network_design.batch, section.foreground, seed, weights,
    )  # fmt: skip
    precision = choose_precision(section.precision, device)
    log.info(
        "training on %d images, validating on %d; %s, %s, %.1f M parameters",
        len(data.train), len(data.val), device, precision,
        sum(p.numel() for p in network.parameters()) / 1e6,
    )  # fmt: skip
    if not data.val:
        log.warning("no validation images: keeping the last weights instead of the best")
    val_images = open_images(store, data.val, targets, cache)

    def score(candidate: Network) -> tuple[float, float]:
        if not val_images:
            return math.nan, math.nan
        predictor = Predictor([candidate], device, section.precision, head=head, exact=False)
        parts = _by_dataset(settings, data, val_images)
        found = {
            name: validate(predictor, part, VALIDATION_TILE, resources.ranks)
            for name, part in parts.items()
        }
        return common_score(found, settings.balance)

    rows = resources.ranks.rows(network_design.batch)
    spare = spare_memory(network, network_design.patch, rows.stop - rows.start, device, precision)
    resident = DeviceImages(images, device) if device_bytes(images) <= spare else None
    if resident is not None:
        log.info("the training images are in the device's memory, and cut there")
    return Trainer(
        network, _loss(section, settings.head, images, targets, weights), sampler,
        Augment(section.augment, targets.spacing), score, section, seed,
        device, precision, checkpoints, resources.ranks, started,
        1 if all(image.cached for image in images) else min(READERS, max(1, resources.threads)),
        resident,
    )  # fmt: skip


def _start_encoder(network: Network, path: Path | None, content: str) -> None:
    """Loads the encoder's weights.

    Args:
        content: sha256 of the file when the training was planned.

    Raises:
        UserError: the file is missing, has other content, or does not fit the network.
    """
    if path is None or not path.is_file():
        raise UserError(f"--encoder-weights: no such file: {path}; give the file of the settings")
    if file_sha256(path) != content:
        raise UserError(f"{path}: has changed since this training was planned; run again")
    load_encoder(network, path)
    log.info("the encoder starts from %s", path)


def _by_dataset(
    settings: TrainSettings, data: TrainingData, images: Sequence[TrainingImage]
) -> dict[str, list[TrainingImage]]:
    """The images by joined dataset; all under one name if the dataset joins none."""
    return parted(images, lambda image: image.name, data.prepared["images"], settings.balance)


def _pixel_weights(
    settings: TrainSettings, data: TrainingData, images: Sequence[TrainingImage]
) -> list[float] | None:
    """The weight of a pixel of each image, in their order; None if the dataset joins none."""
    if not settings.balance:
        return None
    parts = _by_dataset(settings, data, images)
    areas = {name: [float(math.prod(i.shape)) for i in part] for name, part in parts.items()}
    names = [image.name for part in parts.values() for image in part]
    weights = dict(zip(names, pixel_weights(areas, settings.balance), strict=True))
    return [weights[image.name] for image in images]


def _model_file(
    settings: TrainSettings, data: TrainingData, arch: AnyArchitecture, trainer: Trainer
) -> ModelFile:
    prepared, size = data.prepared, data.first["pixel_size_um"]
    values = prepared.get("class_values")
    return ModelFile(
        architecture=arch,
        in_channels=int(prepared["channels"]),
        head=settings.head_names,
        class_names=tuple(prepared["class_names"]),
        class_values=None if values is None else tuple(values),
        task=str(prepared["task"]),
        normalize=_normalization(data),
        pixel_size_um=None if size is None else tuple(size),
        settings=settings.to_json(),
        versions=library_versions(),
        score=trainer.progress.best_score,
        step=trainer.progress.best_step,
        weights={k: v.contiguous() for k, v in trainer.best.items()},
        appearance=training_appearance(data.open(), data.train).to_json(),
    )


def _normalization(data: TrainingData) -> dict[str, Any]:
    """How to normalise new images as the training images were: the method, and its values if they
    are the same for all images."""
    section = dict(data.prepared.get("normalize", {}))
    if section.get("scope") == "dataset":
        section["statistics"] = data.first["statistics"]
    return section


def _targets(settings: TrainSettings, data: TrainingData) -> TargetSettings:
    """The target to learn: that of the head, and the maps that head and loss need."""
    section, size = settings.train, data.first["pixel_size_um"]
    maps = (*LOSS_TABLE[section.loss].maps, *HEADS[settings.head].maps)
    names = data.prepared["class_names"]
    return TargetSettings(
        head=settings.head,
        border_width=settings.border_width,
        maps=tuple(dict.fromkeys(maps)),
        distance_px=section.distance_px,
        num_classes=classes_among(settings.head_names),
        # In units of the finest axis, since lengths in the config are in its pixels.
        spacing=None if size is None else tuple(step / min(size) for step in size),
        w0=section.w0,
        sigma=section.sigma,
        cells=None if section.cells is None else names.index(section.cells),
    )


def _loss(
    section: TrainSection,
    head: str,
    images: Sequence[TrainingImage],
    targets: TargetSettings,
    pixels: Sequence[float] | None,
) -> Loss:
    """The config's loss over the head's classes, plus the head's own term."""
    classes = targets.num_classes
    weights = _class_weights(section, images, classes, pixels)
    loss = make_loss(section.loss, classes, weights, **section.loss_options)
    if "distance" in HEADS[head].maps:
        return DistanceLoss(loss, section.distance_weight)
    return loss


def _class_weights(
    section: TrainSection,
    images: Sequence[TrainingImage],
    num_classes: int,
    pixels: Sequence[float] | None,
) -> list[float] | None:
    """The loss's class weights; ``auto`` balances the classes over the training images, whose
    pixels count with their weight (None: all alike)."""
    if section.class_weights is None:
        return None
    if section.class_weights != "auto":
        return list(section.class_weights)
    counts: list[float] = [0] * num_classes
    for image, weight in zip(images, pixels or [1] * len(images), strict=True):
        target = image.read([(0, n) for n in image.shape]).target
        for index in range(num_classes):
            counts[index] += int((target == index).sum()) * weight
    return balanced_class_weights(counts)


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes ``history.csv``: a row per epoch, with empty cells where there is no score."""
    write_table(
        path,
        HISTORY_COLUMNS,
        (tuple(row[name] for name in HISTORY_COLUMNS) for row in rows),
        digits=6,
    )
