"""Resuming a killed workflow: none of its jobs may still run when it starts again.

A killed workflow leaves a lock, files that are marked as incomplete, and jobs that are still
running on the cluster or on this machine. With the lock, Snakemake refuses to start. If the user
removes the lock by hand, it starts each of those jobs a second time. So: make sure that the
workflow has ended, cancel the jobs that it submitted, stop the processes that it started, wait
until all of them have ended, unlock, and start the same command again.

All SLURM jobs of a run share a name, which is in Snakemake's logs in the folder, and are queried by
that name. A query by the folder would also return the user's other jobs that were submitted there,
and without the logs nothing says whether the run used SLURM at all.
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
from unet.planning.root import pipeline_folder

log = logging.getLogger(__name__)

STATE = ".snakemake"
RUN_ID = re.compile(r"SLURM run ID: ([A-Za-z0-9_-]+)")
# Log lines of executor cluster-generic: a job's number in Snakemake and in the queue; its end.
SUBMITTED = re.compile(r"^Submitted (?:group )?job (\S+) with external jobid '([^']*)'", re.M)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.M)
SCRIPTS = pipeline_folder() / "scripts"


@dataclass(frozen=True)
class Command:
    """A start of the workflow, as the workflow itself records it.

    Attributes:
        words: the arguments of ``snakemake``.
        folder: where it was called.
        host, pid: the process.
        born: when the process started; later processes may get the same pid.
    """

    words: tuple[str, ...]
    folder: str
    host: str
    pid: int
    born: float


def _note(folder: Path) -> Path:
    return folder / STATE / "unet-run.json"


def remember(folder: Path, words: Sequence[str]) -> None:
    """Records this process and its arguments as the workflow that runs in the folder."""
    # Snakemake has changed to its working folder; PWD still has the folder where it was called.
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
            f"{folder}: no run of the workflow was started here; run this command in the folder "
            "where snakemake was called, or with the same --directory"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{_note(folder)}: cannot be read; start snakemake by hand") from None


def working_folder(words: Sequence[str], called_in: Path) -> Path:
    """The working folder of Snakemake if it is called with these arguments."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("-d", "--directory", default=".", nargs="?", const=".")
    directory: str = options.parse_known_args(list(words))[0].directory
    return (called_in / directory).resolve()


def is_alive(command: Command) -> bool:
    """Whether the process still runs; this can only be checked on the same machine.

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
    """Snakemake's logs in this folder that were written after ``since`` (Unix time in s)."""
    for path in sorted((folder / STATE / "log").glob("*.snakemake.log")):
        if path.stat().st_mtime >= since:
            yield path.read_text(encoding="utf-8", errors="replace")


def run_ids(folder: Path) -> list[str]:
    """The names of the SLURM jobs of all runs in this folder. All jobs of a run share a name that
    no other run has."""
    return list(dict.fromkeys(name for text in _logs(folder) for name in RUN_ID.findall(text)))


def unfinished(folder: Path, since: float) -> list[str]:
    """Ids of jobs that were submitted with the user's own command (executor cluster-generic) and
    had not ended when the workflow was killed.

    Args:
        since: when the last run was started (Unix time in s).
    """
    found: list[str] = []
    for text in _logs(folder, since):
        ended = set(FINISHED.findall(text))
        found += [queue_id for job, queue_id in SUBMITTED.findall(text) if job not in ended]
    return found


def queued(names: Sequence[str]) -> list[str]:
    """Ids of the SLURM jobs with these names that are waiting, running or ending.

    Raises:
        UserError: the queue cannot be queried.
    """
    if not names:
        return []
    if shutil.which("squeue") is None:
        raise UserError(
            "squeue: not found, but earlier runs here submitted jobs to SLURM; run this command on "
            "a machine of the cluster"
        )
    return _call("squeue", "--noheader", "--format=%i", f"--name={','.join(names)}").split()


def cancel(names: Sequence[str], patience: float) -> None:
    """Cancels all jobs with these names, and waits until the queue has none of them.

    Raises:
        UserError: some are left after ``patience`` seconds.
    """
    for name in names:
        _call("scancel", f"--name={name}")
    end = time.monotonic() + patience
    while left := queued(names):
        if time.monotonic() >= end:
            listed = ", ".join(left)
            raise UserError(f"jobs still queued after {patience:g} s: {listed}; try again later")
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
    """Processes on this machine that run a stage of the workflow in this folder."""
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
    """Ends processes: first with SIGTERM, so that a training saves its state, then with SIGKILL."""
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
    """Makes sure that nothing of the last run in this folder is still running.

    Args:
        folder: Snakemake's working folder.
        patience: seconds to wait for jobs to end.
        gone: the user confirms that a workflow on another machine has ended.
        cancelled: the user confirms that no jobs are left in a queue other than SLURM.

    Returns:
        the command of the last run.

    Raises:
        UserError: the run is still active, or this cannot be checked, or its jobs do not end.
    """
    command = remembered(folder)
    try:
        alive = is_alive(command)
    except ValueError:
        if not gone:
            raise UserError(
                f"the last run here was started on {command.host} and cannot be checked from this "
                "machine; run this command there, or add --gone if you know that it has ended"
            ) from None
        alive = False
    if alive:
        raise UserError(
            f"the workflow is still running here (process {command.pid}); nothing to resume"
        )
    if not cancelled and (jobs := unfinished(folder, command.born)):
        raise UserError(
            f"the last run submitted {', '.join(jobs)} to the queue with a command of its profile; "
            "cancel these jobs, wait until they have ended, and add --cancelled"
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
    """Ends everything that a killed run left running, and unlocks its folder.

    Args:
        called_in: the folder in which this was called.
        words: arguments for Snakemake; if empty, those of the last run in this folder.
        patience, gone, cancelled: see :func:`clear`.

    Returns:
        the command that resumes the run, and the folder in which to call it.

    Raises:
        UserError: see :func:`clear`; or Snakemake cannot unlock.
    """
    folder = working_folder(words, called_in)
    if not (folder / STATE).is_dir():
        remembered(folder)  # raises UserError
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
