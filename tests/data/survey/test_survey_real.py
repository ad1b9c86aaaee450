"""The survey of real images finds what a person wrote down about each set beforehand.

`UNET_REAL_DATA` is a folder that contains isbi2012_em, dsb2018_fluo, t98g_phase and others, each
with images/ and labels/.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.data.survey.surveyed import kinds, survey
from unet.data.survey.facts import DatasetSurvey

DATA = Path(os.environ.get("UNET_REAL_DATA") or os.devnull)
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="UNET_REAL_DATA names no folder of real images"),
]

NO_SIZE = ("note", "no_pixel_size")
FEW_IMAGES = ("warn", "few_images")
ONE = ("stop", "too_few_to_split")
# Set -> the config's keys, and all findings.
SETS: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "bbbc007_sparse": (
        {},
        {NO_SIZE, FEW_IMAGES, ("warn", "sparse_labels"), ("note", "few_bits")},
    ),
    "dsb2018_fluo": (
        {},
        {NO_SIZE, ("warn", "neighbours_across_parts"), ("note", "several_sizes")},
    ),
    "dsb2018_rgb": (
        {},
        {
            NO_SIZE,
            ("warn", "few_tested"),
            ("warn", "neighbours_across_parts"),
            ("note", "in_pieces"),
        },
    ),
    "isbi2012_em": (
        {"task": "semantic", "classes": {"membrane": 0, "cell": 255}},
        {NO_SIZE, ("note", "few_images"), ("note", "sequence")},
    ),
    "plant_em_chloroplast": (
        {},
        {
            NO_SIZE,
            FEW_IMAGES,
            ("warn", "few_to_train"),
            ("warn", "in_pieces"),
            ("warn", "near_across_parts"),
            ("note", "with_holes"),
        },
    ),
    "stardist_examples": (
        {},
        {
            NO_SIZE,
            ONE,
            ("warn", "mixed_types"),
            ("note", "several_sizes"),
            ("note", "few_bits"),
        },
    ),
    "t98g_phase": (
        {},
        {
            NO_SIZE,
            ("warn", "few_tested"),
            ("warn", "in_pieces"),
            ("note", "saturated"),
            ("note", "with_holes"),
        },
    ),
    "plant_ovule_3d": (
        {"axes": "ZYX"},
        {NO_SIZE, ONE, ("warn", "covered"), ("warn", "in_pieces")},
    ),
    "plant_ovule_nuclei_3d": ({"axes": "ZYX"}, {NO_SIZE, ONE}),
    "stardist_examples_3d": ({"axes": "ZYX"}, {NO_SIZE, ONE, ("note", "few_bits")}),
}


@pytest.fixture(scope="module")
def surveys() -> dict[str, DatasetSurvey]:
    return {}


@pytest.mark.parametrize("name", SETS)
def test_findings(name: str, surveys: dict[str, DatasetSurvey]) -> None:
    keys, expected = SETS[name]
    found = surveys[name] = survey(DATA / name, **keys)
    assert kinds(found) == expected


def test_facts(surveys: dict[str, DatasetSurvey]) -> None:
    if not surveys.keys() >= SETS.keys():
        pytest.skip("needs the surveys of all sets")
    membrane, cell = surveys["isbi2012_em"].classes
    assert membrane.share == pytest.approx(0.225, abs=0.01)
    assert (membrane.intensity or 0) < (cell.intensity or 0)
    background, nuclei = surveys["dsb2018_rgb"].classes
    assert (nuclei.intensity or 0) < (background.intensity or 0)
    assert surveys["bbbc007_sparse"].bits == 8
    assert surveys["stardist_examples_3d"].bits == 9
    fluo = surveys["dsb2018_fluo"]
    assert (len(fluo.images), fluo.measured) == (120, 100)
    assert fluo.objects is not None
    assert 0.1 < fluo.objects.touching < 0.4
    assert any(pair.leak for pair in fluo.alike)
    nuclei_3d = surveys["plant_ovule_nuclei_3d"].objects
    assert nuclei_3d is not None
    assert nuclei_3d.count == 54


def test_volumes_without_axes_say_what_to_write() -> None:
    found = survey(DATA / "plant_ovule_3d")
    assert found.findings[0].kind == "none_usable"
    (reason,) = [finding for finding in found.findings if finding.kind == "left_out"]
    assert "axes: CYX / ZYX" in reason.text
