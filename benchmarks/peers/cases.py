"""The peers of the training benchmark, each with its own network, loss, optimizer and data path.

Packages are imported when a case is built, so that a missing package only skips its case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# "auto" is for ours alone: bfloat16 where the device gains by it.
Precision = Literal["auto", "float32", "bfloat16", "float16"]
# A batch of images [N, C, Y, X] and its targets as the case's loss wants them.
Pair = tuple[Tensor, Any]


@dataclass(frozen=True)
class Setting:
    """How a network is run; ``best`` also leaves out optional work and uses all workers."""

    name: str
    precision: Precision = "float32"
    channels_last: bool = False
    compiled: bool = False
    best: bool = False


@dataclass(frozen=True)
class Task:
    """The data of all cases, in memory: images [C, Y, X] float32, labels [Y, X] uint8."""

    images: list[NDArray[np.float32]]
    labels: list[NDArray[np.uint8]]
    classes: int
    patch: int
    batch: int
    width: int
    device: torch.device
    threads: int

    @property
    def channels(self) -> int:
        return int(self.images[0].shape[0])


class Peer:
    """A case: ``feed`` opens its data path, ``step`` is one update of the weights."""

    def __init__(
        self,
        task: Task,
        setting: Setting,
        network: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
        feed: Callable[[], AbstractContextManager[Iterator[Pair]]],
        clip: float | None = None,
    ) -> None:
        self.task, self.setting, self.loss, self.feed, self.clip = task, setting, loss, feed, clip
        move: Any = network.to
        layout = torch.channels_last if setting.channels_last else torch.preserve_format
        self.plain: nn.Module = move(task.device, memory_format=layout)
        self.network: Any = torch.compile(self.plain) if setting.compiled else self.plain
        self.optimizer = optimizer(self.plain.parameters())
        scaled = setting.precision == "float16"
        self.scaler = torch.amp.GradScaler(task.device.type) if scaled else None

    def autocast(self) -> AbstractContextManager[Any]:
        if self.setting.precision == "float32":
            return nullcontext()
        dtype = getattr(torch, self.setting.precision)
        return torch.autocast(self.task.device.type, dtype=dtype)

    def step(self, pair: Pair) -> None:
        images, target = pair
        images = images.to(self.task.device, non_blocking=True)
        if self.setting.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        target = moved(target, self.task.device)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.loss(self.network(images), target)
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
        else:
            loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.plain.parameters(), self.clip)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        # As all of these trainers do, to show it.
        float(loss.detach())


def moved(target: Any, device: torch.device) -> Any:
    """A target, or a list of them, on the device."""
    if isinstance(target, list):
        return [one.to(device, non_blocking=True) for one in target]
    return target.to(device, non_blocking=True)


def monai(task: Task, setting: Setting) -> Peer:
    """BasicUNet with the data path of MONAI's 2D segmentation tutorial.

    Dictionary transforms (RandCropByPosNegLabeld, RandRotate90d) in a DataLoader of 4 workers at
    most, all cores in the best setting; Adam at 1e-3, Dice and cross-entropy. The tutorial
    does not change intensities or deform images, so its data path takes less time than the others.
    """
    from monai.data import DataLoader, Dataset, list_data_collate
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet
    from monai.transforms import Compose, EnsureTyped, RandCropByPosNegLabeld, RandRotate90d

    w = task.width
    network = BasicUNet(2, task.channels, task.classes, (w, 2 * w, 4 * w, 8 * w, 16 * w, w))
    # The tutorial's 4 crops per image, or as many as divide the batch.
    crops = math.gcd(4, task.batch)
    keys = ["image", "label"]
    change = Compose(
        [
            RandCropByPosNegLabeld(
                keys, label_key="label", spatial_size=(task.patch,) * 2, num_samples=crops
            ),
            RandRotate90d(keys, prob=0.5, spatial_axes=(0, 1)),
            EnsureTyped(keys, track_meta=False),
        ]
    )
    items = [
        {"image": image, "label": label[None].astype(np.float32)}
        for image, label in zip(task.images, task.labels, strict=True)
    ]
    # Often over, or a short epoch's end would leave the workers idle again and again.
    data = Dataset(items * 256, change)

    @contextmanager
    def feed() -> Iterator[Iterator[Pair]]:
        loader = DataLoader(
            data,
            batch_size=task.batch // crops,
            shuffle=True,
            num_workers=task.threads if setting.best else min(4, task.threads),
            collate_fn=list_data_collate,
            pin_memory=task.device.type == "cuda",
        )
        yield ((batch["image"], batch["label"]) for batch in iter(loader))

    return Peer(
        task,
        setting,
        network,
        DiceCELoss(to_onehot_y=True, softmax=True),
        lambda p: torch.optim.Adam(p, 1e-3),
        feed,
    )


def nnunet(task: Task, setting: Setting) -> Peer:
    """PlainConvUNet with nnU-Net's own loader, augmentation, loss and optimizer.

    Deep supervision, part of its default, is left out in the best setting, where only speed counts.
    Images are in memory instead of nnU-Net's compressed files, which saves their decoding.
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = PlainConvUNet(
        task.channels,
        5,
        [task.width * 2**k for k in range(5)],
        nn.Conv2d,
        3,
        [1, 2, 2, 2, 2],
        2,
        task.classes,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=not setting.best,
    )
    scales = None if setting.best else [[0.5**k] * 2 for k in range(4)]
    return Peer(
        task,
        setting,
        network,
        nnunet_loss(scales),
        lambda p: torch.optim.SGD(p, 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5),
        nnunet_feed(task, scales),
        clip=12.0,
    )


def nnunet_loss(scales: list[list[float]] | None) -> Callable[[Any, Any], Tensor]:
    """Its Dice and cross-entropy, over several resolutions unless ``scales`` is None."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    if scales is None:
        return loss  # type: ignore[no-any-return]
    weights = np.array([0.5**k for k in range(len(scales))])
    weights[-1] = 0
    return DeepSupervisionWrapper(loss, weights / weights.sum())  # type: ignore[no-any-return]


class MemoryDataset:
    """The part of nnU-Net's dataset that its loader uses, over arrays in memory."""

    def __init__(self, task: Task) -> None:
        self.identifiers = [str(index) for index in range(len(task.images))]
        self.cases = {}
        for name, image, label in zip(self.identifiers, task.images, task.labels, strict=True):
            data, seg = image[:, None], label[None, None].astype(np.int8)
            where = {
                c: np.argwhere(seg == c)[::17] for c in range(1, task.classes) if (seg == c).any()
            }
            self.cases[name] = (data, seg, None, {"class_locations": where})

    def load_case(self, name: str) -> Any:
        return self.cases[name]


def nnunet_feed(
    task: Task, scales: list[list[float]] | None
) -> Callable[[], AbstractContextManager[Iterator[Pair]]]:
    """nnU-Net's loader and transforms, in its default number of processes."""
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
        NonDetMultiThreadedAugmenter,
    )
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    patch, turn = (task.patch,) * 2, (-np.pi, np.pi)
    transforms = nnUNetTrainer.get_training_transforms(
        patch,
        turn,
        scales,
        (0, 1),
        False,
        use_mask_for_norm=[False] * task.channels,
        foreground_labels=list(range(1, task.classes)),
    )
    labels = SimpleNamespace(all_labels=list(range(task.classes)), has_ignore_label=False)
    loader = nnUNetDataLoader(
        MemoryDataset(task),
        task.batch,
        get_patch_size(patch, turn, turn, turn, (0.85, 1.25)),
        patch,
        labels,
        oversample_foreground_percent=0.33,
        transforms=transforms,
    )
    processes = min(12, task.threads)

    @contextmanager
    def feed() -> Iterator[Iterator[Pair]]:
        batches = NonDetMultiThreadedAugmenter(
            loader,
            None,
            processes,
            num_cached=max(6, processes // 2),
            pin_memory=task.device.type == "cuda",
            wait_time=0.002,
        )
        try:
            yield ((batch["data"], batch["target"]) for batch in batches)
        finally:
            batches._finish()

    return feed
