"""``torchrun`` that ends as its processes do: with their exit code, no report of its own.

    python -m unet.training.launch --standalone --nproc-per-node=2 -- SCRIPT WORDS...

The processes have said in one line why they ended; torchrun would add a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Runs the processes; returns the exit code of the first that failed, 143 after a signal."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # of torch's launcher alone
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run.main(list(sys.argv[1:] if words is None else words))
    except ChildFailedError as error:
        code: int = error.get_first_failure()[1].exitcode
        return code if code > 0 else 1
    except SignalException:
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
