"""The survey of small datasets with one mistake each says what a person would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.survey.surveyed import kinds, scene, survey, write


def test_a_good_dataset_has_no_finding_but_notes(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path, f"a{i}", *scene(i))
    found = survey(tmp_path, pixel_size_um=0.5)
    assert {level for level, _ in kinds(found)} <= {"note"}
    assert (found.labelled, len(found.images)) == (8, 8)
    assert found.splits is not None
    assert sum(found.splits[0].values()) == 8
    assert [c.name for c in found.classes] == ["background", "foreground"]


def test_binary_masks(tmp_path: Path) -> None:
    for i in range(6):
        image, labels = scene(i, 128, 14)
        write(tmp_path, f"a{i}", image, ((labels > 0) * 255).astype(np.uint8))
    found = survey(tmp_path)
    (finding,) = [f for f in found.findings if f.kind == "binary_mask"]
    assert finding.level == "warn"
    assert "label_kind: binary" in finding.text
    assert finding.where == "images/a0.tif and 5 more images"


def test_empty_labels_stop(tmp_path: Path) -> None:
    for i in range(6):
        image, labels = scene(i)
        write(tmp_path, f"a{i}", image, np.zeros_like(labels))
    found = survey(tmp_path)
    assert found.findings[0].level == "stop"
    assert ("stop", "no_objects") in kinds(found)


def test_nothing_found_is_a_finding(tmp_path: Path) -> None:
    found = survey(tmp_path)
    assert kinds(found) == {("stop", "unreadable_dataset")}
    assert "no folder or file" in found.findings[0].text
