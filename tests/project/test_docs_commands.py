"""Every command in README, docs/, config/README.md and CONTRIBUTING.md: Snakemake commands are
planned, scripts are run or their options checked, other commands are parsed. An unknown command is
a failure, so that new commands get tested too."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Blocks without a language that are not commands, by the start of their first line.
TEXTS = ("results/", "data_root/", "30 pages of 512 x 512")
# Every command starts with one of these.
PROGRAMS = (
    "snakemake", "python", ".venv-peers/bin/python", "unet", "make", "pip", "conda", "source",
    "docker", "apptainer", "sbatch", "squeue", "scancel", "tail", "git", "pre-commit",
    "bioimageio", "mike",
)  # fmt: skip
# Commands that need a cluster, a container or another environment: only the syntax is checked.
ELSEWHERE = (
    "docker", "apptainer", "sbatch", "squeue", "scancel", "tail", "source", "git", "pre-commit",
    "bioimageio", "mike",
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "output": "results-my",
    "device": "cpu",
    "datasets": {
        "mynuclei": {
            "synthetic": {"kind": "nuclei", "images": 3, "size": 64},
            "task": "instances",
        }
    },
    "models": {"unet-w32": {"preset": "unet-bn", "width": 2, "depth": 1}},
    "prepare": {"tile": 64},
    "train": {"patch": 32, "batch": 2, "epochs": 1, "steps_per_epoch": 1, "warmup_steps": 0},
    "report": {"bootstrap": 100},
}


@dataclass(frozen=True)
class Command:
    """One command of a page; ``words`` does not include assignments before it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def program(self) -> str:
        return "python" if self.words[0].endswith("/python") else self.words[0]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, text) of fenced blocks, indented blocks ("indented"), and text in backticks
    ("inline")."""
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
    for match in fence.finditer(text):
        yield match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.M)
    rest = fence.sub("", text)
    for match in re.finditer(r"(?:^ {4}\S.*\n)+", rest, re.M):
        yield "indented", re.sub(r"^ {4}", "", match[0], flags=re.M)
    for match in re.finditer(r"`([^`\n]+)`", rest):
        yield "inline", match[1] + "\n"


def commands_in(text: str) -> list[tuple[str, ...]]:
    """The commands in a shell text; variables that it sets are substituted."""
    found = []
    set_before: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for name, value in set_before.items():
            line = line.replace(f"${name} ", f"{value} ").replace(f"${name}\n", value)
            line = re.sub(rf"\${name}$", value, line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                if words:
                    found.append(tuple(words))
                words = []
            elif not words and re.fullmatch(r"[A-Z_]+=.*", word):
                name, _, value = word.partition("=")
                set_before[name] = value
            else:
                words.append(word)
    return found


def begins(text: str) -> bool:
    """Whether text in backticks is a command: more than a program's name or a file's."""
    words = re.sub(r"^[A-Z_]+=\S+ ", "", text.strip()).split()
    return len(words) > 1 and words[0] in PROGRAMS and "`" not in text


def everything() -> list[Command]:
    found = []
    for path in PAGES:
        page = str(path.relative_to(ROOT))
        for language, text in blocks(path.read_text(encoding="utf-8")):
            if language in ("", "sh", "bash"):
                if text.lstrip().startswith(TEXTS):
                    continue
            elif language not in ("indented", "inline") or not begins(text.splitlines()[0]):
                continue
            found += [Command(page, words) for words in commands_in(text)]
    return list(dict.fromkeys(found))


COMMANDS = everything()


def of(*programs: str) -> Any:
    chosen = [command for command in COMMANDS if command.program in programs]
    return pytest.mark.parametrize("command", chosen, ids=str)


def test_each_command_runs_a_known_program() -> None:
    unknown = [str(command) for command in COMMANDS if command.words[0] not in PROGRAMS]
    assert not unknown, "say in this file how they are tested, or name their block in TEXTS"
    # Guards against a search that misses commands.
    pages = {command.page for command in COMMANDS}
    assert {"README.md", "CONTRIBUTING.md", "config/README.md", "docs/cluster.md"} <= pages
    assert len(COMMANDS) > 60


def test_the_search_finds_commands() -> None:
    text = "C='--a b'\npython x.py $C  # why\nmake a && pip install 'x[y]' \\\n  z\n"
    assert commands_in(text) == [
        ("python", "x.py", "--a", "b"), ("make", "a"), ("pip", "install", "x[y]", "z"),
    ]  # fmt: skip
    page = "`make x`, `make`\n\n    snakemake -n\n\n1. a\n\n   ```\n   unet models\n   ```\n"
    assert list(blocks(page)) == [
        ("", "unet models\n"), ("indented", "snakemake -n\n"), ("inline", "make x\n"),
        ("inline", "make\n"),
    ]  # fmt: skip
    assert begins("UNET_X=folder make test")
    assert not begins("make")


# Snakemake.


@of("snakemake")
def test_snakemake_reads_the_command_as_intended(command: Command) -> None:
    """An option with several values takes all following words, even a target."""
    from snakemake.cli import get_argument_parser

    words = [word for word in command.words[1:] if word != "..."]
    args = get_argument_parser().parse_args(words)
    for path in args.configfile or []:
        assert path.suffix == ".yaml", f"{path} is taken for a config file; write it before"
        example = path.parts[0] == "config" and "EXAMPLE" not in str(path)
        assert not example or (ROOT / path).is_file(), path
    for target in args.targets:
        assert not target.endswith((".yaml", ".md")), target
    if args.workflow_profile:
        assert (ROOT / args.workflow_profile / "config.yaml").is_file()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the pages' commands work, with the config of a small run."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("workflow", "scripts", "unet", "config"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False), encoding="utf-8")
    return folder


def run(folder: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


PLANNED = [
    c
    for c in COMMANDS
    if c.program == "snakemake"
    and "my.yaml" in c.words
    and "--report" not in c.words
    # These need their plugin: tests/workflow/test_profiles.py, which plans with them.
    and "--workflow-profile" not in c.words
]


@pytest.mark.workflow
@pytest.mark.parametrize(
    "words", sorted({c.words for c in PLANNED}), ids=lambda words: " ".join(words)
)
def test_a_plan_of_the_users_own_config(project: Path, words: tuple[str, ...]) -> None:
    # The project's folder is the clone.
    places = {"/path/to/clone": str(ROOT), "$(unet run --where)": str(ROOT / "workflow")}
    for name, place in places.items():
        words = tuple(word.replace(name, place) for word in words)
    said = run(project, *words, *([] if "--unlock" in words else ["-n"]))
    if "--unlock" not in words:
        assert re.search(r"^total +\d+$", said, re.M), said


# Scripts, the package's command, make, pip.


def options(words: tuple[str, ...]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]


SHOWN: dict[tuple[str, ...], str] = {}


def help_of(*words: str) -> str:
    if words not in SHOWN:
        SHOWN[words] = run(ROOT, sys.executable, *words, "--help")
    return SHOWN[words]


@of("python")
def test_python(command: Command) -> None:
    words = command.words[1:]
    if words[0] == "-m":
        name = words[1]
        if name == "pytest":
            assert all((ROOT / word).exists() for word in words[2:] if "/" in word)
            return
        module = ROOT / Path(*name.split("."))
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
        if name == "unet":
            names = [w for w in words[2:] if w != "..."]
            shown = help_of("-m", "unet", *names[:1])
            assert all(option in shown for option in options(tuple(names)))
        return
    if words[0] == "-c":  # tests/project/test_tutorial.py runs it
        compile(words[1], command.page, "exec")
        return
    path = ROOT / words[0]
    assert path.is_file(), path
    before = words[1 : words.index("--")] if "--" in words else words[1:]
    if path.parent.name == "scripts":
        shown = help_of(words[0])
        assert [o for o in options(before) if o not in shown] == []
    else:
        # Benchmarks and pictures import what is not always installed: the source names it.
        source = path.read_text(encoding="utf-8")
        if "import workflow_runs" in source:  # the options that these benchmarks share
            source += (path.parent / "workflow_runs.py").read_text(encoding="utf-8")
        assert [o for o in options(before) if f'"{o}"' not in source] == []


@of("unet")
def test_the_command_of_the_package(command: Command) -> None:
    named = [word for word in command.words[1:2] if word != "COMMAND"]
    shown = help_of("-m", "unet", *named)
    if command.words[1] == "run":
        # Words that it does not know itself go to Snakemake.
        shown += help_of("-m", "snakemake")
    assert [option for option in options(command.words) if option not in shown] == []


@of("make")
def test_make(command: Command) -> None:
    # An unknown target is an error; nothing is executed.
    run(ROOT, "make", "--dry-run", *command.words[1:])


@of("pip")
def test_pip(command: Command) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert command.words[1] == "install"
    for word in command.words[2:]:
        if match := re.fullmatch(r"(\.|[a-z-]+)\[(.+)\]", word):
            assert match[1] in (".", project["name"])
            assert set(match[2].split(",")) <= set(project["optional-dependencies"])
        else:
            assert word in ("-e", "--editable", ".", "pre-commit", project["name"]), word


@of("conda")
def test_conda(command: Command) -> None:
    words = command.words
    if words[1] == "activate":
        environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
        assert words[2] == environment["name"]
    else:
        assert words[1:4] == ("env", "create", "-f")
        assert (ROOT / words[4]).is_file()


@of(*ELSEWHERE)
def test_what_needs_another_machine(command: Command) -> None:
    run(ROOT, "bash", "-n", "-c", shlex.join(command.words))


# The stages by hand.


@pytest.mark.workflow
def test_the_stages_by_hand(project: Path) -> None:
    words = [
        c.words[1:] for c in COMMANDS
        if c.page == "docs/own_workflow.md" and c.program == "python"
        and c.words[1].startswith("scripts/") and "--config" in c.words
    ]  # fmt: skip
    assert [Path(w[0]).stem for w in words] == [
        "synthesize", "manifest", "splits", "prepare", "train", "predict", "stitch", "evaluate",
        "details", "audit", "report", "report",
    ]  # fmt: skip
    config = {
        **CONFIG,
        "output": "results",
        "datasets": {"nuclei": CONFIG["datasets"]["mynuclei"]},
        "models": {"unet-border": CONFIG["models"]["unet-w32"]},
    }
    (project / "results").mkdir()
    (project / "results" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for command in words:
        run(project, "python", *command)
    assert (project / "results" / "nuclei" / "report.html").is_file()
    assert (project / "results" / "report.html").is_file()
