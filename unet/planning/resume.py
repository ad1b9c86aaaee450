"""Going on after the workflow was killed: none of its jobs may still run when it starts again.

A killed workflow leaves a lock, files that are marked as incomplete, and jobs that go on, on the
cluster and on this machine. Started as it is, it refuses; unlocked by hand, it starts each of those
jobs a second time. So: see that it is dead, cancel what it submitted, stop what it started, wait
until all of that is gone, unlock, and start the same command again.

SLURM is asked by the name that all jobs of a run share, which is in Snakemake's logs of the folder.
Asked by the folder alone, it would also give the user's other jobs that were submitted there; and
without the logs nothing says whether the run used SLURM at all.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from unet.errors import UserError
from unet.files import locked, read_json, write_json

log = logging.getLogger(__name__)

STATE = ".snakemake"
RUN_ID = re.compile(r"SLURM run ID: ([A-Za-z0-9_-]+)")
# What executor cluster-generic says: Snakemake's number of a job and the queue's; and its end.
SUBMITTED = re.compile(r"^Submitted (?:group )?job (\S+) with external jobid '([^']*)'", re.M)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.M)
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@dataclass(frozen=True)
class Command:
    """A start of the workflow, as the workflow itself notes it.

    Attributes:
        words: what stood after ``snakemake``.
        folder: where it was called.
        host, pid: which process it was; ``born``, when that started, tells it from later ones.
    """

    words: tuple[str, ...]
    folder: str
    host: str
    pid: int
    born: float


def _note(folder: Path) -> Path:
    return folder / STATE / "unet-run.json"


def remember(folder: Path, words: Sequence[str]) -> None:
    """Notes this process, called with these words, as the workflow that runs in the folder."""
    # Snakemake has gone to its working folder since; the shell's own note of where it was stays.
    shell = Path(os.environ.get("PWD", folder))
    called_in = shell if working_folder(words, shell) == folder.resolve() else folder
    pid = os.getpid()
    born = psutil.Process(pid).create_time()
    command = Command(tuple(words), str(called_in), socket.gethostname(), pid, born)
    write_json(_note(folder), asdict(command))


def remembered(folder: Path) -> Command:
    """The last start of the workflow in this folder.

    Raises:
        UserError: none is known.
    """
    try:
        value = read_json(_note(folder))
        return Command(**{**value, "words": tuple(value["words"])})
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no run of the workflow was started here; call this in the folder where "
            "snakemake was called, or with the same --directory"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{_note(folder)}: cannot be read; start snakemake by hand") from None


def working_folder(words: Sequence[str], called_in: Path) -> Path:
    """Where Snakemake works if it is called with these words."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("-d", "--directory", default=".", nargs="?", const=".")
    directory: str = options.parse_known_args(list(words))[0].directory
    return (called_in / directory).resolve()


def is_alive(command: Command) -> bool:
    """Whether that process still runs; only its own machine can tell.

    Raises:
        ValueError: it was started on another machine.
    """
    if command.host != socket.gethostname():
        raise ValueError(command.host)
    try:
        process = psutil.Process(command.pid)
        same = abs(process.create_time() - command.born) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _logs(folder: Path, since: float = 0.0) -> Iterator[str]:
    """Snakemake's logs of this folder that were written after ``since`` (Unix time in s)."""
    for path in sorted((folder / STATE / "log").glob("*.snakemake.log")):
        if path.stat().st_mtime >= since:
            yield path.read_text(encoding="utf-8", errors="replace")


def run_ids(folder: Path) -> list[str]:
    """The names of the SLURM jobs of all runs in this folder: the jobs of a run share one, which no
    other run has."""
    return list(dict.fromkeys(name for text in _logs(folder) for name in RUN_ID.findall(text)))


def unfinished(folder: Path, since: float) -> list[str]:
    """Ids of the jobs that were submitted by a command of the user's (executor cluster-generic),
    and whose end the workflow has not seen.

    Args:
        since: when the last run was started (Unix time in s).
    """
    found: list[str] = []
    for text in _logs(folder, since):
        ended = set(FINISHED.findall(text))
        found += [queue_id for job, queue_id in SUBMITTED.findall(text) if job not in ended]
    return found


def queued(names: Sequence[str]) -> list[str]:
    """Ids of the SLURM jobs of these names that wait, run or are just being ended.

    Raises:
        UserError: the queue cannot be asked.
    """
    if not names:
        return []
    if shutil.which("squeue") is None:
        raise UserError(
            "squeue: not found, but the last runs here submitted to SLURM; call this on a machine "
            "that knows the cluster"
        )
    return _call("squeue", "--noheader", "--format=%i", f"--name={','.join(names)}").split()


def cancel(names: Sequence[str], patience: float) -> None:
    """Cancels all jobs of these names, and waits until the queue has none of them.

    Raises:
        UserError: some are left after ``patience`` seconds.
    """
    for name in names:
        _call("scancel", f"--name={name}")
    end = time.monotonic() + patience
    while left := queued(names):
        if time.monotonic() >= end:
            listed = ", ".join(left)
            raise UserError(f"jobs still there after {patience:g} s: {listed}; try again later")
        time.sleep(1)


def _call(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]}: no answer in 2 minutes; try again later") from None
    if done.returncode:
        raise UserError(f"{words[0]}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout


def leftovers(folder: Path) -> list[int]:
    """Processes of this machine that are a stage of the workflow, at work in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words, cwd = process.info["cmdline"] or [], process.info["cwd"]
        if cwd is None or Path(cwd) != folder or process.pid == os.getpid():
            continue
        scripts = (folder / word for word in words[1:4] if word.endswith(".py"))
        if any(script.parent == SCRIPTS for script in scripts):
            found.append(process.pid)
    return found


def stop(pids: Sequence[int], patience: float) -> None:
    """Ends processes: first by a request, so that a training saves its state."""
    left: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    for end, seconds in ((psutil.Process.terminate, patience), (psutil.Process.kill, 10.0)):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                end(process)
        _, left = psutil.wait_procs(left, timeout=seconds)


def clear(
    folder: Path, patience: float = 300.0, *, gone: bool = False, cancelled: bool = False
) -> Command:
    """Makes sure that nothing of the last run in this folder is left.

    Args:
        folder: that Snakemake works in.
        patience: seconds to wait for jobs to end.
        gone: the user knows that a workflow that was started on another machine has ended.
        cancelled: and that no job is left in a queue that is not asked here.

    Returns:
        what was called last.

    Raises:
        UserError: it still runs, or that cannot be told, or its jobs do not end.
    """
    command = remembered(folder)
    try:
        alive = is_alive(command)
    except ValueError:
        if not gone:
            raise UserError(
                f"the last run here was started on {command.host}, which this machine cannot look "
                "at; call this there, or add --gone if you know that it has ended"
            ) from None
        alive = False
    if alive:
        raise UserError(f"the workflow still runs here (process {command.pid}); nothing to resume")
    if not cancelled and (jobs := unfinished(folder, command.born)):
        raise UserError(
            f"the last run submitted {', '.join(jobs)} to the queue by a command of its profile; "
            "cancel them, wait until they are gone, and add --cancelled"
        )
    names = run_ids(folder)
    if jobs := queued(names):
        log.info("cancelling %d jobs of the last run: %s", len(jobs), ", ".join(jobs))
        cancel(names, patience)
    if pids := leftovers(folder):
        log.info("stopping %d processes of the last run: %s", len(pids), ", ".join(map(str, pids)))
        stop(pids, min(patience, 60.0))
    return command


def resume(
    called_in: Path,
    words: Sequence[str],
    patience: float = 300.0,
    *,
    gone: bool = False,
    cancelled: bool = False,
) -> tuple[list[str], Path]:
    """Clears away what a killed run left, and unlocks its folder.

    Args:
        called_in: where the command is to be called.
        words: for Snakemake; nothing: those of the last run in this folder.
        patience, gone, cancelled: see :func:`clear`.

    Returns:
        the command that goes on with the run, and where to call it.

    Raises:
        UserError: see :func:`clear`; Snakemake cannot unlock.
    """
    folder = working_folder(words, called_in)
    if not (folder / STATE).is_dir():
        remembered(folder)  # says so
    with locked(folder / STATE / "unet-resume.lock", "resuming here"):
        last = clear(folder, patience, gone=gone, cancelled=cancelled)
        where = called_in if words else Path(last.folder)
        snakemake = [sys.executable, "-m", "snakemake", *(words or last.words)]
        log.info("unlocking %s", folder)
        done = subprocess.run(
            [*snakemake, "--unlock"], cwd=where, capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
            raise UserError(f"snakemake --unlock: {lines[-1]}")
    return [*snakemake, "--rerun-incomplete"], where
