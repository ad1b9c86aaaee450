"""Writes the sections of docs/commands.md from the commands' parsers: ``make config-docs``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from unet.cli.arguments import shows_default
from unet.cli.commands import COMMANDS, Command, grouped
from unet.cli.main import command_parser

PAGE = Path(__file__).resolve().parent / "commands.md"
BLOCK = re.compile(r"(<!-- commands -->\n).*?(<!-- end of commands -->)", re.S)


def page(text: str) -> str:
    """The page with its generated part made from the table of commands."""
    sections = [_list(), *(_section(each) for each in COMMANDS)]
    return BLOCK.sub(lambda found: found[1] + "\n".join(sections) + "\n" + found[2], text)


def _list() -> str:
    lines = ["| command | what it does |", "|---|---|"]
    for commands in grouped().values():
        lines += [f"| [`unet {c.name}`](#unet-{c.name}) | {c.text} |" for c in commands]
    return "\n".join(lines) + "\n"


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, with its arguments."""
    for action in command_parser([name])._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[name]  # type: ignore[no-any-return]
    raise ValueError(f"no command {name}")


def _section(command: Command) -> str:
    parser = parser_of(command.name)
    lines = [f"## unet {command.name}", "", _escaped(parser.description or command.text), ""]
    lines += ["| argument | what |", "|---|---|"]
    actions = [a for a in parser._actions if a.help != argparse.SUPPRESS and a.dest != "help"]
    lines += [f"| {_names(action)} | {_help(action)} |" for action in actions]
    examples = (parser.epilog or "").removeprefix("examples:\n")
    if examples:
        shown = [line.removeprefix("  ") for line in examples.splitlines()]
        lines += ["", "```text", *shown, "```"]
    return "\n".join(lines) + "\n"


def _names(action: argparse.Action) -> str:
    """``MODEL``, or ``-o``, ``--output OUTPUT``."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = ""
    if action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
        value = f" {action.metavar or action.dest.upper()}"
        if action.choices is not None:
            value = f" {{{','.join(map(str, action.choices))}}}"
    *others, last = action.option_strings
    return ", ".join([*(f"`{name}`" for name in others), f"`{last}{value}`"])


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%")
    if shows_default(action):
        text += " (default: %(default)s)"
    # The page must not depend on the machine.
    default = "all CPUs" if action.dest in ("threads", "cores", "jobs") else str(action.default)
    return _escaped(text.replace("%(default)s", default))


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
