"""Time, memory and disk space that a run will take on this machine, stage by stage.

Unlike the resources that jobs request (:mod:`unet.planning.resources`), which are on the safe side,
these are what is most likely. They come from the config and the sizes of the images, before
anything has run. Loads neither torch nor dask nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from unet.config.geometry import footprint
from unet.config.heads import HEADS
from unet.config.layers import flop, layers_of, parameters
from unet.config.loss_table import LOSS_TABLE
from unet.config.presets import AnyArchitecture, Architecture
from unet.config.run import Config
from unet.config.sections import PredictSection, TrainSection
from unet.data.survey.facts import DatasetSurvey
from unet.paths import ENSEMBLE, Origin, origin_of
from unet.planning.resources import VALIDATION_SIDE, flop_per_pixel
from unet.training.auto.memory import Numerics, step_bytes
from unet.versions import STAGES

# Seconds until a stage's job has loaded its libraries and the workflow has noticed that it ended.
# Measured like the rates below on two cores, with the small run (`make small-run`) and the demo.
START = {
    "synthesize": 1.0, "manifest": 1.5, "splits": 1.0, "check": 3.0, "prepare": 2.0,
    "prepare_applied": 4.0, "train": 5.5, "predict": 4.5, "stitch": 1.5, "evaluate": 1.5,
    "report": 3.0,
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
# What is left of values after compression: images and probabilities; labels and masks.
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
        model: "" for stages without a model.
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


@dataclass(frozen=True)
class Machine:
    """What the estimates assume of this machine.

    Attributes:
        flops: FLOP of the forward pass that a training does per second.
        threads: number of CPU threads.
    """

    flops: float
    threads: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of a dataset's usable images.

    Attributes:
        count: number of images.
        pixels: pixels (voxels) of all images together.
        channels: most channels of an image.
        shape: the median size along each spatial axis.
        largest: pixels of the largest image.
    """

    count: int = 0
    pixels: float = 0.0
    channels: int = 1
    shape: tuple[float, ...] = (1.0, 1.0)
    largest: float = 0.0

    @property
    def values(self) -> float:
        """Pixels times channels."""
        return self.pixels * self.channels

    def scaled(self, factors: Sequence[float]) -> Sizes:
        """The sizes after resampling: each axis times its factor."""
        if len(factors) != len(self.shape):
            return self
        volume = math.prod(factors)
        shape = tuple(max(1.0, n * f) for n, f in zip(self.shape, factors, strict=True))
        return replace(
            self, pixels=self.pixels * volume, largest=self.largest * volume, shape=shape
        )


def sizes_of(survey: DatasetSurvey) -> Sizes:
    """The sizes of the images that a survey found usable."""
    shapes = [image.shape for image in survey.images if image.status == "ok" and image.shape]
    if not shapes:
        return Sizes()
    dims = max(len(shape) for shape in shapes) - 1
    alike = [shape[1:] for shape in shapes if len(shape) == dims + 1]
    pixels = [math.prod(shape[1:]) for shape in shapes]
    return Sizes(
        count=len(shapes),
        pixels=float(sum(pixels)),
        channels=max(shape[0] for shape in shapes),
        shape=tuple(float(median(sizes)) for sizes in zip(*alike, strict=True)),
        largest=float(max(pixels)),
    )


def pixel_size_of(survey: DatasetSurvey) -> tuple[float, ...] | None:
    """The median pixel size in micrometres of the usable images; None if it is unknown."""
    sizes = [i.pixel_size_um for i in survey.images if i.status == "ok" and i.pixel_size_um]
    if not sizes or len({len(size) for size in sizes}) > 1:
        return None
    return tuple(float(median(axis)) for axis in zip(*sizes, strict=True))


def estimates(
    config: Config, dataset: str, surveys: Mapping[str, DatasetSurvey], machine: Machine
) -> list[Estimate]:
    """What each stage of a dataset will take, in the order of the work.

    Args:
        surveys: by dataset; that of ``dataset``, and those of the datasets whose models predict it
            (without them no resampling is assumed).
    """
    survey = surveys[dataset]
    job = _Job(config, dataset, sizes_of(survey), survey, machine)
    generated = config.datasets[dataset].synthetic is not None
    applied = config.origins_for(dataset)
    found = [_synthesize(job)] if generated else []
    found += [_manifest(job), *([] if applied else [_splits(job), _prepare(job)])]
    for model in config.models_for(dataset):
        own = _resampled(job, surveys, origin_of(model))
        own = replace(own, model=model)
        found += [_prepare(own)] if applied else [_train(own)]
        found += [_predict(own), _stitch(replace(own, sizes=job.sizes))]
        if config.datasets[dataset].labelled:
            found.append(_evaluate(replace(own, sizes=job.sizes)))
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


@dataclass(frozen=True)
class _Job:
    """What the estimates of a stage depend on.

    Attributes:
        sizes: of the images, in the pixels that the stage works on.
        enlarged: pixels of the resampled images per pixel of the files.
    """

    config: Config
    dataset: str
    sizes: Sizes
    survey: DatasetSurvey
    machine: Machine
    model: str = ""
    enlarged: float = 1.0

    @cached_property
    def origin(self) -> Origin | None:
        return origin_of(self.model)

    @cached_property
    def architecture(self) -> AnyArchitecture | None:
        return self.config.architecture_for(
            self.model if self.origin is None else self.origin.model
        )

    @cached_property
    def outputs(self) -> int:
        return len(self.config.head_for(self.dataset, self.model))

    @property
    def folds(self) -> tuple[int, ...]:
        return self.config.folds_for(self.dataset)

    @property
    def tested(self) -> tuple[int, ...]:
        return self.config.tested_for(self.dataset)

    @property
    def networks(self) -> int:
        """Number of networks that predict an image together."""
        if self.origin is not None:
            return len(self.config.folds_for(self.origin.dataset))
        return len(self.folds) if ENSEMBLE in self.tested else 1

    def share(self, *parts: str) -> float:
        """Sum over the folds that are run of the share (0 to 1) of the images in these parts."""
        splits, section = self.survey.splits or {}, self.config.datasets[self.dataset].split
        if known := [counts for fold, counts in splits.items() if fold in self.folds]:
            return sum(
                sum(counts.get(part, 0) for part in parts) / max(1, sum(counts.values()))
                for counts in known
            )
        test = section.test or (1 / section.folds if section.folds else 0.25)
        of = {"test": test, "val": section.val * (1 - test)}
        of["train"] = 1 - test - of["val"]
        return len(self.folds) * sum(of[part] for part in parts)

    @property
    def predicted(self) -> float:
        """Share of the images that is predicted and stitched, over all folds."""
        if self.origin is not None or ENSEMBLE in self.tested:
            return 1.0
        return self.share("val", "test")

    @property
    def labels(self) -> int:
        """Bytes per pixel of the stored labels."""
        if not self.config.datasets[self.dataset].labelled:
            return 0
        return 5 if self.survey.task == "instances" else 1


def _resampled(job: _Job, surveys: Mapping[str, DatasetSurvey], origin: Origin | None) -> _Job:
    """With images at the pixel size of a model of another dataset."""
    known = surveys.get(origin.dataset) if origin is not None else None
    target = None if known is None else pixel_size_of(known)
    own = pixel_size_of(job.survey)
    if target is None or own is None or len(target) != len(own):
        return job
    factors = [a / b for a, b in zip(own, target, strict=True)]
    if all(abs(factor - 1) < 0.01 for factor in factors):
        return job
    return replace(job, sizes=job.sizes.scaled(factors), enlarged=math.prod(factors))


def _synthesize(job: _Job) -> Estimate:
    seconds = START["synthesize"] + job.sizes.pixels / GENERATED
    return Estimate("synthesize", "", 1, seconds, PROCESS, 1.5 * job.sizes.pixels)


def _manifest(job: _Job) -> Estimate:
    # Images and labels, each read once.
    values = job.sizes.values + (job.sizes.pixels if job.labels else 0)
    seconds = START["manifest"] + values / (READ * job.machine.threads)
    return Estimate("manifest", "", 1, seconds, PROCESS, 500.0 * job.sizes.count)


def _splits(job: _Job) -> Estimate:
    return Estimate("splits", "", 1, START["splits"], PROCESS, 50.0 * job.sizes.count)


def _prepare(job: _Job) -> Estimate:
    stage = "prepare_applied" if job.model else "prepare"
    own = job.sizes.values / job.enlarged
    # A resampled image is stored together with the image on its own grid.
    images = job.sizes.values + (own if job.enlarged != 1 else 0)
    seconds = START[stage] + (own + images) / 2 / (PREPARED * job.machine.threads)
    labels = job.sizes.pixels / job.enlarged * job.labels * PACKED_LABELS
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.values)
    disk = 4 * images * PACKED + labels
    return Estimate(stage, job.model, 1, seconds, PROCESS + block, disk)


def _train(job: _Job) -> Estimate:
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


def _training_bytes(
    job: _Job, arch: AnyArchitecture, section: TrainSection, patch: Sequence[int]
) -> float:
    """Bytes of a training step and of the images that are kept in memory."""
    maps = len(LOSS_TABLE[section.loss].maps) + len(HEADS[_head(job)].maps)
    # float32 images, classes, and the maps that loss and head need.
    share = job.share("train", "val") / max(1, len(job.folds))
    images = share * job.sizes.pixels * (4 * job.sizes.channels + 1 + 4 * maps)
    kept = min(section.cache_gb * 1e9, images)
    if not isinstance(arch, Architecture):
        return kept
    step = step_bytes(arch, job.sizes.channels, job.outputs, patch, section.batch, Numerics())
    window = min(job.sizes.largest, VALIDATION_SIDE**2) * arch.width * WINDOW
    return kept + max(step, window)


def _head(job: _Job) -> str:
    return job.config.model_section(job.model).head


def _predict(job: _Job) -> Estimate:
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


def _predicting_bytes(job: _Job, arch: AnyArchitecture, section: PredictSection) -> float:
    weights = 4.0 * job.networks * parameters(layers_of(arch, job.sizes.channels, job.outputs))
    width = arch.width if isinstance(arch, Architecture) else 1
    # All windows of an image in one batch, as far as the memory allows.
    return weights + min(job.config.memory_gb * 1e9, job.sizes.largest * width * WINDOW)


def _stitch(job: _Job) -> Estimate:
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


def _evaluate(job: _Job) -> Estimate:
    families = len(job.config.evaluate_for(job.dataset).metrics)
    tested = 1.0 if job.origin is not None else job.share("test")
    if ENSEMBLE in job.tested and job.folds:
        tested = job.share("test") / len(job.folds)
    scored = families * tested * job.sizes.pixels
    seconds = START["evaluate"] + scored / (SCORED * job.machine.threads)
    block = min(job.config.memory_gb * 1e9, COPIES * job.sizes.largest * job.outputs)
    disk = 4000.0 * tested * job.sizes.count
    return Estimate("evaluate", job.model, 1, seconds, PROCESS + block, disk)


def _forward(job: _Job, arch: AnyArchitecture, most: int | Sequence[int]) -> float:
    """FLOP of a forward pass per pixel of the images, with the pixels around each window that are
    computed for its context only.

    Args:
        most: largest side of a window, in pixels, or one per axis.
    """
    if isinstance(arch, Architecture):
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
