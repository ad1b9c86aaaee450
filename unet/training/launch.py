"""Starts the processes that train one network together.

Run as a module, it is ``torchrun`` with the exit code of its processes and without torchrun's
traceback: the processes have already logged in one line why they ended.

    python -m unet.training.launch --standalone --nproc-per-node=2 -- SCRIPT ARGUMENTS...
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def launch(script: Path, arguments: Sequence[str], device: str, processes: int) -> NoReturn:
    """Replaces this process by a launcher that runs a script in several processes.

    All GPUs of the job are leased here, in one call. If each process leased its own, two jobs could
    wait for each other's GPUs for ever. The leases last as long as the launcher.

    Args:
        script: its parent's parent folder is added to PYTHONPATH, so that the package need not be
            installed.
        arguments: of the script.
        device: the config's ``device``.

    Raises:
        UserError: there are GPUs, but fewer than processes.
    """
    from unet.models.devices import lease_together

    gpus = lease_together(device, processes)
    launcher = [sys.executable, "-m", "unet.training.launch", "--standalone"]
    # After --, torchrun does not take an argument for one of its options (such as --log-dir).
    command = [*launcher, f"--nproc-per-node={processes}", "--", str(script), *arguments]
    path = os.pathsep.join(filter(None, [str(script.parent.parent), os.environ.get("PYTHONPATH")]))
    chosen = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
    # Replaces this process, so that signals reach the launcher, which passes them on.
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path, **chosen})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the processes; returns the exit code of the first that failed, 143 after a signal."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # read by torch's launcher only
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run.main(list(sys.argv[1:] if arguments is None else arguments))
    except ChildFailedError as error:
        code: int = error.get_first_failure()[1].exitcode
        return code if code > 0 else 1
    except SignalException:
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
