"""The one exception that stands for a mistake a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the user's files, config or command line.

    The message is one line: the file or key, what was found, what to write instead. Command
    lines print it without a stack trace and exit with code 2.
    """
