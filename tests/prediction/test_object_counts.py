"""Counts and sizes from the table of objects, and what looks wrong about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unet.errors import UserError
from unet.prediction import object_counts
from unet.prediction.object_counts import (
    Counted,
    count_objects,
    object_warnings,
    odd_images,
    speck_limits,
    unusual_sizes,
)

HEAD = "image,label,class,area_px,equivalent_diameter_px,equivalent_diameter_um\n"


def sizes(*values: float) -> Counted:
    return Counted(np.array(values, np.float32), np.sqrt(np.array(values, np.float32)))


def test_the_table_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "objects.csv"
    rows = "'-a,1,cell,100,11.28,5.64\n'-a,2,cell,50,8,4\nb,1,cell,7,3,\nNA,1,cell,5,2,\n"
    path.write_text(HEAD + rows, encoding="utf-8")
    whole = count_objects(path, ["-a", "b", "NA", "empty"], "instances")
    monkeypatch.setattr(object_counts, "ROWS", 1)
    found = count_objects(path, ["-a", "b", "NA", "empty"], "instances")
    assert list(found) == ["-a", "b", "NA", "empty"] == list(whole)
    for name, one in found.items():
        assert np.array_equal(one.sizes, whole[name].sizes)
    assert found["-a"].sizes.tolist() == [100, 50]
    assert found["-a"].diameters.tolist() == pytest.approx([11.28, 8])
    assert found["-a"].um_per_px == pytest.approx(0.5)
    assert found["b"].um_per_px is None
    assert len(found["empty"].sizes) == 0
    with pytest.raises(UserError, match="stitch"):
        count_objects(tmp_path / "none.csv", [], "instances")


def test_classes_and_their_shares(tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    head = HEAD.replace("area_px", "volume_px")
    path.write_text(f"{head}v,0,sky,30,1,\nv,1,cell,10,1,\nv,2,edge,0,,\n", encoding="utf-8")
    found = count_objects(path, ["v"], "semantic")["v"]
    assert found.shares == {"sky": 0.75, "cell": 0.25, "edge": 0}


def test_specks_relative_to_training_objects_or_in_pixels() -> None:
    factors = {"a": 1.0, "b": 4.0}
    assert speck_limits(factors, (50, 100, 200), 2) == {"a": 10, "b": 40}
    # Where small objects are usual, only smaller ones are specks.
    assert speck_limits(factors, (3, 100, 200), 2) == {"a": 3, "b": 12}
    assert speck_limits(factors, None, 2) == {"a": 40, "b": 40}
    assert speck_limits(factors, None, 3) == {"a": 160, "b": 160}


def test_odd_images_and_their_warnings() -> None:
    counted = {
        "specks": sizes(5, 6, 200),
        "fine": sizes(5, 200, 300),
        "whole": sizes(990),
        "none": sizes(),
    }
    pixels, limits = dict.fromkeys(counted, 1000), dict.fromkeys(counted, 10.0)
    odd = odd_images(counted, pixels, limits, "instances")
    assert odd == {
        "specks": "2 of 3 objects are specks of less than 10 pixels",
        "whole": "one object covers nearly all of it (99 %)",
    }
    lines = object_warnings(counted, odd, "instances")
    assert len(lines) == 2
    assert lines[0].startswith("specks: 2 of 3 objects")
    assert "--min-size" in lines[0]
    assert lines[1].startswith("whole: one object")
    assert "--threshold" in lines[1]
    assert (
        "1 of 1 object is a speck"
        in odd_images({"one": sizes(5)}, {"one": 1000}, {"one": 10}, "instances")["one"]
    )


# Percentiles 5, 50 and 95 of objects of several sizes, and of objects of about one size.
MANY_SIZES, ONE_SIZE = (22.0, 140.0, 430.0), (110.0, 140.0, 170.0)


def test_objects_far_smaller_or_larger_than_in_training() -> None:
    counted = {
        "confetti": sizes(*[17.5] * 30, *[140] * 10),
        "small but usual": sizes(*[25] * 40),
        "usual": sizes(*[4] * 19, *[140] * 21),
        "joined": sizes(*[450] * 40),
        "finer pixels": sizes(*[560] * 40),
    }
    factors = {**dict.fromkeys(counted, 1.0), "finer pixels": 4.0}
    found = unusual_sizes(counted, factors, MANY_SIZES)
    assert found == {
        "confetti": "its objects are far smaller than those of the training "
        "(median 18 pixels, in training 140)",
        "joined": "its objects are far larger than those of the training "
        "(median 450 pixels, in training 140)",
    }
    smaller, larger = object_warnings(counted, found, "instances")
    assert smaller.startswith("confetti: its objects are far smaller")
    assert "counts are too high; try --min-size" in smaller
    assert larger.startswith("joined: its objects are far larger")
    assert "counts are too low; try a higher --threshold" in larger
    # Below percentile 5, and above 95, but still like the training objects.
    near = {"a": sizes(*[60] * 40), "b": sizes(*[300] * 40)}
    assert unusual_sizes(near, dict.fromkeys(near, 1.0), ONE_SIZE) == {}
    # In pixels of the image, both sizes.
    (text,) = unusual_sizes({"a": sizes(*[36] * 10)}, {"a": 4.0}, ONE_SIZE).values()
    assert text.endswith("(median 36 pixels, in training 560)")
    assert unusual_sizes(counted, factors, None) == {}


def test_few_objects_are_judged_together() -> None:
    few = {f"i{k}": sizes(20, 20, 20) for k in range(3)}
    one = dict.fromkeys([*few, "usual", "none"], 1.0)
    assert unusual_sizes(few, one, ONE_SIZE) == {}  # 9 objects
    more = {**few, "usual": sizes(150), "none": sizes()}
    assert list(unusual_sizes(more, one, ONE_SIZE)) == ["i0", "i1", "i2"]
    # Together they are usual, so that three objects of one image say nothing.
    usual = {**few, "usual": sizes(*[150] * 9), "none": sizes()}
    usual |= {f"u{k}": sizes(150, 150) for k in range(5)}
    assert unusual_sizes(usual, dict.fromkeys(usual, 1.0), ONE_SIZE) == {}


def test_no_object_in_most_images() -> None:
    counted = {"a": sizes(), "b": sizes(), "c": sizes(300)}
    (line,) = object_warnings(counted, {}, "instances")
    assert line.startswith("no object in 2 of 3 images; ")
    assert "a lower --threshold" in line
    assert object_warnings({"a": sizes(), "c": sizes(300)}, {}, "instances") == []
    (line,) = object_warnings({"a": sizes()}, {}, "instances")
    assert line.startswith("no object in 1 of 1 image; ")


def test_classes_that_cover_nearly_all() -> None:
    full = Counted(classes={"sky": 10, "cell": 990})
    empty = Counted(classes={"sky": 1000, "cell": 0})
    odd = odd_images({"full": full, "empty": empty}, {}, {}, "semantic")
    assert odd == {"full": "class cell covers nearly all of it (99 %)"}
    lines = object_warnings({"full": full, "a": empty, "b": empty}, odd, "semantic")
    assert lines[0].startswith("full: class cell covers")
    assert lines[1].startswith("only the first class in 2 of 3 images")
