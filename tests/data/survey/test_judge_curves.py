"""Learning curves whose answer is known before the run: "can't tell"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.data.survey.surveyed import config_of, scene, source_of, write
from unet.config.load import load
from unet.data.survey.survey import survey_dataset
from unet.data.tested_units import enough, least_units


class Curves:
    """Images of a dataset, in three groups that the config may name, and what a survey says about a
    learning curve on them."""

    def __init__(self, base: Path, images: int, **dataset: Any) -> None:
        for i in range(images):
            write(base, f"{'abc'[i % 3]}{i}", *scene(i))
        given = {"images": "images", "labels": "labels", "task": "instances", **dataset}
        self.config = config_of(base, given)
        self.source = source_of(base, self.config)

    def said(self, kind: str, *shares: float, **more: Any) -> list[tuple[str, str]]:
        """(where, text) of the findings of a kind."""
        raw = self.config.model_dump(mode="json", exclude_unset=True)
        raw["datasets"]["d"] |= more
        model = {"preset": "unet-bn", "head": "border", "learning_curve": list(shares)}
        config = load({**raw, "models": {"net": model}})
        found = survey_dataset(config, "d", self.source, threads=1)
        return [(each.where, each.text) for each in found.findings if each.kind == kind]


def test_a_learning_curve_with_one_share(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 4)
    ((where, text),) = curves.said("one_share", 0.25)
    assert where == "models.net.learning_curve"
    assert text.endswith("two points, which don't show what more images bring (three are needed); "
                         "write such as [0.125, 0.25]")  # fmt: skip
    assert curves.said("one_share", 0.01)[0][1].endswith("such as [0.01, 0.5]")
    assert curves.said("one_share", 0.25, 0.5) == curves.said("one_share") == []


def test_shares_that_are_the_same_images(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 6)
    split = {"test": 0.33, "val": 0.2}  # 3 images train
    ((where, text),) = curves.said("same_shares", 0.125, 0.25, split=split)
    assert where == "models.net.learning_curve"
    assert text == (
        "the shares 0.125 and 0.25 are the same image of 3 training images, so the curve has 2 "
        "points (three are needed); write fewer or larger shares, or label more images"
    )
    ((_, text),) = curves.said("same_shares", 0.125, 0.25, 0.3, 0.7, split=split)
    assert text.startswith("the shares 0.125, 0.25 and 0.3 are the same image of 3 training")
    assert "the curve has" not in text
    ((_, text),) = curves.said("same_shares", 0.3, 0.9, split=split)
    assert text.startswith("the shares 0.9 and 1 are the same 3 images of 3 training images")
    assert curves.said("same_shares", 0.3, 0.7, split=split) == []


def test_too_few_test_images_for_a_curve(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 8)
    shares = (0.25, 0.5)
    few = 'tested, so the answer will be "can\'t tell" (at least 6 are needed); '
    ((where, text),) = curves.said("few_for_curve", *shares, split={"test": 0.25})
    assert where == "models.net.learning_curve"
    assert text == f"only 2 images are {few}write split: {{folds: 5}}, which tests each image once"
    assert curves.said("few_for_curve", *shares, split={"folds": 4}) == []
    ((_, text),) = curves.said("few_for_curve", *shares, split={"folds": 4, "run": [0]})
    assert text == f"only 2 images are {few}name more folds in split.run"
    assert curves.said("few_for_curve", split={"test": 0.25}) == []  # no curve


def test_groups_count_instead_of_images(tmp_path: Path) -> None:
    """Whole groups are trained on and tested, here one each; all of them are tested already."""
    curves = Curves(tmp_path, 9)
    split = {"folds": 3, "group": "^([abc])"}
    ((_, text),) = curves.said("few_for_curve", 0.25, 0.5, split=split)
    assert text.startswith("only 3 groups are tested, so")
    assert text.endswith("(at least 6 are needed); label more images")
    ((_, text),) = curves.said("same_shares", 0.25, 0.5, split=split)
    assert text.startswith("the shares 0.25, 0.5 and 1 are the same 3 images of 3 training images")


@given(st.floats(0.01, 0.9999))
def test_the_least_number_is_the_first_that_is_enough(confidence: float) -> None:
    least = least_units(confidence)
    assert enough(least, confidence)
    assert not enough(least - 1, confidence)


def test_six_images_at_95_percent() -> None:
    assert least_units(0.95) == 6
    assert least_units(0.99) == 8
