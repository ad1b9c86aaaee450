"""The one exception that stands for a mistake a user can mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the user's files, config or command line.

    The message is one line: the file or key, what was found, what to write instead. Command
    lines print it without a stack trace and exit with code 2.
    """


def meant(name: object, known: Iterable[str]) -> str:
    """The end of a message that tells which of the known names may have been meant; "" for none."""
    near = get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
