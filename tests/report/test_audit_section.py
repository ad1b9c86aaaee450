"""The section of a dataset's page about its labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_report import assert_self_contained, make_report, make_results
from unet.data.dataset_warnings import read_warnings, write_warnings
from unet.evaluation.audit.doubts import Doubt, write_doubts
from unet.paths import Paths
from unet.provenance import write_sidecar
from unet.report.doubt_crops import window

DOUBT = Doubt(
    "im1", 0, "missing", 0.91, "no label here; mean probability 0.98", (29.5, 32.0), (25, 25),
    (35, 40), 150, (), (2,),
)  # fmt: skip
SUMMARY: dict[str, Any] = {
    "labelled": 12, "images": 4, "validation": 1, "objects": 57, "agreement": 0.97, "usual": 0.9,
    "doubts": 1,
}  # fmt: skip


def audited(paths: Paths, model: str, *doubts: Doubt, dataset: str = "d", **more: Any) -> None:
    write_doubts(paths.audit(dataset, model), doubts)
    write_sidecar(paths.audit(dataset, model), {}, audit={**SUMMARY, **more})


def section_of(
    paths: Paths, models: tuple[str, ...] = ("m1", "m2"), task: str = "instances"
) -> str:
    page = make_report(paths, "d", models, "instances")
    assert_self_contained(page)
    found = re.search(r'<section id="audit">.*?</section>', page, re.DOTALL)
    return found.group(0) if found else ""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path)
    make_results(made, "d", ["m1", "m2"], "instances")
    return made


def test_doubts_with_pictures(paths: Paths) -> None:
    audited(paths, "m1", DOUBT)
    audited(paths, "m2", replace(DOUBT, image="im2", kind="denied"), replace(DOUBT, confidence=0.5))
    paths.audit_outlines("d", "m1").mkdir()
    text = section_of(paths)
    assert "2 places in 2 images where at least one model clearly disagrees with the label" in text
    assert "4 of 12 labelled images, with 57 objects" in text
    assert "1 validation image among them" in text
    assert "split: {folds: 5}" in text
    assert text.count('src="data:image/jpeg') == 2
    # Both models doubt the first place: the mean of 0.91 and 0.5. Only one doubts the second.
    # With each model its rank in its own table, by which outlines are named.
    assert re.search(r"0\.705.*m1: 1<br>m2: 2.*0\.455.*m2: 1", text, re.DOTALL)
    assert "a ranking from 0 to 1, not a probability: the mean of all models" in text
    assert "rank in that model’s audit.csv (the last column above), not after the rank on" in text
    assert "as a whole" not in text
    assert "weak here" not in text
    assert text.index("im1") < text.index("im2")
    assert "y 30, x 32 · 150 px" in text


def test_one_model_has_the_same_ranks_everywhere(paths: Paths) -> None:
    first, second = replace(DOUBT, image="im2"), DOUBT  # of equal confidence, in this order
    audited(paths, "m1", first, second)
    paths.audit_outlines("d", "m1").mkdir()
    text = section_of(paths, ("m1",))
    assert "They are named after the rank." in text
    assert "<td>1</td>" in text
    assert 0 < text.index("<code>im2</code>") < text.index("<code>im1</code>")
    assert '<td class="text">m1</td>' in text


def test_no_doubt(paths: Paths) -> None:
    audited(paths, "m1", replace(DOUBT, confidence=0.3), images=12, validation=0)
    text = section_of(paths)
    assert "No label stands out." in text
    assert "12 of 12 labelled images" in text
    assert "folds: 5" not in text
    assert "<table" not in text


def test_a_poor_model_does_not_judge(paths: Paths) -> None:
    audited(paths, "m1", DOUBT, agreement=0.31)
    text = section_of(paths)
    assert "m1 is too poor to judge single objects" in text
    assert "its agreement with the labels is only 0.31" in text
    assert "<table" not in text
    assert "No label stands out" not in text


def test_a_poor_model_still_sees_exchanged_labels(paths: Paths) -> None:
    whole = replace(DOUBT, kind="exchanged", match="im9", image="im8", confidence=0.9)
    audited(paths, "m1", DOUBT, whole, agreement=0.31)
    text = section_of(paths, ("m1",))
    assert "1 place in 1 image" in text
    assert "label fits <code>im9</code>" in text
    assert "<code>im1</code>" not in text
    # Beside a model that judges, it says nothing.
    audited(paths, "m2", DOUBT)
    text = section_of(paths)
    assert "m1 is too poor to judge single objects" in text
    assert "im9" not in text
    assert "<code>im1</code>" in text


def test_a_blind_model_judges_nothing(paths: Paths) -> None:
    whole = replace(DOUBT, kind="exchanged", match="im9", image="im8", confidence=0.9)
    audited(paths, "m1", whole, usual=0.4)
    text = section_of(paths, ("m1",))
    assert "m1 is too poor to judge the labels" in text
    assert "<table" not in text


@pytest.mark.parametrize(("models", "named"), [(("m1",), "The model"), (("m1", "m2"), "m1")])
def test_a_weak_model_says_so_first(paths: Paths, models: tuple[str, ...], named: str) -> None:
    audited(paths, "m1", DOUBT, agreement=0.7)
    if "m2" in models:
        audited(paths, "m2", DOUBT)
    text = section_of(paths, models)
    said = f"{named} itself is weak here (agreement 0.700): many doubts are its own mistakes."
    assert text.count("many doubts are its own mistakes") == 1
    assert 0 < text.index(said) < text.index('class="lead"')
    assert "<table" in text


def test_classes_must_agree_more_often(paths: Paths) -> None:
    audited(paths, "m1", DOUBT, agreement=0.9, objects=None)
    assert "The model itself is weak here (agreement 0.900)" in section_of(paths, ("m1",))
    audited(paths, "m1", DOUBT, agreement=0.96, objects=None)
    assert "weak here" not in section_of(paths, ("m1",))


def test_exchanged_labels_and_many_doubts(paths: Paths) -> None:
    whole = replace(DOUBT, kind="exchanged", low=(0, 0), high=(40, 48), match="im<3>")
    many = [replace(DOUBT, low=(k, k), high=(k + 1, k + 1), confidence=0.8) for k in range(35)]
    audited(paths, "m1", whole, *many)
    text = section_of(paths)
    assert "label fits <code>im&lt;3&gt;</code>" in text
    assert "1 label belongs as a whole to another image, it seems: its objects were not" in text
    assert text.count("<tr>") == 31
    assert "6 more are in audit.csv" in text


def test_exchanged_labels_are_one_warning_of_all_models(paths: Paths) -> None:
    """From the tables alone, so that results of earlier versions have it, too."""
    first = replace(DOUBT, kind="exchanged", low=(0, 0), high=(40, 48), match="im2")
    second = replace(first, image="im2", match="im1")
    audited(paths, "m1", first, second)
    audited(paths, "m2", replace(first, confidence=0.6))
    line = "check the labels of im1 and im2: probably exchanged; they count in all scores until"
    section_of(paths)
    assert read_warnings(paths.dataset("d"), ["m1", "m2"]) == [f"{line} corrected"]
    write_warnings(paths.warnings("d", "manifest"), [f"image {k} is odd" for k in range(12)])
    page = make_report(paths, "d", ["m1", "m2"], "instances")
    assert page.index(line) < page.index("image 0 is odd")
    # A doubt that is gone warns no longer.
    audited(paths, "m1")
    audited(paths, "m2")
    section_of(paths)
    assert read_warnings(paths.dataset("d"))[0] == "image 0 is odd"


def test_results_of_an_earlier_version_have_no_section(paths: Paths) -> None:
    assert section_of(paths) == ""


def test_the_part_of_an_image_to_show() -> None:
    assert window(DOUBT, (500, 600)) == (slice(0, 64, 1), slice(0, 64, 1))
    far = replace(DOUBT, low=(490, 200), high=(500, 300))
    assert window(far, (500, 600)) == (slice(340, 500, 1), slice(170, 330, 1))
    volume = replace(DOUBT, centroid=(3.2, 30.0, 30.0), low=(1, 25, 25), high=(5, 35, 40))
    assert window(volume, (9, 40, 48)) == (3, slice(0, 40, 1), slice(0, 48, 1))
    large = replace(DOUBT, low=(0, 0), high=(2000, 2000))
    assert window(large, (2000, 2000)) == (slice(0, 2000, 5), slice(0, 2000, 5))
