"""What a dry run prints: a table of the jobs, or their counts when it is quiet."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.logging import LogEvent
from snakemake.settings.enums import Quietness

from tests.planner import jobs_in
from unet.planning.snakemake_hooks import show_table, why

ROOT = Path(__file__).resolve().parents[2]


def dry_run(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
    command += ["--directory", str(folder), "--dry-run", *words]
    command += ["--configfile", str(ROOT / "config/config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "counts", "table", "whole"),
    [
        ((), 1, True, False),
        (("--quiet",), 1, False, False),
        # No counts and no table: the output is Snakemake's own.
        (("--quiet", "progress"), 0, False, True),
        (("--printshellcmds",), 2, False, True),
    ],
)
def test_what_a_dry_run_prints(
    tmp_path: Path, words: tuple[str, ...], counts: int, table: bool, whole: bool
) -> None:
    said = dry_run(tmp_path, *words)
    assert len(re.findall(r"^total +\d+$", said, re.M)) == counts
    assert ("rule train:" in said) == whole
    lines = re.findall(
        r"^train +nuclei unet-border 0  Missing output files: .* and 1 more$", said, re.M
    )
    assert len(lines) == table
    if table:
        assert re.search(r"^job +of +why$", said, re.M)
        planned = int(re.findall(r"^total +(\d+)$", said, re.M)[0])
        # Each job but the target has its line.
        assert len(jobs_in(said)) == planned - 1
        assert not re.search(r"^all +.*files", said, re.M)
        assert len(said.splitlines()) < planned + 50


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("Missing output files: a", "Missing output files: a"),
        ("Missing output files: a, b, c", "Missing output files: a and 2 more"),
        (
            "Missing output files: a; Input files updated by another job: b, c",
            "Missing output files: a",
        ),
        ("Input files updated by another job: b", "Input files updated by another job: b"),
        (
            "Set of input files has changed since last execution; Params have changed since last "
            'execution: Before: {"a": 1, "b": 2} Now: {}',
            "Set of input files has changed since last execution; Params have changed since last "
            "execution",
        ),
        ("Forced execution", "Forced execution"),
    ],
)
def test_a_reason_in_a_line(reason: str, short: str) -> None:
    assert why(reason) == short


def test_a_quiet_run_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The output of a quiet run is unchanged."""

    class Workflow:
        dryrun = False

        class output_settings:
            quiet = (Quietness.RULES, Quietness.PROGRESS)
            printshellcmds = verbose = False

    logger = logging.getLogger("snakemake.logging")
    before = list(logger.handlers)
    assert show_table(Workflow)
    (added,) = [handler for handler in logger.handlers if handler not in before]
    record = logging.makeLogRecord({"msg": "the table", "event": LogEvent.RUN_INFO})
    other = logging.makeLogRecord({"msg": "a job", "event": LogEvent.JOB_INFO})
    try:
        added.handle(record)
        assert capsys.readouterr().err == ""
        Workflow.dryrun = True
        added.handle(other)
        added.handle(record)
        assert capsys.readouterr().err == "the table\n"
    finally:
        logger.removeHandler(added)
    Workflow.output_settings.quiet = (Quietness.RULES,)  # type: ignore[assignment]
    assert not show_table(Workflow)
    assert not show_table(object())
    assert logger.handlers == before
