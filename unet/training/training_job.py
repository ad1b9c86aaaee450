"""The inputs, the outputs and the resources of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.data.store import Prepared
from unet.models.gpu_meter import GpuMeter
from unet.training.ranks import Ranks


@dataclass(frozen=True)
class StartFile:
    """The file with the weights that a training starts from.

    Attributes:
        path: where it is.
        content: identifies its content (:func:`unet.provenance.content_id`).
    """

    path: Path
    content: str


@dataclass(frozen=True)
class TrainingData:
    """The images of one fold, and what the training starts from.

    Attributes:
        store: the prepared store.
        prepared: its sentinel.
        train, val: ids of the images to train on, and of those that select the best weights; of
            joined datasets in the order of the config.
        encoder_weights: file with the weights that the network's encoder starts from.
        start: the weights to start from; None: random ones.
    """

    store: Path
    prepared: Mapping[str, Any]
    train: Sequence[str]
    val: Sequence[str]
    encoder_weights: Path | None = None
    start: StartFile | None = None

    @property
    def first(self) -> Mapping[str, Any]:
        """The sentinel's entry of the first training image."""
        entry: Mapping[str, Any] = self.prepared["images"][self.train[0]]
        return entry

    def open(self) -> Prepared:
        return Prepared(self.store)


@dataclass(frozen=True)
class TrainingOutputs:
    """Paths of the checkpoints' folder, ``model.pt`` and ``history.csv``."""

    checkpoints: Path
    model: Path
    history: Path

    @property
    def plan(self) -> Path:
        """The plan of preset ``auto``, for the user."""
        return self.model.with_name("plan.yaml")

    @property
    def start(self) -> Path:
        """What was taken from the start, and how the training went on from it."""
        return self.model.with_name("start.json")


@dataclass(frozen=True)
class TrainingResources:
    """Settings that do not change the weights (threads and processes: except for rounding).

    Attributes:
        checkpoint_seconds: time between two checkpoints.
        cache_gb: memory for images and targets, in GB.
        threads: CPU threads of all processes together.
        compile: whether the network is compiled.
        ranks: the processes that train together.
        meter: measures this process's GPU.
    """

    checkpoint_seconds: float = 30.0
    cache_gb: float = 4.0
    threads: int = 2
    compile: bool = False
    ranks: Ranks = field(default_factory=Ranks)
    meter: GpuMeter = field(default_factory=GpuMeter)
