"""Training recipes: named sets of values for the ``train`` section. Torch-free.

Write ``train: ronneberger2015`` or ``train: {recipe: ronneberger2015, epochs: 20}``, in the global
train section or in that of a dataset or model. Keys next to ``recipe`` override the recipe's.
Adding a recipe is one entry in ``RECIPE_TABLE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unet.config.choices import Entry


@dataclass(frozen=True, kw_only=True)
class Recipe(Entry):
    """Values for keys of the ``train`` section."""

    values: Mapping[str, Any]


RECIPE_TABLE = {
    # Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597), section 3: border-weighted cross-entropy
    # (w0 = 10, sigma = 5 px), SGD with momentum 0.99 and one large tile as batch, elastic
    # deformation by 3x3 vectors of 10 px standard deviation, shifts and rotations, grey value
    # variations. He initialisation and dropout belong to the network. The paper names no learning
    # rate; 1e-4 is what is stable with this momentum and a loss that is a mean over pixels.
    "ronneberger2015": Recipe(
        text="the U-Net paper: border-weighted loss, SGD, elastic deformation; for preset unet2015",
        values={
            "loss": "border-ce",
            "class_weights": "auto",
            "w0": 10.0,
            "sigma": 5.0,
            "optimizer": "sgd",
            "momentum": 0.99,
            "lr": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "warmup_steps": 0,
            "batch": 1,
            "clip_norm": None,
            "ema": 0.0,
            "foreground": 0.0,
            "augment": {
                "flip": True,
                "rotate90": True,
                "rotate_deg": 180.0,
                "scale": 0.0,
                "elastic_px": 10.0,
                "elastic_grid": 3,
                "geometric_probability": 1.0,
                "gamma": 0.3,
                "contrast": 0.25,
                "brightness": 0.2,
                "noise": 0.0,
                "blur_px": 0.0,
                "intensity_probability": 0.5,
            },
        },
    ),
    # Ciresan et al. 2012 (NIPS): windows around single pixels, gradient descent, mirrored and
    # turned by right angles. Both classes have the same weight, as in their balanced sample. This
    # distorts the probabilities; they corrected it by a calibration, here stitch.threshold: auto
    # does. docs/sliding_window.md gives the sources.
    "ciresan2012": Recipe(
        text="windows around single pixels, SGD; for preset ciresan2012",
        values={
            "loss": "weighted-ce",
            "class_weights": "auto",
            "optimizer": "sgd",
            "momentum": 0.9,
            "lr": 0.01,
            "weight_decay": 0.0,
            "schedule": "poly",
            "warmup_steps": 0,
            # One window of network N4. Another window needs another patch; a larger patch trains
            # densely.
            "patch": 95,
            "batch": 64,
            "clip_norm": None,
            "ema": 0.0,
            "foreground": 0.0,
            # No deformation and no filtering: the network sees windows of the original image.
            "augment": {
                "flip": True,
                "rotate90": True,
                "rotate_deg": 0.0,
                "scale": 0.0,
                "elastic_px": 0.0,
                "gamma": 0.0,
                "contrast": 0.0,
                "brightness": 0.0,
                "noise": 0.0,
                "blur_px": 0.0,
            },
        },
    ),
    # Isensee et al. 2021 (nnU-Net): cross-entropy + Dice, SGD with Nesterov momentum 0.99,
    # polynomial decay, moderate augmentation.
    "nnunet": Recipe(
        text="nnU-Net (Isensee et al. 2021): ce-dice, SGD with Nesterov momentum, polynomial decay",
        values={
            "loss": "ce-dice",
            "optimizer": "nesterov",
            "momentum": 0.99,
            "lr": 0.01,
            "weight_decay": 3e-5,
            "schedule": "poly",
            "warmup_steps": 0,
            "clip_norm": 12.0,
            "foreground": 0.33,
            "augment": {
                "flip": True,
                "rotate90": False,
                "rotate_deg": 180.0,
                "scale": 0.3,
                "elastic_px": 0.0,
                "geometric_probability": 0.2,
                "gamma": 0.5,
                "contrast": 0.25,
                "brightness": 0.0,
                "noise": 0.1,
                "blur_px": 1.0,
                "intensity_probability": 0.15,
            },
        },
    ),
}
RECIPES = {name: recipe.values for name, recipe in RECIPE_TABLE.items()}


def expanded(section: Any) -> Any:
    """A train section or override, with its recipe's values for the keys that it does not set.

    A bare name stands for ``{recipe: name}``. A value that is not a mapping, or has an unknown
    recipe, is returned unchanged, and validation reports it.
    """
    if isinstance(section, str):
        section = {"recipe": section}
    if not isinstance(section, Mapping):
        return section
    name = section.get("recipe")
    if not isinstance(name, str) or name not in RECIPES:
        return section
    # A deep merge, because `augment` is a mapping.
    merged = dict(RECIPES[name])
    for key, value in section.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = {**old, **value} if both else value  # type: ignore[dict-item]
    return merged
