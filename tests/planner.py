"""Many dry runs of the workflow, fast: ``python -m tests.planner``.

Each dry run is a separate process that calls Snakemake's ``main`` with its own command line, as
``snakemake`` does. But it is forked from a process that has already loaded Snakemake, which is most
of the time that a small dry run takes. Requests are read as JSON from stdin, answers go to stdout.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SNAKEFILE = ROOT / "workflow" / "Snakefile"

# Snakemake's reason for a job -> short reason. A job without any of them runs because of others.
REASONS = {
    "Params have changed": "settings",
    "Set of input files has changed": "inputs",
    "Updated input files": "inputs",
    "Missing output files": "no output",
}


@dataclass(frozen=True)
class Request:
    """One dry run, in this folder, with this config.

    Attributes:
        words: further arguments of the command line.
        versions: versions of stages that replace those in :mod:`unet.versions`.
    """

    folder: Path
    config: Mapping[str, Any]
    words: Sequence[str] = ("--dry-run",)
    versions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a dry run would do.

    Attributes:
        jobs: ``rule dataset model fold`` (those that the rule has) -> why the job runs; "" if it
            only follows another job.
    """

    code: int
    text: str
    jobs: Mapping[str, str]

    @property
    def first(self) -> dict[str, str]:
        """The jobs that run for a reason of their own."""
        return {job: why for job, why in self.jobs.items() if why}


def plans(requests: Sequence[Request], at_once: int = 2) -> list[Plan]:
    """The plans, in the order of the requests.

    Raises:
        RuntimeError: the planner itself failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked = []
        for number, request in enumerate(requests):
            path = Path(scratch, f"{number}.yaml")
            path.write_text(yaml.safe_dump(dict(request.config), sort_keys=False), encoding="utf-8")
            asked.append({**asdict(request), "folder": str(request.folder), "config": str(path)})
        done = subprocess.run(
            [sys.executable, "-m", "tests.planner", str(at_once)],
            input=json.dumps(asked), capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the planner failed: {done.stderr}")
        answers = json.loads(done.stdout)
    return [Plan(code, text, jobs_in(text)) for code, text in answers]


def jobs_in(text: str) -> dict[str, str]:
    """The jobs that a dry run lists (``Plan.jobs``)."""
    jobs = {}
    table = re.search(r"^(job +)(of +)why\n-.*\n((?:.+\n)*)", text, re.M)
    if table is not None:
        first, second = len(table[1]), len(table[1] + table[2])
        for line in table[3].splitlines():
            named, said = " ".join(line[:second].split()), line[second:]
            assert line[first - 2 : first] == "  ", line
            whys = dict.fromkeys(why for words, why in REASONS.items() if words in said)
            jobs[named] = ", ".join(whys)
    return jobs


# The process that forks.


def _load() -> None:
    """Imports everything that a dry run needs, without running anything."""
    from importlib import import_module

    from snakemake.cli import get_argument_parser

    for module in (
        "smart_open",
        "unet.planning.jobs",
        "unet.data.raw_changes",
        "unet.data.layouts",
    ):
        import_module(module)
    get_argument_parser()


def _dry_run(asked: Mapping[str, Any], output: Path) -> None:
    """Runs Snakemake in this process and exits; does not return."""
    code = 1
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(handle, standard)
        os.chdir(asked["folder"])
        from snakemake.cli import main

        from unet.versions import STAGES

        STAGES.update(asked["versions"])
        words = ["--snakefile", str(SNAKEFILE), "--directory", asked["folder"]]
        try:
            main([*words, "--configfile", asked["config"], *asked["words"]])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                sys.stderr.write(end.code)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve(at_once: int) -> None:
    requests = json.load(sys.stdin)
    _load()
    codes: dict[int, int] = {}
    running: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [Path(scratch, str(number)) for number in range(len(requests))]
        for number, asked in enumerate(requests):
            if len(running) == at_once:
                _wait(running, codes)
            pid = os.fork()
            if pid == 0:
                _dry_run(asked, outputs[number])
            running[pid] = number
        while running:
            _wait(running, codes)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in outputs]
    json.dump([[codes[number], text] for number, text in enumerate(texts)], sys.stdout)


def _wait(running: dict[int, int], codes: dict[int, int]) -> None:
    pid, status = os.wait()
    codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
