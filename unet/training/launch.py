"""Starts the processes that train one network together.

As a module it is ``torchrun`` that ends as its processes do: with their exit code and no report of
its own.

    python -m unet.training.launch --standalone --nproc-per-node=2 -- SCRIPT WORDS...

The processes have said in one line why they ended; torchrun would add a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def together(script: Path, words: Sequence[str], device: str, processes: int) -> NoReturn:
    """Runs a script in several processes, in the place of this one.

    All GPUs of the job are leased here: processes that lease for themselves can each wait for
    one that a process of another job holds. The leases last as long as the launcher.

    Args:
        script: which calls the package of the folder above it, installed or not.
        words: its arguments.
        device: as the config has it.

    Raises:
        UserError: there are GPUs, but fewer than processes.
    """
    from unet.models.devices import lease_together

    gpus = lease_together(device, processes)
    launcher = [sys.executable, "-m", "unet.training.launch", "--standalone"]
    # After -- torchrun takes no word for an option of its own (it has several --log...).
    command = [*launcher, f"--nproc-per-node={processes}", "--", str(script), *words]
    path = os.pathsep.join(filter(None, [str(script.parent.parent), os.environ.get("PYTHONPATH")]))
    chosen = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
    # In its place, so that signals reach the launcher, which passes them on.
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path, **chosen})


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
