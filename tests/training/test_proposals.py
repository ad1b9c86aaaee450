"""Values proposed for a config, from the facts of a survey."""

from __future__ import annotations

from typing import Any

import pytest

from unet.config.load import load
from unet.data.survey.facts import DatasetSurvey, SurveyedImage, SurveyedObjects
from unet.training.auto.proposals import proposals


def objects(diameter: tuple[float, float, float], **changes: Any) -> SurveyedObjects:
    area = tuple(0.785 * d * d for d in diameter)
    values: dict[str, Any] = {
        "count": 100, "per_image": (1, 5.0, 9), "area": area, "diameter": diameter,
        "touching": 0.2, "at_edge": 0.1, "with_holes": 0, "in_pieces": 0,
    }  # fmt: skip
    return SurveyedObjects(**{**values, **changes})


def survey(
    shape: tuple[int, ...] = (512, 512), number: int = 4, task: str = "instances", **changes: Any
) -> DatasetSurvey:
    size = changes.pop("pixel_size_um", None)
    axes = "C" + "ZYX"[-len(shape) :]
    images = [
        SurveyedImage(
            f"a{i}", f"a{i}.tif", f"l{i}.tif", axes, (1, *shape), "uint8", pixel_size_um=size
        )
        for i in range(number)
    ]
    return DatasetSurvey(
        "d", task, "instances", "folders", tuple(images), number, number, **changes
    )


def values(facts: DatasetSurvey) -> dict[str, Any]:
    found = proposals(facts)
    assert len({p.key for p in found}) == len(found)
    for p in found:
        assert 0 < len(p.reason) < 90, p
        assert not p.reason.endswith(".")
        assert "\n" not in p.reason
    return {p.key.rpartition(".")[2]: p.value for p in found}


def test_ordinary_cells() -> None:
    got = values(survey(objects=objects((12, 25, 40))))
    assert got == {
        "width": 24, "patch": 256, "head": "border", "border_width": 2, "method": "grow",
        "grow_px": 5, "min_size": 30,
    }  # fmt: skip


def test_width_grows_with_the_pixels() -> None:
    assert [values(survey(number=n))["width"] for n in (2, 4, 16)] == [16, 24, 32]


def test_large_objects_need_large_patches_and_more_poolings() -> None:
    got = values(survey((2000, 2000), objects=objects((60, 120, 190))))
    assert (got["patch"], got["depth"], got["border_width"]) == (384, 5, 6)
    # Never above the largest patch.
    assert values(survey((2000, 2000), objects=objects((300, 400, 900))))["patch"] == 512


def test_small_objects_keep_an_inside() -> None:
    got = values(survey(objects=objects((5, 7, 9))))
    assert (got["border_width"], got["grow_px"], got["min_size"]) == (1, 4, 6)


def test_patch_fits_the_images() -> None:
    assert values(survey((340, 200)))["patch"] == [256, 192]
    assert values(survey((96, 96)))["patch"] == 96
    assert values(survey((40, 40)))["depth"] == 3


def test_apart_objects_need_no_border() -> None:
    got = values(survey(objects=objects((12, 25, 40), touching=0.0)))
    assert (got["head"], got["method"]) == ("classes", "components")
    assert "border_width" not in got
    assert "grow_px" not in got


def test_too_few_objects_say_nothing_about_sizes() -> None:
    got = values(survey(objects=objects((200, 300, 400), count=3)))
    assert (got["patch"], got["border_width"], got["head"]) == (256, 2, "border")
    assert "min_size" not in got


def test_classes_have_no_objects() -> None:
    assert set(values(survey(task="semantic"))) == {"width", "patch"}


def test_volumes_with_coarse_sections() -> None:
    even = values(survey((64, 128, 128), objects=objects((10, 14, 20))))
    assert (even["dims"], even["head"], even["patch"]) == (3, "distance", 64)
    assert even["distance_px"] == 5
    facts = survey((64, 128, 128), objects=objects((10, 14, 20)), pixel_size_um=(0.4, 0.1, 0.1))
    flat = values(facts)
    # As long in micrometres along each axis.
    assert flat["patch"] == [16, 64, 64]
    # A ball of so many voxels is wider, counted in pixels of the finest axis.
    assert flat["distance_px"] == 8


def test_short_volumes_have_fewer_poolings() -> None:
    got = values(survey((31, 61, 57), number=1))
    assert got["depth"] == 2
    assert got["patch"] == [28, 60, 56]


def test_nothing_to_train_on() -> None:
    facts = survey()
    assert proposals(DatasetSurvey("d", "instances", "instances", "folders", (), 0, 0)) == []
    bad = SurveyedImage("a", "a.tif", status="quarantined", reason="no label")
    assert proposals(DatasetSurvey("d", facts.task, "instances", "folders", (bad,), 0, 0)) == []


@pytest.mark.parametrize("shape", [(512, 512), (40, 700), (31, 61, 57), (8, 300, 300)])
@pytest.mark.parametrize("size", [(3, 4, 5), (10, 20, 40), (100, 200, 300)])
@pytest.mark.parametrize("coarse", [1.0, 5.0])
def test_the_config_accepts_all(
    shape: tuple[int, ...], size: tuple[float, float, float], coarse: float
) -> None:
    pixel = (coarse, 1.0, 1.0)[-len(shape) :]
    facts = survey(shape, objects=objects(size), pixel_size_um=pixel)
    config: dict[str, Any] = {
        "datasets": {"d": {"images": "a", "labels": "b", "task": "instances"}},
        "models": {"m": {"preset": "unet-bn"}}, "train": {"batch": 2}, "stitch": {},
    }  # fmt: skip
    found = proposals(facts)
    for proposal in found:
        section, _, key = proposal.key.rpartition(".")
        place = config["models"]["m"] if section == "models.<name>" else config[section]
        place[key] = proposal.value
    got = load(config).model_dump(mode="json")
    for proposal in found:
        section, _, key = proposal.key.rpartition(".")
        place = got["models"]["m"] if section == "models.<name>" else got[section]
        assert place[key] == proposal.value, proposal
    assert {"models.<name>.width", "train.patch"} <= {proposal.key for proposal in found}
