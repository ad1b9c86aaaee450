"""A batch with the plan of its augmentation, drawn and packed ahead by a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unet.models.transfer import Parcel
from unet.training.augment import Augment
from unet.training.device_images import DeviceImages
from unet.training.sampling import PatchSampler


@dataclass(frozen=True)
class PackedBatch:
    """A batch on the way to the device.

    Attributes:
        parcel: images, targets, maps (if there are any), or their places in ``resident``; and the
            plan's tensors.
        maps: name and number of channels of each map.
        seeds: of the plan.
        resident: the images, if they are on the device.
    """

    parcel: Parcel
    maps: dict[str, int]
    seeds: Sequence[int]
    resident: DeviceImages | None

    def opened(self) -> dict[str, Tensor]:
        """images [N, C, *S], targets [N, 1, *S], maps [N, M, *S] and the plan, on the device."""
        sent = self.parcel.opened()
        return sent if self.resident is None else {**sent, **self.resident.cut(sent)}


@dataclass(frozen=True)
class BatchSource:
    """Draws batches and what their augmentation does, and packs both.

    Attributes:
        sampler, augment: of the training.
        rows: this process's rows of each batch of ``batch`` rows.
        seed: of the augmentation.
        device: where the batches go.
        resident: the sampler's images on the device; None: patches are cut on the processor.
    """

    sampler: PatchSampler
    augment: Augment
    rows: slice
    batch: int
    seed: int
    device: torch.device
    resident: DeviceImages | None = None

    def packed(self, index: int) -> PackedBatch:
        """The batch of this number."""
        if self.resident is None:
            batch = self.sampler.batch(index, self.rows)
            names = sorted(batch.maps)
            arrays = {"images": batch.images, "targets": batch.targets[:, None]}
            if names:
                arrays["maps"] = np.concatenate([batch.maps[name] for name in names], axis=1)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            maps = {name: batch.maps[name].shape[1] for name in names}
            shape: Sequence[int] = batch.images.shape
        else:
            tensors = self.resident.places(self.sampler.drawn(index, self.rows))
            maps, shape = self.resident.maps, self.resident.shape(tensors)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, index))
        plan = self.augment.plan(shape, generator, (self.rows, self.batch))
        parcel = Parcel({**tensors, **plan.tensors}, self.device)
        return PackedBatch(parcel, maps, plan.seeds, self.resident)


def mixed_seed(seed: int, step: int) -> int:
    """A different 63-bit seed for each (seed, step)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
