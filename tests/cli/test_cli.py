"""Command lines: help that reads well, one-line errors with the right exit code, `unet models`."""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unet import __version__
from unet.cli import main, stage
from unet.config.data_settings import PrepareSettings
from unet.config.geometry import footprint
from unet.config.presets import PRESETS, architecture_of
from unet.errors import UserError
from unet.models.build import build
from unet.models.network import parameter_counts
from unet.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str) -> None:
    done = call(f"scripts/{script}.py", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    text = " ".join(done.stdout.split())
    assert text.startswith(f"usage: python scripts/{script}.py")
    assert "show program" not in text
    # A sentence says what it does, and every option says what it is for.
    description = text.split("options:")[0].split("] ")[-1]
    assert description.rstrip().endswith("."), description
    for option in re.findall(r"^  (--[a-z-]+)(.*?)(?=^  -|\Z)", done.stdout, re.M | re.S):
        words = " ".join(option[1].split())
        assert len(words.split()) >= 3, f"{script} {option[0]}: no help"
    assert "None)" not in text, "a default of None says nothing"


def test_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    """One per line, for a bug report."""
    with pytest.raises(SystemExit) as stopped:
        main.main(["--version"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"unet-pipeline {__version__}"
    assert f"torch {torch.__version__}" in lines
    assert all(re.fullmatch(r"[A-Za-z-]+ \S+", line) for line in lines)


def test_by_hand_from_a_config(tmp_path: Path) -> None:
    """Without Snakemake: settings from a config file."""
    config = tmp_path / "c.yaml"
    config.write_text(
        "datasets: {d: {synthetic: {kind: nuclei, images: 3, size: 64}, task: instances}}\n"
        "models: {m: {preset: unet-bn, depth: 2}}\n"
    )
    words = ("--output", str(tmp_path / "out"), "--config", str(config))
    done = call("scripts/synthesize.py", "--dataset", "d", *words)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "d" / "raw" / "images").iterdir())) == 3
    done = call("scripts/synthesize.py", "--dataset", "x", *words)
    assert (done.returncode, done.stderr) == (2, "error: --dataset: no dataset 'x'; there are: d\n")


def outcome(
    work: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], log: bool = True
) -> tuple[int, str, str]:
    """Exit code, stderr and log of a stage that does this."""
    args = argparse.Namespace(log=tmp_path / "deep" / "log.txt" if log else None, output=tmp_path)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        code = stage.run(args, work)
    finally:
        for handler in root.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
        root.handlers[:], root.level = before
        logging.captureWarnings(False)
    return code, capsys.readouterr().err, args.log.read_text() if log else ""


def raising(error: BaseException) -> Any:
    def work(args: argparse.Namespace, paths: Paths) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("a.tif: bad"), 2, "error: a.tif: bad\n"),
        (UserError("one\ntwo"), 2, "error: one\nerror: two\n"),
        (stage.Interrupted("after step 4; state saved"), 143,
         "stopped after step 4; state saved; run the same command to continue\n"),
        (KeyboardInterrupt(), 143, "stopped by Ctrl-C; run the same command to continue\n"),
        (PermissionError(13, "Permission denied", "x.csv"), 2, "error: x.csv: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, None),
        (ZeroDivisionError("division by zero"), 1,
         "error: ZeroDivisionError: division by zero (internal error)\n"),
    ],
)  # fmt: skip
def test_errors(
    error: BaseException, code: int, says: str | None, tmp_path: Path, capsys: Any
) -> None:
    found, stderr, log = outcome(raising(error), tmp_path, capsys)
    assert found == code
    assert says is None or stderr == says
    assert "Traceback" not in stderr
    # Only an internal error leaves its trace, and only in the log.
    assert ("Traceback" in log) == (code == 1)


def test_an_internal_error_without_a_log_shows_its_trace(tmp_path: Path, capsys: Any) -> None:
    code, stderr, _ = outcome(raising(ZeroDivisionError("x")), tmp_path, capsys, log=False)
    assert code == 1
    assert "Traceback" in stderr


def test_success(tmp_path: Path, capsys: Any) -> None:
    def work(args: argparse.Namespace, paths: Paths) -> None:
        assert paths.output == tmp_path
        logging.getLogger("unet.x").info("done %d", 3)

    code, stderr, log = outcome(work, tmp_path, capsys)
    assert (code, stderr) == (0, "done 3\n")
    assert "INFO done 3" in log


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not valid JSON"), ("[1]", "must be a JSON object")]
)
def test_invalid_settings(text: str, says: str) -> None:
    args = stage.parser("x", "X.").parse_args(["--dataset", "d", "--settings", text])
    with pytest.raises(UserError, match=f"--settings: {says}"):
        stage.settings_of(args, PrepareSettings)


def test_settings_and_config_exclude_each_other(capsys: Any) -> None:
    p = stage.parser("x", "X.", model=True, fold=True)
    for words in ([], ["--settings", "{}", "--config", "c"]):
        with pytest.raises(SystemExit) as caught:
            p.parse_args(["--dataset", "d", "--model", "m", "--fold", "0", *words])
        assert caught.value.code == 2
    capsys.readouterr()


# unet models.

EXPECTED = {
    "unet2015": {
        "parameters": 31_030_658, "trainable": 31_030_658, "halo": 92, "grid": 16,
        "output_smaller_by": 184, "padding": "valid", "width": 64, "depth": 4,
    },
    "unet-bn": {
        "parameters": 31_054_210, "trainable": 31_042_434, "halo": 96, "grid": 16,
        "output_smaller_by": 0, "padding": "same", "width": 64, "depth": 4,
    },
    "unet-res": {
        "halo": 96, "grid": 16, "output_smaller_by": 0, "padding": "same", "width": 32, "depth": 4,
    },
    # tests/models/test_residual_encoder.py compares with the published network.
    "unet-res-l": {
        "parameters": 71_843_976, "trainable": 71_806_344, "halo": 768, "grid": 32,
        "output_smaller_by": 0, "padding": "same", "width": 32, "depth": 5,
    },
    # 24,436,369 with three channels and one class, as segmentation_models_pytorch's; here one
    # channel (49 x 64 x 2 weights fewer) and two classes (16 x 9 + 1 more).
    "unet-resnet34": {
        "trainable": 24_436_369 - 49 * 64 * 2 + 145, "halo": 544, "grid": 32,
        "output_smaller_by": 0, "padding": "same", "width": 64, "depth": 5,
    },
    # N4: 48 maps of 4x4, 5x5, 4x4 and 4x4, then 200 neurons on 3x3 of them, then 2.
    "ciresan2012": {
        "parameters": sum([
            48 * (16 + 1), 48 * (48 * 25 + 1), 2 * 48 * (48 * 16 + 1), 200 * (48 * 9 + 1),
            2 * (200 + 1),
        ]),
        "halo": 47, "grid": 1, "output_smaller_by": 94, "receptive_field": 95,
    },
}  # fmt: skip


# Presets whose width, depth and dims are free.
UNETS = {name for name, arch in PRESETS.items() if arch.kind == "unet"}


def test_models_as_json() -> None:
    done = call("-m", "unet", "models", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["preset"]: row for row in json.loads(done.stdout)}
    assert set(rows) == set(EXPECTED) == set(PRESETS)
    for name, expected in EXPECTED.items():
        assert {key: rows[name][key] for key in expected} == expected
        assert rows[name]["receptive_field"] == footprint(PRESETS[name])[0].receptive_field
    assert 572 in rows["unet2015"]["accepted_sizes"]
    assert rows["unet-bn"]["accepted_sizes"][:2] == [16, 32]


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table, without backticks."""
    return [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]


def test_the_table_of_the_docs_agrees_with_the_command(capsys: Any) -> None:
    """Every number of the table of presets in docs/models.md."""
    assert main.main(["models", "--json"]) == 0
    rows = {row["preset"]: row for row in json.loads(capsys.readouterr().out)}
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    lines = text.split("<!-- unet models -->")[1].strip().split("\n\n")[0].splitlines()
    names, *body = [cells(line) for line in lines if not set(line) <= set("|- ")]
    assert sorted(names[1:]) == sorted(rows)
    seen = set()
    for label, *values in body:
        key = label.replace(" ", "_")
        seen.add(key)
        for name, value in zip(names[1:], values, strict=True):
            found = rows[name][key]
            if isinstance(found, list):
                assert value == ", ".join(map(str, found)) + ", ..."
            else:
                assert value == (f"{found:,}" if isinstance(found, int) else found), (name, key)
    assert seen == set(rows["unet-bn"]) - {"preset"}


def test_models_as_a_table(capsys: Any) -> None:
    assert main.main(["models"]) == 0
    text = capsys.readouterr().out
    for word in ("unet2015", "unet-bn", "31,030,658", "31,042,434", "31,054,210", "receptive",
                 "halo", "grid", "accepted"):  # fmt: skip
        assert word in text


@pytest.mark.parametrize("dims", [2, 3])
def test_models_of_another_size(capsys: Any, dims: int) -> None:
    assert main.main(["models", "--json", "--width", "4", "--depth", "2", "--channels", "3",
                     "--classes", "5", "--dims", str(dims)]) == 0  # fmt: skip
    rows = {row["preset"]: row for row in json.loads(capsys.readouterr().out)}
    for name, row in rows.items():
        changes = {"width": 4, "depth": 2, "dims": dims} if name in UNETS else {}
        arch = architecture_of(name, **changes)
        counts = parameter_counts(build(3, 5, arch))
        assert (row["parameters"], row["trainable"]) == counts
        fp = footprint(arch)[0]
        assert row["receptive_field"] == fp.receptive_field
        assert all(fp.accepts(size) for size in row["accepted_sizes"])
    with pytest.raises(SystemExit):
        main.main(["models", "--width", "0"])
    with pytest.raises(SystemExit):
        main.main([])


def test_settings_of_a_stage_without_dataset_or_model(tmp_path: Path) -> None:
    """`scripts/report.py --all` has neither."""
    from argparse import Namespace

    from unet.cli.stage import settings_of
    from unet.config.stage_settings import ReportAllSettings

    root = Path(__file__).resolve().parents[2]
    args = Namespace(settings=None, config=root / "config" / "config.yaml", dataset=None)
    assert sorted(settings_of(args, ReportAllSettings).datasets) == ["membranes", "nuclei", "phase"]
    with pytest.raises(UserError, match="--dataset: no dataset 'x'; there are: membranes"):
        settings_of(Namespace(**{**vars(args), "dataset": "x"}), ReportAllSettings)


def test_the_output_folder_of_a_stage_run_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"output: {tmp_path / 'mine'}\n"
        "datasets: {d: {synthetic: {kind: nuclei}, task: instances}}\n"
        "models: {m: {preset: unet-bn}}\n"
    )
    found: list[tuple[Path, Path]] = []

    def output(*words: str) -> Path:
        args = stage.parser("x", "X.").parse_args(["--dataset", "d", *words])
        code = stage.run(args, lambda args, paths: found.append((args.output, paths.output)))
        assert code == 0
        assert found[-1][0] == found[-1][1]
        return found[-1][1]

    assert output("--config", str(path)) == tmp_path / "mine"
    assert output("--config", str(path), "--output", "other") == Path("other")
    assert output("--settings", "{}") == Path("results")
