"""Our normalisation, as the pre-processing steps that the BioImage Model Zoo's format has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unet.errors import UserError

Step = dict[str, Any]

# Added to the scale by the format. Ours adds nothing; this is the least that all tools take.
EPS = 1e-12
# The smallest standard deviation that the format allows.
LEAST_SCALE = 1e-6
# The largest upper percentile that the format takes for a share of 1.
LOWEST_HIGH = 1.0


def _percentile(section: Mapping[str, Any], axes: list[str]) -> list[Step]:
    low, high = section.get("low", 1.0), section.get("high", 99.8)
    if high <= LOWEST_HIGH or low >= 100:
        raise UserError(
            f"prepare.normalize: percentiles {low:g} and {high:g} cannot be written in the zoo's "
            "format; use a high above 1"
        )
    return [_range(axes, low, high)]


def _range(axes: list[str], low: float, high: float) -> Step:
    bounds = {"min_percentile": float(low), "max_percentile": float(high)}
    return {"id": "scale_range", "kwargs": {"axes": axes, **bounds, "eps": EPS}}


# Method -> the steps for an image whose own statistics are used.
OF_IMAGE: dict[str, Callable[[Mapping[str, Any], list[str]], list[Step]]] = {
    "percentile": _percentile,
    "zscore": lambda section, axes: [
        {"id": "zero_mean_unit_variance", "kwargs": {"axes": axes, "eps": EPS}}
    ],
    "minmax": lambda section, axes: [_range(axes, 0.0, 100.0)],
    "none": lambda section, axes: [],
}
SPARSE = (
    "an image whose two percentiles are equal although it is not constant (very sparse signal) is "
    "scaled by its whole range here, but not by other programs"
)
STABILISED = (
    "bioimageio.core adds 1e-6 to the scale whatever the package says: images whose intensities "
    "span less than about 0.01 come out differently"
)


def steps_of(normalize: Mapping[str, Any], dims: int) -> tuple[list[Step], list[str]]:
    """The steps that do what our normalisation does, and in which cases they do not.

    Args:
        normalize: of the model file: the section ``prepare.normalize``, with ``statistics`` if
            those of the dataset are used.
        dims: spatial axes of an image.

    Raises:
        UserError: the format has no such step.
    """
    method = normalize["method"]
    statistics = normalize.get("statistics")
    if statistics is not None and method != "none":
        return [_fixed(statistics["shift"], statistics["scale"])], []
    steps = OF_IMAGE[method](normalize, list("zyx"[-dims:]))
    notes = {"percentile": [SPARSE, STABILISED], "none": []}.get(method, [STABILISED])
    return steps, notes


def _fixed(shift: list[float], scale: list[float]) -> Step:
    if min(scale) >= LEAST_SCALE:
        values = {"axis": "channel", "mean": list(shift), "std": list(scale)}
        return {"id": "fixed_zero_mean_unit_variance", "kwargs": values}
    gain = [1 / each for each in scale]
    offset = [-first / each for first, each in zip(shift, scale, strict=True)]
    return {"id": "scale_linear", "kwargs": {"axis": "channel", "gain": gain, "offset": offset}}
