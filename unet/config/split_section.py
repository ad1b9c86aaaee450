"""How the images of a dataset are split into those that train, validate and test."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from unet.config.section_base import Count, Section, Share, Shown
from unet.paths import ENSEMBLE


class SplitSection(Section):
    reruns: ClassVar[str] = "splits"

    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Cross-validation with this many folds: each image is tested once. It compares models most
    reliably, and trains each of them this many times. With `test` the folds form an ensemble: all
    of them test the same images, each validates on one part of the others, and the networks'
    probabilities are averaged ([data.md](../docs/data.md#splits))."""
    test: Annotated[Share | None, Shown(default="0.25 without folds and column")] = None
    """Share of the images that are tested. With `folds`, all folds test these images."""
    column: Annotated[str | None, Shown("part or split", reruns="manifest")] = None
    """Column of the sheet that says train, val or test for each image."""
    group: Annotated[
        str | None,
        Shown(
            "column of the sheet, or a regular expression with one group",
            "the layout's own groups, or the sheet's column group",
            "manifest",
        ),
    ] = None
    """Images of one group (slide, animal, film) always stay in the same part. An expression is
    searched in the image's id, such as `(plate\\d+)`."""
    val: Share = 0.2
    """Share of the images not tested that is used for validation: it chooses weights and
    thresholds. With `column` it is used only if the sheet names no val image. It has no effect if
    both `folds` and `test` are given."""
    run: Annotated[
        tuple[Count, ...] | None,
        Shown("list of folds, from 0", "all", "train of the folds that are new"),
    ] = None
    """The folds to train: `[0]` for a first look at one of several. In an ensemble: the networks
    that belong to it."""
    redraw: Count = 0
    """Another number draws all parts again from today's images. Otherwise an image keeps the part
    that it had in earlier runs. Models whose images change are trained again."""

    @field_validator("group")
    @classmethod
    def _group_readable(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> SplitSection:
        given = [k for k in ("folds", "test", "column") if getattr(self, k) is not None]
        if len(given) > 1 and given != ["folds", "test"]:
            raise ValueError(
                f"give one of folds, test, column, or folds and test (got {', '.join(given)})"
            )
        if self.run is not None:
            bad = [k for k in self.run if k >= self.number]
            if bad or not self.run:
                raise ValueError(
                    f"run: got {list(self.run)}; allowed are folds 0 to {self.number - 1}"
                )
            if len(set(self.run)) != len(self.run):
                raise ValueError(f"run: got {list(self.run)}; name each fold once")
        return self

    @property
    def number(self) -> int:
        """How many folds the split has (1 for a single held-out set)."""
        return self.folds or 1

    @property
    def ensemble(self) -> bool:
        """Whether the folds share their test images, which all their networks predict together."""
        return self.folds is not None and self.test is not None

    @property
    def same_test(self) -> bool:
        """Whether all folds test the same images. Otherwise a validation image of one fold is a
        test image of another."""
        return self.folds is None or self.ensemble

    @property
    def validated_by(self) -> Literal["val", "folds", "sheet"]:
        """What decides how many images validate: the share `val`, the parts of an ensemble, or
        the sheet."""
        if self.column is not None:
            return "sheet"
        return "folds" if self.ensemble else "val"

    @property
    def to_run(self) -> tuple[int, ...]:
        """The folds that are trained."""
        return tuple(range(self.number)) if self.run is None else tuple(sorted(self.run))

    @property
    def tested(self) -> tuple[int, ...]:
        """The folds that are predicted and evaluated."""
        return (ENSEMBLE,) if self.ensemble else self.to_run
