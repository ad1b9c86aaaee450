"""The geometry of augmentation, in 2D and 3D: symmetries as index operations, warps as one grid.

A *grid* gives the position to read for each output pixel: [n, (Z,) Y, X, 2 or 3 (x, y, z)] in the
coordinates of ``grid_sample``, -1 to 1 from the centre of the first pixel to that of the last.
Beyond its edge, the patch is mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Largest standard deviation of elastic displacements in volumes, as a share of the distance between
# two nodes: with more, the thin axes of a patch would fold.
MAX_SHARE_OF_NODE_DISTANCE = 1 / 8
# float32 represents whole numbers up to this one exactly.
_EXACT = 1 << 24
_LOW = 1 << 12

# A symmetry of the square is an optional transposition followed by flips: bits of a code.
TRANSPOSE, FLIP_Y, FLIP_X, FLIP_Z = 1, 2, 4, 8
# numpy.rot90 by 0 to 3 quarter turns as such codes. XOR adds the flips that follow.
QUARTER_TURNS = torch.tensor([0, TRANSPOSE | FLIP_Y, FLIP_Y | FLIP_X, TRANSPOSE | FLIP_X])


def take(tensor: Tensor, rows: Tensor) -> Tensor:
    """Some samples of a batch; no copy if `rows`, which is increasing, selects all of them."""
    return tensor if len(rows) == len(tensor) else tensor[rows]


def put(tensor: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """The batch with some samples replaced; never in place."""
    return values if len(rows) == len(tensor) else tensor.index_copy(0, rows, values)


def apply_symmetries(tensor: Tensor, codes: Tensor) -> Tensor:
    """A new tensor [N, C, (Z,) Y, X], made in one step per symmetry that occurs.

    Args:
        codes: [N] int64, each sample's symmetry.
    """
    result = torch.empty_like(tensor)
    for code in sorted(set(codes.tolist())):
        rows = (codes == code).nonzero().squeeze(1).to(tensor.device)
        part = take(tensor, rows)
        if code & TRANSPOSE:
            part = part.transpose(-1, -2)
        axes = ((FLIP_Y, -2), (FLIP_X, -1), (FLIP_Z, -3))
        result[rows] = part.flip([axis for bit, axis in axes if code & bit])
    return result


def similarity(
    shape: Sequence[int],
    spacing: Sequence[float],
    angle: Tensor,
    zoom: Tensor,
    device: torch.device,
) -> Tensor:
    """The grid of a rotation in the YX plane and a magnification, about the centre of the patch.

    Args:
        shape, spacing: (Z,) Y, X of the patch; the size of its pixels in any unit.
        angle: [n], radians.
        zoom: [n].

    Returns:
        [n, 2 or 3 (x, y, z), (Z,) Y, X], components in front.
    """
    steps = torch.tensor(spacing[::-1][:2])
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([cosine, sine, -sine, cosine], 1).view(-1, 2, 2)
    # Converts pixels to lengths, and lengths to the sampler's unit: cheaper on the matrix than on
    # the finished grid.
    unit = _unit(shape, spacing)
    matrix = matrix * steps * unit[:2].view(2, 1)
    matrix = matrix.view(-1, 2, 2, 1, 1).to(device)
    y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in shape[-2:])
    plane = matrix[:, :, 0] * x + matrix[:, :, 1] * y.view(-1, 1)
    if len(shape) == 2:
        return plane
    depth = shape[0]
    factor = (unit[2] * spacing[0] / zoom).to(device)
    z = factor.view(-1, 1) * (torch.arange(depth, device=device) - (depth - 1) / 2)
    points = torch.empty(len(zoom), 3, *shape, device=device)
    points[:, :2] = plane.unsqueeze(2)
    points[:, 2] = z.view(-1, depth, 1, 1)
    return points


def _unit(shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """[2 or 3 (x, y, z)]: the sampler's unit per length."""
    pixels = [2 / max(n - 1, 1) / step for n, step in zip(shape, spacing, strict=True)]
    return torch.tensor(pixels[::-1])


def displacement(nodes: Tensor, shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """Displacements interpolated between nodes, evenly spaced from corner to corner of the patch.

    Args:
        nodes: [n, 2 or 3 (x, y, z), (G,) G, G], lengths.
        shape, spacing: (Z,) Y, X.

    Returns:
        [n, 2 or 3, (Z,) Y, X] in the sampler's unit, on the nodes' device.
    """
    dims = len(shape)
    unit = _unit(shape, spacing).to(nodes.device)
    return upsample(nodes * unit.view(dims, *[1] * dims), shape)


def elastic_sd(px: float, grid: int, shape: Sequence[int], spacing: Sequence[float]) -> float:
    """The requested standard deviation of displacements; in volumes at most
    ``MAX_SHARE_OF_NODE_DISTANCE`` of the distance between two nodes along the tightest axis."""
    if len(shape) == 2:
        return px
    extents = [(n - 1) * step for n, step in zip(shape, spacing, strict=True) if n > 1]
    return min([px, *(MAX_SHARE_OF_NODE_DISTANCE * extent / (grid - 1) for extent in extents)])


def upsample(nodes: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolates values at nodes [n, D, (G,) G, G] cubically to [n, D, (Z,) Y, X]."""
    grid = nodes.shape[-1]
    # Bicubic interpolation is separable and linear. Interpolating the unit vectors gives a matrix
    # per axis, and products of small matrices replace 16 or 64 reads per pixel.
    basis = torch.eye(grid, device=nodes.device).view(1, grid, grid, 1)

    def matrix(size: int) -> Tensor:
        columns = F.interpolate(basis, size=(size, 1), mode="bicubic", align_corners=True)
        return columns.view(grid, size)

    planes = matrix(shape[-2]).T @ (nodes @ matrix(shape[-1]))
    if len(shape) == 2:
        return planes
    return (matrix(shape[0]).T @ planes.flatten(-2)).view(*nodes.shape[:2], *shape)


def sampler_grid(points: Tensor) -> Tensor:
    """The grid [n, (Z,) Y, X, 2 or 3] from points [n, 2 or 3, (Z,) Y, X].

    In volumes, points beyond the edge are mirrored here, once for all tensors: the sampler's own
    mirroring takes as long as its reading in 3D.
    """
    if points.shape[1] == 3:
        points = 1 - ((points + 1).abs_().remainder_(4) - 2).abs_()
    return points.movedim(1, -1)


def _beyond(grid: Tensor) -> str:
    """The sampler's padding mode; 3D grids are already mirrored."""
    return "reflection" if grid.shape[-1] == 2 else "border"


def warp_images(images: Tensor, grid: Tensor) -> Tensor:
    """Reads images [n, C, (Z,) Y, X] float32 at a grid, by linear interpolation."""
    # "bilinear" is trilinear for volumes.
    return F.grid_sample(images, grid, "bilinear", _beyond(grid), align_corners=True)


def warp_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """Reads labels [n, L, (Z,) Y, X] of any integer type at the pixels nearest to a grid.

    The sampler works in float32, which would change ids above 2^24. So it is given the pixels'
    numbers instead of the labels.
    """
    n, channels, *shape = labels.shape
    number = torch.arange(labels[0, 0].numel(), device=labels.device).view(1, *shape)
    small = number.numel() <= _EXACT
    index = number if small else torch.cat([number // _LOW, number % _LOW])
    index = index.float().expand(n, *index.shape)
    near = F.grid_sample(index, grid, "nearest", _beyond(grid), align_corners=True).long()
    flat = near[:, 0] if small else near[:, 0] * _LOW + near[:, 1]
    flat = flat.view(n, 1, -1).expand(n, channels, -1)
    return labels.flatten(2).gather(2, flat).view(labels.shape)
