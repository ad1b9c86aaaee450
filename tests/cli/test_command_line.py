"""The words of `unet` and of the scripts: help, one-line mistakes, completion, docs/commands.md."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import commands_docs
from unet.cli import main
from unet.cli.arguments import Parser, checked, plain
from unet.cli.commands import COMMANDS, GROUPS, grouped
from unet.cli.stage import closed_pipe, run

ROOT = Path(__file__).resolve().parents[2]
NAMES = [each.name for each in COMMANDS]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a mistake on the command line prints."""
    with pytest.raises(SystemExit) as stopped:
        main.main(words)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("name", NAMES)
def test_each_command_explains_itself(name: str) -> None:
    p = commands_docs.parser_of(name)
    assert p.description is not None
    assert p.description.endswith(".")
    assert "\n" not in p.description
    assert p.epilog is not None
    first, *examples = p.epilog.splitlines()
    assert first == "examples:"
    assert any(f"unet {name}" in line for line in examples)
    for action in p._actions:
        assert action.help, action.dest
        assert len(action.help.split()) >= 2 or action.help == argparse.SUPPRESS, action.dest
    assert "None" not in p.format_help().replace("None of", "")


def test_each_command_is_in_one_group() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    assert set(NAMES) <= set(names)
    assert sorted(each.name for group in grouped().values() for each in group) == sorted(NAMES)


def test_without_words_it_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys)
    for each in COMMANDS:
        assert re.search(rf"^  {each.name} +{re.escape(each.text)}$", text, re.M)
    assert re.search(r"^first: unet [a-z]+ ", text, re.M)
    with pytest.raises(SystemExit) as stopped:
        main.main(["--help"])
    assert (stopped.value.code, capsys.readouterr().out) == (0, text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("modles", "unet: no command 'modles'; see unet --help; did you mean models?"),
        ("xyzzy --json", "unet: no command 'xyzzy'; see unet --help"),
        ("--vers", None),
        ("models --depht 3",
         "unet models: no option --depht; see unet models --help; did you mean --depth?"),
        ("models --depth x",
         "unet models: --depth: got x; write a whole number above 0; see unet models --help"),
        ("models --depth", "unet models: --depth: needs a value; see unet models --help"),
        ("models --dims 5", "unet models: --dims: got 5; write 2 or 3; see unet models --help"),
        ("models more", "unet models: one word too many: 'more'; see unet models --help"),
        ("models --d 3",
         "unet models: --d: write --depth or --dims; see unet models --help"),
        ("info", "unet info: missing: MODEL; see unet info --help"),
        ("completion bsh",
         "unet completion: shell: got 'bsh'; write bash, zsh or fish; see unet completion --help; "
         "did you mean bash?"),
        ("predict m i -o out --threshold x",
         "unet predict: --threshold: got x; write a number above 0 and below 1; see unet predict "
         "--help"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    words: str, line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if line is None:  # --version may be shortened, as any option
        with pytest.raises(SystemExit) as stopped:
            main.main(words.split())
        assert stopped.value.code == 0
        return
    assert said(capsys, *words.split()) == f"{line}\n"


def test_messages_of_argparse_in_our_words(capsys: pytest.CaptureFixture[str]) -> None:
    p = Parser(prog="prog")
    p.add_argument("-n", "--number", type=int, help="a number")
    p.add_argument("--part", type=float, help="a part")
    p.add_argument("--name", type=checked(_lower), help="a name")
    either = p.add_mutually_exclusive_group(required=True)
    either.add_argument("--one", action="store_true", help="this one")
    either.add_argument("--two", action="store_true", help="or that one")
    for words, line in {
        "--one -n x": "--number: got 'x'; write a whole number",
        "--one --part x": "--part: got 'x'; write a number",
        "--one --name X": "--name: 'X' has capitals; write small letters",
        "--one --two": "--two: cannot be combined with --one",
        "": "missing: --one or --two",
    }.items():
        with pytest.raises(SystemExit):
            p.parse_args(words.split())
        assert capsys.readouterr().err == f"prog: {line}; see prog --help\n"
    assert plain("what is not known stays") == "what is not known stays"


def _lower(text: str) -> str:
    if not text.islower():
        raise ValueError(f"{text!r} has capitals; write small letters")
    return text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("prepare.py --dataset ../x --settings {}",
         "--dataset: '../x' is not a valid name: use letters, digits, '_' and '-'"),
        ("prepare.py --settings {}", "missing: --dataset"),
        ("prepare.py --dataset d", "missing: --config or --settings"),
        ("train.py --dataset d --model m --fold x --config c",
         "--fold: 'x' is not a fold: write a number from 0, or ensemble"),
        ("train.py --dataset d --model m --fold 0 --config c --checkpoint-seconds 0",
         "--checkpoint-seconds: got 0, must be above 0"),
        ("resume.py --wait soon", "--wait: got 'soon'; write a number"),
        ("import_keras.py m.h5", "missing: --output, --classes"),
    ],
)  # fmt: skip
def test_scripts_say_it_in_one_line_too(words: str, line: str) -> None:
    script, *rest = words.split()
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", *rest],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    program = f"python scripts/{script}"
    expected = f"{program}: {line}; see {program} --help\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.parametrize("words", [["completion", "bash"], ["config", "--schema"], ["models"],
                                   ["models", "--json"]])  # fmt: skip
def test_a_closed_pipe_is_no_error(words: list[str]) -> None:
    """Plain text, more than a pipe holds, and tables."""
    code = f"import sys; from unet.cli.main import entry; sys.argv[1:] = {words}; "
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "{code} sys.exit(entry())" | true'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    with pytest.raises(SystemExit), closed_pipe():
        sys.exit(3)

    def work(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    assert run(argparse.Namespace(), work) == 2


# docs/commands.md.


def test_the_page_of_commands_is_up_to_date() -> None:
    text = commands_docs.PAGE.read_text(encoding="utf-8")
    assert text == commands_docs.page(text), "run make config-docs"
    for name in NAMES:
        assert f"\n## unet {name}\n" in text
    for code in ("0", "1", "2", "143"):
        assert f"\n| {code} | " in text


# Completion.


def completions(line: str, cwd: Path, tmp_path: Path) -> list[str]:
    """By the protocol between the shell's code and the program."""
    answers = tmp_path / "answers"
    answers.touch()
    found = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answers),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
        "COMP_TYPE": "9",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from unet.cli.main import entry; entry()"],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **found},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return [word.strip() for word in answers.read_text(encoding="utf-8").split("\n")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    (place / "configs").mkdir(parents=True)
    for name in ("my.yaml", "model.pt", "image.tif", "ö.yml"):
        (place / name).touch()
    return place


def test_completion_of_commands_options_choices_and_files(folder: Path, tmp_path: Path) -> None:
    def complete(line: str) -> list[str]:
        return completions(line, folder, tmp_path)

    assert {*NAMES, "--help", "--version"} <= set(complete("unet "))
    assert complete("unet mod") == ["models"]
    assert complete("unet models --dep") == ["--depth"]
    assert complete("unet models --dims ") == ["2", "3"]
    assert complete("unet completion z") == ["zsh"]
    assert "cuda" in complete("unet predict model.pt image.tif --device ")
    files = set(complete("unet config "))
    assert {"my.yaml", "ö.yml", "configs/"} <= files
    assert not {"model.pt", "image.tif"} & files
    files = set(complete("unet info "))
    assert {"model.pt", "configs/"} <= files
    assert "my.yaml" not in files
    assert complete("unet config my") == ["my.yaml"]


SCRIPTS = {
    # The completion function of bash, as the Tab key calls it.
    "bash": 'eval "$(unet completion bash)"; COMP_WORDS=(unet models --dep); COMP_CWORD=2; '
    "COMP_LINE='unet models --dep'; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; "
    "_python_argcomplete unet --dep models; echo ${COMPREPLY[@]}",
    # zsh has no way to complete without a terminal; the code is accepted and registered.
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(unet completion zsh)"; '
    "echo ${_comps[unet]}",
    "fish": "unet completion fish | source; complete -C 'unet models --dep'",
}
EXPECTED = {"bash": "--depth", "zsh": "_python_argcomplete", "fish": "--depth"}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_in_the_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "unet"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from unet.cli.main import entry\nsys.exit(entry())\n"
    )
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [shell, "-c", SCRIPTS[shell]], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # fish adds the option's help.
    assert done.stdout.split()[:1] == [EXPECTED[shell]], done.stderr
    assert shell == "fish" or len(done.stdout.split()) == 1
