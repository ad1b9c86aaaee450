"""Kernels and poolings for volumes whose slices are further apart than their pixels. Torch-free.

The usual rule for 3D U-Nets (Cicek et al. 2016 pooled along Y and X first; Isensee et al. 2021 made
it a rule): an axis that is at least twice as coarse as the finest one is neither pooled nor
convolved over until pooling has brought the other axes to its resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unet.config.presets import Architecture, PerLevel

COARSE = 2.0


def anisotropic_layers(depth: int, spacing: Sequence[float]) -> tuple[PerLevel, PerLevel]:
    """Kernel sizes of the convolutions and factors of the poolings, for voxels of this size.

    Args:
        depth: number of poolings.
        spacing: size of a voxel per axis, in any unit.

    Returns:
        kernels (``depth + 1`` entries) and pools (``depth`` entries), each with a number per axis.
    """
    if any(step <= 0 for step in spacing):
        raise ValueError(f"spacing: got {list(spacing)}, needs positive numbers")
    steps = [float(step) for step in spacing]
    kernels, pools = [], []
    for _ in range(depth + 1):
        coarse = [step >= COARSE * min(steps) for step in steps]
        kernels.append(tuple(1 if c else 3 for c in coarse))
        pools.append(tuple(1 if c else 2 for c in coarse))
        steps = [step * pool for step, pool in zip(steps, pools[-1], strict=True)]
    return tuple(kernels), tuple(pools[:-1])


def fitted(arch: Architecture, spacing: Sequence[float] | None) -> Architecture:
    """The architecture with kernels and poolings for this voxel size. It is unchanged if they are
    given, in 2D, if the size is unknown, or if all axes have the same resolution."""
    if arch.dims != 3 or spacing is None or arch.kernels is not None or arch.pools is not None:
        return arch
    kernels, pools = anisotropic_layers(arch.depth, spacing)
    if all(k == (3, 3, 3) for k in kernels) and all(p == (2, 2, 2) for p in pools):
        return arch
    return replace(arch, kernels=kernels, pools=pools)
