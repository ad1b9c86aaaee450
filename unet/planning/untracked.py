"""Params of a job that Snakemake does not track. A param ``common`` of this type also marks the
jobs of this workflow, if another workflow uses it as a module."""

from __future__ import annotations

import shlex


class Untracked:
    """Shell words that are passed to a job but are not part of its record, because Snakemake does
    not compare objects. For options that change no result: paths, memory, batch sizes."""

    def __init__(self, *words: object) -> None:
        self.words = tuple(map(str, words))
        self.text = shlex.join(self.words)

    def __str__(self) -> str:
        return self.text
