"""Memory and time that a job requests, estimated from the config and the sizes of the images (see
:mod:`unet.planning.image_sizes`).

A queue ends jobs that use more than they requested, and delays jobs that request a lot. So these
estimates are on the safe side, and attempt n requests n times as much as the first. Every stage
except ``manifest`` continues where the previous attempt ended. Loads neither torch nor dask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from unet.config.choices import FAMILY_TABLE
from unet.config.geometry import footprint
from unet.config.layers import flop, layers_of, parameters
from unet.config.presets import AnyArchitecture, AnyUNet
from unet.config.run import Config
from unet.config.sections import CHOOSING, PredictSection
from unet.planning.image_sizes import Images
from unet.training.auto.memory import Numerics, step_bytes

# Bytes that do not depend on the images: the interpreter and libraries, and the two Snakemake
# processes in each cluster job. PyTorch and CUDA need more.
PROCESS = 0.7e9
TORCH = 0.5e9
CUDA = 2.5e9
# Bytes per window pixel and first-level channel in prediction (see unet.prediction.tiles.windows),
# and the side of a validation window (see unet.training.train).
WINDOW = 32
VALIDATION_SIDE = 1024
# Memory for pixels in stages that process images in blocks: the least in bytes, and bytes per
# channel or class value (for all copies of it together).
LEAST_MEMORY = 0.3e9
COPIES = 24
# Bytes per pixel and thread for scores that need a whole slice of an image.
SLICE = 48
# FLOP per second and core of a network on a slow machine. GPUs are not taken into account, so that
# a job without one has enough time.
CORE = 20e9
# Largest share of validation images.
VALIDATED = 0.3
# Pixel values per second and thread: reading, scaling and compressing; stitching; scoring.
READ, STITCHED, SCORED = 2e6, 1e6, 0.5e6
# Seconds that starting, waiting for a file system and writing may take.
SLACK_SECONDS = 20 * 60
# Most minutes that a job requests: what most queues grant.
LONGEST = 24 * 60


def flop_per_pixel(arch: AnyUNet, channels: int, outputs: int) -> float:
    """FLOP of a forward pass per pixel of the input; a training step takes three times as much."""
    # As if convolutions lost no border: neighbouring windows of an unpadded network overlap.
    endless = arch.endless()
    step = [axis.grid for axis in footprint(endless)]
    return flop(layers_of(endless, channels, outputs), step) / math.prod(step)


def largest(
    found: Sequence[AnyArchitecture | None], channels: int, outputs: int
) -> AnyArchitecture | None:
    """The network with the most parameters; None if one of them is not known yet."""
    known = [arch for arch in found if arch is not None]
    if len(known) < len(found):
        return None
    if len(known) == 1:
        return known[0]
    return max(known, key=lambda arch: parameters(layers_of(arch, channels, outputs)))


def compared_passes(config: Config, dataset: str) -> int:
    """Passes over the test images that the comparison with another tool makes: one that stores its
    masks, and one for each family of metrics that needs no probabilities."""
    return 1 + sum(FAMILY_TABLE[family].masks for family in config.evaluate_for(dataset).metrics)


@dataclass(frozen=True)
class PlannedJob:
    """A job of the workflow, with everything that its resources depend on.

    Attributes:
        threads: number of threads that it gets.
        model: "" for stages without a model.
        networks: number of networks that predict together.
        gather: it only joins shards (see ``predict.shards``).
    """

    config: Config
    dataset: str
    images: Images
    threads: int
    model: str = ""
    networks: int = 1
    gather: bool = False

    @cached_property
    def architecture(self) -> AnyArchitecture | None:
        outputs = len(self.config.head_for(self.dataset, self.model))
        return largest(self.config.architectures_for(self.model), self.images.channels, outputs)

    @cached_property
    def predict(self) -> PredictSection:
        return self.config.predict_for(self.dataset, self.model)

    @property
    def budget(self) -> float:
        """Bytes that the config allows for pixels; less if the images are few and small."""
        values = self.images.channels + len(self.config.datasets[self.dataset].class_names)
        return min(self.config.memory_gb * 1e9, LEAST_MEMORY + COPIES * self.images.pixels * values)

    @property
    def device(self) -> float:
        """Bytes of main memory that a GPU's driver takes."""
        return 0.0 if self.config.device == "cpu" else CUDA

    def flop(self, pixels: float) -> float | None:
        """FLOP for predicting this many pixels; None if the layers are not known yet, or the
        network is not a U-Net."""
        arch = self.architecture
        if not isinstance(arch, AnyUNet):
            return None
        outputs = len(self.config.head_for(self.dataset, self.model))
        return pixels * flop_per_pixel(arch, self.images.channels, outputs)


# Memory of a job, in bytes.


def _plain(job: PlannedJob) -> float:
    return PROCESS


def _manifest(job: PlannedJob) -> float:
    # Each thread reads one block of a file.
    return PROCESS + job.threads * 0.4e9


def _check(job: PlannedJob) -> float:
    # A picture of an image at a time; the speed is measured with the networks' library.
    largest = job.images.largest * (job.images.channels + 1)
    return _manifest(job) + TORCH + COPIES * min(largest, job.config.memory_gb * 1e9 / COPIES)


def _pixels(job: PlannedJob) -> float:
    return PROCESS + job.budget


def _train(job: PlannedJob) -> float:
    section = job.config.train_for(job.dataset, job.model)
    outputs = len(job.config.head_for(job.dataset, job.model))
    # float32 images, classes, and maps that a loss may need; training and validation images.
    all_images = job.images.pixels * (4 * job.images.channels + 1 + 4 * 2)
    cache = min(2 * section.cache_gb * 1e9, all_images)
    arch = job.architecture
    if not isinstance(arch, AnyUNet):
        work = job.config.memory_gb * 1e9
    else:
        patch = section.patch
        sides = (patch,) * arch.dims if isinstance(patch, int) else patch
        step = step_bytes(arch, job.images.channels, outputs, sides, section.batch, Numerics())
        window = min(job.images.largest, VALIDATION_SIDE**2)
        work = max(step, float(window) * arch.width * WINDOW)
    # Without a GPU the job computes on the CPU, so it needs all of this in main memory.
    return PROCESS + TORCH + job.device + work + section.gpus * cache


def _predict(job: PlannedJob) -> float:
    if job.gather:
        return PROCESS + TORCH
    arch, section = job.architecture, job.predict
    weights, window, most = 0.0, 0.0, job.config.memory_gb * 1e9
    if isinstance(arch, AnyUNet):
        outputs = len(job.config.head_for(job.dataset, job.model))
        layers = layers_of(arch, job.images.channels, outputs)
        weights = 4.0 * job.networks * parameters(layers)
        if section.tile != "auto":
            tile = section.tile
            sides = (tile,) * arch.dims if isinstance(tile, int) else tile
            window = float(math.prod(sides)) * arch.width * WINDOW
        # All windows in one batch; halos take as many pixels as cores.
        most = min(most, LEAST_MEMORY + 2 * job.images.pixels * arch.width * WINDOW)
    work = 0.0 if section.cluster is not None else max(most, window) + job.device
    return PROCESS + TORCH + 2 * weights + work


def _evaluate(job: PlannedJob) -> float:
    families = job.config.evaluate_for(job.dataset).metrics
    slices = 0.0
    if CHOOSING.intersection(families):
        slices = float(min(job.threads, job.images.count)) * job.images.slice * SLICE
    return PROCESS + job.budget + slices


def _details(job: PlannedJob) -> float:
    # The rows of images that wait for a slower one before them.
    return PROCESS + job.budget + 0.2e9


def _quality(job: PlannedJob) -> float:
    # It reads model files with torch, and a block of an image per thread.
    return PROCESS + TORCH + job.budget


def _export(job: PlannedJob) -> float:
    # Converting a network takes several copies of its weights, and a window of a few megapixels.
    arch, weights = job.architecture, 1e9
    if isinstance(arch, AnyUNet):
        outputs = len(job.config.head_for(job.dataset, job.model))
        weights = 24.0 * parameters(layers_of(arch, job.images.channels, outputs))
    return PROCESS + TORCH + 1.5e9 + weights


def _report(job: PlannedJob) -> float:
    # Overlays of a few images, and the plotting library.
    return PROCESS + TORCH + 1e9


# Time of a job, in seconds; None: the longest.


def _read(job: PlannedJob) -> float:
    return job.images.pixels * job.images.channels / (READ * job.threads)


def _trained(job: PlannedJob) -> float | None:
    section = job.config.train_for(job.dataset, job.model)
    dims = getattr(job.architecture, "dims", 2)
    patch = section.patch
    sides = (patch,) * dims if isinstance(patch, int) else patch
    seen = section.epochs * section.steps_per_epoch * section.accumulate * section.batch
    validated = VALIDATED * section.epochs / section.validate_every * job.images.pixels
    flop = job.flop(3.0 * seen * math.prod(sides) + validated)
    return None if flop is None else flop / (CORE * job.threads)


def _predicted(job: PlannedJob) -> float | None:
    section = job.predict
    # Halos take as many pixels as cores; tta predicts 8 symmetries.
    times = 2.0 * (8 if section.tta else 1) * job.networks / section.shards
    flop = 0.0 if job.gather else job.flop(times * job.images.pixels)
    if flop is None:
        return None
    written = 2 * job.images.pixels / (READ * job.threads)
    return flop / (CORE * job.threads) + written


def _stitched(job: PlannedJob) -> float:
    return job.images.pixels / (STITCHED * job.threads)


def _scored(job: PlannedJob) -> float:
    families = len(job.config.evaluate_for(job.dataset).metrics)
    return families * job.images.pixels / (SCORED * job.threads)


def _compared(job: PlannedJob) -> float:
    passes = compared_passes(job.config, job.dataset)
    return passes * job.images.pixels / (SCORED * job.threads)


def _detailed(job: PlannedJob) -> float:
    # As long as two families of metrics: one of classes and one of objects.
    return 2 * job.images.pixels / (SCORED * job.threads)


def _audited(job: PlannedJob) -> float:
    # Labels and predictions are read twice.
    return 2 * job.images.pixels / (SCORED * job.threads)


def _converted(job: PlannedJob) -> float:
    # Most of it is the conversion to ONNX, which takes longer for more layers.
    return 300.0


def _no_time(job: PlannedJob) -> float:
    return 0.0


# Stage -> bytes, seconds.
NEEDS: dict[str, tuple[Callable[[PlannedJob], float], Callable[[PlannedJob], float | None]]] = {
    "synthesize": (_plain, _no_time),
    # It runs where snakemake runs, as long as the connection needs.
    "download": (_plain, _no_time),
    "manifest": (_manifest, _read),
    "splits": (_plain, _no_time),
    "check": (_check, _read),
    "prepare": (_pixels, _read),
    "join": (_plain, _no_time),
    "prepare_applied": (_pixels, _read),
    "train": (_train, _trained),
    "choose": (_plain, _no_time),
    "predict": (_predict, _predicted),
    "stitch": (_pixels, _stitched),
    "evaluate": (_evaluate, _scored),
    "details": (_details, _detailed),
    "compare": (_pixels, _compared),
    "audit": (_pixels, _audited),
    "quality": (_quality, _scored),
    "report": (_report, _no_time),
    "export": (_export, _converted),
}


def memory_mb(stage: str, job: PlannedJob, attempt: int = 1) -> int:
    """MB (10^6 bytes) that the job requests, in hundreds."""
    return attempt * 100 * math.ceil(NEEDS[stage][0](job) / 1e8)


def minutes(stage: str, job: PlannedJob, attempt: int = 1) -> int:
    """Minutes that the job requests, in tens."""
    seconds = NEEDS[stage][1](job)
    if seconds is None:
        return LONGEST
    return min(LONGEST, attempt * 10 * math.ceil((SLACK_SECONDS + seconds) / 600))
