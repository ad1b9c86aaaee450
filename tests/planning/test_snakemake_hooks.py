"""Planning: parameters of functions looked up once, and the table at a quiet dry run's end."""

from __future__ import annotations

import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from snakemake import common, rules
from snakemake.logging import LogEvent
from snakemake.resources import Resource
from snakemake.settings.enums import Quietness

from tests.planner import jobs_in
from unet.planning.snakemake_hooks import remember_parameters, show_table, why

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = [(m, m.get_function_params) for m in (common, rules)]
    yield
    for module, function in before:
        module.get_function_params = function
    vars(Resource.evaluate).pop(common.FUNC_OVERWRITE_PARAMS_ATTR, None)


def test_the_same_parameters_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remember_parameters()
    assert remember_parameters()  # the second time nothing more
    looked = []
    signature = inspect.signature
    monkeypatch.setattr(
        "snakemake.common.inspect.signature", lambda f: looked.append(f) or signature(f)
    )

    def one(wildcards, input, threads):  # type: ignore[no-untyped-def]
        return 1

    def other(wildcards, *, attempt=1, **more):  # type: ignore[no-untyped-def]
        return 2

    for function in (one, other, lambda w: 3, partial(one, threads=2)):
        wanted = dict(signature(function).parameters)
        looked.clear()
        for _ in range(3):
            assert dict(rules.get_function_params(function)) == wanted
        assert len(looked) == 1
    given = {"input": 1, "threads": 2, "attempt": 3}
    assert common.get_input_function_aux_params(one, given) == {"input": 1, "threads": 2}
    assert common.get_input_function_aux_params(other, given) == given


def test_methods_of_several_objects() -> None:
    assert remember_parameters()
    wanted = dict(inspect.signature(Resource("a", 1).evaluate).parameters)
    for value in (1, lambda w: 2, "x"):
        assert dict(common.get_function_params(Resource("a", value).evaluate)) == wanted


def test_what_takes_no_mark() -> None:
    assert remember_parameters()
    for _ in range(2):
        assert list(common.get_function_params(len)) == ["obj"]


def test_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(common, "FUNC_OVERWRITE_PARAMS_ATTR")
    before = common.get_function_params
    assert not remember_parameters()
    assert common.get_function_params is before


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
        # Not the numbers, so the rest is Snakemake's own.
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


def test_a_run_has_no_table_more(capsys: pytest.CaptureFixture[str]) -> None:
    """What a quiet run prints stays as it is."""

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
