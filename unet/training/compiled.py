"""A network's training step as compiled code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from unet.errors import UserError, is_out_of_memory, one_line
from unet.models.network import Network
from unet.models.norms import copy_statistics, restore_statistics

log = logging.getLogger(__name__)

T = TypeVar("T")


class CompiledNetwork:
    """Computes as a network does, except for rounding, with several operations in one
    (``torch.compile``); as the network itself where compiling fails.

    Args:
        network: to compile when it is first called.
    """

    def __init__(self, network: Network) -> None:
        self._network, self._tried = network, False
        # Why it was not compiled, for console and report; "" if it was.
        self.failure = ""
        self._run: Any = None
        log.info("the first step compiles the network, which can take minutes")

    def __call__(self, x: Tensor) -> Any:
        if self._run is None:
            # The sizes of a training never change. Dropout draws as it does without compiling.
            self._run = torch.compile(
                self._network, dynamic=False, options={"fallback_random": True}
            )
        return self._run(x)

    def attempt(self, compute: Callable[[], T]) -> T:
        """``compute``, which calls this object and the backward pass; again with the network itself
        if compiling fails, which can happen in both passes.

        Raises:
            Exception: what ``compute`` raises without compiled code, or for lack of memory.
        """
        before = {} if self._tried else copy_statistics(self._network)
        try:
            result = compute()
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error) or self._run is self._network:
                raise
            # Other lines are advice for those who develop torch.
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            self.failure = (
                f"train.compile: the network could not be compiled here ({one_line(first, 160)}), "
                "so it trained without; write compile: false, or install what is missing"
            )
        else:
            self._tried = True
            return result
        # After the except block, so that the error no longer keeps tensors in memory.
        if not self._tried:
            restore_statistics(self._network, before)
        self._run, self._tried = self._network, True
        log.warning("warning: %s", self.failure)
        return compute()
