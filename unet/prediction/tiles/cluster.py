"""Predicts on the workers of a ``dask.distributed`` cluster: an existing one, local processes, or
jobs of a queue (dask-jobqueue).

A worker opens the models and images itself, so only names and tile numbers are sent; all workers
need the same file system. If a worker is lost, only its current batches are: the scheduler gives
these to another worker, which writes the same tiles.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from unet import allocator
from unet.config.sections import ClusterSection, PredictSection
from unet.errors import UserError, one_line
from unet.files import digest
from unet.models.devices import choose_device
from unet.prediction.tiles.batches import Batch
from unet.prediction.tiles.calibration import Calibration
from unet.prediction.tiles.ensemble import Member
from unet.prediction.tiles.tls import NO_PAGES, on_disk, own_keys, warn_if_open
from unet.prediction.tiles.worker import FEEDERS, TileWorker

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Spec:
    """Everything that a worker needs to know: plain values, the same for all batches of a job."""

    models: tuple[str, ...]
    alone: tuple[tuple[str, int], ...]
    section: str
    device: str
    prepared: str
    normalize: str
    tiles: str
    threads: int
    calibration: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterTask:
    """A batch, and the key of each of its images, which determines where the tiles go."""

    batch: Batch
    images: tuple[tuple[str, str], ...]


# The state of this worker process; a new job replaces it.
_state: dict[str, Any] = {}
_state_lock = threading.Lock()


def _worker_of(spec: Spec) -> TileWorker:
    """This worker's networks, loaded once per job."""
    key = digest(str(spec))
    with _state_lock:
        if _state.get("key") != key:
            if "worker" in _state:
                _state.pop("worker").close()
            _state["worker"] = TileWorker(
                [Member.load(Path(path)) for path in spec.models],
                dict(spec.alone),
                PredictSection.model_validate_json(spec.section),
                [choose_device(spec.device)],
                Path(spec.prepared),
                json.loads(spec.normalize),
                Path(spec.tiles),
                spec.threads,
                f"{platform.node()}-{os.getpid()}",
                calibration=Calibration(Path(spec.prepared), spec.calibration),
            )
            _state["key"] = key
        worker: TileWorker = _state["worker"]
        return worker


def predict_batch(spec: Spec, task: ClusterTask) -> None:
    """Predicts a batch; runs on a worker."""
    worker = _worker_of(spec)
    with _state_lock:
        for image, key in task.images:
            if not (worker.knows(image) and worker.key_of(image) == key):
                worker.reopen(image, key)
    worker.compute(task.batch)


@contextmanager
def on_cluster(
    section: ClusterSection,
    *,
    models: Sequence[Path],
    alone: Mapping[str, int],
    prepared: Path,
    device: str,
    folder: Path,
) -> Iterator[ClusterRun]:
    """Runs batches on the cluster that the section describes; see :func:`client_of`.

    Args:
        models, alone: see :class:`unet.prediction.tiles.ensemble.Ensemble`.
        prepared: the prepared store.
        device: as in the config; each worker has one.
        folder: for the workers' files, the queue's logs and the keys; used only by this job.
    """
    with client_of(section, folder) as client:
        ahead = 2 * FEEDERS * section.workers
        yield ClusterRun(client, models, alone, prepared, device, section.threads, ahead)


@contextmanager
def client_of(section: ClusterSection, folder: Path) -> Iterator[Any]:
    """A client of the cluster that the section describes. It stops everything that it started.

    Raises:
        UserError: a package is missing, or no scheduler answers at the address.
    """
    try:
        import distributed
        from dask import config
    except ImportError:
        raise UserError(
            "predict.cluster: needs the package distributed; run "
            "pip install 'unet-pipeline[cluster]', or drop this key"
        ) from None
    # Its info messages would fill the job's log.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    if section.address is not None:
        warn_if_open(section.address)
        try:
            client = distributed.Client(section.address, timeout="30s", set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            what = f"no scheduler answers at {section.address}"
            if isinstance(error, TypeError):  # this client has no certificate
                what = (
                    f"{section.address} needs certificates; name them in dask's config, "
                    "distributed.comm.tls"
                )
            raise UserError(f"predict.cluster.address: {what} ({one_line(error, 120)})") from None
        with client:
            yield client
        return
    folder.mkdir(parents=True, exist_ok=True)
    make, keys = _local, own_keys()
    with ExitStack() as stack:
        if section.queue == "slurm":
            make = _slurm
            keys = stack.enter_context(on_disk(keys, folder / ".tls"))
        with config.set(NO_PAGES):
            cluster = stack.enter_context(make(section, folder, keys))
        yield stack.enter_context(distributed.Client(cluster, set_as_default=False))


def _local(section: ClusterSection, folder: Path, keys: Any) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=section.workers,
        threads_per_worker=FEEDERS,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        local_directory=str(folder),
        memory_limit=int(section.memory_gb * 1e9),
        security=keys,
        protocol="tls://",
    )


def _slurm(section: ClusterSection, folder: Path, keys: Any) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise UserError(
            "predict.cluster.queue: needs the package dask-jobqueue; run "
            "pip install 'unet-pipeline[cluster]'"
        ) from None
    cluster = SLURMCluster(
        cores=FEEDERS,
        job_cpu=section.threads,
        processes=1,
        memory=f"{section.memory_gb}GB",
        walltime=_clock(section.hours),
        job_extra_directives=list(section.options),
        job_script_prologue=[
            f"export PYTHONPATH={shlex.quote(str(PACKAGE))}",
            f"export OMP_NUM_THREADS={section.threads}",
            "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'",
            *(f"export {key}={value}" for key, value in allocator.KEPT.items()),
        ],
        python=sys.executable,
        local_directory=str(folder),
        log_directory=str(folder),
        interface=section.interface,
        # The job script contains the paths of the key files, but not the keys.
        security=keys,
        protocol="tls://",
        job_name=_own_job() or "unet-predict",
        # Any free port for the dashboard: several schedulers may run on one machine.
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
    )
    cluster.scale(jobs=section.workers)
    return cluster


def _own_job() -> str:
    """The name of the queue job that runs this process, "" if there is none. Workers get the same
    name, so that cancelling a run's jobs by name cancels them, too."""
    own = os.environ.get("SLURM_JOB_ID", "")
    if not own:
        return ""
    words = ["squeue", "--noheader", "--format=%j", f"--jobs={own}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    names = done.stdout.split()
    return names[0] if names else ""


def _clock(hours: float) -> str:
    """HH:MM:SS, as queues need it."""
    seconds = round(hours * 3600)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


@dataclass(frozen=True, eq=False)
class ClusterRun:
    """Runs batches on a cluster's workers; see :data:`unet.prediction.tiles.predict_loop.Run`.

    Attributes:
        client: the cluster's client.
        models, alone, prepared, device: see :func:`on_cluster`.
        threads: threads per worker.
        ahead: number of batches submitted in advance, so that no worker waits.
    """

    client: Any
    models: Sequence[Path]
    alone: Mapping[str, int]
    prepared: Path
    device: str
    threads: int
    ahead: int

    def _spec(self, worker: TileWorker) -> Spec:
        known = worker.calibration
        return Spec(
            models=tuple(str(path.resolve()) for path in self.models),
            alone=tuple(sorted(self.alone.items())),
            section=worker.section.model_dump_json(),
            device=self.device,
            prepared=str(self.prepared.resolve()),
            normalize=json.dumps(worker.normalize),
            tiles=str(worker.tiles_path.resolve()),
            threads=self.threads,
            calibration=() if known is None else known.images,
        )

    def __call__(self, worker: TileWorker, todo: Iterable[Batch]) -> Iterator[Batch]:
        from distributed import KilledWorker, as_completed

        spec = self._spec(worker)
        self.client.register_plugin(_import_path(str(PACKAGE)))
        batches = iter(todo)

        def submit(batch: Batch) -> Any:
            images = tuple((name, worker.key_of(name)) for name in dict(batch))
            return self.client.submit(predict_batch, spec, ClusterTask(batch, images), pure=False)

        waiting = {submit(batch): batch for batch in islice(batches, self.ahead)}
        flow = as_completed(waiting, loop=self.client.loop)
        try:
            for future in flow:
                batch = waiting.pop(future)
                try:
                    future.result()
                except KilledWorker as error:
                    raise UserError(
                        "predict.cluster: several workers died with the same tiles; give them "
                        f"more memory, or write a smaller predict.tile ({error})"
                    ) from None
                yield batch
                for following in islice(batches, 1):
                    new = submit(following)
                    waiting[new] = following
                    flow.add(new)
        finally:
            self.client.cancel(list(waiting))


def _import_path(folder: str) -> Any:
    """Lets workers import this package even if it is not installed there."""
    from distributed import WorkerPlugin

    # Defined inside the function, so that it is sent as code and not as the name of a module that
    # the worker cannot find yet.
    class ImportPath(WorkerPlugin):  # type: ignore[misc]
        name = "unet-import-path"

        def __init__(self, path: str) -> None:
            self.path = path

        def setup(self, worker: Any) -> None:
            import sys

            if self.path not in sys.path:
                sys.path.insert(0, self.path)

    return ImportPath(folder)
