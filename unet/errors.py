"""The exception for mistakes that a user can fix, words for messages, and how to recognise lack of
memory."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the user's files, config or command line.

    The message is one line: the file or key, what was found, what to write instead. Command
    lines print it without a stack trace and exit with code 2.
    """


class ArgumentError(UserError, ValueError):
    """A wrong argument of a function of ``import unet``; the message names the argument.

    Like all errors that a user can fix it is a UserError; it is a ValueError, too, as people who
    write Python expect.
    """


def one_line(said: object, most: int | None = None) -> str:
    """A text, or an error's message (its type if it has none), on one line.

    Args:
        most: maximum number of characters; longer texts are cut and end in "...".
    """
    text = " ".join(str(said).split())
    if not text and isinstance(said, BaseException):
        text = type(said).__name__
    return text if most is None or len(text) <= most else f"{text[: most - 3]}..."


def how_many(number: int, noun: str) -> str:
    """Such as ``1 image`` or ``2 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def time_left(seconds: float) -> str:
    """A time until the end, for people: ``5 s``, ``27 min``, ``1 h 20 min``."""
    if seconds < 59.5:
        return f"{max(0, round(seconds))} s"
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message that suggests the most similar known name; "" if none is similar."""
    near = get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


# How PyTorch's allocators and the libraries below it report that memory is full. Not all of them
# raise OutOfMemoryError: kernels raise AcceleratorError, cuDNN and cuBLAS a RuntimeError with their
# own status.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the device ran out of memory. Torch-free: checks names and texts."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return named or any(words in str(error) for words in _NO_MEMORY)
