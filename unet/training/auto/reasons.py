"""Explains a plan of preset ``auto``: a line for each decision, with the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unet.config.geometry import footprint
from unet.config.presets import Architecture
from unet.errors import how_many
from unet.training.auto.measure import PERCENTS, Fingerprint, Objects
from unet.training.auto.memory import Numerics

CPU = Numerics()


@dataclass(frozen=True)
class Limits:
    """The limits of a plan.

    Attributes:
        memory_bytes: of each device.
        numerics: kind of device and precision.
        processes: number of processes that train together, each with a device and its share of the
            batch.
        outputs: K, channels of the network's output; None = one per class.
        anisotropic: whether kernels and poolings depend on the size of a pixel.
        given: those of ``patch`` and ``batch`` that the user has set.
    """

    memory_bytes: float
    numerics: Numerics = CPU
    processes: int = 1
    outputs: int | None = None
    anisotropic: bool = True
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PlanFacts:
    """The numbers that the decisions are based on.

    Attributes:
        fingerprint, limits: the inputs of the plan.
        objects: the kind of objects that determines the sizes, if any.
        field: receptive field to reach, per axis.
        most_pixels: maximum pixels of a step.
        memory: bytes that a step may take.
        needed: bytes that a step is estimated to take.
        bottom: pixels of a patch at the coarsest level.
    """

    fingerprint: Fingerprint
    limits: Limits
    objects: Objects | None
    field: tuple[int, ...]
    most_pixels: float
    memory: float
    needed: float
    bottom: int


def reasons(
    facts: PlanFacts, arch: Architecture, patch: Sequence[int], batch: int
) -> tuple[str, ...]:
    """The lines, in the order of the decisions."""
    return (
        *_data(facts.fingerprint),
        _dims(facts.fingerprint),
        _depth(facts, arch, patch),
        *_layers(facts, arch),
        _width(facts, arch),
        _norm(facts, arch, batch),
        _patch(facts, patch),
        _batch(facts, patch, batch),
        _memory(facts),
    )


def _data(fp: Fingerprint) -> Iterator[str]:
    same = fp.shape_min == fp.shape_max
    shape = times(fp.shape_median)
    if not same:
        shape = f"{times(fp.shape_min)} to {times(fp.shape_max)}, median {shape}"
    size = "unknown pixel size"
    if fp.spacing is not None:
        size = f"pixels of {' x '.join(f'{s:.4g}' for s in fp.spacing)} um"
    yield (
        f"images: {fp.images} to train on, {shape} px, {how_many(fp.channels, 'channel')}, "
        f"{fp.pixels / 1e6:.3g} Mpx in all, {size}"
    )
    low, middle, high = zip(*fp.intensities, strict=True)
    yield (
        f"intensities as normalised, percentiles {PERCENTS[0]:g}, {PERCENTS[1]:g} and "
        f"{PERCENTS[2]:g}: {_numbers(low)}; {_numbers(middle)}; {_numbers(high)}"
        + ("" if _sound(fp) else " (far from 0 to 1: check prepare.normalize)")
    )
    shares = (f"{n} {100 * s:.3g} %" for n, s in zip(fp.classes, fp.shares, strict=True))
    yield f"classes: {', '.join(shares)} (measured on {100 * fp.seen:.3g} % of the pixels)"
    for o in fp.objects:
        text = f"objects: {o.name}: {o.number}"
        if o.number:
            text += (
                f", median {times(o.median)} px, 95th percentile {times(o.common)} px, "
                f"largest {times(o.largest)} px"
            )
        yield text + (f"; {o.spanning} more span an image" if o.spanning else "")


def _sound(fp: Fingerprint) -> bool:
    """Whether the intensities are on a scale that suits training."""
    return all(0.01 < high - low < 100 and abs(mid) < 100 for low, mid, high in fp.intensities)


def _dims(fp: Fingerprint) -> str:
    if fp.dims == 2:
        return "2D: the images have the axes Y X"
    return f"3D: the images are volumes (Z Y X) of {fp.shape_median[0]} sections (median)"


def _depth(facts: PlanFacts, arch: Architecture, patch: Sequence[int]) -> str:
    field = [f.receptive_field for f in footprint(arch)]
    objects = facts.objects
    if objects is None:
        why = (
            f"no objects measured, so the receptive field is half a patch, {times(facts.field)} px"
        )
    else:
        why = (
            f"{_kind(objects)} of {times(objects.common)} px (95th percentile) need a receptive "
            f"field of >= {times(facts.field)} px"
        )
    give = "1 pooling gives" if arch.depth == 1 else f"{arch.depth} poolings give"
    text = f"depth {arch.depth}: {why}; {give} {times(field)} px"
    if any(n < w for n, w in zip(field, facts.field, strict=True)):
        text += f"; a patch of {times(patch)} px allows no more"
    return text


def _layers(facts: PlanFacts, arch: Architecture) -> Iterator[str]:
    if arch.kernels is None or arch.pools is None:
        return
    size = facts.fingerprint.spacing if facts.limits.anisotropic else None
    voxels = "unknown, assumed equal on all axes"
    if size is not None:
        voxels = f"{' x '.join(f'{s:.4g}' for s in size)} um"
    yield (
        f"kernels {' '.join(times(k, 'x') for k in arch.kernels)}, "
        f"poolings {' '.join(times(p, 'x') for p in arch.pools)}: voxels of {voxels}; an axis "
        "twice as coarse as the finest is pooled later, and none is pooled below 4 px"
    )


def _width(facts: PlanFacts, arch: Architecture) -> str:
    return (
        f"width {arch.width}, at most {arch.max_width}: for {facts.fingerprint.pixels / 1e6:.3g} "
        f"Mpx of training images and {facts.memory / 1e9:.3g} GB"
    )


def _norm(facts: PlanFacts, arch: Architecture, batch: int) -> str:
    if arch.norm == "batch":
        return f"batch normalisation (as unet-bn): {batch} patches give steady statistics"
    text = f"{arch.norm} normalisation (as unet-res): {batch} patches are too few for batch"
    if arch.norm == "group":
        text += f", and {facts.bottom} pixels per patch at the coarsest level for instance"
    return f"{text} normalisation"


def _patch(facts: PlanFacts, patch: Sequence[int]) -> str:
    text = f"patch {times(patch)}"
    if "patch" in facts.limits.given:
        return f"{text}: train.patch, fitted to the network's grid"
    median = facts.fingerprint.shape_median
    if all(n == m for n, m in zip(patch, median, strict=True)):
        return f"{text}: the whole image"
    limit = (
        f"{facts.most_pixels / 1e3:.4g} kpx per step (time, and 5 % of all pixels) and "
        f"{facts.memory / 1e9:.3g} GB"
    )
    return f"{text}: the median image of {times(median)} px, shortened to the grid and to {limit}"


def _batch(facts: PlanFacts, patch: Sequence[int], batch: int) -> str:
    text = f"batch {batch}"
    if "batch" in facts.limits.given:
        return f"{text}: train.batch"
    share = batch * math.prod(patch) / facts.fingerprint.pixels
    return (
        f"{text}: {batch * math.prod(patch) / 1e3:.4g} kpx per step, {100 * share:.3g} % of all "
        f"pixels; the limit is {facts.most_pixels / 1e3:.4g} kpx, with at least 2 patches"
    )


def _memory(facts: PlanFacts) -> str:
    limits = facts.limits
    where = "of the GPU" if limits.numerics.device == "cuda" else "(memory_gb)"
    text = (
        f"memory: a step takes about {facts.needed / 1e9:.3g} GB in {limits.numerics.precision}, "
        f"of {limits.memory_bytes / 1e9:.3g} GB {where}"
    )
    if facts.needed > facts.memory:
        text += "; this may be too much: if memory runs out, lower train.patch or train.batch"
    return text


def _kind(objects: Objects) -> str:
    return "objects" if objects.name == "instances" else f"objects ({objects.name})"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.3g}" for v in values)


def times(values: Sequence[int], between: str = " x ") -> str:
    """Sizes per axis, such as ``256 x 256``."""
    return between.join(map(str, values))
