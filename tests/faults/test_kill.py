"""Stages and whole runs, killed at random times: the final tables must equal those of an
undisturbed run, byte by byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.contents import different, tables
from tests.faults.stages import ROOT, SEED, STAGES, THREADS, WITHOUT_APPLIED, Lab
from tests.faults.tallies import Tally

pytestmark = pytest.mark.faults

# Number of kills before a change of a file (all equally likely), and at a random time.
BY_OPERATION, BY_TIME = 5, 2
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
RUN = (
    "--cores",
    "2",
    "--quiet",
    "rules",
    "--set-threads",
    *(f"{k}={n}" for k, n in THREADS.items()),
)
WHOLE = 4


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_killed(lab: Lab, tmp_path: Path, tally: Tally, stage: str) -> None:
    dice = random.Random(f"{SEED} {stage}")
    output = lab.before(stage, tmp_path / "results")
    # A checkpoint after every step, so that most kills fall between two of them.
    more = ["--checkpoint-seconds", "0.001"] if stage == "train" else []
    operations, killed = lab.operations[stage] * (4 if more else 1), [0, 0]
    for _ in range(20 * (BY_OPERATION + BY_TIME)):
        if killed == [BY_OPERATION, BY_TIME]:
            break
        by_time = killed[0] == BY_OPERATION
        if by_time:
            done = lab.run(stage, output, more, after=dice.uniform(0, lab.seconds[stage]))
        else:
            done = lab.run(stage, output, more, operation=dice.randint(1, operations))
        assert done.code in (0, -signal.SIGKILL), done.said
        assert lab.is_sound(stage, output)
        killed[by_time] += done.killed
        if not done.killed:  # it finished before the kill: start again
            lab.before(stage, output)
    assert killed == [BY_OPERATION, BY_TIME]
    lab.finish(stage, output)
    tally(
        "a stage is killed",
        f"SIGKILL of `{stage}` before a random change of a file, or at a random time",
        "run again, it continues; final tables identical to those of an undisturbed run",
        sum(killed),
    )


@dataclass(frozen=True)
class Whole:
    """Snakemake in its own process group, with its output in a file: jobs that outlive it would
    keep a pipe open."""

    process: subprocess.Popen[bytes]
    file: Path

    @classmethod
    def start(cls, folder: Path, config: Path, *words: str) -> Whole:
        file = folder / f"said-{time.monotonic_ns()}.txt"
        command = [*SNAKEMAKE, "--directory", str(folder), "--configfile", str(config), *words]
        with file.open("wb") as handle:
            process = subprocess.Popen(
                command, stdout=handle, stderr=subprocess.STDOUT, start_new_session=True
            )
        return cls(process, file)

    @property
    def said(self) -> str:
        return self.file.read_text()

    def wait_for(self, path: Path) -> None:
        """Waits for a file or folder that the run creates."""
        deadline = time.monotonic() + 1500
        while not path.exists():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, f"{path} did not appear"
            time.sleep(0.05)

    def kill(self, *, alone: bool = False) -> None:
        """Kills it with its jobs, or alone: then the jobs that it has started finish."""
        if alone:
            self.process.kill()
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        raise AssertionError("a job did not end")


def test_the_whole_run_is_killed(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    dice = random.Random(f"{SEED} all of it")
    (tmp_path / "raw").symlink_to(lab.raw)
    logs = tmp_path / "results" / "logs"
    killed = 0
    # Some time after the first sign of a stage, in the order of the stages.
    for stage in sorted(dice.sample(WITHOUT_APPLIED[:-1], WHOLE), key=STAGES.index):
        run = Whole.start(tmp_path, lab.config, *RUN)
        run.wait_for(logs / stage)
        time.sleep(dice.uniform(0, 4))
        # The run may have finished already.
        killed += run.process.poll() is None
        run.kill(alone=killed % 2 == 1)
        unlock = Whole.start(tmp_path, lab.config, "--unlock")
        assert unlock.process.wait(120) == 0, unlock.said
    run = Whole.start(tmp_path, lab.config, *RUN)
    assert run.process.wait(400) == 0, run.said
    assert "Traceback" not in run.said
    assert killed >= WHOLE - 1
    assert different(tables(tmp_path / "results"), lab.of_one_dataset) == []
    tally(
        "the whole run is killed",
        "SIGKILL of Snakemake at a random time, with its jobs or alone",
        "`--unlock` and run again: it continues; final tables identical to those of an "
        "undisturbed run",
        killed,
    )
