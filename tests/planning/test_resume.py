"""Resuming after a kill: nothing is touched while a run is alive; its jobs are cancelled, its
processes stopped, and the same command is called again. The queue is two small programs.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from scripts.resume import main
from tests.workflow.test_workflow import CONFIG, SNAKEMAKE
from unet.errors import UserError
from unet.files import write_json
from unet.planning import resume
from unet.planning.resume import Command, remember, remembered, run_ids, working_folder

ROOT = Path(__file__).resolve().parents[2]

# A queue in a folder: a file per job, named <name>.<id>. After `scancel` a job disappears only at
# the second `squeue`, because jobs take a while to end.
SQUEUE = """#!/bin/sh
cd "$(dirname "$0")/queue" && echo "squeue $*" >>../calls
for word in "$@"; do case $word in --name=*) names=${word#--name=};; esac; done
for name in $(echo "$names" | tr , " "); do
  for file in "$name".*; do
    [ -e "$file" ] && echo "${file##*.}"
    [ -e "$file" ] && [ -s "$file" ] && rm "$file"
  done
done
true
"""
SCANCEL = """#!/bin/sh
cd "$(dirname "$0")/queue" && echo "scancel $*" >>../calls
for file in "${1#--name=}".*; do [ -e "$file" ] && echo ending >"$file"; done
true
"""
DEAF = '#!/bin/sh\necho "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1\n'


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the queue; its programs are the first on PATH."""
    folder = tmp_path / "bin"
    (folder / "queue").mkdir(parents=True)
    for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "queue"


def calls(queue: Path) -> list[str]:
    path = queue.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def killed_run(folder: Path, *names: str, host: str = "", pid: int = 0) -> Path:
    """The files of a killed run: its record, and its names in the logs."""
    write_json(
        folder / ".snakemake" / "unet-run.json",
        {"words": ["--cores", "1"], "folder": str(folder), "host": host or socket.gethostname(),
         "pid": pid or gone(), "born": 1.0},
    )  # fmt: skip
    for number, name in enumerate(names):
        log = folder / ".snakemake" / "log" / f"2026-01-0{number + 1}T000000.snakemake.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"host: here\nSLURM run ID: {name}\nJob 3 has been submitted\n")
    return folder


def test_a_process_is_recorded_and_recognised(tmp_path: Path) -> None:
    remember(tmp_path, ["--cores", "2"])
    found = remembered(tmp_path)
    assert (found.words, found.pid, found.host) == (
        ("--cores", "2"), os.getpid(), socket.gethostname(),
    )  # fmt: skip
    assert resume.is_alive(found)
    assert not resume.is_alive(Command((), "", found.host, found.pid, found.born - 100))
    assert not resume.is_alive(Command((), "", found.host, gone(), found.born))
    with pytest.raises(ValueError, match="elsewhere"):
        resume.is_alive(Command((), "", "elsewhere", found.pid, found.born))


def test_where_snakemake_works_and_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert working_folder(["--cores", "1"], tmp_path) == tmp_path
    assert working_folder(["--directory", "a"], tmp_path) == tmp_path / "a"
    assert working_folder(["-d", "/b"], tmp_path) == Path("/b")
    assert working_folder(["--directory=a/b"], tmp_path) == tmp_path / "a" / "b"
    (tmp_path / "a").mkdir()
    # The shell knows where it was; a program's `cwd=` is not in PWD.
    monkeypatch.setenv("PWD", str(tmp_path))
    remember(tmp_path / "a", ["--directory", "a"])
    assert remembered(tmp_path / "a").folder == str(tmp_path)
    remember(tmp_path / "a", ["--cores", "1"])
    assert remembered(tmp_path / "a").folder == str(tmp_path / "a")


def test_names_of_all_runs(tmp_path: Path) -> None:
    assert run_ids(tmp_path) == []
    killed_run(tmp_path, "b-1", "a_2", "b-1")
    assert run_ids(tmp_path) == ["b-1", "a_2"]


def test_jobs_are_cancelled_and_waited_for(tmp_path: Path, queue: Path) -> None:
    folder = killed_run(tmp_path / "work", "run-a", "run-b")
    for name in ("run-a.11", "run-a.12", "run-b.13", "other.14"):
        (queue / name).touch()
    resume.clear(folder, 30)
    assert [path.name for path in queue.iterdir()] == ["other.14"]
    said = calls(queue)
    assert [line for line in said if line.startswith("scancel")] == [
        "scancel --name=run-a", "scancel --name=run-b",
    ]  # fmt: skip
    # Looked before, and after until there was nothing.
    assert [line.split()[0] for line in said] == [
        "squeue",
        "scancel",
        "scancel",
        "squeue",
        "squeue",
    ]


def test_jobs_that_do_not_end(tmp_path: Path, queue: Path) -> None:
    folder = killed_run(tmp_path / "work", "run-a")
    (queue / "run-a.7").touch()
    (queue.parent / "scancel").write_text("#!/bin/sh\ntrue\n")
    with pytest.raises(UserError, match=r"^jobs still queued after 0.2 s: 7; try again later$"):
        resume.clear(folder, 0.2)


def test_nothing_queued_cancels_nothing(tmp_path: Path, queue: Path) -> None:
    resume.clear(killed_run(tmp_path / "work", "run-a"))
    assert [line.split()[0] for line in calls(queue)] == ["squeue"]


def test_a_run_without_a_cluster_asks_no_queue(tmp_path: Path, queue: Path) -> None:
    resume.clear(killed_run(tmp_path / "work"))
    assert calls(queue) == []


def test_a_queue_that_cannot_be_queried(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_run(tmp_path / "work", "run-a")
    (queue.parent / "squeue").write_text(DEAF)
    with pytest.raises(UserError, match=r"^squeue: slurm_load_jobs error: Unable"):
        resume.clear(folder)
    monkeypatch.setenv("PATH", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"^squeue: not found"):
        resume.clear(folder)


def test_a_live_run_is_left_alone(
    tmp_path: Path, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_run(tmp_path, "run-a")
    (queue / "run-a.1").touch()
    remember(tmp_path, ["--cores", "1"])
    assert main(["--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: the workflow is still running here (process {os.getpid()}); nothing to resume\n"
    )
    assert calls(queue) == []


def test_a_run_of_another_machine_needs_confirmation(tmp_path: Path, queue: Path) -> None:
    folder = killed_run(tmp_path / "work", "run-a", host="login7")
    (queue / "run-a.1").touch()
    with pytest.raises(UserError, match=r"started on login7.*--gone"):
        resume.clear(folder)
    assert calls(queue) == []
    resume.clear(folder, gone=True)
    assert list(queue.iterdir()) == []


def test_jobs_of_another_queue_are_named(tmp_path: Path, queue: Path) -> None:
    folder = killed_run(tmp_path / "work", "earlier", "last")
    logs = sorted((folder / ".snakemake" / "log").iterdir())
    logs[0].write_text("Submitted job 1 with external jobid '1.pbs'.\n")
    logs[1].write_text(
        "Submitted job 9 with external jobid '7.pbs'.\nSubmitted job 8 with external jobid "
        "'8.pbs'.\nFinished jobid: 9 (Rule: a)\nSubmitted job 98 with external jobid '9.pbs'.\n"
    )
    os.utime(logs[0], (0.5, 0.5))  # before the last run
    with pytest.raises(UserError, match=r"submitted 8\.pbs, 9\.pbs to the queue .* --cancelled$"):
        resume.clear(folder)
    resume.clear(folder, cancelled=True)


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 2
    assert "no run of the workflow was started here" in capsys.readouterr().err
    (tmp_path / ".snakemake").mkdir()
    for damaged in ("{", "[]", '{"words": []}'):
        (tmp_path / ".snakemake" / "unet-run.json").write_text(damaged)
        assert main(["--folder", str(tmp_path)]) == 2
        assert re.fullmatch(r"error: \S+unet-run.json: .*\n", capsys.readouterr().err)


ASKED = """
import signal, sys, time
def asked(number, frame):
    open(sys.argv[1], "w").close()
    if sys.argv[2] == "polite":
        sys.exit()
signal.signal(signal.SIGTERM, asked)
print(1, flush=True)
while True:
    time.sleep(60)
"""


def test_processes_are_asked_first_then_ended(tmp_path: Path) -> None:
    pids = []
    for kind in ("polite", "stubborn"):
        words = [sys.executable, "-c", ASKED, str(tmp_path / kind), kind]
        with subprocess.Popen(["sh", "-c", '"$@" & echo $!', "sh", *words],
                              stdout=subprocess.PIPE, text=True) as shell:  # fmt: skip
            assert shell.stdout is not None
            pids.append(int(shell.stdout.readline()))
            assert shell.stdout.readline() == "1\n"
    resume.stop([*pids, gone()], 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["polite", "stubborn"]
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.workflow
def test_a_run_on_this_machine_is_killed_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training outlives its workflow; it is stopped and saves its state, and the folder is free
    for the next run."""
    longer = {**CONFIG["train"], "epochs": 4000, "checkpoint_seconds": 0.2}
    config = {**CONFIG, "datasets": {"sem": CONFIG["datasets"]["sem"]}, "train": longer}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = ["--directory", str(tmp_path), "--configfile", str(tmp_path / "config.yaml")]
    target = "out/sem/a/fold-0/model.pt"
    with (tmp_path / "first.txt").open("wb") as out:
        first = subprocess.Popen(
            [*SNAKEMAKE, target, "--cores", "2", *words], stdout=out, stderr=out
        )
    end = time.monotonic() + 900
    while not list((tmp_path / "out" / "checkpoints").rglob("last.pt")):
        assert time.monotonic() < end, (tmp_path / "first.txt").read_text()
        assert first.poll() is None, (tmp_path / "first.txt").read_text()
        time.sleep(0.1)
    first.kill()
    first.wait()
    (left,) = resume.leftovers(tmp_path)  # it outlived the workflow
    trainer = psutil.Process(left)

    assert main(["--folder", str(tmp_path), "--stay"]) == 0
    assert not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE
    assert resume.leftovers(tmp_path) == []
    log = (tmp_path / "out" / "logs" / "train" / "sem.a.0.log").read_text()
    assert "stopped" in log
    assert not list((tmp_path / ".snakemake").glob("locks/*"))
    assert remembered(tmp_path).words[-4:] == tuple(words)
    # It shows the same command again.
    assert f"{target} --cores 2 " in capsys.readouterr().err
