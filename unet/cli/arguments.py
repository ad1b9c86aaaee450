"""The parser of all command lines: help with defaults, and mistakes in one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from unet.errors import did_you_mean, one_line

T = TypeVar("T")

# argparse's messages -> what to write instead; the first that matches is used.
_TYPES = {"int": "a whole number", "float": "a number"}
_WORDS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"invalid (int|float) value: (.*)", lambda m: f"got {m[2]}; write {_TYPES[m[1]]}"),
    (r"invalid \S+ value: (.*)", lambda m: f"got {m[1]}, which cannot be read"),
    (r"expected one argument", lambda m: "needs a value"),
    (r"expected at least one argument", lambda m: "needs at least one value"),
    (r"not allowed with argument (.*)", lambda m: f"cannot be combined with {_option(m[1])}"),
)


def _option(names: str) -> str:
    """The longest of an option's names, such as --output of -o/--output."""
    return max(names.split("/"), key=len) if names.startswith("-") else names


def _either(names: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plain(message: str) -> str:
    """A message of argparse in this project's words: the option, what was found, what to write."""
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        return "missing: " + ", ".join(map(_option, found[1].split(", ")))
    if found := re.fullmatch(r"one of the arguments (.*) is required", message):
        return f"missing: {_either(list(map(_option, found[1].split())))}"
    if found := re.fullmatch(r"ambiguous option: (\S+) could match (.*)", message):
        return f"{found[1]}: write {_either(found[2].split(', '))}"
    named = re.fullmatch(r"argument ([^:]+): (.*)", message, re.S)
    if named is None:
        return message
    name, said = _option(named[1]), named[2]
    if found := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", said):
        choices = [choice.strip("'\"") for choice in found[2].split(", ")]
        near = did_you_mean(found[1].strip("'\""), choices)
        return f"{name}: got {found[1]}; write {_either(choices)}{near}"
    for pattern, words in _WORDS:
        if found := re.fullmatch(pattern, said):
            return f"{name}: {words(found)}"
    return f"{name}: {said}"


def checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """The type of an argument whose ValueError says what is wrong; argparse would not show it."""

    def value(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value


def positive(text: str) -> int:
    """The type of an argument that counts something, such as threads."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"got {text}; write a whole number above 0")
    return int(text)


class Help(argparse.HelpFormatter):
    """Shows defaults that say something, wraps texts, and keeps the lines of the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not shows_default(action):
            return action.help
        return f"{action.help} (default: %(default)s)"


def shows_default(action: argparse.Action) -> bool:
    """Whether the help of an option ends with its default."""
    empty = action.default is None or action.default is False or action.default in ([], (), "")
    if empty or action.default is argparse.SUPPRESS or not action.option_strings:
        return False
    return "(default" not in (action.help or "")


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, without the usage.

    A subclass of a command that hands unknown words to another program sets ``further_words``.
    """

    further_words = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help, **options})

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line and exit code 2."""
        text = one_line(plain(message))
        near = ""
        if found := re.search(r"; did you mean .*\?$", text):
            text, near = text[: found.start()], found[0]
        self.exit(2, f"{self.prog}: {text}; see {self.prog} --help{near}\n")

    # Typed loosely: argparse has overloads.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse; words that the parser does not know are a mistake, found where they belong:
        argparse would only find it in the parser of the whole command."""
        found, rest = super().parse_known_args(args, namespace)
        if rest and not self.further_words:
            self.error(self._unknown(rest))
        return found, rest

    def _unknown(self, rest: Sequence[str]) -> str:
        option = next((word for word in rest if word.startswith("-")), None)
        if option is None:
            return f"one word too many: {rest[0]!r}"
        name = option.partition("=")[0]
        known = [text for action in self._actions for text in action.option_strings]
        return f"no option {name}{did_you_mean(name, known)}"
