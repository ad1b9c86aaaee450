"""Applies networks to arrays: batches, test-time augmentation, the whole-image reference.

Validation and prediction both use this module, so they compute exactly the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unet.config.engine_table import ENGINE_TABLE
from unet.config.geometry import Footprints, common
from unet.config.heads import classes_among
from unet.config.sections import PredictPrecision
from unet.data.tiling import WindowPlan, plan, read_window
from unet.errors import UserError
from unet.models import engines
from unet.models.devices import choose_precision
from unet.models.engines import memory_format, tf32
from unet.models.exact import activate, never_alone
from unet.models.network import Network
from unet.models.transfer import Late

N = TypeVar("N", bound=Network)
# Footprints -> windows [1, C, *S] float32 of sizes that these accept.
Calibrate = Callable[[Footprints], Sequence[np.ndarray]]


@dataclass(frozen=True)
class View:
    """A symmetry of the image: Y and X swapped or not, then some axes (counted from the end)
    mirrored."""

    transpose: bool
    flips: tuple[int, ...]

    def apply(self, x: Tensor) -> Tensor:
        """Transforms x [N, C, *S]."""
        x = x.transpose(-1, -2) if self.transpose else x
        return x.flip(self.flips)

    def undo(self, x: Tensor) -> Tensor:
        """Reverses :meth:`apply`."""
        x = x.flip(self.flips)
        return x.transpose(-1, -2) if self.transpose else x


def symmetries(footprints: Footprints) -> list[View]:
    """In 2D the 8 symmetries of the square, in 3D the 8 flips (Z may have another resolution).

    In 2D only the 4 flips if the network treats Y and X differently.
    """
    dims = len(footprints)
    axes = tuple(range(-dims, 0))
    flips = [tuple(a for i, a in enumerate(axes) if n >> i & 1) for n in range(2**dims)]
    square = dims == 2 and footprints[0] == footprints[1]
    return [View(swap, f) for swap in ((False, True) if square else (False,)) for f in flips]


class Predictor:
    """Applies networks to batches of windows and gives class probabilities.

    Args:
        networks: one network, or several, whose probabilities are averaged. Their footprints may
            differ if all are padded: see :func:`unet.config.geometry.common`.
        device: where they run.
        precision: see :func:`unet.models.devices.choose_precision`.
        tta: average over the 8 symmetries of the square (the paper averaged 7 rotated versions),
            in 3D over the 8 flips.
        head: names of the output's channels (None: all are classes).
        engine: see :mod:`unet.models.engines`.
        threads: for engines with their own thread pool.
        exact: a window's values are bit for bit the same in any batch (:mod:`unet.models.exact`);
            a single small window takes twice as long.
        calibrate: gives the windows on which the ranges of an int8 network are measured.

    Raises:
        UserError: the engine is not installed or does not support this device.
        ValueError: there is no network, or their footprints have nothing in common.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        device: torch.device,
        precision: PredictPrecision = "auto",
        tta: bool = False,
        head: Sequence[str] | None = None,
        engine: str = "torch",
        threads: int = 1,
        exact: bool = True,
        calibrate: Calibrate | None = None,
    ) -> None:
        if not networks:
            raise ValueError("a predictor needs at least one network")
        engines.check_engine(engine, device, precision)
        self.device, self.tta, self.engine, self.threads = device, tta, engine, threads
        self._exact = exact and engine == "torch"
        self.precision = choose_precision(precision, device)
        if precision == "auto" and self.precision not in ENGINE_TABLE[engine].precisions:
            self.precision = "float32"
        if self.precision not in ENGINE_TABLE[engine].precisions:
            raise UserError(
                f"predict.precision: {engine} does not compute in {precision}; write float32"
            )
        self.networks = [to_device(network, device).eval() for network in networks]
        self.footprint: Footprints = common([network.footprint for network in networks])
        channels = self.networks[0].num_classes
        self.classes = channels if head is None else classes_among(tuple(head))
        self._head = head
        options = engines.EngineOptions(
            device=device,
            precision=self.precision,
            threads=threads,
            windows=None if calibrate is None else partial(calibrate, self.footprint),
        )
        self._forwards = [engines.forward_of(engine, n, options) for n in self.networks]
        # Results are copied while the next windows are computed.
        stream: Any = torch.cuda.Stream  # torch has no types for it
        self._copies = stream(device) if device.type == "cuda" else None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities of windows.

        Args:
            batch: [N, C, *S] float32 windows of an accepted size.

        Returns:
            [N, K, *S'] float32, smaller by the margin for unpadded networks.
        """
        found: np.ndarray = self.begin(batch).result().numpy()
        return found

    @torch.inference_mode()
    def begin(self, batch: np.ndarray) -> Late:
        """As a call, without waiting for a GPU; on the CPU the result is there at once."""
        x = torch.from_numpy(np.ascontiguousarray(batch))
        if self.device.type == "cuda":
            # Copies from pinned memory overlap with computing.
            x = x.pin_memory()
        x = x.to(self.device, non_blocking=True)
        if self._exact:
            x = never_alone(x)
        views = symmetries(self.footprint) if self.tta else [View(False, ())]
        with tf32(self.precision == "tf32"):
            # The softmax is always in float32.
            probabilities = (
                view.undo(activate(forward(view.apply(x)).float(), self.classes))
                for forward in self._forwards
                for view in views
            )
            total = reduce(torch.add, probabilities)
        if len(self._forwards) * len(views) > 1:
            total = total / (len(self._forwards) * len(views))
        return Late(total[: len(batch)].contiguous(), self._copies)

    def without_tta(self) -> Predictor:
        """The same without the average over symmetries."""
        other = copy(self)
        other.tta = False
        return other

    def reference(self) -> Predictor:
        """The same networks, computed by PyTorch in float32."""
        return Predictor(self.networks, self.device, "float32", self.tta, self._head)

    def plan(self, shape: Sequence[int], tile: int | Sequence[int]) -> WindowPlan:
        """The windows for an image of this spatial shape."""
        return plan(shape, tile, self.footprint)

    def whole(self, image: np.ndarray) -> np.ndarray:
        """The reference: applies the network to the whole image at once.

        Args:
            image: [C, (Z,) Y, X] float32.

        Returns:
            [K, (Z,) Y, X] float32.
        """
        return self.image(
            image,
            [
                size + 4 * fp.grid + 2 * fp.margin
                for size, fp in zip(image.shape[1:], self.footprint, strict=True)
            ],
        )

    def image(self, image: np.ndarray, tile: int | Sequence[int]) -> np.ndarray:
        """Predicts an image in memory, window by window; see :meth:`whole` for the shapes."""
        layout = self.plan(image.shape[1:], tile)
        out = np.empty((self.networks[0].num_classes, *layout.shape), dtype=np.float32)
        for item in layout.tiles:
            p = self(read_window(image, item.window)[None])[0]
            out[(slice(None), *item.core)] = p[(slice(None), *item.inner)]
        return out


def to_device(network: N, device: torch.device) -> N:
    """Moves the network to the device, with its weights in the layout of :func:`memory_format`."""
    # PyTorch's type stubs lack the overload that takes a memory format.
    move: Any = network.to
    moved: N = move(device=device, memory_format=memory_format(network))
    return moved
