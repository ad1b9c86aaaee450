"""The base class of the losses: checks, float32, and the call's signature."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unet.config.heads import IGNORE
from unet.config.loss_table import SIGNED_DISTANCE

Maps = Mapping[str, Tensor]


class Loss(nn.Module):
    """A loss; subclasses implement `compute` and list the maps that they need in `maps`."""

    maps: tuple[str, ...] = ()
    """Names of the maps that the loss needs; the sampler computes them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if not 2 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes: got {num_classes}, needs 2 to {IGNORE}")
        self.num_classes = num_classes

    def forward(self, logits: Tensor, target: Tensor, maps: Maps | None = None) -> Tensor:
        """Scalar loss; see the package's docstring.

        Raises:
            ValueError: shapes do not fit, or a map that the loss needs is missing. Other maps are
                ignored.
        """
        shape = (logits.shape[0], *logits.shape[2:])
        if logits.shape[1] != self.num_classes or target.shape != shape:
            raise ValueError(
                f"logits {tuple(logits.shape)}, target {tuple(target.shape)}: "
                f"needs [N, {self.num_classes}, *S] and [N, *S]"
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits if logits.dtype == torch.float64 else logits.float()
            valid = (target != IGNORE).unsqueeze(1)
            needed = {}
            for name in self.maps:
                values = self._map(name, maps, shape)
                # Zeros at ignored pixels, where the map may be NaN.
                needed[name] = torch.where(valid, values.to(logits.dtype), 0)
            return self.compute(logits, target, needed)

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        """The loss; `maps` has those of `self.maps`, in the logits' dtype, 0 where ignored."""
        raise NotImplementedError

    def channels(self, name: str) -> int:
        """M of a required map [N, M, *S]."""
        return self.num_classes if name == SIGNED_DISTANCE else 1

    def _map(self, name: str, maps: Maps | None, shape: tuple[int, ...]) -> Tensor:
        if maps is None or name not in maps:
            found = "none" if not maps else ", ".join(maps)
            raise ValueError(f"{type(self).__name__} needs the map {name!r}, got {found}")
        needed = (shape[0], self.channels(name), *shape[1:])
        if maps[name].shape != needed:
            raise ValueError(f"map {name}: got shape {tuple(maps[name].shape)}, needs {needed}")
        return maps[name]
