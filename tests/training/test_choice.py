"""The choice of a sweep: by hand, ties, missing scores, and what is copied."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import choose
from unet.data.dataset_warnings import read_warnings, write_training_warnings
from unet.errors import UserError
from unet.paths import Paths
from unet.training.choice import (
    Candidate,
    as_json,
    best_score,
    chosen,
    copy_training,
    from_json,
    kept_start,
)

NAN = math.nan


def candidate(name: str, *scores: float) -> Candidate:
    return Candidate(name, {"width": 8}, dict(enumerate(scores)))


def test_the_best_mean_over_the_folds_wins() -> None:
    # Means 0.5, 0.55, 0.525: "c" has the best single fold.
    found = [candidate("a", 0.5, 0.5), candidate("b", 0.6, 0.5), candidate("c", 0.9, 0.15)]
    assert chosen(found).name == "b"
    assert chosen(found).mean == pytest.approx(0.55)


def test_the_first_of_equal_ones_wins() -> None:
    found = [candidate("a", 0.4, 0.4), candidate("b", 0.5, 0.7), candidate("c", 0.7, 0.5)]
    assert chosen(found).name == "b"
    assert chosen(found[::-1]).name == "c"


def test_without_a_score_in_each_fold_a_model_cannot_win() -> None:
    found = [candidate("a", 0.9, NAN), candidate("b", 0.1, 0.2), candidate("c", NAN, NAN)]
    assert chosen(found).name == "b"
    for none in ([found[0], found[2]], []):
        with pytest.raises(UserError, match=r"split\.val") as error:
            chosen(none)
        assert len(str(error.value).splitlines()) == 1


@given(st.lists(st.lists(st.one_of(st.floats(0, 1), st.just(NAN)), min_size=2, max_size=2)))
def test_nothing_scored_is_better(scores: list[list[float]]) -> None:
    found = [candidate(str(k), *both) for k, both in enumerate(scores)]
    means = [each.mean for each in found if not math.isnan(each.mean)]
    if means:
        best = chosen(found)
        assert best.mean == max(means)
        assert best is next(each for each in found if each.mean == best.mean)


def test_the_fold_without_a_score_is_named() -> None:
    alone = [Candidate(name, {}, {3: NAN}) for name in "ab"]
    with pytest.raises(UserError, match="no model has a validation score in fold 3, so"):
        chosen(alone)
    with pytest.raises(UserError, match="no model has a validation score in each fold, so"):
        chosen([candidate("a", NAN, NAN)])


def test_a_choice_by_all_folds_would_make_the_test_scores_too_good() -> None:
    """Ten equally good models and 40 images: what the choice of each fold alone is for."""
    rng, images, folds = np.random.default_rng(0), 40, 5
    tests = np.arange(images) % folds
    together, alone = [], []
    for _ in range(400):
        scores = rng.normal(0.5, 0.1, (10, images))
        known = []
        for fold in range(folds):
            rest = rng.permutation(np.flatnonzero(tests != fold))
            known.append(scores[:, rest[: len(rest) // 5]].mean(axis=1))
        found = [candidate(str(m), *(part[m] for part in known)) for m in range(10)]
        together.append(scores[int(chosen(found).name)].mean())
        own = [[Candidate(e.name, {}, {k: e.scores[k]}) for e in found] for k in range(folds)]
        best = [int(chosen(each).name) for each in own]
        alone.append(np.mean([scores[best[k], tests == k].mean() for k in range(folds)]))
    error = 0.1 / math.sqrt(images * 400)
    assert np.mean(together) - 0.5 > 0.012
    assert abs(np.mean(alone) - 0.5) < 4 * error


def history(folder: Path, *scores: str) -> Path:
    path = folder / "history.csv"
    rows = [f"{k},0.5,{score}\n" for k, score in enumerate(scores)]
    path.write_text("epoch,val_loss,val_score\n" + "".join(rows))
    return path


def test_the_score_is_the_best_epoch_not_the_last_or_the_loss(tmp_path: Path) -> None:
    assert best_score(history(tmp_path, "0.2", "0.7", "", "0.6")) == 0.7
    assert math.isnan(best_score(history(tmp_path, "", "")))
    assert math.isnan(best_score(history(tmp_path)))


def test_a_bad_history_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        best_score(tmp_path / "history.csv")
    for text in ("epoch,val_loss\n1,2\n", "epoch,val_score\n1,x\n"):
        (tmp_path / "history.csv").write_text(text)
        with pytest.raises(UserError, match="damaged"):
            best_score(tmp_path / "history.csv")


def test_the_record_is_read_back() -> None:
    found = [candidate("a", 0.25, NAN), candidate("b", 0.5, 0.75)]
    content = json.loads(json.dumps(as_json(found, found[1]), allow_nan=False))
    assert content["chosen"] == "b"
    assert [each["validation_score"] for each in content["members"]] == [None, 0.625]
    again, name = from_json(content)
    assert name == "b"
    assert again[1] == found[1]
    assert math.isnan(again[0].scores[1])


def test_copies_are_independent_files(tmp_path: Path) -> None:
    source, target = tmp_path / "member", tmp_path / "model"
    source.mkdir()
    target.mkdir()
    (source / "model.pt").write_bytes(b"weights")
    (target / "plan.yaml").write_text("of an earlier choice")
    copy_training(source, target, ["model.pt"], ["plan.yaml"])
    assert (target / "model.pt").read_bytes() == b"weights"
    assert not (target / "model.pt").samefile(source / "model.pt")
    assert not (target / "plan.yaml").exists()
    (source / "plan.yaml").write_text("plan")
    copy_training(source, target, ["model.pt"], ["plan.yaml"])
    assert (target / "plan.yaml").read_text() == "plan"
    with pytest.raises(UserError, match="run the train stage"):
        copy_training(source, target, ["history.csv"], [])


def choose_of(paths: Paths, values: dict[str, dict[str, object]], *scores: list[float]) -> dict:
    """Runs the stage for one fold of members with these scores per epoch; choice.json."""
    for name, own in zip(values, scores, strict=True):
        folder = paths.fold("d", name, 0)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("model.pt", "curves.png"):
            (folder / file).write_bytes(name.encode())
        history(folder, *map(str, own))
    settings = {"version": 1, "members": list(values), "values": values, "folds": [0]}
    where = ["--dataset", "d", "--model", "net", "--fold", "0"]
    paths.fold("d", "net", 0).mkdir(parents=True, exist_ok=True)
    made = [*where, "--output", str(paths.output), "--settings", json.dumps(settings)]
    assert choose.main(made) == 0
    found: dict = json.loads(paths.choice("d", "net", 0).read_text())
    return found


FREEZE: dict[str, dict[str, object]] = {f"net-freeze{n}": {"train.freeze": n} for n in (0, 1)}


def test_the_warnings_of_the_chosen_model_are_those_of_the_sweep(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    for name in (*FREEZE, "net"):
        write_training_warnings(paths, "d", name, 0, [f"of {name}"])
    choose_of(paths, FREEZE, [0.2, 0.3], [0.2, 0.5])
    # The members themselves are in no list of a dataset's models.
    line = "net, fold 0: net-freeze1, which was chosen: of net-freeze1"
    assert read_warnings(paths.dataset("d"), ["net"]) == [line]
    write_training_warnings(paths, "d", "net-freeze1", 0, [])
    choose_of(paths, FREEZE, [0.2, 0.3], [0.2, 0.5])
    assert read_warnings(paths.dataset("d"), ["net"]) == []


def test_a_sweep_that_improved_nothing_chose_nothing(tmp_path: Path) -> None:
    paths, said = Paths(tmp_path), "so nothing was chosen"
    found = choose_of(paths, FREEZE, [0.5, 0.3], [0.5, 0.5])
    assert said in found["remark"]
    assert [each["kept_start"] for each in found["members"]] == [[0], [0]]
    (line,) = read_warnings(paths.dataset("d"), ["net"])
    assert line.startswith("net, fold 0: sweep: no model of the sweep improved on its start")
    # One that improved is chosen, and the other is marked.
    found = choose_of(paths, FREEZE, [0.5, 0.3], [0.5, 0.6])
    assert "remark" not in found
    assert [each.get("kept_start") for each in found["members"]] == [[0], None]
    assert from_json(found)[0][0].at_start == (0,)
    assert read_warnings(paths.dataset("d"), ["net"]) == []
    # Other networks begin with other weights.
    sizes = {f"net-depth{n}": {"depth": n} for n in (2, 3)}
    assert "among starts" in choose_of(paths, sizes, [0.5, 0.3], [0.4, 0.3])["remark"]


def test_a_training_from_random_weights_has_no_start(tmp_path: Path) -> None:
    assert kept_start(history(tmp_path, "0.5", "0.3"))
    assert not kept_start(history(tmp_path, "", "0.3"))
    (tmp_path / "history.csv").write_text("epoch,val_score\n1,0.5\n2,0.3\n")
    assert not kept_start(tmp_path / "history.csv")
