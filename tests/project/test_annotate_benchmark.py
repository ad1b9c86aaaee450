"""The simulation of annotation: its parts, its sums, and a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import annotate
from unet.data.synthetic import write_dataset
from unet.errors import UserError


def labelled(count: int) -> list[annotate.Labelled]:
    empty = np.zeros((1, 4, 4))
    return [annotate.Labelled(f"{k:02d}", empty, empty, empty[0]) for k in range(count)]


def test_no_image_is_in_two_parts() -> None:
    found = [{one.name for one in part} for part in annotate.parts(labelled(40))]
    assert [len(part) for part in found] == [24, 4, 12]
    assert len(set.union(*found)) == 40


def test_the_curve_and_the_paired_differences() -> None:
    curves = {
        0: {"random": {8: 0.2, 16: 0.4}, "doubt": {8: 0.2, 16: 0.6}},
        1: {"random": {8: 0.4, 16: 0.5}, "doubt": {8: 0.4, 16: 0.4}},
    }
    found = annotate.summary(curves)
    row = found["doubt"][1]
    assert row["mean"] == pytest.approx(0.5)
    assert row["range"] == [0.4, 0.6]
    assert row["minus_random"] == pytest.approx(0.05)
    assert row["range_minus_random"] == pytest.approx([-0.1, 0.2])
    assert found["random"][1]["minus_random"] == 0
    last = annotate.table(found).splitlines()[-1]
    assert (
        last
        == "| 16 | 0.450 (0.400 to 0.500) | 0.500 (0.400 to 0.600), +0.050 (-0.100 to +0.200) |"
    )


def test_objects_grow_into_their_border() -> None:
    inside, border = np.zeros((2, 30, 30))
    inside[5:10, 5:10], border[4:11, 4:11] = 0.9, 0.4
    inside[5:10, 15:20], border[4:11, 14:21] = 0.9, 0.4
    inside[25, 25] = 0.9
    border *= inside == 0
    border[border > 0] = 0.8
    p = np.stack([1 - inside - border, inside, border]).astype(np.float32)
    found = annotate.objects_of(p)
    assert np.unique(found).tolist() == [0, 1, 2]  # the speck is left out
    assert np.bincount(found.ravel())[1:].tolist() == [49, 49]


def test_a_tiny_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "data", "nuclei", 1, 10, (64, 64), 0.5)
    out = tmp_path / "out.json"
    words = ["--seeds", "1", "--rounds", "1", "--steps", "2", "--side", "32", "--first", "2"]
    words += ["--more", "2", "--threads", "1", "--out", str(out), str(tmp_path / "data")]
    assert annotate.main(words) == 0
    found = json.loads(out.read_text())
    assert found["images"] == {"pool": 6, "val": 1, "test": 3}
    assert {m: list(curve) for m, curve in found["curves"]["0"].items()} == {
        "random": ["2", "4"], "doubt": ["2", "4"], "doubt-alone": ["2", "4"],
    }  # fmt: skip
    starts = {curve["2"] for curve in found["curves"]["0"].values()}
    assert len(starts) == 1
    assert found["machine"]["processor"]
    assert "| crops | random | doubt and diversity | doubt alone |" in capsys.readouterr().out


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \*.tif; give a folder with images/ and labels/"):
        annotate.read(tmp_path)
