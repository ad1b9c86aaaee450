"""``unet run``: words, messages, lines and bars, exit codes; and real runs in a pipe."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console
from snakemake.cli import get_argument_parser
from snakemake_interface_logger_plugins.common import LogEvent

from tests.workflow.test_module import CONFIG
from unet.cli import main, run_process, run_view
from unet.cli.failures import Brief
from unet.cli.run_command import Call
from unet.cli.run_events import EVENTS, EventWriter
from unet.cli.run_follow import Outcome
from unet.cli.run_progress import RunningJob, Step, job_name, read_step
from unet.errors import UserError
from unet.planning.snakemake_words import _CHOOSE, _OWN_OUTPUT, read_words

ROOT = Path(__file__).resolve().parents[2]
STAMP = "2026-01-02 03:04:05,678"


# How far a job is.


@pytest.mark.parametrize(
    ("line", "share", "text"),
    [
        ("step 12/48  loss 1.2  3.0 images/s  left 40 s", 0.25,
         "step 12 of 48, 40 s left"),
        ("epoch 1/2  loss 1.2  val loss 0.6  val score 0.3  4.4 images/s  data 0 %  "
         "left 1 h 20 min", 0.5, "epoch 1 of 2, 1 h 20 min left"),
        ("1.5 of 6.0 Mpx  0.50 Mpx/s  left 9 s", 0.25, "1.5 of 6.0 Mpx, 9 s left"),
        ("3.0 of 6.0 Mpx  0.50 Mpx/s  left 27 min", 0.5, "3.0 of 6.0 Mpx, 27 min left"),
        ("manifest: image 3 of 4, 80 %, 12 MB/s", 0.8, "image 3 of 4"),
        ("statistics, pass 2: image 0 of 4, 10 %, 12 MB/s", 0.1,
         "statistics, pass 2: image 0 of 4"),
        ("stitched images: 1 of 4", 0.25, "stitched images 1 of 4"),
        ("threshold: validation image 1 of 2", 0.5, "threshold: validation image 1 of 2"),
    ],
)  # fmt: skip
def test_the_last_step_of_a_log(line: str, share: float, text: str) -> None:
    log = f"{STAMP} INFO manifest: image 1 of 4, 20 %, 12 MB/s\n{STAMP} INFO {line}\n"
    other = f"{STAMP} INFO computed 6.0 Mpx at 0.50 Mpx/s\n{STAMP} WARNING 1 of 2\n"
    assert read_step(log + other) == Step(share, text)


def test_lines_that_say_nothing_of_progress() -> None:
    for line in ("3 of 4 images have labels and are scored", "manifest: 4 images, 0 left out",
                 "prepare: 4 of 4 images to prepare, 0 stay as they are", ""):  # fmt: skip
        assert read_step(f"{STAMP} INFO {line}\n") is None
    assert read_step("step 1/2  left 1 s") is None  # not a line of a log


def test_the_log_of_an_earlier_run_is_not_progress(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(f"{STAMP} INFO stitched images: 4 of 4\n", encoding="utf-8")
    job = RunningJob("stitch a", log)
    job.look()
    assert job.step is None
    log.write_text(f"{STAMP} INFO stitched images: 1 of 4, and more\n", encoding="utf-8")
    job.look()
    assert job.step is None
    log.write_text(f"{STAMP} INFO stitched images: 1 of 4\n", encoding="utf-8")
    job.look()
    assert job.step == Step(0.25, "stitched images 1 of 4")
    log.unlink()
    job.look()
    assert job.step is not None


def test_names_of_jobs() -> None:
    where = {"dataset": "d", "model": "m@e", "fold": "0", "shard": "3"}
    assert job_name("predict_shard", where) == "predict d/m@e fold 0 shard 3"
    assert job_name("stitch", {"dataset": "d", "model": "m", "fold": "ensemble"}) == (
        "stitch d/m ensemble"
    )
    assert job_name("compare", {"dataset": "d", "tool": "otsu"}) == "compare d/otsu"
    assert job_name("report_dataset", {"dataset": "d"}) == "report d"
    assert job_name("report", {}) == "report"


# Words.


def test_config_files_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b.yaml", "c.yml"):
        Path(name).write_text("seed: 1\n", encoding="utf-8")
    call = Call.of(["a b.yaml", "c.yml", "out/d/x.json", "-n"])
    assert call.words == ("out/d/x.json", "-n")
    assert call.text() == "unet run 'a b.yaml' c.yml out/d/x.json -n"
    words = call.snakemake_words(call.words)
    assert words[:4] == [
        "--configfile", str(tmp_path / "a b.yaml"), str(tmp_path / "c.yml"), "--snakefile",
    ]  # fmt: skip
    assert words[5:] == ["out/d/x.json", "-n"]
    assert Path(words[4]).is_file()


def test_what_the_words_ask_for() -> None:
    words = read_words(["--cores", "4", "--workflow-profile", "slurm", "--config", "seed=1"])
    assert words.whole
    assert not (words.dry_run)
    assert not (words.own_output)
    assert not (words.unlock)
    assert " ".join(words.shared) == "--cores=4 --workflow-profile=slurm --config=seed=1"
    assert read_words(["-n"]).dry_run
    assert read_words(["--dry-run", "--forcerun", "stitch"]).dry_run
    assert read_words(["--forcerun", "stitch"]).whole
    assert not read_words(["out/report.csv"]).whole
    assert not read_words(["--until", "prepare"]).whole
    assert read_words(["--unlock"]).unlock
    assert read_words(["-d", "x"]).directory == "x"
    for word in ("--help", "--list-rules", "--verbose", "--printshellcmds", "--lint"):
        assert read_words([word]).own_output, word


# Words for each option of Snakemake that takes any number of them, and for some that take one.
WORDS = {
    "--cache": "train", "--resources": "gpu=1 mem_mb=9", "--set-threads": "train=2",
    "--set-resources": "train:runtime=9 train:slurm_partition='gpu'", "--set-scatter": "a=2",
    "--set-resource-scopes": "gpu=local", "--default-resources": "slurm_account=x mem_mb=9",
    "--preemptible-rules": "train", "--config": "seed=1 device=cpu", "--envvars": "A B",
    "--rerun-triggers": "mtime params", "--consider-ancient": "train=0",
    "--strict-dag-evaluation": "functions", "--groups": "train=a", "--group-components": "a=2",
    "--quiet": "rules", "--wait-for-files": "a b", "--omit-flags": "temp",
    "--unneeded-temp-files": "a", "--shared-fs-usage": "persistence sources",
    "--software-deployment-method": "conda apptainer", "--max-jobs-per-timespan": "7/1s",
}  # fmt: skip


def test_the_check_gets_the_words_of_the_run() -> None:
    """All options reach it, and its only target is the check."""
    parser = get_argument_parser()
    options = {
        next(name for name in each.option_strings if name.startswith("--")): each
        for each in parser._actions
        if each.option_strings and each.dest not in {"help", "version", "configfile", "snakefile"}
    }
    seen = set()
    for option, action in options.items():
        if action.dest in {*_CHOOSE, *_OWN_OUTPUT, "dryrun", "unlock", "workflow_profile"}:
            continue
        if action.dest in {"logger", "scheduler_ilp_solver"}:
            continue  # nothing to choose from without further packages
        words = [option]
        if option in WORDS or action.nargs in ("*", "+"):
            words += WORDS[option].split()
        elif action.nargs is None:
            words.append(str(next(iter(action.choices or ["7"]))))
        else:
            words += ["a", "b"][: 2 if action.nargs == 2 else 0]
        try:
            parser.parse_args(words)
        except SystemExit:
            pytest.fail(f"Snakemake does not know {words}")
        shared = read_words(words).shared
        assert " ".join(shared).replace("=", " ") == " ".join(words).replace("=", " ")
        assert set(parser.parse_args(["check", *shared]).targets) == {"check"}, words
        seen.add(option)
    assert set(WORDS) <= seen
    assert {"--nolock", "--slurm-partition-config", "--latency-wait", "--retries"} <= seen


def test_the_check_is_a_target_and_not_a_value(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("")
    calls: list[list[str]] = []
    command_of = run_process.command_of
    monkeypatch.setattr(
        run_process, "command_of", lambda words: calls.append(list(words)) or command_of(words)
    )
    assert main.main(["run", "my.yaml", "--config", "seed=1", "--sdm", "conda"]) == 0
    targets = [set(get_argument_parser().parse_args(words).targets) for words in calls]
    assert targets == [{"check"}, set()]


def test_the_check_does_not_get_words_that_choose_jobs() -> None:
    words = read_words(
        ["--default-res", "a=1", "b=2", "--forcerun", "stitch", "train", "-kF", "-T", "2",
         "--precommand=-x y", "--prioritize", "train", "-f", "--sdm", "conda"]
    )  # fmt: skip
    assert words.shared == (
        "--default-resources", "a=1", "b=2", "--keep-going", "--retries=2",
        "--precommand=-x y", "--software-deployment-method=conda",
    )  # fmt: skip
    assert read_words(["out/report.csv", "--until", "train", "--batch", "all=1/2"]).shared == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no config file is named; write: unet run CONFIG"),
        (["out"], "out: not a config file (.yaml)"),
        (["none.yaml"], "none.yaml: cannot be read: no such file; did you mean one.yaml?"),
        (["one.yaml", "--foo"], "unrecognized arguments: --foo"),
        (["one.yaml", "--cores"], "expected one argument"),
        (["one.yaml", "--configfile", "two.yaml"], "give all config files first"),
        (["one.yaml", "--snakefile", "x"], "has a workflow of its own"),
        (["one.yaml", "--workflow-profile", "slrum"], "come with the workflow: cluster-generic, "),
    ],
)
def test_a_mistake_in_the_words_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text("seed: 1\n", encoding="utf-8")
    monkeypatch.setattr(run_process, "command_of", lambda words: pytest.fail("started"))
    assert main.main(["run", *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_windows_is_told_what_works(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from unet.cli import run_command

    monkeypatch.setattr(run_command, "_system", lambda: "Windows")
    assert main.main(["run", "one.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: unet run needs Linux or macOS; on Windows")
    assert err.count("\n") == 1


def test_where_the_workflow_is(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["run", "--where"])
    assert ended.value.code == 0
    assert (Path(capsys.readouterr().out.strip()) / "Snakefile").is_file()


# Events.


def record(event: LogEvent | None, level: int = logging.INFO, text: str = "", **values: Any) -> Any:
    made = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    vars(made).update(values)
    if event is not None:
        vars(made)["event"] = event
    return made


def test_events_of_snakemake(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    brief = Brief(logging.Formatter("%(message)s"))
    brief.scripts.add(tmp_path)
    path = tmp_path / "events"

    def told(dryrun: bool, *records: Any) -> list[dict[str, Any]]:
        path.write_text("")
        writer = EventWriter(SimpleNamespace(dryrun=dryrun), path, brief)
        for each in records:
            writer.emit(each)
        return [json.loads(line) for line in path.read_text().splitlines()]

    job = {"jobid": 3, "rule_name": "train", "wildcards": {"dataset": "d"}, "log": [str(log)],
           "output": ["x"], "reason": "Params have changed since last execution: {}"}  # fmt: skip
    stats = {"train": 2, "all": 1, "total": 3}
    rest = (
        record(LogEvent.RUN_INFO, stats=stats),
        record(LogEvent.JOB_FINISHED, job_id=3),
        record(None, text="quiet"),
        record(None, logging.WARNING, text="loud"),
        record(LogEvent.JOB_INFO),  # of another version of Snakemake
    )
    assert told(False, record(LogEvent.JOB_INFO, **job), *rest) == [
        {"kind": "job", "id": 3, "rule": "train", "wildcards": {"dataset": "d"}, "log": str(log)},
        {"kind": "planned", "counts": {"train": 2}},
        {"kind": "finished", "id": 3},
        {"kind": "message", "level": "WARNING", "exception": "", "text": "loud"},
    ]
    assert told(True, record(LogEvent.JOB_INFO, **job)) == [
        {"kind": "would run", "rule": "train", "of": "d",
         "why": "Params have changed since last execution"},
    ]  # fmt: skip
    assert told(False, record(LogEvent.JOB_INFO, **{**job, "output": []})) == []
    failed = {**job, "shellcmd": f"python {tmp_path}/train.py", "rule_msg": None, "aux": {}}
    for cause, mistake in (("error: bad", True), ("error: x (internal error)", False),
                           ("stopped by SIGTERM; run the same command to continue", False),
                           ("", False)):  # fmt: skip
        log.write_text(f"{STAMP} ERROR {cause}\n" if cause else "", encoding="utf-8")
        (event,) = told(False, record(LogEvent.JOB_ERROR, logging.ERROR, **failed))
        assert (event["kind"], event["id"], event["mistake"]) == ("failed", 3, mistake)
        assert event["text"].startswith(f"Job train train: {cause}".rstrip())
        assert str(log) in event["text"]


def test_a_full_disk_does_not_end_the_run(tmp_path: Path) -> None:
    writer = EventWriter(
        SimpleNamespace(dryrun=False), tmp_path / "none" / "x", Brief(logging.Formatter())
    )
    writer.write("finished", id=1)


# Views.


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    view = run_view.PlainView("run", stream)
    job = RunningJob("train d/m fold 0", Path("none"))
    view.plan(2)
    view.tick({1: job}, 0)
    now[0] += run_view.FIRST_SECONDS + 1
    job.step = Step(0.5, "step 5 of 10")
    view.tick({1: job}, 0)
    view.tick({1: job}, 0)
    now[0] += 3600
    view.finished(job, 1)
    view.close()
    assert stream.getvalue().splitlines() == [
        "run: 2 jobs",
        "[0/2] train d/m fold 0: step 5 of 10, 0:31 so far",
        "[1/2] train d/m fold 0: done in 1:00:31",
    ]


@pytest.mark.parametrize("width", [20, 44, 80, 120])
def test_bars_fit_the_terminal(width: int) -> None:
    def new(name: str | None) -> Console:
        file = io.StringIO()
        return Console(file=file, force_terminal=True, width=width, height=24, color_system=name)  # type: ignore[arg-type]

    view = run_view.BarView("run", new("standard"))
    console = new(None)
    try:
        jobs = {n: RunningJob(f"train dataset/model fold {n}", Path("none")) for n in range(9)}
        jobs[0].step = Step(0.5, "step 50 of 100, 2 min left")
        view.plan(20)
        view.tick(jobs, 3)
        with console.capture() as captured:
            console.print(view.render())
        lines = captured.get().splitlines()
    finally:
        view.close()
    # "^C" must fit on the last line, or the line above would stay on the screen.
    assert max(map(len, lines)) <= width - 2
    assert len(lines) == 1 + 6 + 1
    if width >= 44:
        assert "3 of 20 jobs" in lines[0]
        assert lines[-1].strip() == "and 3 more"
    if width >= 80:
        assert "step 50 of 100, 2 min left  0:00" in lines[1]
        assert "train dataset/model fold 0" in lines[1]


# A false Snakemake: it writes events, prints, and ends as it is told.


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replaces Snakemake by a few lines of Python that can call ``tell(kind, ...)``."""
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("seed: 1\n", encoding="utf-8")
    start = (
        "import json, os, signal, sys, time\n"
        "def tell(kind, **v):\n"
        f"    open(os.environ[{EVENTS!r}], 'a').write(json.dumps(dict(kind=kind, **v)) + chr(10))\n"
    )

    def replace(code: str) -> None:
        monkeypatch.setattr(
            run_process, "command_of", lambda words: [sys.executable, "-c", start + code]
        )

    return replace


JOB = (
    "tell('planned', counts=dict(train=2))\n"
    "tell('job', id=1, rule='train', wildcards=dict(dataset='d'), log='x')\n"
)
# What Snakemake prints before it reads the Snakefile.
HEAD = (
    "print('Using workflow specific profile x for setting default command line arguments.')\n"
    "print('SNAKEMAKE'); print('  Config MD5: 12')\n"
)
FAILED = (
    "tell('failed', id=1, rule='train', text='Job train d: error: bad', mistake={})\nsys.exit(1)\n"
)


@pytest.mark.parametrize(
    ("code", "expected", "lines"),
    [
        (JOB + "tell('finished', id=1)\n", 0, ["run: 2 jobs", "[1/2] train d: done in 0:00"]),
        ("", 0, ["Nothing to do: all results are up to date."]),
        (JOB + FAILED.format(True), 2,
         ["run: 2 jobs", "Job train d: error: bad",
          "1 job of 2 failed, 0 finished and stay; when the cause is fixed, continue with: "
          "unet run my.yaml --until train"]),
        (JOB + FAILED.format(False), 1, None),
        (HEAD + "sys.exit('config: train.epoch: unknown key')\n", 2,
         ["config: train.epoch: unknown key"]),
        (HEAD + "1 / 0\n", 1, None),
        ("tell('message', level='ERROR', exception='MissingRuleException',"
         " text='MissingRuleException:\\nNo rule to produce x')\nsys.exit(1)\n", 2,
         ["error: No rule to produce x"]),
        ("tell('message', level='ERROR', exception='NameError', text='NameError: x\\n y')\n"
         "sys.exit(1)\n", 1, ["error: NameError: x", " y"]),
        ("tell('message', level='ERROR', exception='LockException', text='long')\nsys.exit(1)\n",
         2, None),
    ],
)  # fmt: skip
def test_messages_and_exit_codes(
    stand_in: Callable[[str], None], capfd: Any, code: str, expected: int, lines: list[str] | None
) -> None:
    stand_in(code)
    assert main.main(["run", "my.yaml", "--until", "train"]) == expected
    err = capfd.readouterr().err.splitlines()
    assert lines is None or err == lines
    if "LockException" in code:
        assert len(err) == 1
        assert err[0].endswith("if none runs: unet run my.yaml --unlock")
    if "1 / 0" in code:
        assert any("ZeroDivisionError" in line for line in err)
        assert not any("SNAKEMAKE" in line for line in err)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_stop(stand_in: Callable[[str], None], capfd: Any, number: int, expected: int) -> None:
    """Whatever stops `unet run`, Snakemake gets one Ctrl-C."""
    stand_in(
        JOB + "def end(n, f):\n"
        "    tell('failed', id=1, rule='train', mistake=False,\n"
        "        text='Job train d: stopped after step 3; "
        "run the same command to continue' + chr(10) + '    log: x')\n"
        "    sys.exit(1)\n"
        "signal.signal(signal.SIGINT, end)\n"
        f"os.kill(os.getppid(), {int(number)})\n"
        "time.sleep(60)\n"
    )
    before = signal.getsignal(number)
    assert main.main(["run", "my.yaml", "--until", "train"]) == expected
    assert signal.getsignal(number) == before
    assert capfd.readouterr().err.splitlines() == [
        "run: 2 jobs",
        "stopping: running jobs save their state; Ctrl-C again ends them at once",
        "Job train d: stopped after step 3",
        "stopped after 0 of 2 jobs; continue with: unet run my.yaml --until train",
    ]


def test_a_second_stop_ends_it_at_once(stand_in: Callable[[str], None]) -> None:
    stand_in(
        "def again(n, f):\n    os.kill(os.getppid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, again)\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "while True: time.sleep(1)\n"
    )
    assert main.main(["run", "my.yaml"]) == 130


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_stop_of_a_run_with_snakemakes_own_output(
    stand_in: Callable[[str], None], capfd: Any, number: int, expected: int
) -> None:
    stand_in(
        f"assert {EVENTS!r} not in os.environ\n"
        "def end(n, f):\n    print('ended by', n)\n    sys.exit(1)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "print('train.py --dataset d', flush=True)\n"
        f"os.kill(os.getppid(), {int(number)})\n"
        "time.sleep(60)\n"
    )
    assert main.main(["run", "my.yaml", "-p"]) == expected
    out, err = capfd.readouterr()
    assert out.splitlines() == ["train.py --dataset d", "ended by 2"]
    assert err.splitlines() == [
        "stopping: running jobs save their state; Ctrl-C again ends them at once",
        "stopped; continue with: unet run my.yaml -p",
    ]


def test_the_exit_code_of_snakemakes_own_output(
    stand_in: Callable[[str], None], capfd: Any
) -> None:
    stand_in("print('rules'); sys.exit(1)\n")
    assert main.main(["run", "my.yaml", "--list-rules"]) == 1
    assert capfd.readouterr() == ("rules\n", "")


@pytest.mark.parametrize(("told", "mistake", "expected"), [(1, 1, 2), (1, 0, 1), (0, 0, 1)])
def test_a_check_that_fails_without_a_finding_says_why(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capfd: Any,
    told: int, mistake: int, expected: int,
) -> None:  # fmt: skip
    from unet.cli import check_command

    monkeypatch.setattr(check_command, "show_checks", lambda paths, names: None)
    monkeypatch.setattr(check_command, "stopped", lambda paths, names: [])
    stand_in(
        f"if {told}:\n"
        "    tell('run', folder=os.getcwd(), output='out', tasks=dict(d='semantic'), "
        "models={}, checked=['d'])\n"
        f"tell('failed', id=2, rule='check', mistake={bool(mistake)},"
        " text='Job check: error: no space left')\n"
        "sys.exit(1)\n"
    )
    assert main.main(["run", "my.yaml"]) == expected
    assert capfd.readouterr().err.splitlines() == [
        "Job check: error: no space left",
        "1 job of 1 failed, 0 finished and stay; when the cause is fixed, continue with: "
        "unet run my.yaml",
    ]


@pytest.mark.parametrize(("found", "expected"), [(True, 2), (False, 0)])
def test_a_finding_of_the_check_stops_the_run(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capfd: Any,
    found: bool, expected: int,
) -> None:  # fmt: skip
    """The check comes first, and what it found is shown before the run starts."""
    from unet.cli import check_command

    monkeypatch.setattr(check_command, "show_checks", lambda paths, names: print(paths, names))
    monkeypatch.setattr(check_command, "stopped", lambda paths, names: ["d: labels: all empty"])
    stand_in(
        "tell('run', folder=os.getcwd(), output='out', tasks=dict(d='semantic'),"
        " models=dict(d=['m']), checked=['d'])\n"
        "first = not os.path.exists('checked')\n"
        "open('checked', 'w').close()\n"
        "tell('planned', counts={'check_dataset' if first else 'train': 1})\n"
        "rule = 'check_dataset' if first else 'train'\n"
        "tell('job', id=1, rule=rule, wildcards=dict(dataset='d'), log='x')\n"
        "tell('finished', id=1)\n"
        f"if first and {found}:\n"
        "    tell('failed', id=2, rule='check', mistake=True, text='Job check all: error: x')\n"
        "    sys.exit(1)\n"
    )
    assert main.main(["run", "my.yaml"]) == expected
    out, err = capfd.readouterr()
    assert "['d']" in out
    lines = ["check: 1 job", "[1/1] check d: done in 0:00"]
    lines += (
        ["error: d: labels: all empty"] if found
        else ["run: 1 job", "[1/1] train d: done in 0:00"]
    )  # fmt: skip
    assert err.splitlines() == lines


def test_who_has_made_the_mistake() -> None:
    assert Outcome(failed={1: True, 2: True}).mistake
    assert not Outcome(failed={1: True, 2: False}).mistake
    assert Outcome(printed=["error: x"]).mistake
    assert not Outcome(printed=["Traceback (most recent call last):"]).mistake
    assert not Outcome(exceptions=["WorkflowError", "NameError"]).mistake


def test_an_unreadable_config_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        Call.of([str(tmp_path / "a.yaml")])


# Real runs.


def run(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "unet", "run", *words],
        cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


def control(text: str) -> list[str]:
    return re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", text)


@pytest.mark.workflow
def test_a_run_in_a_pipe(tmp_path: Path) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    config = tmp_path / "c d.yaml"
    config.write_text(yaml.safe_dump(CONFIG, sort_keys=False), encoding="utf-8")
    dry = run(folder, str(config), "-n")
    assert dry.returncode == 0, dry.stderr
    head, line, *rows = dry.stdout.splitlines()
    assert head.split() == ["job", "of", "why"]
    assert set(line) == {"-", " "}
    assert rows[-1].startswith(f"{len(rows) - 2} jobs would run: ")
    assert dry.stderr == ""
    assert not (folder / "out").exists()

    done = run(folder, str(config))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    # The check makes the raw files and the manifest first.
    number = len(rows) - 2 - 2
    assert lines[0] == "check: 3 jobs"
    assert f"run: {number} jobs" in lines
    ends = [line for line in lines if re.fullmatch(r"\[\d+/\d+\] .*: done in \d+:\d\d", line)]
    assert [line for line in ends if line.startswith(f"[{number}/{number}] report: ")]
    assert control(done.stdout + done.stderr) == []
    assert "--settings" not in done.stderr
    checked, title, scores = done.stdout.partition("Main scores, instances")
    assert checked.startswith("d\n")
    assert "page: out/d/check.html" in checked
    assert done.stdout.splitlines()[-1] == "Report: out/report.html"
    assert (folder / "out" / "report.html").is_file()

    again = run(folder, str(config), "--config", "device=cpu")
    assert again.returncode == 0, again.stderr
    assert "Nothing to do: all results are up to date." in again.stderr.splitlines()
    assert again.stdout == title + scores
    # A change reruns what it must, without a word about parameters.
    part = run(folder, str(config), "out/d/a/metrics.csv", "--config", "stitch={threshold: 0.4}")
    assert part.returncode == 0
    assert len(part.stderr.splitlines()) == 3
    assert "stitch d/a fold 0: done in" in part.stderr
    assert part.stdout == ""


@pytest.mark.workflow
def test_ctrl_c_and_on(tmp_path: Path) -> None:
    long = {**CONFIG, "train": {**CONFIG["train"], "epochs": 400, "steps_per_epoch": 50}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(long, sort_keys=False), encoding="utf-8")
    # Started with Ctrl-C ignored, as in the background of a script.
    process = subprocess.Popen(
        [sys.executable, "-P", "-c",
         "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
         "from unet.cli.main import main; sys.exit(main(['run', 'my.yaml', '--until', 'train']))"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    log = tmp_path / "out" / "logs" / "train" / "d.a.0.log"
    end = time.monotonic() + 120
    while not (log.is_file() and "epoch 1/" in log.read_text()):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    other = run(tmp_path, "my.yaml")
    assert other.returncode == 2
    assert "another run is active here" in other.stderr.splitlines()[-1]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert re.search(r"^Job train d\.a\.0: stopped after step \d+; state saved$", said, re.M), said
    last = said.splitlines()[-1]
    assert re.fullmatch(r"stopped after 4 of 5 jobs; continue with: unet run my.yaml .*", last)
    assert not list((tmp_path / ".snakemake").glob("locks/*"))
    # The same command would continue with the training.
    dry = run(tmp_path, "my.yaml", "--until", "train", "-n")
    assert dry.stdout.splitlines()[-1] == "1 job would run: train 1"
