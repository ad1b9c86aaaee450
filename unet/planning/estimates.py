"""Time, memory and disk space that a run will take on this machine, stage by stage.

Unlike the resources that jobs request (:mod:`unet.planning.resources`), which are on the safe side,
these are what is most likely. They come from the config and the sizes of the images, before
anything has run. Loads neither torch nor dask nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from unet.config.geometry import footprint
from unet.config.heads import HEADS
from unet.config.layers import flop, layers_of, parameters
from unet.config.loss_table import LOSS_TABLE
from unet.config.presets import AnyArchitecture, AnyUNet
from unet.config.run import Config
from unet.config.sections import PredictSection, TrainSection
from unet.data.survey.facts import DatasetSurvey
from unet.paths import ENSEMBLE, origin_of
from unet.planning.estimated_jobs import (
    EstimatedJob,
    Machine,
    resampled,
    sizes_of,
)
from unet.planning.resources import VALIDATION_SIDE, compared_passes, flop_per_pixel
from unet.training.auto.memory import Numerics, step_bytes
from unet.versions import STAGES

# Seconds until a stage's job has loaded its libraries and the workflow has noticed that it ended.
# Measured like the rates below on two cores, with the small run (`make small-run`) and the demo.
START = {
    "synthesize": 1.0, "manifest": 1.5, "splits": 1.0, "check": 3.0, "prepare": 2.0,
    "prepare_applied": 4.0, "train": 5.5, "choose": 1.0, "predict": 4.5, "stitch": 1.5,
    "evaluate": 1.5, "details": 1.5, "compare": 2.0, "audit": 1.5, "quality": 4.0, "report": 3.0,
    "export": 40.0,
}  # fmt: skip
# Values (pixels times channels) per second and thread.
GENERATED, READ, PREPARED, STITCHED, SCORED = 0.7e6, 12e6, 6e6, 2e6, 0.5e6
# How much faster a pass over an image is in prediction than in training, which also computes
# gradients.
PREDICTION_SPEED = 3.0
# Bytes of main memory: the interpreter with the arrays' libraries; with the networks' library.
PROCESS, TORCH = 1.2e8, 4e8
# Bytes of a window pixel per channel of the first level, and of all copies of a value in a block.
WINDOW, COPIES = 24, 12
# Size after compression, as a share of the size before: images and probabilities; labels and masks.
PACKED, PACKED_LABELS = 0.8, 0.05
# Bytes of a checkpoint per parameter: weights, average, best weights, and two moments.
CHECKPOINT = 20
# The levels of a pyramid of 2D images take a third more.
PYRAMID = 4 / 3
SYMMETRIES = 8


@dataclass(frozen=True)
class Estimate:
    """What the jobs of a stage (and model) take.

    Attributes:
        stage: as in :data:`unet.versions.STAGES`.
        model: "" for stages without a model; for the stage compare the other tool.
        jobs: number of jobs.
        seconds: of all jobs, one after the other; None if the network is not known yet.
        memory: bytes of main memory of the largest job; None likewise.
        disk: bytes of the files that stay; None likewise.
    """

    stage: str
    model: str
    jobs: int
    seconds: float | None
    memory: float | None
    disk: float | None


def estimates(
    config: Config, dataset: str, surveys: Mapping[str, DatasetSurvey], machine: Machine
) -> list[Estimate]:
    """What each stage of a dataset will take, in the order of the work.

    Args:
        surveys: by dataset; that of ``dataset``, and those of the datasets whose models predict it
            (without them no resampling is assumed).
    """
    survey = surveys[dataset]
    job = EstimatedJob(config, dataset, sizes_of(survey), survey, machine)
    generated = config.datasets[dataset].synthetic is not None
    applied = config.origins_for(dataset)
    found = [_synthesize(job)] if generated else []
    found += [_manifest(job), *([] if applied else [_splits(job), _prepare(job)])]
    found += [_train(replace(job, model=model)) for model in config.trained_for(dataset)]
    for model in config.models_for(dataset):
        own = resampled(job, surveys, origin_of(model))
        own = replace(own, model=model)
        found += [_prepare(own)] if applied else []
        found += [_choose(own)] if config.members_of(model) else []
        found += [_predict(own), _stitch(replace(own, sizes=job.sizes))]
        if config.datasets[dataset].labelled:
            found += [scored(replace(own, sizes=job.sizes)) for scored in (_evaluate, _details)]
            found += [] if applied else [_audit(replace(own, sizes=job.sizes))]
        if applied:
            found.append(_quality(replace(own, sizes=job.sizes)))
        elif config.export_for(dataset, model).write:
            found.append(_export(own))
    found += [_compare(job, tool) for tool in config.datasets[dataset].compare]
    found.append(Estimate("report", "", 1, START["report"], PROCESS, 3e6))
    order = list(STAGES)
    return sorted(found, key=lambda each: order.index(each.stage))


def total(found: Iterable[Estimate]) -> Estimate:
    """All in one: sums of jobs, time and disk space, and the largest memory. Estimates that are not
    known are left out."""
    rows = list(found)
    return Estimate(
        "total",
        "",
        sum(row.jobs for row in rows),
        sum(row.seconds or 0.0 for row in rows),
        max((row.memory or 0.0 for row in rows), default=0.0),
        sum(row.disk or 0.0 for row in rows),
    )


def _synthesize(job: EstimatedJob) -> Estimate:
    seconds = START["synthesize"] + job.sizes.pixels / GENERATED
    return Estimate("synthesize", "", 1, seconds, PROCESS, 1.5 * job.sizes.pixels)


def _manifest(job: EstimatedJob) -> Estimate:
    # Images and labels, each read once.
    values = job.sizes.values + (job.sizes.pixels if job.labels else 0)
    seconds = START["manifest"] + values / (READ * job.machine.threads)
    return Estimate("manifest", "", 1, seconds, PROCESS, 500.0 * job.sizes.count)


def _splits(job: EstimatedJob) -> Estimate:
    return Estimate("splits", "", 1, START["splits"], PROCESS, 50.0 * job.sizes.count)


def _prepare(job: EstimatedJob) -> Estimate:
    stage = "prepare_applied" if job.model else "prepare"
    own = job.sizes.values / job.enlarged
    # A resampled image is stored together with the image on its own grid.
    images = job.sizes.values + (own if job.enlarged != 1 else 0)
    seconds = START[stage] + (own + images) / 2 / (PREPARED * job.machine.threads)
    labels = job.sizes.pixels / job.enlarged * job.labels * PACKED_LABELS
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.values)
    disk = 4 * images * PACKED + labels
    return Estimate(stage, job.model, 1, seconds, PROCESS + block, disk)


def _train(job: EstimatedJob) -> Estimate:
    section = job.config.train_for(job.dataset, job.model)
    arch, jobs = job.architecture, len(job.folds)
    if arch is None:
        return Estimate("train", job.model, jobs, None, job.config.memory_gb * 1e9, None)
    patch = _sides(section.patch, arch.dims)
    steps = section.epochs * section.steps_per_epoch * section.accumulate
    layers = layers_of(arch, job.sizes.channels, job.outputs)
    seconds = steps * section.batch * flop(layers, patch, training=True) / job.machine.flops
    seen = section.epochs / section.validate_every * job.share("val") / max(1, jobs)
    validated = _forward(job, arch, VALIDATION_SIDE) * seen * job.sizes.pixels
    seconds += validated / (PREDICTION_SPEED * job.machine.flops)
    files = 4.0 * parameters(layers) + 2 * CHECKPOINT * parameters(layers)
    memory = TORCH + _training_bytes(job, arch, section, patch)
    return Estimate("train", job.model, jobs, jobs * (START["train"] + seconds), memory,
                    jobs * files)  # fmt: skip


def _choose(job: EstimatedJob) -> Estimate:
    jobs = len(job.folds)
    if any(arch is None for arch in job.architectures):
        return Estimate("choose", job.model, jobs, jobs * START["choose"], PROCESS, None)
    sizes = [parameters(layers_of(arch, job.sizes.channels, job.outputs))
             for arch in job.architectures if arch is not None]  # fmt: skip
    # The file of the chosen one is copied.
    disk = 4.0 * jobs * max(sizes)
    return Estimate("choose", job.model, jobs, jobs * START["choose"], PROCESS, disk)


def _training_bytes(
    job: EstimatedJob, arch: AnyArchitecture, section: TrainSection, patch: Sequence[int]
) -> float:
    """Bytes of a training step and of the images that are kept in memory."""
    maps = len(LOSS_TABLE[section.loss].maps) + len(HEADS[_head(job)].maps)
    # float32 images, classes, and the maps that loss and head need.
    share = job.share("train", "val") / max(1, len(job.folds))
    images = share * job.sizes.pixels * (4 * job.sizes.channels + 1 + 4 * maps)
    kept = min(section.cache_gb * 1e9, images)
    if not isinstance(arch, AnyUNet):
        return kept
    step = step_bytes(arch, job.sizes.channels, job.outputs, patch, section.batch, Numerics())
    window = min(job.sizes.largest, VALIDATION_SIDE**2) * arch.width * WINDOW
    return kept + max(step, window)


def _head(job: EstimatedJob) -> str:
    return job.config.model_section(job.model).head


def _predict(job: EstimatedJob) -> Estimate:
    section = job.config.predict_for(job.dataset, job.model)
    arch, jobs = job.architecture, len(job.tested)
    jobs += jobs * section.shards if section.shards > 1 else 0
    pixels = job.sizes.pixels * job.predicted
    if arch is None:
        disk = 2.0 * pixels * job.outputs * PACKED
        return Estimate("predict", job.model, jobs, None, job.config.memory_gb * 1e9, disk)
    side = section.tile if section.tile != "auto" else VALIDATION_SIDE
    work = _forward(job, arch, side) * pixels * job.networks
    work *= SYMMETRIES if section.tta else 1
    seconds = work / (PREDICTION_SPEED * job.machine.flops)
    written = pixels * job.outputs / (PREPARED * job.machine.threads)
    value = 2 if section.dtype == "float16" else 4
    return Estimate(
        "predict",
        job.model,
        jobs,
        jobs * START["predict"] + seconds + written,
        TORCH + _predicting_bytes(job, arch, section),
        value * pixels * job.outputs * PACKED,
    )


def _predicting_bytes(job: EstimatedJob, arch: AnyArchitecture, section: PredictSection) -> float:
    weights = 4.0 * job.networks * parameters(layers_of(arch, job.sizes.channels, job.outputs))
    width = arch.width if isinstance(arch, AnyUNet) else 1
    # All windows of an image in one batch, as far as the memory allows.
    return weights + min(job.config.memory_gb * 1e9, job.sizes.largest * width * WINDOW)


def _stitch(job: EstimatedJob) -> Estimate:
    jobs, pixels = len(job.tested), job.sizes.pixels * job.predicted
    section = job.config.stitch_for(job.dataset, job.model)
    values = pixels * (job.outputs + 1)
    seconds = jobs * START["stitch"] + values / (STITCHED * job.machine.threads)
    labels = pixels * (5 if job.survey.task == "instances" else 1) * PACKED_LABELS
    masks = 2 * pixels * PACKED_LABELS if section.tiff else 0.0
    probabilities = 2 * pixels * job.outputs * PACKED * (PYRAMID if section.pyramid > 1 else 1)
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.largest * job.outputs)
    disk = probabilities + labels + masks
    return Estimate("stitch", job.model, jobs, seconds, PROCESS + block, disk)


def _evaluate(job: EstimatedJob) -> Estimate:
    return _scored(job, "evaluate", len(job.config.evaluate_for(job.dataset).metrics), 4000.0)


def _details(job: EstimatedJob) -> Estimate:
    # Classes, and objects if there are any, take as long as two families of metrics.
    return _scored(job, "details", 2, 8000.0)


def _scored(job: EstimatedJob, stage: str, passes: int, image_bytes: float) -> Estimate:
    """A stage that compares the test images with their labels.

    Args:
        passes: over the pixels.
        image_bytes: of the rows of one image.
    """
    tested = _tested(job)
    scored = passes * tested * job.sizes.pixels
    seconds = START[stage] + scored / (SCORED * job.machine.threads)
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.largest * job.outputs)
    disk = image_bytes * tested * job.sizes.count
    return Estimate(stage, job.model, 1, seconds, PROCESS + block, disk)


def _tested(job: EstimatedJob) -> float:
    """Share of the images that is scored, over all folds."""
    if job.config.origins_for(job.dataset):
        return 1.0
    tested = job.share("test")
    return tested / len(job.folds) if ENSEMBLE in job.tested and job.folds else tested


def _compare(job: EstimatedJob, tool: str) -> Estimate:
    """The masks of another tool: read and stored in one pass, then scored like a model's."""
    passes = compared_passes(job.config, job.dataset)
    pixels = _tested(job) * job.sizes.pixels
    seconds = START["compare"] + passes * pixels / (SCORED * job.machine.threads)
    classes = len(job.config.datasets[job.dataset].class_names)
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.largest * classes)
    disk = pixels * (5 if job.survey.task == "instances" else 1) * PACKED_LABELS
    return Estimate("compare", tool, 1, seconds, PROCESS + block, disk)


def _audit(job: EstimatedJob) -> Estimate:
    held_out = job.share("test") + job.share("val")
    # Labels and predictions are read twice; once per image, whichever folds predict it.
    read = 2 * min(1.0, held_out) * job.sizes.pixels
    seconds = START["audit"] + read / (SCORED * job.machine.threads)
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.largest * job.outputs)
    return Estimate("audit", job.model, 1, seconds, PROCESS + block, 50e3)


def _quality(job: EstimatedJob) -> Estimate:
    # The held-out images of the training dataset are few beside these.
    seconds = START["quality"] + job.sizes.pixels / (SCORED * job.machine.threads)
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.largest * job.outputs)
    return Estimate("quality", job.model, 1, seconds, PROCESS + block, 200.0 * job.sizes.count)


def _export(job: EstimatedJob) -> Estimate:
    """A package holds the weights once per format."""
    arch = job.architecture
    if not isinstance(arch, AnyUNet):
        return Estimate("export", job.model, 1, START["export"], PROCESS + TORCH, None)
    weights = 4.0 * parameters(layers_of(arch, job.sizes.channels, job.outputs))
    formats = 1 + len(job.config.export_for(job.dataset, job.model).weights)
    memory = PROCESS + TORCH + 6 * weights
    return Estimate("export", job.model, 1, START["export"], memory, formats * weights + 1e6)


def _forward(job: EstimatedJob, arch: AnyArchitecture, most: int | Sequence[int]) -> float:
    """FLOP of a forward pass per pixel of the images, with the pixels around each window that are
    computed for its context only.

    Args:
        most: largest side of a window, in pixels, or one per axis.
    """
    if isinstance(arch, AnyUNet):
        pixel = flop_per_pixel(arch, job.sizes.channels, job.outputs)
    else:
        large = [axis.smallest + 256 for axis in footprint(arch)]
        layers = layers_of(arch, job.sizes.channels, job.outputs)
        pixel = flop(layers, large) / math.prod(large)
    if len(job.sizes.shape) != arch.dims:
        return pixel
    more = 1.0
    limits = _sides(most, arch.dims)
    for size, limit, axis in zip(job.sizes.shape, limits, footprint(arch), strict=True):
        # A padded network sees a whole image as it is; any other window needs its context.
        context = axis.margin if axis.margin else (axis.halo if size > limit else 0)
        windows = math.ceil(size / max(axis.grid, limit - 2 * context))
        more *= 1 + 2 * context * windows / size
    return pixel * more


def _sides(size: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (size,) * dims if isinstance(size, int) else tuple(size)
