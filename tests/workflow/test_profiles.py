"""The profiles for clusters: what jobs request in a dry run, and a run with the commands of PBS,
which are small programs here. On a real SLURM: tests/slurm."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.test_workflow import CONFIG, SNAKEMAKE
from unet.config.run import merge

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "workflow" / "profiles"
GENERATED: dict[str, Any] = {**CONFIG, "datasets": {"sem": CONFIG["datasets"]["sem"]}}


def profile(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((PROFILES / name / "config.yaml").read_text(encoding="utf-8")))


def snakemake(
    folder: Path, config: dict[str, Any], *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return subprocess.run(
        [*SNAKEMAKE, "--directory", str(folder), "--configfile", str(path), *words],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def asked(text: str) -> dict[str, dict[str, str]]:
    """Rule -> resources (of its last job) in the output of a dry run."""
    found = {}
    for rule, resources in re.findall(
        r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)\n", text, re.M
    ):
        found[rule] = dict(part.split("=", 1) for part in resources.split(", "))
    return found


@pytest.mark.parametrize(("name", "place"), [("slurm", "slurm_partition"),
                                             ("cluster-generic", "queue")])  # fmt: skip
def test_a_dry_run(tmp_path: Path, name: str, place: str) -> None:
    plugin = f"snakemake_executor_plugin_{name.replace('-', '_')}"
    pytest.importorskip(plugin, reason=f"extra {name} is not installed")
    config = merge(GENERATED, {"train": {"gpus": 3}, "predict": {"shards": 2, "gpus": 2}})
    words = ("--dry-run", "--printshellcmds", "--workflow-profile", str(PROFILES / name))
    done = snakemake(tmp_path, config, *words)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    found = asked(said)
    with_gpu = {"train": "3", "predict_shard": "2"}
    for rule, resources in found.items():
        if rule == "all":
            continue
        gpu = rule in (*with_gpu, "predict")
        assert resources[place] == ("gpu" if gpu else "cpu"), rule
        assert resources.get("gpu", "0") == with_gpu.get(rule, "0"), rule
        # Unknown values depend on files of earlier stages.
        known = rule in ("synthesize", "manifest")
        for key in ("mem_mb", "runtime"):
            assert (resources[key] == "<TBD>") != (resources[key].isdigit()), (rule, key)
            assert resources[key].isdigit() or not known, (rule, key)
    assert set(found) - {"all"} == {
        "synthesize", "manifest", "prepare", "train", "predict_shard", "predict", "stitch",
        "evaluate", "details", "audit", "report_dataset", "splits", "report",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_settings_of_both_profiles(name: str) -> None:
    """A profile replaces the default one, so it must repeat its settings."""
    ours, default = profile(name), profile("default")
    for key in ("rerun-triggers", "rerun-incomplete", "scheduler", "show-failed-logs"):
        assert ours[key] == default[key], key
    assert ours["retries"] == 2
    assert "keep-incomplete" not in ours
    # Rules that take seconds run where snakemake runs.
    assert ours["local-cores"] >= 1
    # With retries in a rule, a job's own Snakemake would try again inside the same job.
    for path in (ROOT / "workflow").rglob("*.smk"):
        assert not re.search(r"^\s*retries:", path.read_text(), re.M), path


def test_three_lines_to_edit() -> None:
    text = (PROFILES / "slurm" / "config.yaml").read_text(encoding="utf-8")
    marked = [line for line in text.splitlines() if re.search(r"^[^#].*# \([123]\)", line)]
    assert [re.findall(r"\((\d)\)", line) for line in marked] == [["1"], ["2"], ["3"]]
    assert "slurm_account" in marked[0]
    assert "slurm_partition" in marked[1]
    assert "slurm_partition" in marked[2]
    assert "three lines marked (1), (2) and (3)" in text
    # Nothing else depends on the site.
    rest = "\n".join(line for line in text.splitlines() if line not in marked)
    assert not re.search(r"^[^#]*(account|partition)", rest, re.M)


# PBS in a folder: jobs run immediately, one after the other; their exit codes are kept.

QSUB = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
id=$(($(ls ended 2>/dev/null | wc -l) + 1))
for script in "$@"; do :; done
echo "$id $*" >>calls
mkdir -p ended
# The second job is ended by the queue before it has done anything.
if [ "$id" = 2 ]; then echo 271 >ended/$id
else sh "$script" >ended/$id.out 2>&1; echo $? >ended/$id.code; mv ended/$id.code ended/$id; fi
rm -f ended/*.out
echo "$id.pbs"
"""
QSTAT = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
for id in "$@"; do :; done
[ -e "ended/${id%.pbs}" ] || exit 153
echo "Job Id: $id"
echo "    job_state = F"
echo "    Exit_status = $(cat ended/${id%.pbs})"
"""


def test_a_queue_with_the_commands_of_pbs(tmp_path: Path) -> None:
    pytest.importorskip(
        "snakemake_executor_plugin_cluster_generic", reason="extra cluster-generic not installed"
    )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    path = os.pathsep.join([str(bin_folder), os.environ["PATH"]])
    done = snakemake(
        tmp_path, GENERATED, "--until", "prepare", "--workflow-profile",
        str(PROFILES / "cluster-generic"), "--seconds-between-status-checks", "1", PATH=path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "sem" / "prepared.json").exists()
    calls = [line.split() for line in (bin_folder / "calls").read_text().splitlines()]
    options = [dict(zip(c[1:-1:2], c[2:-1:2], strict=False)) for c in calls]
    assert [o["-N"] for o in options] == ["synthesize", "manifest", "manifest", "prepare"]
    assert {o["-q"] for o in options} == {"cpu"}
    limits = [re.findall(r"-l (\S+)", " ".join(call)) for call in calls]
    assert limits[1:3] == [
        ["select=1:ncpus=8:mem=3900mb:ngpus=0", "walltime=20:00"],
        ["select=1:ncpus=8:mem=7800mb:ngpus=0", "walltime=40:00"],
    ]


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("F", "0", "success"), ("F", "1", "failed"), ("F", "10", "failed"), ("F", "-29", "failed"),
        ("R", None, "running"), ("Q", None, "running"),
    ],
)  # fmt: skip
def test_the_status_of_a_pbs_job(
    tmp_path: Path, state: str, code: str | None, expected: str
) -> None:
    exit_status = "" if code is None else f"\n    Exit_status = {code}"
    text = f"Job Id: 7.pbs\n    Job_Name = Exit_status = 0?\n    job_state = {state}{exit_status}\n"
    if expected == "failed":
        text = text.replace("Exit_status = 0?", "x")
    (tmp_path / "qstat").write_text(f"#!/bin/sh\ncat <<'E'\n{text}E\n")
    assert fares(tmp_path) == expected


@pytest.mark.parametrize(("rc", "expected"), [(153, "failed"), (1, "running"), (127, "running")])
def test_a_queue_that_does_not_know_or_not_answer(tmp_path: Path, rc: int, expected: str) -> None:
    (tmp_path / "qstat").write_text(f"#!/bin/sh\nexit {rc}\n")
    assert fares(tmp_path) == expected


def fares(folder: Path) -> str:
    (folder / "qstat").chmod(0o755)
    done = subprocess.run(
        [str(PROFILES / "cluster-generic" / "status.sh"), "7.pbs"],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    return done.stdout.strip()
