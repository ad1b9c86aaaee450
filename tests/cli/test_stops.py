"""Jobs that are stopped or fail: what is saved, and what the console and the log say."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from snakemake.logging import LogEvent

from tests.trainings import trainer
from unet.cli import stage
from unet.cli.failures import causes, show_causes, summary
from unet.errors import UserError
from unet.paths import Paths
from unet.training import progress
from unet.training.progress import Pace, Stopped, TrainingProgress, stop_signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            with suppress(OSError):  # a full disk
                handler.close()
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_training_that_is_told_to_end_saves_its_state(tmp_path: Path, number: int) -> None:
    def score(network: Any) -> tuple[float, float]:
        os.kill(os.getpid(), number)
        return 1.0, 0.5

    with pytest.raises(Stopped, match="after step 4; state saved"):
        trainer(tmp_path, score).run()
    again = trainer(tmp_path)
    again._resume()
    assert again.progress.step == 4


def test_ctrl_c_twice_ends_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    with stop_signals(stop):
        os.kill(os.getpid(), signal.SIGINT)
        # A launcher passes on what the terminal has sent already.
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        monkeypatch.setattr(progress, "SECOND_INTERRUPT_SECONDS", 0.0)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_time_left_after_a_resume_counts_the_present_rate() -> None:
    # 100 steps took 1000 s yesterday, the 50 since then 5 s.
    pace = Pace(step=100, seconds=1000.0)
    assert pace.left(TrainingProgress(step=150, seconds=1005.0), total=250) == pytest.approx(10.0)
    assert Pace().left(TrainingProgress(step=50, seconds=5.0), total=250) == pytest.approx(20.0)
    assert Pace().time_left(TrainingProgress(step=50, seconds=5.0), total=250) == "20 s"


def test_a_resumed_training_forgets_the_earlier_pace(tmp_path: Path) -> None:
    first = trainer(tmp_path, epochs=1)
    first.run()
    again = trainer(tmp_path, epochs=1)
    again._resume()
    assert (again.pace.step, again.pace.seconds) == (4, first.progress.seconds)


@pytest.mark.usefixtures("fresh_logging")
def test_a_stage_that_is_told_to_end_says_so(tmp_path: Path, capfd: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work(args: argparse.Namespace, paths: Paths) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Exception as error:
            raise AssertionError("what catches any Exception must not swallow a stop") from error

    args = argparse.Namespace(log=tmp_path / "a.log", output=tmp_path)
    assert stage.run(args, work) == 143
    line = "stopped by SIGTERM; run the same command to continue"
    assert capfd.readouterr().err == line + "\n"
    assert signal.getsignal(signal.SIGTERM) == before
    assert causes([args.log], 0) == [line]


STAMP = "2026-01-02 03:04:05,678"
UNKNOWN = "killed (memory? time limit?), or never started; see above"


def failed(rule: str, *logs: Path, **more: Any) -> dict[str, Any]:
    """The contents of Snakemake's record for a failed job."""
    return {
        "rule_name": rule,
        "log": [str(log) for log in logs],
        "rule_msg": None,
        "aux": {},
        **more,
    }


def test_the_cause_is_taken_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "nuclei.m.0.log"
    log.write_text(
        f"{STAMP} WARNING left out: a.tif: error: no\n{STAMP} ERROR error: one\n"
        f"{STAMP} ERROR error: two\nTraceback (most recent call last):\n  File x\n",
        encoding="utf-8",
    )
    assert causes([log], 0) == ["error: one", "error: two"]
    assert summary(failed("train", log), 0, "ended with exit status 2") == (
        f"Job train nuclei.m.0: error: one\nJob train nuclei.m.0: error: two\n    log: {log}"
    )
    # A log of an earlier run; no log at all.
    for path, since in ((log, time.time() + 100), (tmp_path / "none.log", 0)):
        assert causes([path], since) == []
        said = summary(failed("train", path), since)
        assert said.splitlines()[0].endswith(f": ended without an error message: {UNKNOWN}")
    # A killed job: only what is known is shown.
    log.write_text(f"{STAMP} INFO step 3\n\n", encoding="utf-8")
    last = f"    log: {log}\n        last line: {STAMP} INFO step 3"
    name = "Job train nuclei.m.0"
    for ended, line in (
        ("", "ended without an error message"),
        ("ended by SIGKILL", "ended by SIGKILL"),
    ):
        assert summary(failed("train", log), 0, ended) == f"{name}: {line}\n{last}"


def test_what_the_queue_says_is_shown(tmp_path: Path) -> None:
    """As the SLURM plugin reports it: a message, its own log among the job's, the queue's id."""
    job, queue = tmp_path / "nuclei.m.0.log", tmp_path / "12.log"
    job.write_text(f"{STAMP} INFO step 3\n", encoding="utf-8")
    queue.write_text("slurmstepd: error: Detected 1 oom_kill event\n", encoding="utf-8")
    told = "SLURM-job '12' failed, SLURM status is: 'OUT_OF_MEMORY'. Reason: Unknown."
    # RemoteExecutor.print_job_error adds this, without a space between.
    ending = (
        "For further error details see the cluster/cloud log and the log files of the involved "
        "rule(s)."
    )
    record = failed("train", job, queue, rule_msg=told + ending, aux={"external_jobid": "12"})
    assert summary(record, 0).splitlines() == [
        f"Job train nuclei.m.0: {told}",
        "    external_jobid: 12",
        f"    log: {job}",
        f"        last line: {STAMP} INFO step 3",
        f"    log: {queue}",
        "        last line: slurmstepd: error: Detected 1 oom_kill event",
    ]
    # A time limit asks the job to stop first.
    stopped = "stopped after step 4; state saved; run the same command to continue"
    job.write_text(f"{STAMP} WARNING {stopped}\n", encoding="utf-8")
    told = told.replace("OUT_OF_MEMORY", "TIMEOUT")
    record["rule_msg"] = told + ending
    assert summary(record, 0).splitlines()[:2] == [
        f"Job train nuclei.m.0: {stopped}", f"    {told}",
    ]  # fmt: skip
    # Other queues have no message of their own, and the job may not have begun.
    record = failed("train", tmp_path / "none.log", rule_msg=ending, aux={"external_jobid": "7"})
    assert summary(record, 0).splitlines() == [
        f"Job train none: ended without an error message: {UNKNOWN}",
        "    external_jobid: 7",
        f"    log: {tmp_path / 'none.log'}",
    ]


def test_the_console_shows_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake's own formatter prints the command twice, a traceback and the whole log."""
    monkeypatch.delenv(stage.CAUSE_SHOWN, raising=False)
    log = tmp_path / "d.log"
    log.write_text(f"{STAMP} ERROR error: bad\n", encoding="utf-8")
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Handler()
    handler.name = "DefaultStreamHandler"
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: record.getMessage() != "quiet")
    logger = logging.getLogger("snakemake.logging")
    before = logger.handlers[:], logger.level
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    scripts = tmp_path / "a b" / "scripts"
    ours = f"python '{scripts}/prepare.py' --output out --settings {{}}"
    foreign = "python other/scripts/prepare.py"

    def fail(shell: str, status: str, log: Path = log, message: str = "quiet") -> str:
        text = f"RuleException:\nCalledProcessError in file x:\nCommand '{shell}' {status}"
        logger.error(text, extra={"event": LogEvent.ERROR})
        record = failed("prepare", log, shellcmd=shell, event=LogEvent.JOB_ERROR)
        logger.error(message, extra=record)
        return text

    try:
        wordy = SimpleNamespace(verbose=False, printshellcmds=True, quiet=())
        assert not show_causes(SimpleNamespace(output_settings=wordy), scripts)
        assert stage.CAUSE_SHOWN not in os.environ
        plain = SimpleNamespace(verbose=False, printshellcmds=False, quiet=())
        for folder in (scripts, scripts / "other version", scripts):
            assert show_causes(SimpleNamespace(output_settings=plain), folder)
        assert stage.CAUSE_SHOWN in os.environ
        logger.info("as before")
        fail(ours, "returned non-zero exit status 2.")
        fail(ours, "returned non-zero exit status 137.", tmp_path / "none.log")
        fail(ours, "died with <Signals.SIGTERM: 15>.", tmp_path / "none.log")
        text = fail(foreign, "returned non-zero exit status 3.", message="Error in rule prepare")
        fail("echo 'open", "returned non-zero exit status 3.")
    finally:
        logger.handlers[:], logger.level = before
    none = f"    log: {tmp_path / 'none.log'}"
    assert lines == [
        "as before",
        "", f"Job prepare d: error: bad\n    log: {log}",
        "", f"Job prepare none: ended with exit status 137 (SIGKILL)\n{none}",
        "", f"Job prepare none: ended by SIGTERM\n{none}",
        text, "Error in rule prepare",
        text.replace(foreign, "echo 'open"),
    ]  # fmt: skip


@pytest.mark.usefixtures("fresh_logging")
@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("settings", [None, "{}"])
@pytest.mark.parametrize("full", [False, True])
def test_the_error_of_a_job_is_printed_once(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch,
    shown: bool, settings: str | None, full: bool,
) -> None:  # fmt: skip
    """Printed by the stage, or by the workflow if the log has it."""
    monkeypatch.delenv(stage.CAUSE_SHOWN, raising=False)
    if shown:
        monkeypatch.setenv(stage.CAUSE_SHOWN, "1")

    def work(args: argparse.Namespace, paths: Paths) -> None:
        logging.getLogger("unet").info("step 1")
        raise UserError("a \udcff\nb")

    log = Path("/dev/full") if full else tmp_path / "a.log"
    args = argparse.Namespace(log=log, output=tmp_path, settings=settings)
    assert stage.run(args, work) == 2
    silent = shown and settings is not None and not full
    printed = [] if silent else ["error: a \\udcff", "error: b"]
    assert capfd.readouterr().err.splitlines() == ["step 1", *printed]
    if not full:
        assert causes([log], 0) == ["error: a \\udcff", "error: b"]


@pytest.mark.usefixtures("fresh_logging")
@pytest.mark.parametrize(("shown", "how"), [(False, "by Ctrl-C"), (True, "with the run")])
def test_a_stage_of_a_workflow_does_not_know_what_stopped_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: bool, how: str
) -> None:
    """Snakemake sends the same signal to its jobs for Ctrl-C and for SIGTERM."""
    monkeypatch.delenv(stage.CAUSE_SHOWN, raising=False)
    if shown:
        monkeypatch.setenv(stage.CAUSE_SHOWN, "1")

    def work(args: argparse.Namespace, paths: Paths) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    args = argparse.Namespace(log=tmp_path / "a.log", output=tmp_path, settings="{}")
    # A shell that starts the tests in the background has the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert stage.run(args, work) == 143
    finally:
        signal.signal(signal.SIGINT, before)
    assert causes([args.log], 0) == [f"stopped {how}; run the same command to continue"]


@pytest.mark.workflow
@pytest.mark.parametrize("quiet", [False, True])
def test_a_mistake_in_the_files_is_one_line_of_the_run(tmp_path: Path, quiet: bool) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 999, (64, 64)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "images" / f"a{number}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"a{number}.tif", (image % 2 * 7).astype(np.uint8))
    config = {
        "output": "out", "device": "cpu",
        "datasets": {"cells": {"images": "images", "labels": "labels",
                               "classes": {"ground": 0, "cell": 255}}},
        "models": {"m": {"preset": "unet-bn", "width": 2, "depth": 1, "train": {"patch": 32}}},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    words = ["--quiet", "rules"] if quiet else []
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"),
         "--directory", str(tmp_path), "--configfile", str(tmp_path / "c.yaml"), "--cores", "1",
         *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    for noise in ("Traceback", "CalledProcessError", "--settings", "Logfile "):
        assert noise not in said
    found = [line for line in said.splitlines() if line.startswith("Job manifest")]
    assert len(found) == 1, said
    assert found[0].startswith("Job manifest cells: error: images: none of 3 images is usable")
    assert "values 7 belong to no class (classes have 0, 255)" in found[0]
    assert said.count("none of 3 images is usable") == 1
    assert "    log: out/logs/manifest/cells.log" in said.splitlines()
