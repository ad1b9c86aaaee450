"""The benchmarks' own arithmetic: budgets, conversions, splits, rates. Nothing is measured here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import coverage
from benchmarks.machine import machine, usable_cores, versions
from benchmarks.peers import environment, scoring, summary
from benchmarks.peers.budget import Budget, poly_rate, seen
from benchmarks.peers.nnunet import (
    arguments,
    budget_of,
    folders,
    keep,
    predictions,
    table,
    worker_environment,
)
from benchmarks.peers.nnunet_raw import (
    dataset_json,
    dataset_name,
    raw_channels,
    raw_labels,
    split_file,
)
from benchmarks.peers.timing import Round, best, data_share, ratios, share_of_matmul, typical_rate
from unet.config.load import load
from unet.data.store import Prepared, add_image, add_labels, layout_of, new_image
from unet.errors import UserError
from unet.evaluation.metrics.rows import MetricRow
from unet.paths import Paths
from unet.prediction.tiles.tile_store import Tiles
from unet.report.paired import Statistics

ROOT = Path(__file__).resolve().parents[2]


# Budgets -----------------------------------------------------------------------------------------


def test_a_budget_of_minutes_depends_only_on_time() -> None:
    budget = Budget("minutes", 2)
    assert budget.share(0, 1e12) == 0
    assert budget.share(30, 0) == 0.25
    assert budget.share(500, 0) == 1


def test_a_budget_of_megapixels_depends_only_on_pixels() -> None:
    budget = Budget("megapixels", 4)
    assert budget.share(1e9, 1e6) == 0.25
    assert budget.share(0, 4e6) == 1


@pytest.mark.parametrize("amount", [0, -1, float("nan")])
def test_a_budget_must_be_positive(amount: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Budget("minutes", amount)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_learning_rate_falls_over_the_budget(a: float, b: float) -> None:
    early, late = sorted((a, b))
    assert poly_rate(0.01, 0) == 0.01
    assert poly_rate(0.01, 1) == 0
    assert poly_rate(0.01, early) >= poly_rate(0.01, late)


def test_the_learning_rate_is_nnunets() -> None:
    # PolyLRScheduler: initial * (1 - step / steps) ** 0.9
    assert poly_rate(0.01, 250 / 1000) == pytest.approx(0.01 * 0.75**0.9)


def test_what_our_training_saw() -> None:
    rows = [{"step": "100", "seconds": "30"}, {"step": "200", "seconds": "90"}]
    found = seen(rows, batch=4, patch=256)
    assert (found.minutes, found.steps) == (1.5, 200)
    assert found.megapixels == pytest.approx(200 * 4 * 65536 / 1e6)
    assert found.budget("minutes") == Budget("minutes", 1.5)
    assert found.budget("megapixels").amount == found.megapixels
    assert seen(rows, 4, (128, 512)) == found
    with pytest.raises(ValueError, match="no row"):
        seen([], 4, 256)


# nnU-Net's raw format ----------------------------------------------------------------------------


def test_the_split_has_our_parts_and_no_test_image() -> None:
    parts = {"d": "train", "a": "train", "b": "val", "c": "test"}
    assert split_file(parts) == [{"train": ["a", "d"], "val": ["b"]}]


def test_dataset_json_of_classes() -> None:
    found = dataset_json(1, ("membrane", "cell"), ignore=False, training=20)
    assert found["labels"] == {"background": 0, "cell": 1}
    assert found["channel_names"] == {"0": "channel-0"}
    assert found["numTraining"] == 20


def test_dataset_json_of_odd_names_and_ignored_pixels() -> None:
    found = dataset_json(3, ("cell", "background", "ignore"), ignore=True, training=1)
    assert found["labels"] == {"background": 0, "class-1": 1, "class-2": 2, "ignore": 3}
    assert list(found["channel_names"]) == ["0", "1", "2"]
    # Its default normalisation, which another name of a channel would change.
    assert not {n.lower() for n in found["channel_names"].values()} & {"ct", "nonorm", "zscore"}


def test_labels_of_classes_keep_their_index() -> None:
    classes = np.array([[0, 1, 255]], np.uint8)
    assert raw_labels(classes, None, 2, 2).tolist() == [[0, 1, 2]]


def test_touching_instances_are_parted_by_a_border() -> None:
    ids = np.array([[0, 1, 1, 1, 2, 2, 2, 2]])
    classes = (ids > 0).astype(np.uint8)
    classes[0, 7] = 255
    found = raw_labels(classes, ids, 3, border_width=1)
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 2, 1, 2, 2, 1, 1, 3]]


def test_each_channel_is_a_file() -> None:
    rgb = np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    files = raw_channels(rgb)
    assert [f.shape for f in files] == [(2, 2)] * 3
    assert files[2].dtype == np.uint16
    assert np.array_equal(files[2], rgb[2])


def test_channels_of_odd_types() -> None:
    (file,) = raw_channels(np.array([[[np.nan, np.inf, 0.5]]]))
    assert file.dtype == np.float32
    assert file.tolist() == [[0.0, 0.0, 0.5]]
    assert raw_channels(np.ones((1, 2, 2), bool))[0].dtype == np.uint8
    with pytest.raises(ValueError, match=r"C, Y, X"):
        raw_channels(np.zeros((2, 2)))


def test_only_held_out_images_are_predicted(tmp_path: Path) -> None:
    where = folders(tmp_path, "cells")
    assert where["raw"] == tmp_path / "nnUNet_raw" / "Dataset001_cells"
    jobs = predictions(where, {"t": "test", "a": "train", "v": "val"}, channels=2)
    assert [Path(target).name for _, target in jobs] == ["t", "v"]
    first, second = (files for files, _ in jobs)
    assert [Path(f).name for f in first] == ["t_0000.tif", "t_0001.tif"]
    assert Path(first[0]).parent.name == "imagesTs"
    assert Path(second[0]).parent.name == "imagesTr"
    assert dataset_name("cells", 7) == "Dataset007_cells"


def test_the_peer_gets_our_cores(tmp_path: Path) -> None:
    env = worker_environment(folders(tmp_path, "cells"), threads=2, workers=1)
    assert env["OMP_NUM_THREADS"] == env["nnUNet_def_n_proc"] == "2"
    assert env["nnUNet_n_proc_DA"] == "1"
    assert env["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")


# Budgets from the command line -------------------------------------------------------------------

CONFIG = {
    "datasets": {"cells": {"synthetic": {"kind": "nuclei", "images": 6}, "task": "instances"}},
    "models": {"m": {"preset": "unet-bn", "head": "border", "border_width": 3}},
    "train": {"batch": 2, "accumulate": 3, "patch": 128},
    "stitch": {"grow_px": 7},
}


def test_the_same_budget_as_ours(tmp_path: Path) -> None:
    config, paths = load(CONFIG), Paths(tmp_path)
    history = paths.history("cells", "m", 0)
    args = arguments(["x", "cells", "--megapixels", "same"])
    with pytest.raises(UserError, match="was not trained"):
        budget_of(args, config, paths, "m")
    history.parent.mkdir(parents=True)
    history.write_text("epoch,step,seconds\n1,50,60\n")
    found = budget_of(args, config, paths, "m")
    assert found == Budget("megapixels", 50 * 2 * 3 * 128 * 128 / 1e6)


@pytest.mark.parametrize("text", ["0", "-3", "soon"])
def test_an_invalid_budget(tmp_path: Path, text: str) -> None:
    args = arguments(["x", "cells", f"--minutes={text}"])
    with pytest.raises(UserError, match="above 0"):
        budget_of(args, load(CONFIG), Paths(tmp_path), "m")


# Scoring -----------------------------------------------------------------------------------------


def test_the_peers_objects_grow_as_ours() -> None:
    found = scoring.stitch_settings(load(CONFIG), "cells", "m", ("background", "inside", "border"))
    assert found.stitch.method == "grow"
    assert found.stitch.grow_px == 7
    assert found.head == ("background", "inside", "border")


def test_probabilities_become_tiles(tmp_path: Path) -> None:
    shape = (9, 7)
    rng = np.random.default_rng(0)
    p = rng.random((2, 1, *shape), dtype=np.float32)
    np.savez(tmp_path / "a.npz", probabilities=p)
    layout = layout_of(shape, 32, 1)
    with new_image(tmp_path / "prepared", "a") as group:
        add_image(group, 1, shape, layout)[...] = 0
        add_labels(group, "classes", "uint8", shape, layout)[...] = 0
        group.attrs.put({"axes": "CYX", "pixel_size_um": None})
    store = tmp_path / "prepared"
    (store / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    scoring.write_tiles(
        tmp_path / "tiles.zarr",
        {"a": tmp_path / "a.npz"},
        {"a": "test"},
        Prepared(store),
        ("background", "cell"),
        "float32",
    )
    tiles = Tiles(tmp_path / "tiles.zarr")
    assert tiles.ids() == ["a"]
    assert tiles.attrs("a")["part"] == "test"
    region = (slice(2, 9), slice(0, 7))
    assert np.array_equal(tiles.read("a", region), p[(slice(None), 0, *region)])
    with pytest.raises(ValueError, match=r"expected \(3, 1, Y, X\)"):
        scoring.read_probabilities(tmp_path / "a.npz", 3)


def _rows(model: str, values: list[float]) -> list[MetricRow]:
    return [
        MetricRow("d", model, 0, f"i{k}", "", "instances", "pq", v) for k, v in enumerate(values)
    ]


def test_differences_are_taken_image_by_image() -> None:
    ours, theirs = _rows("m", [0.5, 0.7, float("nan"), 0.9]), _rows("nnunet", [0.4, 0.5, 0.1, 0.6])
    sums = [scoring.summary(rows, "instances", Statistics()) for rows in (ours, theirs)]
    found = scoring.differences(*sums, confidence=0.95)["PQ"]
    assert found["mean"] == pytest.approx(0.2)
    # Differences 0.1, 0.2, 0.3: t of 2 degrees of freedom is 4.303, between -1 and 1.
    assert found["low"] == pytest.approx(math.tanh(math.atanh(0.2) - 0.2484 / 0.96), abs=1e-3)
    assert found["n"] == 3


def test_a_summary_is_json() -> None:
    found = scoring.summary(_rows("nnunet", [0.4, float("nan")]), "instances", Statistics())
    assert found["PQ"]["mean"] == 0.4
    assert found["PQ"]["n"] == 1
    assert found["PQ"]["images"] == {"i0": 0.4, "i1": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_both_budgets_stay_in_the_result_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "peer.json"
    keep(path, "d", "minutes", {"scores": 1}, {})
    keep(path, "d", "megapixels", {"scores": 2}, {})
    keep(path, "d", "minutes", {"scores": 3}, {})
    found = json.loads(path.read_text())
    assert found["runs"] == {"minutes": {"scores": 3}, "megapixels": {"scores": 2}}


def test_the_table_shows_what_there_is() -> None:
    theirs = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 4}
    lines = table({"scores": {"PQ": theirs}}).splitlines()
    assert lines[-1] == "| PQ | 0.500 [0.400, 0.600] |  |  |"
    ours = {"scores": {"PQ": {**theirs, "low": None, "high": None}}, "ours minus theirs": {}}
    assert table({"scores": {"PQ": theirs}, "ours": ours}).splitlines()[-1] == (
        "| PQ | 0.500 [0.400, 0.600] | 0.500 |  |"
    )


# Rates -------------------------------------------------------------------------------------------


def test_rates_of_rounds() -> None:
    rounds = [Round(8, 2.0, 0.5), Round(8, 4.0, 0.0), Round(8, 80.0, 0.0)]
    assert [r.rate for r in rounds] == [4.0, 2.0, 0.1]
    assert typical_rate(rounds) == 2.0
    assert data_share(rounds) == pytest.approx(0.5 / 86)
    assert share_of_matmul(10.0, 2e9, 1e11) == pytest.approx(0.2)


def test_ratios_of_defaults_and_of_best_settings() -> None:
    rates = {"ours, default": 6.0, "ours, plain": 8.0, "a, default": 2.0, "a, bf16": 4.0}
    assert best(rates, "a") == 4.0
    assert best(rates, "a", "default") == 2.0
    assert best(rates, "b") is None
    assert ratios(rates, "ours", ("a", "b")) == {
        "ours over a, each at its default": 3.0,
        "ours over a, each at its best": 2.0,
        "ours over a, default over best": 1.5,
    }


def test_libraries_with_similar_names_are_kept_apart() -> None:
    assert best({"nnunet, x": 1.0, "nnunet2, x": 9.0}, "nnunet") == 1.0


# Machine and environment -------------------------------------------------------------------------


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["processor"]
    assert 1 <= usable_cores() <= found["cores"]
    assert versions("numpy", "no-such-package-at-all") == {
        "numpy": np.__version__,
        "no-such-package-at-all": None,
    }


def test_the_peers_have_our_torch_and_numpy() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    wanted = environment.REQUIREMENTS.read_text()
    pinned = [line for line in wanted.splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in pinned)
    for name in ("torch", "numpy", "scipy", "zarr"):
        # One of ours, where they differ between versions of Python.
        assert {line.split(";")[0] for line in lock if line.startswith(f"{name}==")} & {*pinned}
    assert environment.torch_line(wanted) in lock
    with pytest.raises(ValueError, match="no torch"):
        environment.torch_line("numpy==2\n")


def test_an_existing_environment_is_not_changed(tmp_path: Path) -> None:
    python = environment.python_of(tmp_path)
    python.parent.mkdir()
    python.touch()
    (tmp_path / ".requirements").write_text(environment.REQUIREMENTS.read_text())
    assert environment.ensure(tmp_path) == python


def test_a_case_of_prediction_includes_its_references() -> None:
    from benchmarks.predict import selected_cases
    from benchmarks.predict_cases import CASES

    assert selected_cases(None) == list(CASES)
    assert selected_cases(["ours, bfloat16"]) == [
        "limit, float32",
        "limit, bfloat16",
        "ours, bfloat16",
    ]
    assert selected_cases(["nnU-Net, mirroring, b"]) == [
        "limit, float32", "limit, bfloat16", "nnU-Net, mirroring, bfloat16",
        "nnU-Net, mirroring, bfloat16, our allocator",
    ]  # fmt: skip


# Coverage ----------------------------------------------------------------------------------------


def test_the_coverage_that_is_stored_is_what_the_docs_promise() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "coverage.json").read_text())
    assert set(found["parts"]) == {*coverage.KINDS, coverage.BOOTSTRAP}
    assert all(part["repetitions"] >= 2000 for part in found["parts"].values())
    assert all(part["machine"]["processor"] for part in found["parts"].values())
    assert set(found["coverage"]) == {*coverage.KINDS, "bootstrap, normal"}
    for kind, by_size in found["coverage"].items():
        if kind not in ("10 % failed", "bootstrap, normal"):
            assert all(shares["mean"] >= 0.93 for shares in by_size.values()), kind
    noise = 3 * (0.05 * 0.95 / 2000) ** 0.5
    for kind, by_models in found["false clear"].items():
        for by_size in by_models.values():
            assert all(share <= 0.05 + noise for share in by_size.values()), kind
    # The docs give the measured values for the bootstrap.
    said = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    of = [found["coverage"]["bootstrap, normal"][str(n)]["mean"] for n in coverage.SIZES]
    assert " | ".join(["| normal, percentile bootstrap", *(f"{x:.2f}" for x in of)]) in said
    assert f"with 4 images {of[1]:.0%} instead of 95 %".replace("%", " %", 1) in said


def test_one_part_of_the_coverage_is_measured_alone(tmp_path: Path) -> None:
    out = tmp_path / "coverage.json"
    few = ["--repetitions", "20", "--out", str(out)]
    assert coverage.main(["--only", "normal", *few]) == 0
    first = json.loads(out.read_text())
    assert coverage.main(["--only", "bootstrap", *few]) == 0
    found = json.loads(out.read_text())
    assert list(found["coverage"]) == ["normal", "bootstrap, normal"]
    assert found["coverage"]["normal"] == first["coverage"]["normal"]
    assert found["parts"]["bootstrap"]["repetitions"] == 20


def test_uneven_groups_are_uneven() -> None:
    assert coverage.groups_of(5, coverage.UNEVEN) == [0, 1, 1, *[2] * 4, *[3] * 9, 4]


def test_a_summary_is_printed_and_written_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {"a": 0.5, "b": 0.7, "c": 0.9}
    score = {"metric": "iou", "images": images, "mean": 0.0, "low": None, "high": None}
    cost = {"minutes": 1.0, "megapixels": 2.0}
    ours = {"training": cost, "scores": {"IoU": score}}
    run = {"training": cost, "scores": {"IoU": score}, "ours": ours}
    path = tmp_path / "peer_nnunet_x.json"
    path.write_text(json.dumps({"dataset": "x", "runs": {"minutes": run}}))
    before = path.read_text()
    assert summary.main([], tmp_path) == 0
    assert "| IoU | 0.700 [" in capsys.readouterr().out
    assert path.read_text() == before
    assert summary.main(["--write"], tmp_path) == 0
    assert json.loads(path.read_text())["runs"]["minutes"]["scores"]["IoU"]["mean"] == 0.7


@pytest.mark.parametrize(
    "kind", ["normal", "beta(12, 2)", "10 % failed", "normal, groups", "normal, uneven groups"]
)
def test_simulated_scores_have_the_mean_that_is_taken_for_true(kind: str) -> None:
    scores_of, mean, grouped = coverage.KINDS[kind]
    rng = np.random.default_rng(0)
    scores = scores_of(coverage.latent(rng, 5000, grouped, 2), rng)
    assert scores.mean() == pytest.approx(mean, abs=0.01)
    assert len(scores) == len(coverage.groups_of(5000, grouped))
    assert 0 <= coverage.coverage(kind, 4, 5, rng)["mean"] <= 1
    assert coverage.false_clear(kind, 4, 3, 3, rng) == 0
