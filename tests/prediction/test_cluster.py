"""Prediction on a dask cluster of processes gives the same bytes as one process, also if a worker
is killed; missing packages and schedulers give one error line."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import ssl
import stat
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from tests.prediction.test_predict import PARTS, content, data_of, model
from unet.config.sections import ClusterSection, PredictSection
from unet.config.stage_settings import PredictSettings
from unet.errors import UserError
from unet.models.model_file import save_model
from unet.prediction.tiles.cluster import client_of, on_cluster
from unet.prediction.tiles.ensemble import Member
from unet.prediction.tiles.predict import predict_fold
from unet.prediction.tiles.prediction_job import PredictionResources
from unet.prediction.tiles.tile_store import Tiles
from unet.prediction.tiles.tls import on_disk, warn_if_open

MISSING = [
    name for name in ("distributed", "cryptography") if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed (extra cluster)"
)
SHAPES = ((48, 56), (48, 56), (61, 33), (150, 170))


def predicted(store: Any, where: Path, run: Any = None, threads: int = 1) -> dict[str, bytes]:
    """Content of the tile store at the end."""
    section = PredictSection(tile=40, dtype="float32", precision="float32")
    data = data_of(store, [Member.load(where)], PARTS)
    folder = data.tiles
    predict_fold(
        data,
        PredictSettings.made(predict=section, device="cpu"),
        PredictionResources(2, 1e9, threads=threads),
        run=run,
    )
    assert Tiles(folder).ids() == sorted(PARTS)
    return content(folder)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.pt", model())
    return tmp_path / "model.pt"


def killing_one(pids: list[int], after: int) -> Any:
    """Wraps the function that runs batches: kills one worker after a number of them."""

    def wrap(run: Any) -> Any:
        def wrapped(work: Any, todo: Any) -> Iterator[Any]:
            for number, batch in enumerate(run(work, todo)):
                if number == after:
                    os.kill(pids[0], signal.SIGKILL)
                yield batch

        return wrapped

    return wrap


def test_two_workers_of_which_one_is_killed(make_store, network: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    # A job uses all threads of the machine, a worker uses one.
    expected = predicted(make_store(SHAPES, output=tmp_path / "one"), network, threads=2)
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
    with (
        client_of(ClusterSection(workers=1), tmp_path / "dask") as client,
        on_disk(client.security, tmp_path / "keys") as keys,
    ):
        address = client.scheduler.address
        files = {
            "distributed.comm.tls.ca-file": keys.tls_ca_file,
            "distributed.comm.tls.client.cert": keys.tls_worker_cert,
            "distributed.comm.tls.client.key": keys.tls_worker_key,
        }
        with dask.config.set(files), on_cluster(
            ClusterSection(address=address), models=[network], alone={},
            prepared=store[0].prepared("d"), device="cpu", folder=tmp_path / "unused",
        ) as run:  # fmt: skip
            assert predicted(store, network, run) == expected
        # We did not start it, so it must still run.
        assert len(client.run(os.getpid)) == 1
        # Without certificates there is one error line.
        section = ClusterSection(address=address)
        with (
            pytest.raises(
                UserError, match=r"tls://.* needs certificates; name them in dask's"
            ) as e,
            client_of(section, tmp_path),
        ):
            pass
        assert "\n" not in str(e.value)


def test_who_has_no_key_is_kept_out(tmp_path: Path) -> None:
    """tests/faults has more of these."""
    with client_of(ClusterSection(workers=1), tmp_path / "dask") as client:
        client.wait_for_workers(1, timeout=600)
        for address in (client.scheduler.address, *client.scheduler_info(n_workers=-1)["workers"]):
            assert address.startswith("tls://127.0.0.1:")
            with pytest.raises(OSError, match=r"certificate required|reset|EOF"):
                say_something(address.removeprefix("tls://"))
        # Its web pages show nothing, either.
        (pages,) = client.cluster.scheduler.http_server._sockets.values()
        for path in ("info/main/workers.html", "json/counts.json", "metrics", "health"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{pages.getsockname()[1]}/{path}")
    assert not list((tmp_path / "dask").rglob("*.pem"))


def say_something(place: str) -> None:
    """Connects by TLS without a client certificate, and accepts any server."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = place.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain) as line,
    ):
        line.sendall(b"x" * 64)
        if not line.recv(1):
            raise OSError("EOF")


def test_a_scheduler_that_is_open_to_all(caplog: pytest.LogCaptureFixture) -> None:
    for fine in ("tls://10.0.0.1:8786", "tcp://127.0.0.1:8786", "localhost:8786", "[::1]:8786"):
        warn_if_open(fine)
    assert not caplog.records
    for open_ in ("tcp://10.0.0.1:8786", "10.0.0.1:8786", "ws://login:80", "tcp://[fe80::1]:1"):
        caplog.clear()
        warn_if_open(open_)
        assert f"{open_} is neither encrypted nor authenticated" in caplog.text


def test_without_cryptography_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with (
        pytest.raises(UserError, match=r"needs the package cryptography; run pip install"),
        client_of(ClusterSection(), tmp_path),
    ):
        pass


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
        files = sorted((tmp_path / ".tls").iterdir())
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3
        assert stat.S_IMODE((tmp_path / ".tls").stat().st_mode) == 0o700
        for path in files:
            assert str(path) in script
            assert path.read_text() not in script
    assert not (tmp_path / ".tls").exists()
    assert scaled[0] == 3  # and none at the end
    for line in (
        "#SBATCH --cpus-per-task=4", "#SBATCH --mem=15G", "#SBATCH -t 02:30:00",
        "#SBATCH --partition=gpu", "#SBATCH --gres=gpu:1", "export OMP_NUM_THREADS=4",
        "export MALLOC_ARENA_MAX=1",
    ):  # fmt: skip
        assert line in script.replace("#SBATCH -n 1", ""), script
    assert "PYTHONPATH=" in script


def test_workers_of_a_queue_show_their_keys(
    make_store: Any, network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fake queue commands start the jobs on this machine."""
    pytest.importorskip("dask_jobqueue")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (
        ("sbatch", 'cp "$1" "$0.$$"; setsid bash "$0.$$" >"$0.$$.log" 2>&1 & echo "job $!"'),
        ("scancel", 'kill -- "-$1"'),
    ):
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    expected = predicted(make_store(SHAPES, output=tmp_path / "one"), network)
    store = make_store(SHAPES, output=tmp_path / "two")
    section = ClusterSection(queue="slurm", workers=1, memory_gb=1, interface="lo")
    with on_cluster(
        section, models=[network], alone={}, prepared=store[0].prepared("d"), device="cpu",
        folder=tmp_path / "dask",
    ) as run:  # fmt: skip
        run.client.wait_for_workers(1, timeout=600)
        (address,) = run.client.scheduler_info(n_workers=-1)["workers"]
        assert address.startswith("tls://")
        assert predicted(store, network, run) == expected
    assert not (tmp_path / "dask" / ".tls").exists()
