"""``unet evaluate``: scores masks of any tool against true ones, without a config or a training."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from unet.cli.evaluate_request import add_request, methods_given, name_of
from unet.cli.stage import closed_pipe, run
from unet.errors import UserError
from unet.files import write_json
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.data.file_names import Found
    from unet.data.mask_pairs import MaskPairs
    from unet.evaluation.mask_folders import MaskFiles, Method
    from unet.evaluation.mask_scoring import MaskScoring
    from unet.report.evaluated_page import Evaluated

log = logging.getLogger("unet")

# Written to the output folder; the first one marks the others as ours.
RESULTS = ("evaluate.json", "metrics.csv", "report.csv", "index.html")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet evaluate``."""
    p.description = (
        "Scores masks of any tool against true masks: pairs the files by name and prints the "
        "scores with their intervals; with -o also writes tables and a page with pictures of the "
        "best and worst images. Values are ids of objects (0 is the background), unless --classes "
        "or --binary say otherwise. Nothing is trained."
    )
    p.epilog = (
        "examples:\n"
        "  unet evaluate out/masks truth/                    a result of unet predict\n"
        "  unet evaluate 'cp/*_cp_masks.png' truth/ -o scores --images images/\n"
        "  unet evaluate cellpose/ truth/ --also stardist=sd/ -o scores\n"
        "  unet evaluate pred/ truth/ --classes background=0,cell=255\n"
        "exit codes: 0 done, 2 a mistake to fix (said in one line), 143 stopped, 1 internal error"
    )
    add_request(p)


def command(args: argparse.Namespace) -> int:
    """Runs ``unet evaluate``; returns the exit code."""
    return run(args, evaluate_folders)


def evaluate_folders(args: argparse.Namespace, paths: Paths) -> None:
    """Pairs, scores and shows the masks.

    Raises:
        UserError: masks are missing, cannot be read or paired, or the options do not fit together.
    """
    from unet.evaluation.mask_folders import MaskFiles, copies, doubts
    from unet.evaluation.mask_scoring import MaskScoring
    from unet.report.evaluated_page import Evaluated
    from unet.report.paired import Statistics
    from unet.report.score_tables import summarise

    scoring = MaskScoring(
        "instances" if args.classes is None else "semantic",
        *(args.classes, args.ignore, args.metrics, args.binary, args.boundary_tolerance),
        unlabelled=args.unlabelled,
    )
    files = MaskFiles(args.axes, args.pixel_size)
    if args.output is not None:
        _check_output(args.output)
    noted: list[str] = []
    methods, images = _paired(args, noted)
    for method in methods:
        said = [*copies(method), *doubts(method, scoring, files)]
        noted += [line for line in said if line not in noted]
    _say(noted)
    methods, metrics = _scored(args, methods, scoring, files)
    rows = summarise(metrics, Statistics())
    found = Evaluated(
        *(args.truth, methods, scoring, files, metrics, rows),
        images=images, missing_counts=args.missing == "zero", warnings=noted,
        facts=_facts(args, scoring), shown=args.shown,
    )  # fmt: skip
    if args.output is not None:
        _write(args.output, found)
    with closed_pipe():
        if args.json:
            sys.stdout.write(json.dumps(as_json(found), indent=1, ensure_ascii=False) + "\n")
        else:
            _print(found, args.output)


def _check_output(folder: Path) -> None:
    """Refuses a folder with files of these names that this command did not write."""
    there = [folder / name for name in RESULTS if (folder / name).exists()]
    if there and not (folder / RESULTS[0]).exists():
        raise UserError(
            f"{there[0]}: already exists and was not made by this command; choose another folder "
            "with -o"
        )


def _write(folder: Path, found: Evaluated) -> None:
    """Writes all results or, after an error, none: they are moved to their places at the end."""
    from unet.evaluation.evaluate import write_metrics
    from unet.report.evaluated_page import write_evaluated_page
    from unet.report.score_tables import write_report

    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".scores-", suffix=".tmp", dir=folder) as name:
            made = Path(name)
            write_json(made / "evaluate.json", as_json(found))
            write_metrics(made / "metrics.csv", found.metrics)
            write_report(made / "report.csv", found.rows)
            write_evaluated_page(made / "index.html", found)
            for result in RESULTS:
                (made / result).replace(folder / result)
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()
    log.info("wrote %s", folder / "index.html")


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        log.warning("warning: %s", line)


def _paired(args: argparse.Namespace, noted: list[str]) -> tuple[list[Method], Mapping[str, Path]]:
    """The methods with their pairs, and the images to draw on."""
    from unet.data.mask_pairs import find_masks, is_file, pair_masks
    from unet.evaluation.mask_folders import Method

    label = "instances" if args.classes is None else "classes"
    truth = find_masks(args.truth, "TRUTH", noted.append, label)
    methods: list[Method] = []
    images: Mapping[str, Path] = {}
    for name, source in methods_given(args).items():
        key = "PREDICTED" if source == args.predicted else f"--also {name}"
        predicted = find_masks(source, key, noted.append, label)
        both = is_file(args.truth) and is_file(source)
        pairs = pair_masks(truth, predicted, key, one_file=both, warn=noted.append)
        missing = tuple(pair.image for pair in pairs.pairs if pair.predicted is None)
        kept = tuple(p for p in pairs.pairs if p.predicted is not None or args.missing == "zero")
        extra = tuple(_shown(path) for path in pairs.extra)
        methods.append(Method(name, source, kept, missing, extra))
        noted += _unpaired(methods[-1], args.missing == "zero")
        if args.images and not images:
            images = _images(args.images, pairs, noted)
    return methods, images


def _shown(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _unpaired(method: Method, counts: bool) -> list[str]:
    """Lines about masks without a partner."""
    lines = []
    if method.missing:
        what = (
            "counted as if nothing had been predicted"
            if counts
            else "not scored; --missing zero counts it as if nothing had been predicted"
        )
        lines.append(
            f"{method.name}: no predicted mask for {_some(method.missing, 'image')}: {what}"
        )
    if method.extra:
        names = [path.name for path in method.extra]
        lines.append(f"{method.name}: no true mask for {_some(names, 'predicted mask')}")
    return lines


def _some(names: Sequence[str], what: str, most: int = 5) -> str:
    shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''} ({shown})"


def _images(pattern: str, pairs: MaskPairs, noted: list[str]) -> Mapping[str, Path]:
    from unet.data.file_names import find
    from unet.data.mask_pairs import pair_images

    found: list[Found] = find(pattern, Path.cwd(), "--images")
    images = pair_images(pairs, found, noted.append)
    if not images:
        raise UserError(
            f"--images: none of {len(found)} images is named like a mask (such as "
            f"{found[0].path} and {pairs.pairs[0].truth}); name them alike, or leave it out"
        )
    without = [pair.image for pair in pairs.pairs if pair.image not in images]
    if without:
        noted.append(f"--images: no image for {_some(without, 'mask')}")
    return images


def _scored(
    args: argparse.Namespace, methods: Sequence[Method], scoring: MaskScoring, files: MaskFiles
) -> tuple[list[Method], list[Any]]:
    """The methods with what could not be scored, and all rows."""
    from unet.evaluation.mask_folders import grouping, score_method

    images = list(dict.fromkeys(pair.image for method in methods for pair in method.pairs))
    groups = grouping(args.group, images)
    dataset = name_of(args.truth)
    result, metrics = [], []
    for method in methods:
        rows, left_out = score_method(method, scoring, files, groups, dataset, args.threads)
        metrics += rows
        result.append(replace(method, left_out=left_out))
        for image, reason in list(left_out.items())[:5]:
            log.warning("warning: %s: left out: %s: %s", method.name, image, reason)
        if len(left_out) > 5:
            log.warning("warning: %s: %d more are left out", method.name, len(left_out) - 5)
    if mixed := _mixed_units(metrics):
        log.warning("warning: %s", mixed)
    return result, metrics


def _mixed_units(metrics: Sequence[Any]) -> str:
    """A line if some images have a pixel size and others do not."""
    units: dict[str, set[str]] = {"um": set(), "px": set()}
    for row in metrics:
        start, _, unit = row.metric.rpartition("_")
        if start in ("hd95", "asd"):
            units[unit].add(row.image)
    if not all(units.values()):
        return ""
    return (
        f"the pixel size of {len(units['um'])} images is known and that of {len(units['px'])} is "
        "not, so distances are in um for some and in px for others; write --pixel-size"
    )


def _facts(args: argparse.Namespace, scoring: MaskScoring) -> list[tuple[str, str]]:
    """The options, for the page."""
    shown = {
        "Predicted": ", ".join([args.predicted, *args.also]),
        "Truth": args.truth,
        "Values": "ids of objects"
        if scoring.classes is None
        else ", ".join(f"{name} = {value}" for name, value in scoring.classes.items()),
        "Connected pieces as objects": scoring.binary,
        "Ignored value of the truth": scoring.ignore,
        "Pixels of the truth without a label": (
            "not counted" if scoring.unlabelled == "ignore" else None
        ),
        "Metrics": ", ".join(scoring.section.metrics),
        "Boundary tolerance": scoring.section.boundary_tolerance,
        "Pixel size (um)": args.pixel_size,
        "Groups": args.group,
    }
    return [(name, str(value)) for name, value in shown.items() if value is not None]


def as_json(found: Evaluated) -> dict[str, Any]:
    """Everything as plain values; undefined numbers are null."""
    return {
        "task": found.scoring.task,
        "truth": found.truth,
        "methods": [
            {
                "name": method.name,
                "predicted": method.source,
                "scored": len(method.pairs) - len(method.left_out),
                "missing": list(method.missing),
                "missing_counts_as_empty": found.missing_counts,
                "extra": [str(path) for path in method.extra],
                "left_out": dict(method.left_out),
            }
            for method in found.methods
        ],
        "warnings": list(found.warnings),
        "scores": [
            {name.rstrip("_"): _plain(value) for name, value in row._asdict().items()}
            for row in found.rows
        ],
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(found: Evaluated, output: Path | None) -> None:
    """The main scores on the console."""
    from rich.console import Console

    from unet.report.console import summary_tables, verdict
    from unet.report.score_tables import columns_for, comparison

    console = Console()
    if not console.is_terminal:
        console.width = 120  # log files and pipes have no fixed width
    task = found.scoring.task
    datasets = Counter(row.dataset for row in found.rows)
    for table in summary_tables(found.rows, dict.fromkeys(datasets, task)):
        table.title = "Scores of objects" if task == "instances" else "Scores of classes"
        table.title += " (mean over the images)"
        for column, header in zip(table.columns, ("truth", "masks"), strict=False):
            column.header = header
        console.print(table)
    names = [method.name for method in found.methods]
    if columns := columns_for(found.rows, task):
        score = columns[0]
        cells = comparison(found.rows, [(score.class_, score.metric)], names)
        first = {name: own[0] for name, own in cells.items()}
        grouped = len({row.group for row in found.metrics if row.group}) > 1
        line = verdict(first, score.label, found.statistics.confidence, grouped, "method")
        if line:
            console.print(line, markup=False, highlight=False)
    if output is not None:
        console.print(f"Page: {output / 'index.html'}", markup=False, highlight=False)
