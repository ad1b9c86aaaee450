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


def symmetry_strides(codes: Tensor, shape: Sequence[int]) -> Tensor:
    """Where symmetries read, as steps through the pixels of a patch in their order in memory.

    Args:
        codes: [n] int64, each sample's symmetry.
        shape: (Z,) Y, X.

    Returns:
        [n, 1 + axes] int64, on the codes' device: the pixel that the first one is read from, and
        how far the next one along each axis is from it.
    """
    sizes = list(shape)
    y, x = torch.tensor(sizes[-1]), torch.tensor(1)
    swapped = (codes & TRANSPOSE) > 0
    steps = [torch.where(swapped, x, y), torch.where(swapped, y, x)]
    if len(sizes) == 3:
        steps.insert(0, torch.full_like(codes, sizes[-2] * sizes[-1]))
    bits = (FLIP_Z, FLIP_Y, FLIP_X)[-len(sizes) :]
    flipped = [(codes & bit) > 0 for bit in bits]
    first = sum(
        torch.where(f, step * (size - 1), 0)
        for f, step, size in zip(flipped, steps, sizes, strict=True)
    )
    signed = [torch.where(f, -step, step) for f, step in zip(flipped, steps, strict=True)]
    return torch.stack([torch.as_tensor(first), *signed], 1)


def symmetry_index(strides: Tensor, shape: Sequence[int]) -> Tensor:
    """The numbers of the pixels to read, [n, 1, pixels] int64, from :func:`symmetry_strides`."""
    n = len(strides)
    index = strides[:, 0].view(n, *[1] * len(shape))
    for axis, size in enumerate(shape):
        place = [1] * len(shape)
        place[axis] = size
        step = strides[:, 1 + axis].view(n, *[1] * len(shape))
        index = index + step * torch.arange(size, device=strides.device).view(place)
    return index.reshape(n, 1, -1)


def read_pixels(tensor: Tensor, index: Tensor) -> Tensor:
    """A new tensor [n, C, (Z,) Y, X], each pixel read from the one of this number."""
    flat = tensor.flatten(2)
    return flat.gather(2, index.expand(flat.shape)).view(tensor.shape)


def similarity_matrix(
    shape: Sequence[int], spacing: Sequence[float], angle: Tensor, zoom: Tensor
) -> Tensor:
    """A rotation in the YX plane and a magnification, from pixels to the sampler's unit.

    Args:
        shape, spacing: (Z,) Y, X of the patch; the size of its pixels in any unit.
        angle: [n], radians.
        zoom: [n].

    Returns:
        [n, 4 or 5]: the matrix of x and y, row by row, and in volumes the factor of z.
    """
    steps = torch.tensor(spacing[::-1][:2])
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([cosine, sine, -sine, cosine], 1).view(-1, 2, 2)
    # Converts pixels to lengths, and lengths to the sampler's unit: cheaper on the matrix than on
    # the finished grid.
    unit = _unit(shape, spacing)
    matrix = (matrix * steps * unit[:2].view(2, 1)).view(-1, 4)
    if len(shape) == 2:
        return matrix
    return torch.cat([matrix, (unit[2] * spacing[0] / zoom).view(-1, 1)], 1)


def similarity(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """The grid of :func:`similarity_matrix`, about the centre of the patch.

    Returns:
        [n, 2 or 3 (x, y, z), (Z,) Y, X], components in front.
    """
    device = matrix.device
    plane_of = matrix[:, :4].view(-1, 2, 2, 1, 1)
    y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in shape[-2:])
    plane = plane_of[:, :, 0] * x + plane_of[:, :, 1] * y.view(-1, 1)
    if len(shape) == 2:
        return plane
    depth = shape[0]
    z = matrix[:, 4:] * (torch.arange(depth, device=device) - (depth - 1) / 2)
    points = torch.empty(len(matrix), 3, *shape, device=device)
    points[:, :2] = plane.unsqueeze(2)
    points[:, 2] = z.view(-1, depth, 1, 1)
    return points


def _unit(shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """[2 or 3 (x, y, z)]: the sampler's unit per length."""
    pixels = [2 / max(n - 1, 1) / step for n, step in zip(shape, spacing, strict=True)]
    return torch.tensor(pixels[::-1])


def in_sampler_unit(nodes: Tensor, shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """Displacements at nodes [n, 2 or 3 (x, y, z), (G,) G, G], from lengths to the sampler's unit.

    Args:
        nodes: on the CPU.
        shape, spacing: (Z,) Y, X.
    """
    dims = len(shape)
    return nodes * _unit(shape, spacing).view(dims, *[1] * dims)


def elastic_sd(px: float, grid: int, shape: Sequence[int], spacing: Sequence[float]) -> float:
    """The requested standard deviation of displacements; in volumes at most
    ``MAX_SHARE_OF_NODE_DISTANCE`` of the distance between two nodes along the tightest axis."""
    if len(shape) == 2:
        return px
    extents = [(n - 1) * step for n, step in zip(shape, spacing, strict=True) if n > 1]
    return min([px, *(MAX_SHARE_OF_NODE_DISTANCE * extent / (grid - 1) for extent in extents)])


def upsampling(grid: int, shape: Sequence[int]) -> list[Tensor]:
    """The matrices [G, Z], [G, Y], [G, X] that interpolate values at nodes cubically.

    The nodes are evenly spaced from corner to corner of the patch. Bicubic interpolation is
    separable and linear. Interpolating the unit vectors gives a matrix per axis, and products of
    small matrices replace 16 or 64 reads per pixel.
    """
    basis = torch.eye(grid).view(1, grid, grid, 1)
    return [
        F.interpolate(basis, size=(size, 1), mode="bicubic", align_corners=True).view(grid, size)
        for size in shape
    ]


def upsample(nodes: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Interpolates values at nodes [n, D, (G,) G, G] to [n, D, (Z,) Y, X], by
    :func:`upsampling`."""
    planes = matrices[-2].T @ (nodes @ matrices[-1])
    if len(matrices) == 2:
        return planes
    shape = [matrix.shape[1] for matrix in matrices]
    return (matrices[0].T @ planes.flatten(-2)).view(*nodes.shape[:2], *shape)


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
