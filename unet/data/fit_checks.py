"""Whether images can be used together, and by the network that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet.data.records import ImageRecord
from unet.errors import UserError, how_many

if TYPE_CHECKING:
    from unet.data.prepare_image import Target


@dataclass(frozen=True)
class Remedies:
    """What to write about images that do not fit, where the user writes it: in a config, or as
    options of a command.

    Attributes:
        channels: with ``{}`` for the numbers of the channels, which ``comma`` separates.
        stack, volume: planes are images; they are a volume.
        same_channels, apart: images have other channels, or other axes, than most.
    """

    channels: str
    comma: str
    stack: str
    volume: str
    same_channels: str
    apart: str

    def first_channels(self, number: int) -> str:
        """To choose as many channels."""
        return self.channels.format(self.comma.join(map(str, range(number))))


IN_CONFIG = Remedies(
    "channels: [{}]", ", ", "layout: stack", "axes: ZYX",
    "choose the same ones with the key channels", "put them into separate datasets",
)  # fmt: skip
AS_OPTIONS = Remedies(
    "--channels {}", ",", "--stack", "--axes ZYX",
    "choose the same ones with --channels", "give planes and volumes in separate commands",
)  # fmt: skip


def check_fit(
    records: Sequence[ImageRecord], target: Target | None, remedies: Remedies = IN_CONFIG
) -> None:
    """Checks that usable images have as many channels as each other, and as the network needs.

    Args:
        target: the network, if it was trained on other images.

    Raises:
        UserError: the first one that does not fit.
    """
    for record in records:
        if target is not None:
            _check_target(record, target, remedies)
    for record in records:
        if record.shape[0] != records[0].shape[0]:
            least = min(record.shape[0], records[0].shape[0])
            raise UserError(
                f"{record.image}: has {how_many(record.shape[0], 'channel')}, but "
                f"{records[0].image} has {records[0].shape[0]}; choose the same ones, such as "
                f"{remedies.first_channels(least)}"
            )


def _check_target(record: ImageRecord, target: Target, remedies: Remedies) -> None:
    channels, dims = record.shape[0], len(record.shape) - 1
    if dims != target.dims:
        planes = f"{remedies.stack} (each plane is an image)"
        advice = planes if dims == 3 else remedies.volume
        raise UserError(
            f"{record.image}: the images have {dims} spatial axes, the model wants "
            f"{target.dims}; write {advice}, or use a model with dims: {dims}"
        )
    if channels != target.channels:
        advice = f"give images with {target.channels}, or use another model"
        if channels > target.channels:
            advice = f"choose with {remedies.first_channels(target.channels)}"
        raise UserError(
            f"{record.image}: the images have {how_many(channels, 'channel')}, the model wants "
            f"{target.channels}; {advice}"
        )
