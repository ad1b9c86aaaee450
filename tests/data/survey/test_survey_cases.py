"""The survey of small datasets with one mistake each says what a person would say."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.data.survey.surveyed import config_of, kinds, scene, source_of, survey, write
from unet.config.load import load
from unet.data.manifest import build_manifest
from unet.data.survey import measure
from unet.data.survey.survey import survey_dataset
from unet.data.survey.understood import understand

PREDICTED = {"predict_with": ["other/m"], "task": None}


def test_a_good_dataset_has_no_finding_but_notes(tmp_path: Path) -> None:
    for i in range(26):
        write(tmp_path, f"a{i:02}", *scene(i))
    found = survey(tmp_path, pixel_size_um=0.5)
    assert kinds(found) == {("note", "few_bits")}
    assert (found.labelled, len(found.images), found.measured, found.bits) == (26, 26, 26, 13)
    assert found.splits is not None
    assert sum(found.splits[0].values()) == 26
    background, cells = found.classes
    assert (background.value, cells.name, cells.images) == (0, "foreground", 26)
    assert background.intensity == pytest.approx(500, abs=5)
    assert cells.intensity == pytest.approx(3500, abs=20)
    assert found.objects is not None
    assert (found.objects.count, found.objects.touching, found.objects.at_edge) == (156, 0, 0)
    assert all(image.hash and image.sharpness and image.low for image in found.images)


def test_a_finished_manifest_gives_the_same(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path, f"a{i}", *scene(i))
    (tmp_path / "images" / "x.vsi").touch()
    data = {"images": "images", "labels": "labels", "task": "instances"}
    config = config_of(tmp_path, data)
    source = source_of(tmp_path, config)
    from unet.config.data_settings import ManifestSettings

    records = build_manifest(source, ManifestSettings.of(config, "d"), 1)
    made = survey_dataset(config, "d", source, threads=1)
    given = survey_dataset(config, "d", source, threads=3, records=records)
    assert made == given
    assert made.unread == {".vsi": 1}
    few = survey_dataset(config, "d", source, threads=1, records=records, sampled=3)
    assert [image.id for image in few.images if image.hash] == ["a0", "a2", "a5"]


def test_binary_masks(tmp_path: Path) -> None:
    for i in range(6):
        image, labels = scene(i, 128, 14)
        write(tmp_path, f"a{i}", image, ((labels > 0) * 255).astype(np.uint8))
    found = survey(tmp_path)
    (finding,) = [f for f in found.findings if f.kind == "binary_mask"]
    assert finding.level == "warn"
    assert "label_kind: binary" in finding.text
    assert finding.where == "images/a0.tif and 5 more images"
    assert ("warn", "in_pieces") not in kinds(found)
    numbered = survey(tmp_path, label_kind="binary")
    assert ("warn", "binary_mask") not in kinds(numbered)
    assert numbered.objects is not None
    assert numbered.objects.per_image[1] == 14


def test_empty_labels_stop(tmp_path: Path) -> None:
    for i in range(6):
        image, labels = scene(i)
        write(tmp_path, f"a{i}", image, np.zeros_like(labels))
    found = survey(tmp_path)
    assert found.findings[0].level == "stop"
    assert {("stop", "no_objects"), ("warn", "empty_label")} <= kinds(found)
    assert found.objects is not None
    assert len(found.objects.empty_images) == 6
    # The same if they cannot be split.
    assert ("stop", "no_objects") in kinds(survey(tmp_path, split={"folds": 50}))


def test_swapped_classes(tmp_path: Path) -> None:
    for i in range(6):
        image, labels = scene(i)
        write(tmp_path, f"a{i}", image, ((labels == 0) * 255).astype(np.uint8))
    found = survey(tmp_path, task="semantic", classes={"background": 0, "cell": 255})
    assert ("warn", "swapped_classes") in kinds(found)
    background, cell = (row.intensity for row in found.classes)
    assert background is not None
    assert cell is not None
    assert background > 3000 > cell
    missing = survey(tmp_path, task="semantic", classes={"a": 0, "b": 255, "c": 7})
    assert missing.findings[0].kind == "class_missing"
    unknown = survey(tmp_path, task="semantic", classes={"a": 0, "b": 1})
    assert {("stop", "none_usable"), ("warn", "unknown_values")} <= kinds(unknown)


def test_labels_among_images_partners_and_other_kinds(tmp_path: Path) -> None:
    for i in range(4):
        image, labels = scene(i)
        write(tmp_path, f"a{i}", image)
        tifffile.imwrite(tmp_path / "images" / f"a{i}_masks.tif", labels)
    write(tmp_path, "lonely", scene(9)[0])
    tifffile.imwrite(tmp_path / "images" / "other_masks.tif", scene(9)[1])
    for name in ("b.bmp", "c.vsi", "d.vsi"):
        (tmp_path / "images" / name).touch()
    found = survey(tmp_path, labels="images/*_masks.tif")
    assert {
        ("note", "labels_among_images"),
        ("warn", "labels_alone"),
        ("warn", "no_label"),
        ("warn", "files_not_read"),
    } <= kinds(found)
    assert [Path(name).name for name in found.images_alone] == ["lonely.tif"]
    assert found.labels_alone == ("other_masks.tif",)
    assert found.unread == {".vsi": 2, ".bmp": 1}


def test_one_absurd_pixel_size(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(6):
        size = 352.8 if i == 5 else 0.5
        units = {"PhysicalSizeXUnit": "um", "PhysicalSizeYUnit": "um"}
        meta = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size, **units}
        tifffile.imwrite(tmp_path / "images" / f"a{i}.ome.tif", scene(i)[0], metadata=meta)
    found = survey(tmp_path, **PREDICTED)
    wrong = [finding for finding in found.findings if finding.kind == "odd_pixel_size"]
    assert {(finding.level, finding.where) for finding in wrong} == {("warn", "a5.ome.tif")}
    assert all("pixel_size_um" in finding.text for finding in wrong)


def test_inverted_files_have_the_same_pixels(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        image = scene(i)[0]
        tifffile.imwrite(tmp_path / "images" / f"plain{i}.tif", image)
        inverse = tmp_path / "images" / f"inverse{i}.tif"
        tifffile.imwrite(inverse, 65535 - image, photometric="miniswhite", metadata=None)
    found = survey(tmp_path, **PREDICTED)
    assert {("note", "white_is_zero"), ("note", "same_images")} <= kinds(found)
    assert {(a.one, a.other, a.kind) for a in found.alike} == {
        (f"inverse{i}", f"plain{i}", "same") for i in range(3)
    }


def test_special_files(tmp_path: Path) -> None:
    write(tmp_path, "good", scene()[0])
    os.mkfifo(tmp_path / "images" / "pipe.tif")
    found = survey(tmp_path, **PREDICTED)
    (finding,) = [f for f in found.findings if f.kind == "not_a_file"]
    assert (finding.level, finding.where) == ("warn", "pipe.tif")
    (strict,) = [f for f in survey_strict(tmp_path) if f.kind == "not_a_file"]
    assert strict.level == "stop"


def survey_strict(base: Path) -> tuple:  # type: ignore[type-arg]
    config = config_of(base, {"images": "images", **PREDICTED}).model_copy(update={"strict": True})
    return survey_dataset(config, "d", source_of(base, config), threads=1).findings


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    write(tmp_path, "a", *scene())
    found = survey(tmp_path)
    assert found.findings[0].kind == "too_few_to_split"
    assert "predict_with" in found.findings[0].text
    assert "only 1 usable image; at least" in found.findings[0].text
    assert found.objects is not None
    assert ("warn", "few_images") not in kinds(found)


def test_large_images_count_more(tmp_path: Path) -> None:
    for i in range(5):
        label = np.zeros((64, 64), np.uint16)
        label[:, :32] = 1
        write(tmp_path, f"a{i}", scene(i, 64)[0], label)
    label = np.zeros((640, 640), np.uint16)
    label[:64, :58] = 1
    write(tmp_path, "large", scene(9, 640)[0], label)
    background, cells = survey(tmp_path).classes
    true = (5 * 64 * 32 + 64 * 58) / (5 * 64**2 + 640**2)
    assert cells.share == pytest.approx(true, rel=1e-4)
    assert background.share == pytest.approx(1 - true, rel=1e-4)


def test_objects_of_large_images_come_from_their_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet.data.survey.survey.REGION_PIXELS", 50 * 100)
    for i in range(3):
        write(tmp_path, f"a{i}", *scene(i, 100, 20))
    small = survey(tmp_path)
    assert (small.middles, small.middle) == (3, (50, 100))
    assert small.objects is not None
    assert small.objects.count < 60
    assert (small.objects.per_image, small.objects.at_edge) == (None, None)
    write(tmp_path, "b", *scene(9, 64, 5))
    both = survey(tmp_path)
    assert both.middles == 3
    assert both.objects is not None
    assert both.objects.per_image == (5, 5.0, 5)


def test_memory_bounds_how_many_images_are_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        write(tmp_path, f"a{i}", *scene(i))
    data = {"images": "images", "labels": "labels", "task": "instances"}
    config = config_of(tmp_path, data)
    source = source_of(tmp_path, config)
    records = [r for r in understand(config, "d", source, 1).records if r.status == "ok"]
    running, most = 0, 0
    lock, real = threading.Lock(), measure._measured

    def counted(*args: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        found = real(*args)
        with lock:
            running -= 1
        return found

    monkeypatch.setattr(measure, "_measured", counted)
    each = measure._bytes_of(records[0], 1 << 24)
    assert each > 40 * 96 * 96
    for memory, expected in ((each // 2, 1), (2 * each, 2), (100 * each, 6)):
        most = 0
        found = measure.measured(records, source, config.datasets["d"], threads=6, memory=memory)
        assert len(found) == 6
        assert most <= expected
        assert expected < 6 or most > 2


def test_texts_about_one_image(tmp_path: Path) -> None:
    image, labels = scene()
    write(tmp_path, "a", image, np.zeros_like(labels))
    said = [finding.text for finding in survey(tmp_path).findings]
    assert any(text.startswith("no object in the only label") for text in said)
    assert not [text for text in said if "1 images" in text or "1 labels" in text]
    alone = survey(tmp_path, task="semantic", classes={"a": 7, "b": 8})
    assert [f.text for f in alone.findings if f.kind == "none_usable"] == [
        "the only image is not usable; see the reasons"
    ]


def test_crops_of_one_field_in_different_parts(tmp_path: Path) -> None:
    image, labels = scene(0, 400, 60)
    image = ndimage.gaussian_filter(image, 1.5)
    for y in range(4):
        for x in range(4):
            part = np.s_[100 * y : 100 * y + 100, 100 * x : 100 * x + 100]
            write(tmp_path, f"a{y}{x}", image[part], labels[part])
    found = survey(tmp_path, split={"folds": 4})
    assert ("warn", "neighbours_across_parts") in kinds(found)
    # A field's rows: a0, a1, ...: all crops in one group.
    groups = survey(tmp_path, split={"folds": 4, "group": "a(\\d)"})
    assert groups.groups == 4
    assert {a.one for a in groups.alike} == {a.one for a in found.alike}


def test_sparse_labels_blur_specks_saturation_and_types(tmp_path: Path) -> None:
    for i in range(10):
        image, labels = scene(i, 128, 10)
        if i == 3:
            image = ndimage.gaussian_filter(image, 5)
        write(tmp_path, f"a{i}", image, np.where(labels == 1, 1, 0).astype(np.uint8))
    found = survey(tmp_path)
    assert {("warn", "sparse_labels"), ("warn", "blurred")} <= kinds(found)
    (blurred,) = [f for f in found.findings if f.kind == "blurred"]
    assert blurred.where == "images/a3.tif"
    dots = np.zeros((128, 128), np.uint16)
    dots[::8, ::8] = np.arange(1, 257).reshape(16, 16)
    for i in range(10):
        image = scene(i, 128)[0].clip(0, 3000)
        image[image == 3000] = 65535
        write(tmp_path / "x", f"a{i}", (image // 256).astype(np.uint8) if i else image, dots)
    other = survey(tmp_path / "x")
    assert {("warn", "specks"), ("warn", "saturated"), ("warn", "mixed_types")} <= kinds(other)


def test_objects_larger_than_the_patch(tmp_path: Path) -> None:
    for i in range(6):
        image, labels = scene(i)
        write(tmp_path, f"a{i}", np.kron(image, np.ones((4, 4), np.uint16)),
              np.kron(labels, np.ones((4, 4), np.uint16)))  # fmt: skip
    data = {"images": "images", "labels": "labels", "task": "instances", "train": {"patch": 32}}
    models = {"m": {"preset": "unet-bn", "head": "border", "depth": 2}}
    from unet.config.load import load

    config = load({"data_root": str(tmp_path), "datasets": {"d": data}, "models": models})
    found = survey_dataset(config, "d", source_of(tmp_path, config), threads=1)
    (finding,) = [f for f in found.findings if f.kind == "larger_than_patch"]
    assert finding.where == "models.m: train.patch"


def test_nothing_found_is_a_finding(tmp_path: Path) -> None:
    found = survey(tmp_path)
    assert kinds(found) == {("stop", "unreadable_dataset")}
    assert "no folder or file" in found.findings[0].text


def test_no_labels_at_all(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "sets" / f"a{i}", "image", scene(i)[0])
    found = survey(tmp_path, images="sets", layout="dsb2018")
    assert found.findings[0].kind == "no_labels"
    assert len(found.images) == 4


def test_a_sweep_that_chooses_on_one_validation_image(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path, f"a{i}", *scene(i))
    config = config_of(tmp_path, {"images": "images", "labels": "labels", "task": "instances",
                                  "split": {"folds": 2}})  # fmt: skip
    source = source_of(tmp_path, config)

    def lines(model: dict[str, Any], split: dict[str, Any]) -> list[tuple[str, str]]:
        raw = config.model_dump(mode="json", exclude_unset=True)
        raw["models"] = {"net": {"preset": "unet-bn", "head": "border", **model}}
        raw["datasets"]["d"]["split"] = split
        found = survey_dataset(load(raw), "d", source, threads=1).findings
        return [(each.where, each.text) for each in found if each.kind == "few_validated"]

    swept = {"sweep": {"width": [4, 8]}}
    little = "a score on a single image says little about others: label more images"
    assert lines(swept, {"folds": 2}) == [
        ("models.net.sweep", f"each fold chooses on 1 validation image; {little}, or write a "
         "larger split.val"),
    ]  # fmt: skip
    assert lines(swept, {"test": 0.4})[0][1] == (
        f"chosen on 1 validation image; {little}, or write a larger split.val"
    )
    assert lines(swept, {"folds": 2, "val": 0.6}) == []
    assert lines({}, {"folds": 2}) == []
    # An ensemble chooses by all its folds together, and its number of folds decides.
    assert lines(swept, {"folds": 4, "test": 0.3}) == []
    assert lines(swept, {"folds": 4, "test": 0.3, "run": [1]})[0][1] == (
        f"chosen on 1 validation image; {little}, or name more folds in split.run"
    )


def test_a_sweep_of_one_combination(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path, f"a{i}", *scene(i))
    config = config_of(tmp_path, {"images": "images", "labels": "labels", "task": "instances"})
    source = source_of(tmp_path, config)
    raw = config.model_dump(mode="json", exclude_unset=True)
    for widths, kinds_ in ([4], ["one_combination"]), ([4, 8], []):
        model = {"preset": "unet-bn", "head": "border", "sweep": {"width": widths}}
        found = survey_dataset(load({**raw, "models": {"net": model}}), "d", source, threads=1)
        said = [each.kind for each in found.findings if each.kind == "one_combination"]
        assert said == kinds_
