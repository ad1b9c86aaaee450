"""Training images in the device's memory, where patches are cut without the processor's help.

Cutting copies each pixel of a batch twice in the processor's memory and once to the device. With
the images on the device, only the places to read go there: one number per row, column and section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from unet.data.tiling import mirror_index
from unet.training.sampling import Patch, PatchPlace, TrainingImage


class DeviceImages:
    """Images with their targets and maps on a device.

    Args:
        images: all cached.
        device: where they go.

    Raises:
        ValueError: an image is not in memory.
    """

    def __init__(self, images: Sequence[TrainingImage], device: torch.device) -> None:
        patches = [_whole(image) for image in images]
        sizes = [patch.target.size for patch in patches]
        self._first = dict(
            zip((i.name for i in images), np.cumsum([0, *sizes[:-1]]).tolist(), strict=True)
        )
        # The number of channels of each map.
        self.maps = {name: len(values) for name, values in sorted(patches[0].maps.items())}
        self._channels = len(patches[0].image)
        # [C, pixels of all images], so that one number says where a pixel is in each channel.
        # Filled image by image, so that the processor's memory never holds all of them twice.
        self._pixels: dict[str, Tensor] = {}
        start = 0
        for patch in patches:
            stop = start + patch.target.size
            for name, array in self._arrays(patch).items():
                values = torch.from_numpy(array).flatten(1)
                if name not in self._pixels:
                    shape = (len(values), sum(sizes))
                    self._pixels[name] = torch.empty(shape, dtype=values.dtype, device=device)
                self._pixels[name][:, start:stop] = values
            start = stop

    def _arrays(self, patch: Patch) -> dict[str, np.ndarray]:
        """The arrays [C, *S] of an image, as they are in a batch."""
        found = {"images": patch.image, "targets": patch.target[None]}
        if self.maps:
            found["maps"] = np.concatenate([patch.maps[name] for name in self.maps])
        return found

    def places(self, drawn: Sequence[PatchPlace]) -> dict[str, Tensor]:
        """Where to read the patches, on the CPU.

        Returns:
            For each spatial axis, what its positions add to the number of a pixel: [N, P] int64.
        """
        found: dict[str, Tensor] = {}
        steps = [np.cumprod([1, *image.shape[:0:-1]], dtype=np.int64)[::-1] for image, _ in drawn]
        for axis in range(len(drawn[0][1])):
            rows = [
                step[axis] * mirror_index(*window[axis], image.shape[axis])
                for step, (image, window) in zip(steps, drawn, strict=True)
            ]
            if axis == 0:
                rows = [row + self._first[i.name] for row, (i, _) in zip(rows, drawn, strict=True)]
            found[f"places/{axis}"] = torch.from_numpy(np.stack(rows))
        return found

    def shape(self, places: Mapping[str, Tensor]) -> list[int]:
        """[N, C, *S] of the patches at these places."""
        axes = list(places.values())
        return [len(axes[0]), self._channels, *(rows.shape[1] for rows in axes)]

    def cut(self, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """images [N, C, *S], targets [N, 1, *S], maps [N, M, *S] (if there are any), on the
        device.

        Args:
            places: those of :meth:`places`, on the device.
        """
        axes = [rows for name, rows in places.items() if name.startswith("places/")]
        # [N, Z, 1, 1] + [N, Y, 1] + [N, X], by one axis more each.
        index = axes[0]
        for rows in axes[1:]:
            index = index.unsqueeze(-1) + rows.view(len(rows), *[1] * (index.ndim - 1), -1)
        return {
            name: pixels[:, index].movedim(0, 1).contiguous()
            for name, pixels in self._pixels.items()
        }


def device_bytes(images: Sequence[TrainingImage]) -> float:
    """The memory that the images would take on a device; infinite if they are not all cached."""
    if not all(image.cached for image in images):
        return math.inf
    arrays = [a for p in map(_whole, images) for a in (p.image, p.target, *p.maps.values())]
    return float(sum(array.nbytes for array in arrays))


def _whole(image: TrainingImage) -> Patch:
    if image.whole is None:
        raise ValueError(f"{image.name} is not in memory")
    return image.whole
