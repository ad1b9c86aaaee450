"""What a prediction reads, where it writes, and which resources it may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unet.config.stage_settings import PredictSettings
from unet.errors import UserError, how_many
from unet.files import digest
from unet.models.gpu_meter import GpuMeter
from unet.prediction.tiles.calibration import Calibration
from unet.prediction.tiles.ensemble import Ensemble, Member


@dataclass(frozen=True)
class PredictionData:
    """The networks and the held-out images of one fold.

    Attributes:
        members: the networks, whose probabilities are averaged.
        store: the prepared store.
        prepared: its sentinel.
        parts: image id -> why it is predicted (``val`` images are used to choose thresholds).
        tiles: ``tiles.zarr``, where the tiles are written.
        alone: image id -> index of the only network that predicts it; all of them predict the
            other images.
    """

    members: Sequence[Member]
    store: Path
    prepared: Mapping[str, Any]
    parts: Mapping[str, Literal["test", "val"]]
    tiles: Path
    alone: Mapping[str, int] = field(default_factory=dict)

    def info(self, image: str) -> Mapping[str, Any]:
        """The sentinel's entry of an image."""
        entry: Mapping[str, Any] = self.prepared["images"][image]
        return entry

    def calibration(self, precision: str) -> Calibration | None:
        """What an int8 network's ranges are measured on; None for other precisions."""
        if precision != "int8" or not self.parts:
            return None
        return Calibration.of(self.store, self.parts)

    def keyed(self, settings: PredictSettings) -> dict[str, Any]:
        """The settings that determine the tiles of an image; for int8 also the images whose pixels
        do so."""
        keyed, calibration = settings.keyed(), self.calibration(settings.predict.precision)
        if calibration is not None:
            keyed["calibration"] = [self.info(name)["key"] for name in calibration.images]
        return keyed

    def key(self, image: str, ensemble: Ensemble, keyed: Mapping[str, Any]) -> str:
        """The key of an image's tiles; ``keyed``: see :meth:`keyed`."""
        return image_key(ensemble.key(image), self.info(image)["key"], keyed)

    def check_channels(self) -> None:
        """Compares the channels of the images and the networks.

        Raises:
            UserError: the numbers differ.
        """
        channels, wanted = int(self.prepared["channels"]), self.members[0].model.in_channels
        if wanted != channels:
            raise UserError(
                f"{self.store}: the images have {how_many(channels, 'channel')}, the model needs "
                f"{wanted}; choose that many with the dataset's key channels"
            )


@dataclass(frozen=True)
class PredictionResources:
    """Resources to use; they do not change the tiles (except for rounding).

    Attributes:
        batch: tiles per batch.
        memory_bytes: memory to use on a CPU.
        gpus: number of GPUs of this machine to use at once.
        meter: measures these GPUs.
    """

    batch: int | Literal["auto"] = "auto"
    memory_bytes: float = 4e9
    threads: int = 2
    gpus: int = 1
    meter: GpuMeter = field(default_factory=GpuMeter)


@dataclass(frozen=True)
class Share:
    """The part of the batches for this job: every ``count``-th one from ``index`` on."""

    index: int
    count: int


def image_key(model_key: str, prepared_key: str, keyed: Mapping[str, Any]) -> str:
    """Hash of everything that determines an image's tiles.

    Args:
        keyed: see :meth:`PredictionData.keyed`.
    """
    return digest({"model": model_key, "image": prepared_key, "settings": dict(keyed)})
