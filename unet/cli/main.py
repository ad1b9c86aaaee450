"""The ``unet`` command: :mod:`unet.cli.commands` lists what it can do."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from typing import NoReturn

from unet import __version__, allocator
from unet.cli.arguments import Parser
from unet.cli.commands import COMMANDS, grouped
from unet.errors import did_you_mean
from unet.versions import library_versions

# What to do first: the first of these commands that exists.
_FIRST = {
    "init": "unet init FOLDER looks at your images and writes a config that runs",
    "predict": "unet predict MODEL IMAGES -o OUT applies a trained model",
}


class _Versions(argparse.Action):
    """Prints the versions a bug report needs: this package, Python, the system, the libraries."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        found = {"unet-pipeline": __version__, "Python": platform.python_version()}
        found |= {platform.system(): platform.release(), **library_versions()}
        print(*(f"{name} {value}" for name, value in found.items()), sep="\n")  # noqa: T201
        parser.exit()


class _Commands(Parser):
    """The parser of ``unet``: its help lists the commands in groups."""

    def format_help(self) -> str:
        lines = ["usage: unet COMMAND ...", "", "U-Net for microscopy: train, apply, compare."]
        width = max(len(each.name) for each in COMMANDS)
        for title, commands in grouped().items():
            lines += ["", f"{title}:", *(f"  {c.name:{width}}  {c.text}" for c in commands)]
        names = {each.name for each in COMMANDS}
        lines += ["", *(f"first: {line}" for name, line in _FIRST.items() if name in names)][:2]
        lines += ["unet COMMAND --help shows the options and examples of a command,"]
        lines += ["unet --version the versions that a bug report needs."]
        return "\n".join(lines) + "\n"

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message = "missing: a command"
        super().error(message)


def command_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``unet``; it has the arguments of the command that ``words`` name first.

    Importing the modules of all commands would make each call slow.
    """
    p = _Commands(prog="unet")
    p.add_argument("--version", action=_Versions, nargs=0, help="print all versions and exit")
    parsers = p.add_subparsers(required=True, metavar="COMMAND", prog="unet", parser_class=Parser)
    named = named_command(words)
    for each in COMMANDS:
        own = parsers.add_parser(each.name, help=each.text)
        own.set_defaults(command=each)
        if each.name == named:
            each.add_arguments(own)
    return p


def named_command(words: Sequence[str]) -> str | None:
    """The first word that is not an option."""
    return next((word for word in words if not word.startswith("-")), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``unet``; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    parser = command_parser(words)
    if not words:
        parser.exit(2, parser.format_help())
    known = [each.name for each in COMMANDS]
    if (named := named_command(words)) is not None and named not in known:
        parser.error(f"no command {named!r}{did_you_mean(named, known)}")
    args = parser.parse_args(words)
    code: int = args.command(args)
    return code


def entry() -> int:
    """Entry point of the installed command ``unet``."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks how a line may go on
        from unet.cli.completion_command import answer

        answer(command_parser)
    try:
        return _restarted()
    except BrokenPipeError:  # of unet ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _restarted() -> int:
    if sys.argv[1:2] and sys.argv[1] in {each.name for each in COMMANDS if each.computes}:
        allocator.restart()
    code = main()
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(entry())
