"""The example in a package: an image, and what the model must give for it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from unet.config.heads import classes_among
from unet.config.sections import NormalizeSection
from unet.data.normalize import ImageStatistics, apply, describe
from unet.data.tiling import read_window
from unet.models.inference import Predictor
from unet.models.model_file import ModelFile
from unet.models.zoo_layers import Sizes, sizes_of

Floats = NDArray[np.float32]
# Side of the example in pixels, where the network's halo does not need more.
SIDES = {2: 256, 3: 48}


@dataclass(frozen=True, eq=False)
class Example:
    """An image as other programs read it, and the model's answer.

    Attributes:
        image: [C, (Z,) Y, X] float32, before normalisation.
        output: [K, (Z,) Y, X] float32, the same size; 0 where an unpadded network predicts nothing.
    """

    image: Floats
    output: Floats


def example_of(model: ModelFile, image: Floats | None) -> Example:
    """The example for a model.

    Args:
        image: [C, (Z,) Y, X], before normalisation; its middle is taken, mirrored if it is smaller
            than the network accepts. None: a made image.
    """
    sizes = sizes_of(model)
    side = SIDES[model.architecture.dims]
    shape = tuple(each.fit(max(each.least, side)) for each in sizes)
    cut = _middle(image, shape) if image is not None else _made(model, shape)
    return Example(cut, predicted(model, normalised(model, cut)))


def _middle(image: Floats, shape: tuple[int, ...]) -> Floats:
    starts = [(have - want) // 2 for have, want in zip(image.shape[1:], shape, strict=True)]
    window = [(start, start + want) for start, want in zip(starts, shape, strict=True)]
    return read_window(image, window).astype(np.float32)


def _made(model: ModelFile, shape: tuple[int, ...]) -> Floats:
    """Smooth blobs with a little noise, in the range of intensities of the training if it is
    known."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    found = np.empty((model.in_channels, *shape), np.float32)
    known = model.normalize.get("statistics") or {}
    for channel, plane in enumerate(found):
        smooth = gaussian_filter(random.standard_normal(shape), 4.0)
        plane[:] = smooth / smooth.std() + 0.1 * random.standard_normal(shape)
        if known:
            plane *= known["sd"][channel]
            plane += known["mean"][channel]
    return found


def normalised(model: ModelFile, image: Floats) -> Floats:
    """The image [C, *S] as our networks see it, normalised as if it were a whole image."""
    known = model.normalize.get("statistics")
    if known is None:
        section = NormalizeSection(
            **{k: v for k, v in model.normalize.items() if k != "statistics"}
        )
        statistics = ImageStatistics(len(image), image.dtype)
        statistics.update(image)
        statistics.select(section.low, section.high)
        if statistics.passes == 2:
            statistics.refine(image)
        known = describe(statistics, section)
    return apply(image, known)


def predicted(model: ModelFile, image: Floats) -> Floats:
    """Our probabilities [K, *S] of a normalised image [C, *S] of an accepted size, as in
    :attr:`Example.output`."""
    predictor = Predictor([model.network()], torch.device("cpu"), "float32", head=model.head)
    sizes = sizes_of(model)
    seen = image[(slice(None), *(slice(each.skip, None) for each in sizes))]
    found: Floats = predictor(seen[None])[0]
    if not any(fp.margin for fp in predictor.footprint):
        return found
    whole = np.zeros((len(found), *image.shape[1:]), np.float32)
    inner = _inner(sizes)
    middle = whole[(slice(None), *inner)]
    middle[:] = found[tuple(slice(0, n) for n in middle.shape)]
    return whole


def _inner(sizes: tuple[Sizes, ...]) -> tuple[slice, ...]:
    return tuple(slice(each.halo, -each.halo if each.halo else None) for each in sizes)


def cover_of(model: ModelFile, example: Example) -> bytes:
    """A PNG: the example's image on the left, where the model finds a foreground on the right."""
    inner = _inner(sizes_of(model)) if any(f.margin for f in model.network().footprint) else ()
    planes = []
    classes = classes_among(model.head)
    for values in (example.image[0], 1 - example.output[0] if classes > 1 else example.output[0]):
        plane = values[inner] if inner else values
        plane = plane if plane.ndim == 2 else plane[len(plane) // 2]
        side = min(plane.shape)
        planes.append(_grey(plane[:side, :side]))
    handle = io.BytesIO()
    Picture.fromarray(np.concatenate(planes, axis=1)).save(handle, "PNG")
    return handle.getvalue()


def _grey(plane: Any) -> NDArray[np.uint8]:
    low, high = np.percentile(plane, (1, 99.8))
    scaled = (plane - low) / max(float(high - low), 1e-12)
    grey: NDArray[np.uint8] = (255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return grey
