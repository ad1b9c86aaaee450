"""The section about sweeps: what was chosen, how clearly, and that the others stay out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.report.test_report import assert_self_contained, make_results
from tests.report.test_report_tables import BENCHMARK
from unet.config.load import load
from unet.config.sections import ReportSection
from unet.config.stage_settings import ReportSettings
from unet.data.records import ImageRecord, Part, SplitRecord, write_splits
from unet.data.splits import make_splits
from unet.data.survey.facts import DatasetSurvey
from unet.data.survey.judge_facts import _validated
from unet.errors import UserError
from unet.files import write_json
from unet.paths import Paths
from unet.report.collect import split_counts
from unet.report.dataset_page import report_dataset
from unet.report.sections.sweep_section import by_fold, sentence, spread
from unet.report.sweep_lead import Rival, held_out, lead, ranked, rests_on, rivals
from unet.training.choice import Candidate, as_json, chosen

NAN = math.nan


def candidate(name: str, *scores: float) -> Candidate:
    return Candidate(name, {"width": 8, "train.lr": 0.01}, dict(enumerate(scores)))


def said(found: list[Candidate], best: Candidate) -> str:
    return sentence(best, rivals(found, 0.95))


def made(
    folder: Path,
    found: list[Candidate],
    folds: tuple[int, ...] = (0, 1),
    alone: bool = False,
    parts: Sequence[tuple[int, Part, str]] = (),
) -> str:
    """The page; ``alone``: each fold chose by its own score; ``parts``: fold, part and image."""
    paths = Paths(folder)
    make_results(paths, "d", ["net", "other"], "instances")
    if parts:
        write_splits(
            paths.splits("d"), [SplitRecord(image, fold, part) for fold, part, image in parts]
        )
    for fold in folds:
        if found:
            seen = found
            if alone:
                seen = [Candidate(e.name, e.values, {fold: e.scores[fold]}) for e in found]
            write_json(paths.choice("d", "net", fold), as_json(seen, chosen(seen)))
        for each in found:
            path = paths.benchmark("train", "d", each.name, str(fold))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(BENCHMARK + "90\t0:01:30\t500\t1\t1\t1\t0\t0\t100\t80\n")
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net", "other"),
        folds=folds, class_names=("ground", "cell"), seed=0,
        sweeps={"net": tuple(each.name for each in found)},
        validated_by="val" if alone else "folds",
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    return paths.dataset_report_html("d").read_text(encoding="utf-8")


def test_the_section(tmp_path: Path) -> None:
    found = [candidate("net-a", 0.5, 0.6), candidate("net-b", 0.7, 0.9), candidate("net-c", NAN, 1)]
    page = made(tmp_path, found)
    assert_self_contained(page)
    part = re.search(r'<section id="sweep">.*?</section>', page, re.DOTALL)
    assert part is not None
    rows = re.findall(r'scope="row">([\w-]+)</th>.*?<td class="text">(\w*)</td></tr>', part[0])
    assert rows == [("net-b", "chosen"), ("net-a", ""), ("net-c", "")]
    assert "<td>0.800</td>" in part[0]
    assert "0.250 above net-a" in part[0]
    spent = "9 min 00 s of training in 6 jobs; the section on costs counts it as “net: sweep of 3 "
    assert f"The sweep took {spent}models”." in part[0]
    cost = re.search(r'<section id="cost">.*?</section>', page, re.DOTALL)
    assert cost is not None
    assert ">net: sweep of 3 models</td><td>6</td><td>9 min 00 s</td>" in cost[0]
    assert "optimistic" in part[0]
    assert "nan" not in part[0].lower()
    assert "net-a" not in page.replace(part[0], "")
    assert '<a href="#sweep">Sweep</a>' in page


def section_of(page: str) -> str:
    found = re.search(r'<section id="sweep">.*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


def test_each_fold_chose_alone(tmp_path: Path) -> None:
    # Means 0.65, 0.7, 0.5: "net-b" leads, but fold 1 chose "net-a".
    found = [candidate("net-a", 0.5, 0.8), candidate("net-b", 0.8, 0.6), candidate("net-c", 0, 0.5)]
    part = section_of(made(tmp_path, found, alone=True))
    rows = re.findall(r'scope="row">([\w-]+)</th>.*?<td class="text">([\w ,]*)</td></tr>', part)
    assert rows == [("net-b", "fold 0"), ("net-a", "fold 1"), ("net-c", "")]
    assert "<td>0.700</td>" in part
    assert "Each fold chose by its own validation images (fold 0: net-b; fold 1: net-a)." in part
    assert "net-b has the best mean: 0.700, 0.050 above net-a." in part
    assert "The 2 folds don&#39;t tell it from any of the 2 other models, so the choice" in part
    assert "each fold chooses alone" in part
    assert "only the chosen model was tested" not in part


def test_all_folds_chose_the_same_alone(tmp_path: Path) -> None:
    found = [candidate("net-a", 0.5, 0.6, 0.4), candidate("net-b", 0.8, 0.9, 0.7)]
    part = section_of(made(tmp_path, found, (0, 1, 2), alone=True))
    assert "All 3 folds chose net-b, each by its own validation images." in part
    assert '<td class="text">all folds</td>' in part


def test_one_fold_is_a_choice_like_any_other(tmp_path: Path) -> None:
    part = section_of(made(tmp_path, [candidate("net-a", 0.5)], (0,), alone=True))
    assert "net-a was chosen, with a validation score of 0.500" in part
    assert "only the chosen model was tested" in part


def test_models_that_kept_their_start(tmp_path: Path) -> None:
    def tried(name: str, scores: tuple[float, float], at_start: tuple[int, ...]) -> Candidate:
        return Candidate(name, {"train.freeze": 1}, dict(enumerate(scores)), at_start)

    found = [tried("net-a", (0.5, 0.6), (0, 1)), tried("net-b", (0.5, 0.6), (0, 1))]
    part = section_of(made(tmp_path / "none", found))
    assert "No model of the sweep improved on its start" in part
    assert "was chosen, with" not in part
    assert part.count('<td class="text">yes</td>') == 2
    assert ">chosen<" not in part
    found = [tried("net-a", (0.5, 0.6), (1,)), tried("net-b", (0.5, 0.7), ())]
    part = section_of(made(tmp_path / "some", found))
    assert "net-b was chosen" in part
    assert part.count('<td class="text">fold 1</td>') == 1
    assert ">Still its start</th>" in part
    assert ">chosen<" in part


def test_a_score_that_one_fold_lacks() -> None:
    found = [candidate("a", 0.9, NAN), candidate("b", NAN, 0.2)]
    assert by_fold(found, {0: "a", 1: "b"}, []).endswith("so their means cannot be compared.")
    more = [*found, candidate("c", 0.1, 0.1)]
    assert by_fold(more, {0: "a", 2: "a", 1: "b"}, rivals(more, 0.95)) == (
        "Each fold chose by its own validation images (folds 0, 2: a; fold 1: b). Over all folds, "
        "c has the best mean: 0.100. No other model has a score in each fold. a is not compared: "
        "no score in fold 1. b is not compared: no score in fold 0."
    )


def test_without_a_choice_there_is_no_section(tmp_path: Path) -> None:
    assert 'id="sweep"' not in made(tmp_path, [])


def test_a_damaged_choice_is_one_line(tmp_path: Path) -> None:
    found = [candidate("net-a", 0.5, 0.6)]
    made(tmp_path, found)
    paths = Paths(tmp_path)
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net",), folds=(0, 1),
        class_names=("ground", "cell"), seed=0, sweeps={"net": ("net-a",)},
    )  # fmt: skip
    for content in ({}, {"chosen": "x", "members": []}, {"chosen": "x", "members": [1]}):
        write_json(paths.choice("d", "net", 0), content)
        with pytest.raises(UserError, match=r"choice\.json: damaged"):
            report_dataset(paths, "d", settings)


def test_how_clear_the_choice_is() -> None:
    # Differences 0.19, 0.2, 0.21: mean 0.2, standard deviation 0.01, t = 34.6 with 2 degrees of
    # freedom, p = 0.0008.
    best, following = candidate("b", 0.69, 0.7, 0.71), candidate("a", 0.5, 0.5, 0.5)
    (rival,) = rivals([following, best], 0.95)
    assert rival.behind == pytest.approx(0.2)
    assert rival.p == pytest.approx(0.000832, abs=1e-6)
    assert rival.in_words == "yes (p < 0.001)"
    clear = said([following, best], best)
    assert clear.endswith(" 0.200 above a. Over the 3 folds, the other model is clearly below it.")
    # Differences 0.1 and 0.3: t = 2, p = 0.295 with 1 degree of freedom.
    near = said([candidate("a", 0.5, 0.6), candidate("b", 0.6, 0.9)], candidate("b", 0.6, 0.9))
    assert near.endswith(
        "0.200 above a. The 2 folds don't tell it from a, so the choice could as well be that "
        "one: take the cheapest of the two."
    )


def test_all_models_within_noise_are_named_not_only_the_next_one() -> None:
    best = candidate("b", 0.7, 0.8, 0.9, 0.8)
    third, fourth = candidate("c", 0.6, 0.8, 0.9, 0.7), candidate("d", 0.1, 0.21, 0.31, 0.2)
    second = candidate("a", 0.7, 0.7, 0.9, 0.8)
    found = [fourth, third, best, second]
    assert "don't tell it from a and c, so the choice could as well be one of those" in said(
        found, best
    )
    answers = {each.name: each.in_words.split()[0] for each in rivals(found, 0.95)}
    assert answers == {"a": "no", "c": "no", "d": "yes"}
    assert "from any of the 2 other models, so" in said([best, second, third], best)
    many = [Rival(str(k), 0.0, 1.0, True) for k in range(8)]
    assert "from 0, 1, 2, 3, 4 and 3 others, so" in lead([*many, Rival("x", 1, 0, False)], 5)


def test_shared_training_images_make_it_less_sure() -> None:
    splits = {k: {"train": ["a"] * 8, "val": ["b"] * 4, "test": []} for k in range(3)}
    assert held_out(splits) == 0.5
    assert held_out({}) == 0
    found = [candidate("b", 0.6, 0.7, 0.8), candidate("a", 0.5, 0.5, 0.5)]
    (rival,) = rivals(found, 0.95, 0.5)
    # t = 0.2 / (0.1 * sqrt(1 / 3 + 0.5)) = 2.191; p = 1 - t / sqrt(t^2 + 2) = 0.1598.
    assert rival.p == pytest.approx(0.1598, abs=1e-4)


def test_equal_scores_could_be_either() -> None:
    both = [candidate("a", 0.5, 0.5), candidate("b", 0.5, 0.5)]
    assert "don't tell it from b, so the choice could as well be" in said(both, both[0])


def test_one_fold_and_nothing_to_compare() -> None:
    one = [candidate("a", 0.5), candidate("b", 0.6)]
    assert "There is one fold" in said(one, one[1])
    assert rivals(one, 0.95)[0].in_words == "one fold: not known"
    alone = [candidate("a", 0.5, 0.6), candidate("b", NAN, 0.9)]
    assert said(alone, alone[0]).endswith(
        ". No other model has a score in each fold. b is not compared: no score in fold 0."
    )


def test_models_that_are_not_compared_are_named(tmp_path: Path) -> None:
    best, low = candidate("b", 0.69, 0.7, 0.71), candidate("a", 0.5, 0.5, 0.5)
    near, lacking = candidate("c", 0.69, 0.69, 0.72), candidate("d", NAN, 0.9, NAN)
    assert said([best, low, lacking], best).endswith(
        "0.200 above a. Over the 3 folds, a is clearly below it. d is not compared: no score in "
        "folds 0, 2."
    )
    two = said([best, low, candidate("e", 0.4, 0.4, 0.4), lacking], best)
    assert "Over the 3 folds, a and e are clearly below it. d is not compared" in two
    for found in ([best, near, lacking], [best, near, candidate("f", 0.6, 0.8, 0.6), lacking]):
        text = said(found, best)
        assert "other model" not in text
        assert "don't tell it from c" in text
        assert text.endswith("d is not compared: no score in folds 0, 2.")
    many = [candidate(str(k), NAN, 0.9, 0.9) for k in range(7)]
    assert said([best, low, *many], best).endswith(
        "4 is not compared: no score in fold 0. So are 2 others (see the table)."
    )
    # In the table, too; also a model that only the choice of one fold knows.
    found = [candidate("net-a", 0.5, 0.6), candidate("net-b", 0.7, 0.9), candidate("net-c", NAN, 1)]
    part = section_of(made(tmp_path, found))
    assert '<td class="text">not compared: no score in fold 0</td>' in part
    paths = Paths(tmp_path)
    first = [Candidate(e.name, e.values, {0: 0.3}) for e in found[:2]]
    later = [Candidate(e.name, e.values, {1: 0.9}) for e in found]
    for fold, known in enumerate((first, later)):
        write_json(paths.choice("d", "net", fold), as_json(known, chosen(known)))
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net", "other"),
        folds=(0, 1), class_names=("ground", "cell"), seed=0,
        sweeps={"net": ("net-a", "net-b", "net-c")},
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    part = section_of(paths.dataset_report_html("d").read_text(encoding="utf-8"))
    assert "net-a has the best mean: 0.600" in part
    assert "net-c is not compared: no score in fold 0." in part


def test_a_difference_that_never_varies_is_not_known_to_be_clear() -> None:
    best, same = candidate("b", 0.75, 0.5, 1.0), candidate("a", 0.5, 0.25, 0.75)
    (rival,) = rivals([same, best], 0.95)
    assert (rival.behind, rival.in_words) == (0.25, "the same difference in each fold: not known")
    assert said([same, best], best).endswith(
        "0.250 above a. It isn't known how clearly it is above a: the same difference in each fold."
    )
    both = said([same, best, candidate("c", 0.0, 0.5, 0.9)], best)
    assert "don't tell it from c, so" in both
    assert "how clearly it is above a: the same difference" in both


@pytest.mark.parametrize("folds", [3, 5])
@pytest.mark.parametrize("models", range(4, 10))
def test_equal_models_are_rarely_said_to_be_clearly_apart(models: int, folds: int) -> None:
    """With the variance of Nadeau & Bengio, 1 / folds + validation per training images: the mean
    of a model's scores varies with a part that all its folds share."""
    rng, runs, share = np.random.default_rng(100 * models + folds), 1000, 0.25
    shared = rng.normal(0, math.sqrt(share), (runs, models, 1))
    scores = shared + rng.normal(0, 1, (runs, models, folds))
    wrong = 0
    for run in scores.tolist():
        found = [candidate(f"m{k}", *own) for k, own in enumerate(run)]
        wrong += any(not each.near for each in rivals(found, 0.95, share))
    # One in 1000 tests at exactly 5 % would have more.
    assert wrong <= stats.binom.ppf(0.999, runs, 0.05)


def test_how_many_validation_images_chose() -> None:
    def parts(*val: str, train: str = "tu") -> dict[str, list[str]]:
        return {"train": list(train), "val": list(val), "test": []}

    assert rests_on({0: parts("a", "b")}, "val") == "Chosen on 2 validation images."
    three = {0: parts("a", "b"), 1: parts("c", "d", "e")}
    assert rests_on(three, "folds") == "Chosen on 5 validation images, 2 to 3 in each fold."
    assert rests_on(three, "val") == "Each fold chose on 2 to 3 validation images."
    little = "A score on a single image says little about others: label more images"
    one = {0: parts("a"), 1: parts("b")}
    assert rests_on(one, "val") == (
        f"Each fold chose on 1 validation image. {little}, or write a larger split.val."
    )
    # They choose together.
    assert rests_on(one, "folds") == "Chosen on 2 validation images, 1 in each fold."
    assert rests_on({1: parts("b")}, "folds").endswith("or name more folds in split.run.")
    assert rests_on({0: parts("b")}, "sheet").endswith("or write val for more images in the sheet.")
    some = rests_on({0: parts("a"), 1: parts("b", "c")}, "val")
    assert some.startswith("Each fold chose on 1 to 2 validation images (a single one in fold 0). ")
    # One training image is needed.
    assert rests_on({0: parts("a", train="t")}, "val").endswith(f"{little}.")
    assert rests_on({0: parts()}, "val") == rests_on({}, "val") == ""


@pytest.mark.parametrize(
    "split",
    [{"folds": 3}, {"folds": 3, "test": 0.3}, {"folds": 3, "test": 0.3, "run": [0]}, {"test": 0.3}],
)
def test_check_and_report_say_the_same(split: dict[str, Any]) -> None:
    raw: dict[str, Any] = {"folds": None, **split}
    data = {"synthetic": {"kind": "nuclei"}, "task": "instances", "split": raw}
    model = {"preset": "unet-bn", "head": "border", "sweep": {"width": [4, 8]}}
    config = load({"datasets": {"d": data}, "models": {"net": model}})
    records = [
        ImageRecord(id=f"i{k}", image="x", label="y", shape=(1, 8, 8), dtype="uint8", sha256=str(k))
        for k in range(6)
    ]
    section = config.datasets["d"].split
    splits = split_counts(make_splits(records, section, 0), section.to_run)
    counts = {k: {p: len(ids) for p, ids in parts.items()} for k, parts in splits.items()}
    survey = DatasetSurvey("d", "instances", "instances", "folders", (), 6, 0, splits=counts)
    texts = [f.text for f in _validated(survey, config)]
    report = rests_on(splits, ReportSettings.of(config, "d").validated_by)
    number, _, remedy = report.partition(". A score on a single image says little about others: ")
    assert bool(texts) == bool(remedy)
    for text in texts:
        assert text.startswith(number.lower().replace("chose on", "chooses on"))
        assert text.endswith(remedy.removesuffix("."))


def test_the_page_says_on_what_it_was_chosen_and_what_is_within_noise(tmp_path: Path) -> None:
    found = [
        candidate("net-a", 0.5, 0.8), candidate("net-b", 0.8, 0.6), candidate("net-c", 0.1, 0.9)
    ]  # fmt: skip
    parts: list[tuple[int, Part, str]] = [
        (0, "train", "x"),
        (0, "val", "y"),
        (1, "train", "y"),
        (1, "val", "x"),
    ]
    part = section_of(made(tmp_path, found, alone=True, parts=parts))
    assert "Each fold chose on 1 validation image." in part
    assert "don&#39;t tell it from any of the 2 other models" in part
    assert part.count('<td class="text">no (p 1.000)</td>') == 2


def test_order_and_spread() -> None:
    found = [candidate("a", NAN), candidate("b", 0.2), candidate("c", 0.7), candidate("d", 0.2)]
    assert [each.name for each in ranked(found)] == ["c", "b", "d", "a"]
    assert spread(candidate("a", 0.5, 0.7)) == pytest.approx(0.1 * math.sqrt(2))
    assert math.isnan(spread(candidate("a", 0.5)))
    assert math.isnan(spread(candidate("a", 0.5, NAN)))
