"""Prediction on a dask cluster of processes: the same bytes as by one process, also when a worker
is killed; what is missing is told in one line."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_predict import PARTS, content, model
from unet.errors import UserError
from unet.models.modelfile import save_model
from unet.prediction.cluster import client_of, on_cluster
from unet.prediction.ensemble import Member
from unet.prediction.predict import predict_fold
from unet.prediction.tiles import Tiles
from unet.sections import ClusterSection, PredictSection

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="distributed is not installed (extra cluster)",
)
SHAPES = ((48, 56), (48, 56), (61, 33), (150, 170))


def predicted(store: Any, where: Path, run: Any = None) -> dict[str, bytes]:
    """Content of the tile store at the end."""
    paths, sentinel = store
    section = PredictSection(tile=40, dtype="float32", precision="float32")
    settings = {"version": 1, "predict": section.model_dump(mode="json"), "device": "cpu"}
    folder = paths.tiles("d", "m", 0)
    predict_fold(
        [Member.load(where)], paths.prepared("d"), sentinel, PARTS, settings, folder, 2, 1e9,
        threads=1, run=run,
    )  # fmt: skip
    assert Tiles(folder).ids() == sorted(PARTS)
    return content(folder)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.pt", model())
    return tmp_path / "model.pt"


def killing_one(pids: list[int], after: int) -> Any:
    """Wraps what does the batches: after so many of them one worker is killed."""

    def wrap(run: Any) -> Any:
        def wrapped(work: Any, todo: Any) -> Iterator[Any]:
            for number, batch in enumerate(run(work, todo)):
                if number == after:
                    os.kill(pids[0], signal.SIGKILL)
                yield batch

        return wrapped

    return wrap


def test_two_workers_of_which_one_is_killed(make_store, network: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    expected = predicted(make_store(SHAPES, output=tmp_path / "one"), network)
    store = make_store(SHAPES, output=tmp_path / "two")
    paths = store[0]
    with on_cluster(
        ClusterSection(workers=2), models=[network], alone={}, prepared=paths.prepared("d"),
        device="cpu", folder=tmp_path / "dask",
    ) as run:  # fmt: skip
        run.client.wait_for_workers(2, timeout=600)
        pids = list(run.client.run(os.getpid).values())
        assert len(set(pids)) == 2
        assert os.getpid() not in pids
        found = predicted(store, network, killing_one(pids, after=3)(run))
    assert found == expected
    deadline = time.monotonic() + 300
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return (
        not state.exists() or state.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    )


def test_a_scheduler_that_runs_is_used(make_store, network: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    expected = predicted(make_store(SHAPES, output=tmp_path / "one"), network)
    store = make_store(SHAPES, output=tmp_path / "two")
    with client_of(ClusterSection(workers=1), tmp_path / "dask") as client:
        address = client.scheduler.address
        with on_cluster(
            ClusterSection(address=address), models=[network], alone={},
            prepared=store[0].prepared("d"), device="cpu", folder=tmp_path / "unused",
        ) as run:  # fmt: skip
            assert predicted(store, network, run) == expected
        # It was not ours to end.
        assert len(client.run(os.getpid)) == 1


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import distributed

    def refused(*args: Any, **options: Any) -> None:
        raise OSError("Timed out trying to connect\nto tcp://127.0.0.1:1 after 30 s")

    monkeypatch.setattr(distributed, "Client", refused)
    with (
        pytest.raises(UserError, match=r"no scheduler answers at tcp://127.0.0.1:1 \(Timed") as e,
        client_of(ClusterSection(address="tcp://127.0.0.1:1"), tmp_path),
    ):
        pass
    assert "\n" not in str(e.value)


def test_jobs_of_a_queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The job script that SLURM would get."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    section = ClusterSection(
        queue="slurm", workers=3, threads=4, memory_gb=16, hours=2.5,
        interface="lo", options=("--partition=gpu", "--gres=gpu:1"),
    )  # fmt: skip
    scaled = []
    monkeypatch.setattr(jobqueue.SLURMCluster, "scale", lambda self, jobs: scaled.append(jobs))
    with client_of(section, tmp_path) as client:
        script = client.cluster.job_script()
    assert scaled[0] == 3  # and none at the end
    for line in (
        "#SBATCH --cpus-per-task=4", "#SBATCH --mem=15G", "#SBATCH -t 02:30:00",
        "#SBATCH --partition=gpu", "#SBATCH --gres=gpu:1", "export OMP_NUM_THREADS=4",
        "export MALLOC_ARENA_MAX=1",
    ):  # fmt: skip
        assert line in script.replace("#SBATCH -n 1", ""), script
    assert "PYTHONPATH=" in script
