"""``unet completion``: makes the Tab key of bash, zsh and fish complete the words of ``unet``.

The shell calls ``unet`` with the line so far (:func:`answer`), so that the completions are those of
the parser itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

SHELLS = ("bash", "zsh", "fish")
# Files to complete, by the name of the argument in the help.
SUFFIXES = {"CONFIG": ("yaml", "yml", "json"), "MODEL": ("pt",)}


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet completion``."""
    p.description = (
        "Prints the code that makes a shell complete commands, options, choices and files of unet "
        "when you press Tab."
    )
    p.epilog = (
        "examples:\n"
        '  eval "$(unet completion bash)"              in ~/.bashrc\n'
        '  eval "$(unet completion zsh)"               in ~/.zshrc, after compinit\n'
        "  unet completion fish | source               in ~/.config/fish/config.fish"
    )
    p.add_argument("shell", choices=SHELLS, help="the shell that you use")


def command(args: argparse.Namespace) -> int:
    """Prints the code for a shell; returns the exit code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["unet"], shell=args.shell))  # noqa: T201 - the command's output
    return 0


def answer(parser_for: Callable[[Sequence[str]], argparse.ArgumentParser]) -> None:
    """Writes the completions of the line in COMP_LINE for the shell, and ends the process.

    Args:
        parser_for: gives the parser for the words of a line.
    """
    import argcomplete
    from argcomplete.completers import FilesCompleter

    line = os.environ.get("COMP_LINE", "")
    # In bytes, as the shell counts.
    point = int(os.environ.get("COMP_POINT", len(line.encode())))
    before = line.encode()[:point].decode(errors="ignore")
    # The last word is not complete, so it does not name a command yet.
    words = before.split()[1:] if before.endswith((" ", "\t")) else before.split()[1:-1]
    parser = parser_for(words)
    for action in _actions(parser):
        if isinstance(action.metavar, str) and action.metavar in SUFFIXES:
            own: Any = action
            own.completer = FilesCompleter(SUFFIXES[action.metavar])
    argcomplete.autocomplete(parser)
    sys.exit()


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of a parser and of its commands."""
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for inner in dict.fromkeys(action.choices.values()):
                found += _actions(inner)
    return found
