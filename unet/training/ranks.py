"""Several processes that train one network together (``torchrun``, one per GPU).

A step has the batch of the config with any number of processes: each computes its share of the
rows. Normalisation and loss see all rows, so the result is that of one process, except for rounding
and the random masks of dropout.
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

# A process that waits longer than this for another ends with an error.
TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number; process 0 writes files and logs.
        size: number of processes.
        local: its number among the processes on this machine; None if there is only one.
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
        """Whether the flag is set in any process."""
        return any(self.from_each(flag))

    def from_each(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
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
    """Connects the processes that ``torchrun`` started; a single process needs no connection."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        # gloo for objects, nccl for gradients.
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
