"""Splits: disjoint, complete, by group, balanced, the same for the same seed, and kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.config.data_settings import SplitsSettings
from unet.config.sections import SplitSection
from unet.data.kept_splits import KeptParts, read_kept, splits_stage, write_kept
from unet.data.records import ImageRecord, SplitRecord, ids_of, read_splits
from unet.data.splits import make_splits
from unet.errors import UserError
from unet.files import digest, read_json


def record(name: str, group: str = "", **values: str) -> ImageRecord:
    return ImageRecord(id=name, image=f"{name}.tif", group=group, **values)  # type: ignore[arg-type]


def images(count: int, start: int = 0) -> list[ImageRecord]:
    return [record(f"im{i:03d}") for i in range(start, start + count)]


def parts(rows: list[SplitRecord]) -> dict[tuple[str, int], str]:
    return {(row.image, row.fold): row.part for row in rows}


def check(rows: list[SplitRecord], records: list[ImageRecord], split: SplitSection) -> None:
    """What must hold for any split."""
    folds = split.number
    group = {r.id: r.group or f"alone {r.id}" for r in records}
    for fold in range(folds):
        of_fold = [r for r in rows if r.fold == fold]
        assert sorted(r.image for r in of_fold) == sorted(group)  # covered once
        assert {r.part for r in of_fold} == {"train", "val", "test"}
        where = {(group[r.image], r.part) for r in of_fold}
        assert len(where) == len({g for g, _ in where})  # no group in two parts
    tested = Counter(r.image for r in rows if r.part == "test")
    if split.ensemble:
        assert set(tested.values()) == {folds}  # the same in all folds
        validated = Counter(r.image for r in rows if r.part == "val")
        assert validated == Counter(set(group) - set(tested))  # each other image once
    elif folds > 1:
        assert tested == Counter(list(group))  # each image once


# Group sizes; K folds of any data that suffice for them.
SIZES = st.lists(st.integers(1, 6), min_size=6, max_size=25)
SPLITS = st.one_of(
    st.builds(lambda k, v: SplitSection(folds=k, val=v), st.integers(2, 4), st.floats(0.05, 0.6)),
    st.builds(lambda t, v: SplitSection(test=t, val=v), st.floats(0.05, 0.8), st.floats(0.05, 0.6)),
    st.builds(lambda t, k: SplitSection(test=t, folds=k), st.floats(0.05, 0.8), st.integers(2, 4)),
)


def grouped(sizes: list[int], tag: str = "") -> list[ImageRecord]:
    return [record(f"{tag}g{g}-{i}", f"{tag}g{g}") for g, n in enumerate(sizes) for i in range(n)]


@settings(max_examples=60, deadline=None)
@given(SIZES, SPLITS, st.integers(0, 5))
def test_disjoint_complete_and_deterministic(
    sizes: list[int], split: SplitSection, seed: int
) -> None:
    records = grouped(sizes)
    rows = make_splits(records, split, seed, [])
    check(rows, records, split)
    assert make_splits(records[::-1], split, seed, []) == rows


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.integers(1, 6), max_size=8), SPLITS)
def test_parts_are_kept_when_images_are_added(
    sizes: list[int], more: list[int], split: SplitSection
) -> None:
    old = grouped(sizes)
    # New groups, and another image of a group that is there.
    records = [*old, *grouped(more, "new"), record("g0-late", "g0")]
    first = make_splits(old, split, 0, [])
    second = make_splits(records, split, 0, first)
    check(second, records, split)
    now = parts(second)
    assert {key: now[key] for key in parts(first)} == parts(first)
    assert all(now["g0-late", k] == now["g0-0", k] for k in range(split.number))
    assert make_splits(records, split, 0, second) == second


@pytest.mark.parametrize("count", [10, 11, 57])
def test_folds_are_balanced(count: int) -> None:
    rows = make_splits(images(count), SplitSection(folds=5, val=0.25), 0, [])
    sizes = [len(ids_of(rows, k, "test")) for k in range(5)]
    assert max(sizes) - min(sizes) <= 1
    for k in range(5):
        rest = count - sizes[k]
        assert abs(len(ids_of(rows, k, "val")) - 0.25 * rest) <= 1


def test_shares() -> None:
    rows = make_splits(images(100), SplitSection(test=0.3, val=0.2), 0, [])
    assert Counter(r.part for r in rows) == {"test": 30, "val": 14, "train": 56}


def test_an_ensemble_tests_what_one_held_out_set_would() -> None:
    rows = make_splits(images(50), SplitSection(test=0.2, folds=4), 0, [])
    alone = make_splits(images(50), SplitSection(test=0.2), 0, [])
    for fold in range(4):
        assert ids_of(rows, fold, "test") == ids_of(alone, 0, "test")
        assert len(ids_of(rows, fold, "val")) == 10
    # val has no effect, and neither has the choice of folds to run.
    for other in (
        SplitSection(test=0.2, folds=4, val=0.6),
        SplitSection(test=0.2, folds=4, run=(1,)),
    ):
        assert make_splits(images(50), other, 0, []) == rows


def test_folds_of_an_ensemble_that_lost_their_images_are_drawn_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    split = SplitSection(test=0.25, folds=3)
    first = make_splits(images(12), split, 0, [])
    lost = ids_of(first, 1, "val")
    left = [r for r in images(12) if r.id not in lost]
    check(make_splits(left, split, 0, first), left, split)
    assert "drawn again" in caplog.text
    # With new images in their place all others keep their parts.
    caplog.clear()
    records = [*left, *images(3, 100)]
    now = parts(make_splits(records, split, 0, first))
    assert not caplog.text
    assert all(now[key] == part for key, part in parts(first).items() if key[0] not in lost)


def test_new_images_go_where_they_are_missing() -> None:
    split = SplitSection(test=0.5, val=0.5)
    first = make_splits(images(8), split, 0, [])
    gone = [r for r in images(8) if r.id not in ids_of(first, 0, "test")[1:]]
    second = make_splits([*gone, *images(3, 100)], split, 0, first)
    # 8 images should have 4 tested; one of the old ones is left.
    assert len(ids_of(second, 0, "test")) == 4


def test_seeds_differ() -> None:
    split = SplitSection(folds=5)
    drawn = {tuple(r.part for r in make_splits(images(20), split, seed, [])) for seed in range(5)}
    assert len(drawn) == 5


def test_another_number_of_folds_keeps_nothing() -> None:
    first = make_splits(images(10), SplitSection(folds=2), 0, [])
    rows = make_splits(images(10), SplitSection(folds=5), 0, first)
    assert rows == make_splits(images(10), SplitSection(folds=5), 0, [])


def test_when_all_tested_images_are_gone_parts_are_drawn_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    split = SplitSection(test=0.2)
    first = make_splits(images(10), split, 0, [])
    left = [r for r in images(10) if r.id not in ids_of(first, 0, "test")]
    check(make_splits(left, split, 0, first), left, split)
    assert "drawn again" in caplog.text


def test_bad_images_are_in_no_part() -> None:
    records = [*images(5), replace(record("bad"), status="quarantined")]
    rows = make_splits(records, SplitSection(test=0.25), 0, [])
    assert "bad" not in {row.image for row in rows}


@pytest.mark.parametrize(
    ("split", "count", "need"),
    [
        (SplitSection(folds=5), 4, 5),
        (SplitSection(folds=2), 3, 4),
        (SplitSection(test=0.2), 2, 3),
        (SplitSection(), 0, 3),
        (SplitSection(test=0.2, folds=5), 5, 6),
        (SplitSection(test=0.5, folds=2), 2, 3),
    ],
)
def test_too_few(split: SplitSection, count: int, need: int) -> None:
    with pytest.raises(UserError, match=rf"split\..*only {count} usable images?; at least {need}"):
        make_splits(images(count), split, 0, [])
    check(make_splits(images(need), split, 0, []), images(need), split)


def test_too_few_groups() -> None:
    with pytest.raises(UserError, match="only 3 usable groups; at least 5"):
        make_splits(grouped([9, 9, 9]), SplitSection(folds=5), 0, [])


# Parts from the sheet


def test_column() -> None:
    told = ["train", "val", "test", "train"]
    records = [record(f"a{i}", part=part) for i, part in enumerate(told)]
    rows = make_splits(records, SplitSection(column="part"), 0, [])
    assert [row.part for row in rows] == told


def test_column_without_val_draws_it_from_train() -> None:
    records = [record(f"a{i}", part="test" if i < 3 else "train") for i in range(13)]
    rows = make_splits(records, SplitSection(column="part", val=0.2), 0, [])
    assert ids_of(rows, 0, "test") == ["a0", "a1", "a2"]
    assert len(ids_of(rows, 0, "val")) == 2
    more = [*records, record("b", part="train")]
    now = parts(make_splits(more, SplitSection(column="part", val=0.2), 0, rows))
    assert {key: now[key] for key in parts(rows)} == parts(rows)


@pytest.mark.parametrize(
    ("told", "groups", "message"),
    [
        (["train", "", "test"], "   ", "1 images, such as a1, have no part in the sheet"),
        (["train", "train", "val"], "   ", "no image has part test"),
        (["val", "test", "test"], "   ", "no image has part train"),
        (["train", "val", "test"], "gg ", "group g is in train and val"),
        (["train", "test", "test"], "   ", "only one group to train on"),
    ],
)
def test_bad_columns(told: list[str], groups: str, message: str) -> None:
    records = [
        record(f"a{i}", group.strip(), part=part)
        for i, (part, group) in enumerate(zip(told, groups, strict=True))
    ]
    with pytest.raises(UserError, match=rf"split\.column: sheet.*{message}"):
        make_splits(records, SplitSection(column="sheet"), 0, [])


# Copies


def test_copies_in_different_parts() -> None:
    records = [record(f"a{i}", part=p) for i, p in enumerate(["train", "val", "test"])]
    same = [replace(r, sha256="f" * 64) if r.id in ("a0", "a2") else r for r in records]
    with pytest.raises(UserError, match=r"a0\.tif and a2\.tif are the same file.*train.*test"):
        make_splits(same, SplitSection(column="part"), 0, [])
    pages = [replace(r, sha256="f" * 64, page=i) for i, r in enumerate(records)]
    assert len(make_splits(pages, SplitSection(column="part"), 0, [])) == 3
    together = [replace(r, group="g") if r.sha256 else r for r in same]
    rows = make_splits([*together, record("b"), record("c")], SplitSection(test=0.3), 0, [])
    assert len({parts(rows)[name, 0] for name in ("a0", "a2")}) == 1


# What is kept between runs


def stage(
    records: list[ImageRecord],
    folder: Path,
    seed: int = 0,
    now: str | None = None,
    **split: object,
) -> list[SplitRecord]:
    settings = SplitsSettings(version=1, split=SplitSection(**split), seed=seed)
    files = (folder / name for name in ("splits.csv", ".kept.csv", "warnings.splits.json"))
    splits_stage(records, settings, *files, now=now)
    return read_splits(folder / "splits.csv")


def kept_under(split: SplitSection, seed: int, version: int) -> str:
    """The key of the parts that are kept."""
    return digest(SplitsSettings(version=version, split=split, seed=seed).to_json())


def test_stage_keeps_parts(tmp_path: Path) -> None:
    first = parts(stage(images(9), tmp_path, folds=3))
    (tmp_path / "splits.csv").unlink()  # as the workflow does before it makes it again
    second = parts(stage(images(14), tmp_path, folds=3))
    assert {key: second[key] for key in first} == first
    stage(images(9, start=5), tmp_path, folds=3)
    # Images that were away have their old parts when they come back.
    back = parts(stage(images(14), tmp_path, folds=3))
    assert {key: back[key] for key in first} == first


def test_other_settings_start_anew(tmp_path: Path) -> None:
    stage(images(9), tmp_path, folds=3)
    fresh = tmp_path / "fresh"
    assert stage(images(14), tmp_path, 1, folds=3) == stage(images(14), fresh, 1, folds=3)


def noted(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "warnings.splits.json"))


def test_what_is_remembered_is_told(tmp_path: Path) -> None:
    stage(images(9), tmp_path, now="2026-01-31 10:00:00", folds=3)
    assert "remembered" not in noted(tmp_path)
    stage(images(9), tmp_path, now="2026-02-01 10:00:00", folds=3)
    assert noted(tmp_path)["remembered"].startswith("remembered since 2026-01-31; 0 images added")
    stage(images(14, start=2), tmp_path, now="2026-02-02 10:00:00", folds=3)
    told = noted(tmp_path)["remembered"]
    assert told.startswith("remembered since 2026-01-31; 7 images added and 2 removed since")
    assert "split.redraw" in told


def test_images_that_change_their_part_are_a_warning(tmp_path: Path) -> None:
    first = stage(images(9), tmp_path, now="2026-01-31 10:00:00", test=0.3)
    tested = ids_of(first, 0, "test")
    rest = [r for r in images(9) if r.id not in tested]
    stage(rest, tmp_path, now="2026-02-01 10:00:00", test=0.3)
    (line,) = noted(tmp_path)["warnings"]
    assert "are in another part than in earlier runs" in line
    stage(rest, tmp_path, now="2026-02-01 10:00:00", test=0.3)
    assert noted(tmp_path)["warnings"] == []


def test_redraw_forgets_what_was_remembered(tmp_path: Path) -> None:
    stage(images(9), tmp_path, folds=3)
    grown = stage(images(14), tmp_path, folds=3)
    again = stage(images(14), tmp_path, folds=3, redraw=1)
    assert "remembered" not in noted(tmp_path)
    assert again == stage(images(14), tmp_path / "fresh", folds=3)
    assert again != grown


def test_parts_of_an_older_version_stay(tmp_path: Path) -> None:
    """Its file has no dates, and its key knows of no redraw."""
    how = {"folds": 3, "test": None, "column": None, "group": None, "val": 0.2}
    key = digest({"split": how, "seed": 0, "version": 1})
    assert kept_under(SplitSection(folds=3), 0, 1) == key
    rows = make_splits(images(9), SplitSection(folds=3), 0)
    lines = [f"{r.image},{r.fold},{r.part}" for r in rows]
    (tmp_path / ".kept.csv").write_text("\n".join([f"# {key}", "image,fold,part", *lines, ""]))
    later = parts(stage(images(14), tmp_path, folds=3))
    assert {k: later[k] for k in parts(rows)} == parts(rows)
    assert noted(tmp_path)["remembered"].startswith(
        "remembered from runs of an older version; 5 images added"
    )


# What is wrong with a split that is complete


def shared(records: list[ImageRecord], **shares: float) -> list[ImageRecord]:
    return [replace(r, class_shares=shares) for r in records]


def test_nothing_to_learn_is_an_error_before_training(tmp_path: Path) -> None:
    empty = shared(images(6), background=1.0, foreground=0.0)
    with pytest.raises(UserError, match=r"fold 0: no object in any of its \d training images"):
        stage(empty, tmp_path, test=0.3)
    assert not (tmp_path / "splits.csv").exists()
    alone = shared(images(6), ground=1.0, cell=0.0)
    with pytest.raises(UserError, match=r"all labels of its \d training images are ground"):
        stage(alone, tmp_path, test=0.3)
    lacking = shared(images(6), ground=0.5, cell=0.5, nucleus=0.0)
    with pytest.raises(UserError, match="no training image has class nucleus"):
        stage(lacking, tmp_path, folds=3)
    # Tables of older versions do not say what is in the labels; objects may fill their images.
    stage([*images(5), *shared([record("z")], ground=1.0, cell=0.0)], tmp_path, test=0.3)
    stage(shared(images(6), background=0.0, foreground=1.0), tmp_path, test=0.3)


def test_a_class_that_some_folds_do_not_train_on_is_a_warning(tmp_path: Path) -> None:
    common = shared(images(9), ground=0.5, cell=0.5, rare=0.0)
    common[4] = replace(common[4], class_shares={"ground": 0.4, "cell": 0.5, "rare": 0.1})
    rows = stage(common, tmp_path, folds=3)
    lacking = [k for k in range(3) if common[4].id not in ids_of(rows, k, "train")]
    assert lacking
    where = f"fold{'s' if len(lacking) > 1 else ''} {', '.join(map(str, lacking))}"
    assert noted(tmp_path)["warnings"] == [f"{where}: no training image has class rare"]


def test_lopsided_splits_give_warnings(tmp_path: Path) -> None:
    stage(grouped([200, 1, 1, 1]), tmp_path, folds=2)
    lines = noted(tmp_path)["warnings"]
    assert any(line.startswith("group g0 has 200 of 203 images (99%)") for line in lines), lines
    assert any(line.endswith("trains on only 1 image") for line in lines), lines
    assert any("50% were requested" in line for line in lines), lines
    for count, split in ((20, {"folds": 5}), (12, {"test": 0.25}), (30, {"test": 0.2, "folds": 3})):
        stage(images(count), tmp_path / str(count), **split)
        assert noted(tmp_path / str(count))["warnings"] == []


def test_all_copies_in_different_parts_are_named(tmp_path: Path) -> None:
    records = [record(f"a{i}", part=p) for i, p in enumerate(["train", "val"] + ["test"] * 13)]
    twins = [replace(r, id=f"b{i}", image=f"b{i}.tif", part="train") for i, r in enumerate(records)]
    both = [replace(r, sha256=f"{i}") for rows in (records, twins) for i, r in enumerate(rows)]
    with pytest.raises(UserError) as error:
        make_splits(both, SplitSection(column="part"), 0)
    text = str(error.value)
    assert "a1.tif and b1.tif are the same file, but one is in val and one in train" in text
    assert all(f"a{i}.tif and b{i}.tif" in text for i in range(2, 11)), text
    assert "and 4 more pairs" in text
    assert "\n" not in text


def test_which_folds_run_changes_nothing() -> None:
    one, two = SplitSection(folds=3), SplitSection(folds=3, run=(1,))
    assert kept_under(one, 0, 1) == kept_under(two, 0, 1)
    assert kept_under(one, 0, 1) != kept_under(one, 0, 2)
    assert kept_under(one, 0, 1) != kept_under(one, 1, 1)


@pytest.mark.parametrize("text", ["", "# other\nimage,fold,part\n", "# key\nimage,fold\na,1\n"])
def test_memory_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kept.csv"
    assert read_kept(path, "key") == KeptParts()
    path.write_text(text)
    assert read_kept(path, "key") == KeptParts()
    rows = [SplitRecord("a, b", 0, "train")]
    write_kept(path, "key", rows, KeptParts(), "2026-01-02 03:04:05")
    assert read_kept(path, "key") == KeptParts(rows, {"a, b": "2026-01-02 03:04:05"})


def test_damaged_part_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "k.csv").write_text("# key\nimage,fold,part\na,0,trian\n")
    assert read_kept(tmp_path / "k.csv", "key") == KeptParts()
    assert "damaged" in caplog.text
