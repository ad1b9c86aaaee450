"""Preset ``auto``: chooses a network and its training sizes from measurements of the images.

As in nnU-Net (Isensee et al. 2021, Nature Methods 18:203, "rule-based parameters"), the patch
starts as the median image and shrinks until a step fits the memory. Poolings follow from the patch
and the size of a pixel. The batch takes the remaining memory, up to a twentieth of the dataset's
pixels. Beyond nnU-Net, objects are measured, so that patch and receptive field cover whole objects;
and the pixels of a step are limited, since a CPU is short of time, not of memory. Pure: the same
fingerprint, settings and memory give the same plan. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from unet.config.anisotropy import COARSE
from unet.config.geometry import footprint, sizes_for
from unet.config.presets import PRESETS, Architecture, PerLevel
from unet.config.sections import TrainSection
from unet.errors import UserError
from unet.training.auto.measure import Fingerprint, Objects, fingerprint_of
from unet.training.auto.memory import Numerics, step_bytes
from unet.training.auto.plan_file import TrainingPlan, keep_plan, kept_plan, write_plan
from unet.training.auto.reasons import Limits, PlanFacts, reasons

__all__ = ["TrainingPlan", "choose_plan", "fingerprint_of", "keep_plan", "kept_plan", "write_plan"]

# Depth of the published U-Net, used unless there is a reason for another; and the largest tried.
USUAL_DEPTH, MOST_DEPTH = 4, 6
# An axis is never pooled to fewer pixels than this (nnU-Net).
MIN_BOTTOM = 4
# With fewer objects than this, their sizes are ignored.
MIN_OBJECTS = 5
# A patch is not made smaller than this to leave room for the batch; pixels along the finest axes.
MIN_PATCH = {2: 128, 3: 32}
MAX_PATCH = 4096  # the largest that the config accepts
# Patches per step to leave room for while the patch is chosen, and bounds of the batch.
ROOM_FOR = {2: 4, 3: 2}
MIN_BATCH, MAX_BATCH = 2, 16
# Batch normalisation needs this many patches (Wu & He 2018 show how it fails for small batches).
BATCH_NORM_FROM = 4
# With fewer values per channel and sample, statistics of single channels are too noisy.
INSTANCE_NORM_FROM = 16
# Maximum pixels of a step: 8 patches of 256 x 256 on a CPU, 16 of 512 x 512 on a GPU.
MAX_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 22}
# Maximum share of the dataset's pixels that a step covers (nnU-Net).
MAX_SHARE = 0.05
# Channels of the first level, by the pixels of the training images.
WIDTHS = ((1 << 20, 16), (1 << 22, 24), (math.inf, 32))
MAX_WIDTH = {2: 512, 3: 320}
# The rest is for other things that grow with the patch (augmentation, batches read ahead).
SHARE_OF_MEMORY = 0.9


def choose_plan(
    fingerprint: Fingerprint,
    section: TrainSection,
    memory_bytes: float,
    *,
    numerics: Numerics | None = None,
    processes: int = 1,
    outputs: int | None = None,
    anisotropic: bool = True,
    given: Collection[str] = (),
) -> TrainingPlan:
    """Chooses network, patch and batch.

    Args:
        fingerprint: of the training images.
        section: its patch and batch are used if ``given`` names them.
        memory_bytes, numerics, processes, outputs, anisotropic, given: see :class:`Limits`.

    Raises:
        UserError: a given patch and the images differ in the number of axes.
    """
    limits = Limits(
        memory_bytes, numerics or Numerics(), processes, outputs, anisotropic, frozenset(given)
    )
    return _Planner(fingerprint, section, limits).plan()


def layers_for(
    depth: int, patch: Sequence[int], spacing: Sequence[float]
) -> tuple[PerLevel, PerLevel]:
    """Kernels and poolings for a patch with this pixel size, chosen as in nnU-Net.

    Like :func:`unet.config.anisotropy.anisotropic_layers`, except for short axes: none is pooled
    below ``MIN_BOTTOM`` pixels, and there are no more levels once no axis can be pooled.

    Returns:
        kernels (one more than poolings) and poolings (at most ``depth``), each with one number per
        axis.
    """
    steps, sizes = [float(s) for s in spacing], list(patch)
    convolved = [False] * len(sizes)
    kernels, pools = [], []
    for _ in range(depth + 1):
        long = [n // 2 >= MIN_BOTTOM for n in sizes]
        # Axes that are too short to be pooled stay fine; the others must not be compared with them.
        finest = min([s for s, ok in zip(steps, long, strict=True) if ok], default=min(steps))
        fine = [s < COARSE * finest for s in steps]
        # Once convolved, an axis is convolved at all coarser levels; a single section never is.
        convolved = [(c or f) and n > 1 for c, f, n in zip(convolved, fine, patch, strict=True)]
        kernels.append(tuple(3 if c else 1 for c in convolved))
        pool = tuple(2 if ok and f else 1 for ok, f in zip(long, fine, strict=True))
        if max(pool) == 1:
            break
        pools.append(pool)
        steps = [s * p for s, p in zip(steps, pool, strict=True)]
        sizes = [n // p for n, p in zip(sizes, pool, strict=True)]
    pools = pools[: min(depth, len(kernels) - 1)]
    return tuple(kernels), tuple(pools)


@dataclass(frozen=True)
class _Choice:
    """A candidate; ``fits``: a step with the smallest batch fits the memory."""

    preset: str
    arch: Architecture
    patch: tuple[int, ...]
    batch: int
    fits: bool


class _Planner:
    """The rules and the numbers that they depend on."""

    def __init__(self, fingerprint: Fingerprint, section: TrainSection, limits: Limits) -> None:
        self.fp, self.limits = fingerprint, limits
        self.dims = fingerprint.dims
        known = limits.anisotropic and fingerprint.spacing is not None
        self.spacing = fingerprint.spacing if known and fingerprint.spacing else (1.0,) * self.dims
        self.outputs = limits.outputs or len(fingerprint.classes)
        self.objects = largest_objects(fingerprint.objects)
        self.given_patch = self._given_patch(section)
        self.given_batch = section.batch if "batch" in limits.given else None
        self.width = next(width for most, width in WIDTHS if fingerprint.pixels < most)

    def _given_patch(self, section: TrainSection) -> tuple[int, ...] | None:
        if "patch" not in self.limits.given:
            return None
        if not isinstance(section.patch, int) and len(section.patch) != self.dims:
            raise UserError(
                f"train.patch: got {list(section.patch)}; the images have {self.dims} spatial "
                f"axes: write one number or {self.dims}"
            )
        return sizes_for(section.patch, footprint(_base("unet-bn", self.dims, 8)))

    def plan(self) -> TrainingPlan:
        choice = self._choose("unet-bn")
        if choice.batch < BATCH_NORM_FROM:
            choice = self._choose("unet-res")
            if self._bottom(choice) < INSTANCE_NORM_FROM:
                choice = replace(choice, arch=replace(choice.arch, norm="group"))
        facts = PlanFacts(
            self.fp,
            self.limits,
            self.objects,
            tuple(self.field_wanted(choice.patch)),
            self.most_pixels(),
            self.memory,
            self.bytes_of(choice.arch, choice.patch, choice.batch),
            self._bottom(choice),
        )
        lines = reasons(facts, choice.arch, choice.patch, choice.batch)
        return TrainingPlan(choice.preset, choice.arch, choice.patch, choice.batch, lines)

    # The network ---------------------------------------------------------------------------------

    def field_wanted(self, patch: Sequence[int]) -> tuple[int, ...]:
        """The receptive field to reach, per axis: twice an object, so that each of its pixels sees
        the whole object; without objects, half the patch; never more than the patch."""
        if self.objects is None:
            return tuple(-(-n // 2) for n in patch)
        return tuple(min(2 * n, size) for n, size in zip(self.objects.common, patch, strict=True))

    def network(self, preset: str, patch: Sequence[int], width: int) -> Architecture:
        """The layers for a patch: as deep as the objects need and the patch allows."""
        base = _base(preset, self.dims, width)
        wanted = self.field_wanted(patch)
        arch = base
        for depth in range(1, MOST_DEPTH + 1):
            kernels, pools = layers_for(depth, patch, self.spacing)
            if len(pools) < depth and depth > 1:
                break
            if not pools:
                # Too small to be pooled at all, but a U-Net has at least one pooling.
                kernels, pools = (kernels[0],) * 2, ((1,) * (self.dims - 2) + (2, 2),)
            plain = self.dims == 2 and {n for level in kernels for n in level} == {3}
            plain = plain and {n for level in pools for n in level} == {2}
            arch = replace(
                base,
                depth=depth,
                # Always given in 3D; otherwise they would be derived from the first image's voxels.
                kernels=None if plain else kernels,
                pools=None if plain else pools,
            )
            reached = [f.receptive_field for f in footprint(arch)]
            enough = all(r >= w for r, w in zip(reached, wanted, strict=True))
            if enough and depth >= USUAL_DEPTH:
                break
        return arch

    # Patch and batch -----------------------------------------------------------------------------

    def least_patch(self) -> tuple[int, ...]:
        """An axis is made shorter than this only for lack of memory: twice an object, and at least
        ``MIN_PATCH`` pixels of the finest axis."""
        finest = min(self.spacing)
        least = [MIN_PATCH[self.dims] * finest / s for s in self.spacing]
        if self.objects is not None:
            least = [max(n, 2 * c) for n, c in zip(least, self.objects.common, strict=True)]
        return tuple(
            min(size, round(n)) for n, size in zip(least, self.fp.shape_median, strict=True)
        )

    def most_pixels(self) -> float:
        """Maximum pixels of a step."""
        time = MAX_PIXELS[self.limits.numerics.device] * self.limits.processes
        return min(time, MAX_SHARE * self.fp.pixels)

    def bytes_of(self, arch: Architecture, patch: Sequence[int], batch: int) -> float:
        """Memory of a step on each device."""
        rows = -(-batch // self.limits.processes)
        numerics = self.limits.numerics
        return step_bytes(arch, self.fp.channels, self.outputs, patch, rows, numerics)

    @property
    def memory(self) -> float:
        return SHARE_OF_MEMORY * self.limits.memory_bytes

    @property
    def least_batch(self) -> int:
        return max(MIN_BATCH, self.limits.processes)

    def _choose(self, preset: str) -> _Choice:
        """The widest network that trains on patches of a useful size; if memory is short a narrower
        network, and finally smaller patches."""
        widths = [w for w in dict.fromkeys((self.width, 24, 16, 8)) if w <= self.width]
        tries = [(width, self.least_patch()) for width in widths]
        tries.append((widths[-1], (1,) * self.dims))
        for width, floor in tries:
            choice = self._sized(preset, width, floor)
            if choice.fits:
                break
        return choice

    def _sized(self, preset: str, width: int, floor: Sequence[int]) -> _Choice:
        """Shrinks the median image (or the given patch) until a step fits, at most to ``floor``."""
        size = [min(n, MAX_PATCH) for n in self.given_patch or self.fp.shape_median]
        least = self.given_batch or self.least_batch
        room = self.given_batch or max(ROOM_FOR[self.dims], least)
        while True:
            arch = self.network(preset, size, width)
            grids = [f.grid for f in footprint(arch)]
            patch = tuple(max(g, n // g * g) for n, g in zip(size, grids, strict=True))
            fits = self.bytes_of(arch, patch, least) <= self.memory
            small = room * math.prod(patch) <= self.most_pixels()
            if self.given_patch is not None or (fits and small):
                break
            # A patch becomes smaller than is useful only for lack of memory.
            bounds = self.least_patch() if fits else floor
            shorter = [n - g for n, g in zip(patch, grids, strict=True)]
            possible = [
                axis
                for axis, (n, bound) in enumerate(zip(shorter, bounds, strict=True))
                if n >= max(bound, MIN_BOTTOM)
            ]
            if not possible:
                break
            # Shortens the axis that is longest in micrometres, so that patches become cubes.
            axis = max(possible, key=lambda a: patch[a] * self.spacing[a])
            size = list(patch)
            size[axis] = shorter[axis]
        batch = self._batch(arch, patch)
        return _Choice(preset, arch, patch, batch, fits)

    def _batch(self, arch: Architecture, patch: Sequence[int]) -> int:
        if self.given_batch is not None:
            return self.given_batch
        most = min(MAX_BATCH, int(self.most_pixels() // math.prod(patch)))
        batch = max(most, self.least_batch)
        while batch > 1 and self.bytes_of(arch, patch, batch) > self.memory:
            batch -= 1
        processes = self.limits.processes
        return max(processes, batch // processes * processes)

    def _bottom(self, choice: _Choice) -> int:
        """Pixels of a patch at the coarsest level."""
        prints = footprint(choice.arch)
        return math.prod(n // f.grid for n, f in zip(choice.patch, prints, strict=True))


def _base(preset: str, dims: int, width: int) -> Architecture:
    base = PRESETS[preset]
    if not isinstance(base, Architecture):
        raise ValueError(f"{preset}: not a U-Net")
    return replace(base, dims=dims, width=width, max_width=MAX_WIDTH[dims])


def largest_objects(objects: Sequence[Objects]) -> Objects | None:
    """The largest kind of objects, among kinds with enough objects; it determines the sizes."""
    enough = [o for o in objects if o.number >= MIN_OBJECTS]
    return max(enough, key=lambda o: math.prod(o.common), default=None)
