"""The presets: each a named set of values of the one U-Net class. Torch-free.

Adding a preset is one entry in ``PRESETS``; the networks are built by
:func:`unet.models.unet.build`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Padding = Literal["valid", "same"]
Norm = Literal["none", "batch"]


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes a network's layers, apart from its input and output channels.

    Attributes:
        padding: ``valid`` loses a pixel per 3x3 convolution and side and crops the skips;
            ``same`` keeps the size by zero padding.
        norm: normalisation after the activation (conv - ReLU - norm, the Keras order), if any.
        norm_eps: constant added to the variance (Keras: 1e-3, PyTorch: 1e-5).
        width: channels of the first level; doubled at each level below.
        depth: number of 2x2 poolings; the grid is ``2 ** depth`` pixels.
        dropout: probability at the end of the contracting path (its last two levels), as in the
            published Caffe network.
        dims: spatial axes, 2 (Y X) or 3 (Z Y X).
    """

    padding: Padding
    norm: Norm
    norm_eps: float = 1e-3
    width: int = 64
    depth: int = 4
    dropout: float = 0.0
    dims: int = 2

    def to_json(self) -> dict[str, Any]:
        """The values as a plain mapping, which ``Architecture(**mapping)`` reads back."""
        return asdict(self)


PRESETS: dict[str, Architecture] = {
    # Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597), figure 1 and section 3.
    "unet2015": Architecture(padding="valid", norm="none", dropout=0.5),
    # The padded, batch-normalised formulation that most people copy from Keras code.
    "unet-bn": Architecture(padding="same", norm="batch"),
}


def architecture_of(
    preset: str,
    *,
    width: int | None = None,
    depth: int | None = None,
    dropout: float | None = None,
) -> Architecture:
    """The preset's values with those that are given put in their place."""
    given = {"width": width, "depth": depth, "dropout": dropout}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return replace(PRESETS[preset], **changes)
