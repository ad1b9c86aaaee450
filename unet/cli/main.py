"""The ``unet`` command: :mod:`unet.cli.commands` lists what it can do."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence

from unet import __version__, allocator
from unet.cli.commands import COMMANDS
from unet.versions import library_versions


class _Help(argparse.HelpFormatter):
    """Wraps descriptions, and keeps the lines of the examples below the options."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class _Versions(argparse.Action):
    """Prints the versions a bug report needs: this package, Python, the system, the libraries."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        found = {"unet-pipeline": __version__, "Python": platform.python_version()}
        found |= {platform.system(): platform.release(), **library_versions()}
        print(*(f"{name} {value}" for name, value in found.items()), sep="\n")  # noqa: T201
        parser.exit()


def command_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``unet``; it has the arguments of the command that ``words`` name first.

    Importing the modules of all commands would make each call slow.
    """
    p = argparse.ArgumentParser(prog="unet", description="U-Net for microscopy.")
    p.add_argument("--version", action=_Versions, nargs=0, help="print all versions and exit")
    parsers = p.add_subparsers(required=True, metavar="COMMAND")
    named = next((word for word in words if not word.startswith("-")), None)
    for each in COMMANDS:
        own = parsers.add_parser(each.name, help=each.text, formatter_class=_Help)
        own.set_defaults(command=each)
        if each.name == named:
            each.add_arguments(own)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``unet``; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = command_parser(words).parse_args(words)
    code: int = args.command(args)
    return code


def entry() -> int:
    """Entry point of the installed command ``unet``."""
    if sys.argv[1:2] and sys.argv[1] in {each.name for each in COMMANDS if each.computes}:
        allocator.restart()
    return main()


if __name__ == "__main__":
    sys.exit(entry())
