"""What reruns after which edit: every key of the config, the raw files, the command line and the
stages' versions, each checked by a dry run of Snakemake on a finished run. The tables of
docs/reruns.md show the results (``UNET_WRITE_RERUNS=1`` writes them)."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tifffile
import yaml

from tests.config.test_config import KEYS, README
from tests.once import once
from tests.planner import REASONS, Plan, Request, plans
from tests.rerun_rows import ADDITIONS, EVERYTHING, ROWS, Row, base_of, config_of, follows
from tests.workflow.test_workflow import CONFIG, STAGES, Workplace, jobs_of, since, turned, without
from unet.config.load import load
from unet.config.run import merge
from unet.errors import UserError
from unet.files import remove
from unet.paths import Paths
from unet.versions import STAGES as VERSIONS

pytestmark = pytest.mark.workflow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reruns.md"
ORDER = [
    "download", *STAGES[:4], "join", "prepare_applied", "train", "choose", "predict_shard",
    *STAGES[5:-1], "quality", "compare", "report_dataset", "report", "export",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A change to something other than a key of the config.

    Attributes:
        change: changes the run's folder.
        config, words, versions: see :class:`tests.planner.Request`.
    """

    what: str
    expected: set[str]
    change: Callable[[Path], None] | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)
    words: tuple[str, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)


# Changes of files.

OWN = {job for job in since("manifest", "own") if job != "synthesize own"}
OUT = Paths(Path("out"))
CHECKPOINTS = OUT.output / "checkpoints"
THRESHOLD = merge(CONFIG, {"stitch": {"threshold": 0.3}})
# The jobs of model `b` of `own`, from its training on.
B = follows("train", ("own",), ("b",))


def image(folder: Path) -> Path:
    return min((folder / "raw" / "images").glob("*.tif"))


def label(folder: Path) -> Path:
    return folder / "raw" / "labels" / image(folder).name


def touched(which: Callable[[Path], Path]) -> Callable[[Path], None]:
    return lambda folder: os.utime(which(folder))


def replaced(which: Callable[[Path], Path]) -> Callable[[Path], None]:
    """Another file with the same content under the same name."""

    def change(folder: Path) -> None:
        path = which(folder)
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)

    return change


def edited(which: Callable[[Path], Path]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = tifffile.imread(which(folder))
        data[0, 0] ^= 1
        tifffile.imwrite(which(folder), data)

    return change


def added(*which: Callable[[Path], Path]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in [of(folder) for of in which]:
            shutil.copy(path, path.with_name("zzz.tif"))

    return change


def removed(*which: Callable[[Path], Path]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in [of(folder) for of in which]:
            remove(path)

    return change


def renamed(folder: Path) -> None:
    for path in (label(folder), image(folder)):
        path.rename(path.with_name("aaa.tif"))


def swapped(folder: Path) -> None:
    """Swaps the labels of two images."""
    first, second, *_ = sorted((folder / "raw" / "labels").glob("*.tif"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def noted(folder: Path) -> None:
    (folder / "raw" / "images" / "notes.txt").write_text("taken on a Monday")


def output_of(path: Path) -> Callable[[Path], Path]:
    return lambda folder: folder / path


def moved(folder: Path) -> None:
    shutil.copytree(folder / "raw", folder / "moved", copy_function=shutil.copyfile)


FILES = [
    Case("an image touched", set(), touched(image)),
    Case("a label touched", set(), touched(label)),
    Case("an image replaced by a copy of itself", set(), replaced(image)),
    Case("an image edited in place", OWN, edited(image)),
    Case("a label edited in place", OWN, edited(label)),
    Case("the labels of two images swapped", OWN, swapped),
    Case("an image and its label added", OWN, added(image, label)),
    Case("an image without label added", OWN, added(image)),
    Case("an image and its label removed", OWN, removed(image, label)),
    Case("a label removed", OWN, removed(label)),
    Case("an image and its label renamed", OWN, renamed),
    Case("a label that belongs to no image added", set(), added(label)),
    Case("a file added that is not an image", set(), noted),
    Case("all raw files copied to another folder, with a new `data_root`", set(), moved,
         config={**CONFIG, "data_root": "moved"}),
    Case("`report.html` deleted", {"report"}, removed(output_of(OUT.report_html))),
    Case("`metrics.csv` deleted", follows("evaluate", ("own",), ("b",)),
         removed(output_of(OUT.metrics("own", "b")))),
    Case("`audit.csv` deleted", follows("audit", ("own",), ("b",)),
         removed(output_of(OUT.audit("own", "b")))),
    *[Case(f"`{path.name}` deleted", B - {"train own b 0", "predict own b 0"},
           removed(output_of(path)))
      for path in (OUT.segmentation_done("own", "b", 0), OUT.objects("own", "b", 0),
                   OUT.segmentation("own", "b", 0), OUT.masks("own", "b", 0))],
    Case("`model.pt` deleted", B, removed(output_of(OUT.model("own", "b", 0)))),
    Case("`fold-0` deleted", B, removed(output_of(OUT.fold("own", "b", 0)))),
    # Snakemake makes an intermediate result again when a job needs it.
    *[Case(f"`{path.name}` deleted (an intermediate result)", set(), removed(output_of(path)))
      for path in (OUT.tiles_done("own", "b", 0), OUT.tiles("own", "b", 0),
                   OUT.prepared_done("own"), OUT.prepared("own"))],
    Case("`tiles.zarr` and `masks` deleted", B - {"train own b 0"},
         removed(*map(output_of, (OUT.tiles("own", "b", 0), OUT.masks("own", "b", 0))))),
    Case("`prepared.zarr` and `checkpoints` deleted, with `stitch: {threshold: 0.3}` (`train` "
         "reuses its finished model)",
         follows("prepare", ("own",), ("a", "b")) | follows("stitch", ("sem",), ("a",)),
         removed(output_of(OUT.prepared("own")), output_of(CHECKPOINTS)), config=THRESHOLD),
    Case("a log and a benchmark deleted", set(),
         removed(output_of(OUT.log("train", "own", "b", "0")),
                 output_of(OUT.benchmark("train", "own", "b", "0")))),
]  # fmt: skip

NEW = {"synthetic": {"kind": "phase", "images": 4, "size": 96}, "task": "instances",
       "models": ["a"]}  # fmt: skip
OTHERS = [
    Case("a dataset added", jobs_of(STAGES, "new", ["a"], [0]) | {"report"},
         config=merge(CONFIG, {"datasets": {"new": NEW}})),
    Case("a dataset removed", {"report"}, config=without(CONFIG, "datasets", "sem")),
    Case("a model added that no dataset uses", set(),
         config=merge(CONFIG, {"models": {"c": {"preset": "unet-res"}}})),
    Case("a model added and used by a dataset",
         {"train own c 0", "predict own c 0", "stitch own c 0", "evaluate own c",
          "details own c", "audit own c", "report_dataset own", "report"},
         config=merge(CONFIG, {"models": {"c": CONFIG["models"]["a"]},
                               "datasets": {"own": {"models": ["a", "b", "c"]}}})),
    Case("a model removed from a dataset", {"report_dataset own", "report"},
         config=merge(CONFIG, {"datasets": {"own": {"models": ["a"]}}})),
    Case("the keys of the config in another order", set(), config=turned(CONFIG)),
    Case("the classes in another order (which changes their index)", since("prepare", "sem"),
         config=merge(without(CONFIG, "datasets", "sem", "classes"),
                      {"datasets": {"sem": {"classes": {"membrane": 0, "cell": 255}}}})),
    Case("every default written out", set(),
         config=load(CONFIG).model_dump(mode="json", exclude_none=True)),
    Case("`--cores 1`", set(), words=("--cores", "1")),
    Case("`--cores 64 --resources gpu=0`", set(),
         words=("--cores", "64", "--resources", "gpu=0")),
    Case("`--set-threads train=1 predict=3`", set(),
         words=("--set-threads", "train=1", "predict=3")),
    Case("`--set-resources train:mem_mb=99 stitch:runtime=9`", set(),
         words=("--set-resources", "train:mem_mb=99", "stitch:runtime=9")),
    *[Case(f"the version of {stage} raised",
           follows("report_dataset" if stage == "report" else stage, ["sem", "own"], ["a", "b"])
           if stage != "synthesize" else since("synthesize", "sem"),
           versions={stage: VERSIONS[stage] + 1})
      # No result needs the check; these datasets have no other models, no other tools, no sweep;
      # they are not exported, and none joins others.
      for stage in VERSIONS
      if stage not in ("prepare_applied", "check", "join", "quality", "compare", "choose",
                       "export", "download")],
]  # fmt: skip
CASES = [*FILES, *OTHERS]


# The dry runs.


@dataclass(frozen=True)
class Found:
    """The dry runs that the tests below check."""

    rows: Mapping[str, Plan]
    alone: Mapping[str, Plan]
    cases: Mapping[str, Plan]
    elsewhere: Mapping[str, Plan]


def copied(finished: Path, target: Path) -> Path:
    return Path(shutil.copytree(finished, target, symlinks=True))


def is_sound(config: Mapping[str, Any]) -> bool:
    try:
        load(config)
    except UserError:
        return False
    return True


# Keys that have an effect only with other settings, without these (unless that is an error).
ALONE = [row for row in ROWS if row.addition and is_sound(merge(CONFIG, row.over))]
# Planned again in another folder, from configs with keys in another order.
AGAIN = ROWS[::6]


@pytest.fixture(scope="module")
def found(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    scratch = tmp_path_factory.mktemp("reruns")
    return once(tmp_path_factory, "reruns", lambda: planned(finished_run, scratch))


def planned(finished_run: Path, scratch: Path) -> Found:
    folders = {name: copied(finished_run, scratch / (name or "run")) for name in ("", *ADDITIONS)}
    # Planning only compares its content.
    (folders["encoder"] / "raw" / "resnet34.pt").write_bytes(b"weights")
    # For `data_root`: the same files in another folder.
    moved(folders[""])
    # The finished run has no packages; for planning, any file will do.
    for dataset, model in (("sem", "a"), ("own", "a"), ("own", "b")):
        package = folders["export"] / OUT.package(dataset, model)
        package.touch()
        # Older than its inputs, so that it is noted as made from them.
        os.utime(package, (1e9, 1e9))
    downloaded(folders["download"])
    record = [
        Request(folders[name], base_of(name), ("--touch", "--cores", "1")) for name in ADDITIONS
    ]
    assert [plan.code for plan in plans(record)] == [0] * len(record)
    other = copied(folders[""], scratch / "in" / "another folder")
    cases = []
    for number, case in enumerate(CASES):
        folder = folders[""]
        if case.change is not None:
            folder = copied(finished_run, scratch / f"case-{number}")
            case.change(folder)
        words = ("--dry-run", *case.words)
        cases.append(Request(folder, case.config, words, case.versions))
    asked = {
        "rows": {row.key: Request(folders[row.addition], config_of(row)) for row in ROWS},
        "alone": {row.key: Request(folders[""], merge(CONFIG, row.over)) for row in ALONE},
        "cases": {case.what: request for case, request in zip(CASES, cases, strict=True)},
        "elsewhere": {
            row.key: Request(other, turned(config_of(row))) for row in AGAIN if not row.addition
        },
    }
    answers = iter(plans([request for group in asked.values() for request in group.values()]))
    return Found(**{name: {key: next(answers) for key in group} for name, group in asked.items()})


def downloaded(folder: Path) -> None:
    """Makes the files of `own` those of a public dataset, as if they had been downloaded."""
    raw = folder / "raw"
    (raw / "isbi2012").mkdir()
    for name in ("images", "labels"):
        (raw / name).rename(raw / "isbi2012" / name)
    (raw / "isbi2012.download.json").touch()
    (folder / OUT.download_done("own")).touch()
    os.utime(folder / OUT.download_done("own"), (1e9, 1e9))


def check(plan: Plan, expected: set[str]) -> None:
    assert plan.code == 0, plan.text
    assert set(plan.jobs) == expected
    assert plan.jobs or "Nothing to be done" in plan.text
    # At least one job has a reason of its own, and a known one.
    assert not plan.jobs or plan.first


# Keys.


def test_every_key_has_a_row() -> None:
    assert sorted(row.key for row in ROWS) == KEYS, "tests/rerun_rows.py: a row for each key"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_what_a_key_reruns(found: Found, row: Row) -> None:
    check(found.rows[row.key], row.expected)


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.key)
def test_a_key_without_effect_reruns_nothing(found: Found, row: Row) -> None:
    check(found.alone[row.key], set())


# Keys for which config/README.md describes another edit than the row: new folds, not fewer; models
# with preset auto; a dataset of OME-Zarr images, which the finished run lacks.
DIFFERENT = {"output", "datasets.<name>.split.run", "memory_gb", "stitch.write_back"}


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.key not in DIFFERENT], ids=lambda row: row.key
)
def test_the_readme_names_the_first_stage(found: Found, row: Row) -> None:
    (cell,) = re.findall(
        rf"^\| `{re.escape(row.key)}` \|.*\| ([^|]*) \|$", README.read_text(), re.M
    )
    word = cell.split()[0].rstrip(",")
    firsts = [name.split("_")[0] for name in first_stages(found.rows[row.key])]
    assert word in (firsts or ["-"]), cell


def test_decisions_depend_on_neither_folder_nor_order(found: Found) -> None:
    assert len(found.elsewhere) > 15
    for key, plan in found.elsewhere.items():
        assert plan.code == 0, plan.text
        assert plan.jobs == found.rows[key].jobs, key


# Files, datasets, models, threads, versions.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_what_else_reruns(found: Found, case: Case) -> None:
    check(found.cases[case.what], case.expected)


# Real runs.


def test_one_image_more_prepares_one_image(finished_run: Path, tmp_path: Path) -> None:
    place = Workplace(copied(finished_run, tmp_path / "run"))
    paths = Paths(place.folder / "out")
    store, sentinel = paths.prepared("own"), paths.prepared_done("own")

    def times() -> dict[str, int]:
        files = [path for path in store.rglob("*") if path.is_file()]
        return {str(p.relative_to(store)): p.stat().st_mtime_ns for p in files}

    before, images = times(), json.loads(sentinel.read_text())["images"]
    added(image, label)(place.folder)
    # A new image, not a copy of another one.
    edited(lambda folder: folder / "raw" / "images" / "zzz.tif")(place.folder)
    target = str(sentinel.relative_to(place.folder))
    done = place.snakemake("--quiet", "rules", "--cores", "2", target)
    assert done.returncode == 0, done.stdout + done.stderr
    after, now = times(), json.loads(sentinel.read_text())["images"]
    assert set(now) - set(images) == {"zzz"}
    assert {name: now[name] for name in images} == images
    log = paths.log("prepare", "own").read_text()
    assert "prepare: 1 of 6 images to prepare, 5 stay as they are" in log
    # Nothing of the other images was written again.
    arrays = {name for name in before if "/" in name}
    assert arrays
    assert {name: after[name] for name in arrays} == {name: before[name] for name in arrays}

    removed(output_of(Path("raw/images/zzz.tif")), output_of(Path("raw/labels/zzz.tif")))(
        place.folder
    )
    done = place.snakemake("--quiet", "rules", "--cores", "2", target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(sentinel.read_text())["images"] == images
    assert not (store / "zzz").exists()
    assert "prepare: 0 of 5 images to prepare, 5 stay" in paths.log("prepare", "own").read_text()


def test_what_may_be_deleted_costs_no_training(finished_run: Path, tmp_path: Path) -> None:
    place = Workplace(copied(finished_run, tmp_path / "run"))
    paths = Paths(place.folder / "out")
    model, history = paths.model("own", "b", 0), paths.history("own", "b", 0)
    before = [path.read_bytes() for path in (model, history)]
    removed(output_of(OUT.prepared("own")), output_of(CHECKPOINTS))(place.folder)
    target = str(paths.segmentation_done("own", "b", 0).relative_to(place.folder))
    done = place.snakemake("--quiet", "rules", "--cores", "2", target, config=THRESHOLD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.read_bytes() for path in (model, history)] == before
    assert paths.curves("own", "b", 0).exists()
    assert "already trained" in paths.log("train", "own", "b", "0").read_text()
    assert not paths.checkpoints("own", "b", 0).exists()


# The page.


def first_stages(plan: Plan) -> list[str]:
    """For each dataset the first rule that runs for a reason of its own."""
    firsts: dict[str, str] = {}
    for job in sorted(plan.first, key=lambda job: ORDER.index(job.split()[0])):
        rule, *names = job.split()
        firsts.setdefault(names[0] if names else "", rule)
    if len(firsts) > 1:
        firsts.pop("", None)  # the report over all datasets follows theirs
    return sorted(set(firsts.values()), key=ORDER.index)


def outcome(plan: Plan) -> list[str]:
    stages = first_stages(plan)
    whys = [plan.first[job] for job in plan.first if job.split()[0] in stages]
    # In one order: that of the jobs may be another at each start.
    order = list(REASONS.values())
    why = ", ".join(sorted({text for texts in whys for text in texts.split(", ")}, key=order.index))
    return [", ".join(stages) or "-", str(len(plan.jobs) or "-"), why or "-"]


def cells(*texts: str) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def written(over: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(over), default_flow_style=True, width=10_000, sort_keys=False)
    return f"`{text.strip()[1:-1]}`"


def tables(found: Found) -> dict[str, str]:
    keys = [
        cells("key", "edit", "runs again from", "jobs", "why", "only with"),
        cells(*["---"] * 6),
        *(
            cells(f"`{row.key}`", written(row.over), *outcome(found.rows[row.key]), row.only)
            for row in ROWS
        ),
    ]

    def of(cases: Iterable[Case]) -> list[str]:
        head = [cells("what", "runs again from", "jobs", "why"), cells(*["---"] * 4)]
        return head + [cells(case.what, *outcome(found.cases[case.what])) for case in cases]

    return {name: "\n".join(lines) for name, lines in
            (("keys", keys), ("files", of(FILES)), ("others", of(OTHERS)))}  # fmt: skip


def test_the_page_shows_what_was_found(found: Found) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"{len(EVERYTHING)} jobs in all" in text
    new = text
    for name, table in tables(found).items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        assert block.search(new), f"docs/reruns.md: no <!-- {name} -->"
        new = block.sub(lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", new)
    if os.environ.get("UNET_WRITE_RERUNS"):
        PAGE.write_text(new, encoding="utf-8")
    assert new == text or os.environ.get("UNET_WRITE_RERUNS"), (
        "docs/reruns.md is out of date: UNET_WRITE_RERUNS=1 python -m pytest "
        "tests/planning/test_reruns.py"
    )
