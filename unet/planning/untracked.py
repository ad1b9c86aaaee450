"""Params of a job that are no part of its record; a param ``common`` of this kind also tells this
workflow's jobs from those of one that has it as a module."""

from __future__ import annotations

import shlex


class Untracked:
    """Shell words that are passed on but are no part of a job's record: Snakemake does not compare
    objects. For what changes no result: paths, memory, batch sizes."""

    def __init__(self, *words: object) -> None:
        self.words = tuple(map(str, words))
        self.text = shlex.join(self.words)

    def __str__(self) -> str:
        return self.text
