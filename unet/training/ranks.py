"""Several processes that train one network together (``torchrun``, one per GPU).

The batch of a step is that of the config, whatever the number of processes: each works on its share
of the rows. Normalisation and loss see all rows, so the result is that of one process (to
rounding, and to the random masks of dropout).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from unet.errors import UserError

# A rank that waits longer than this for another ends with an error instead of for ever.
PATIENCE = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 writes files and speaks.
        size: how many there are.
        local: its number among those on this machine; None where it is alone.
    """

    rank: int = 0
    size: int = 1
    local: int | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process's share of the rows of a batch.

        Raises:
            UserError: the processes cannot share it evenly.
        """
        if batch % self.size:
            raise UserError(
                f"train.batch: {batch} rows cannot be shared evenly by {self.size} processes; "
                f"write a multiple of {self.size}"
            )
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gathered(self, x: Tensor) -> Tensor:
        """The rows of all processes, [n, ...] to [N, ...]; gradients flow back to each."""
        if self.size == 1:
            return x
        parts = all_gather(x.contiguous())  # type: ignore[no-untyped-call]
        return torch.cat(list(parts))

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return any(self.each(flag))

    def each(self, value: Any) -> list[Any]:
        """The value of each process, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The value of process 0."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        # Objects travel by gloo, gradients by nccl.
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
