"""Prediction with two workers and with one: processes of a dask cluster, or jobs that share tiles.

    python benchmarks/workers.py

Each worker has one thread, so that two workers use two cores. The workers have started and loaded
the network (in their first batch) before the clock starts; jobs of `predict.shards` are timed as
whole processes, with everything that they load. The network alone, on windows in memory, computed
by one process and shared by two, shows the largest possible gain: two cores share their memory, and
on some machines more. Prints a table, checks that the tiles are the same, and writes
benchmarks/results/workers.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    from unet import allocator

    allocator.restart()

import numpy as np

from benchmarks.machine import load, torch_machine, versions
from benchmarks.predict_cases import IMAGE, MODEL, STORE, Task, prepare
from unet.files import remove

RESULT = ROOT / "benchmarks" / "results" / "workers.json"
TILE = 704
WINDOWS = 40


def arguments_of(work: Path) -> tuple[Any, Any, Any]:
    """For `predict_fold`."""
    from unet.config.sections import PredictSection
    from unet.config.stage_settings import PredictSettings
    from unet.prediction.tiles.ensemble import Member
    from unet.prediction.tiles.prediction_job import PredictionData, PredictionResources

    shape = list(np.load(work / IMAGE, mmap_mode="r").shape)
    info = {"key": "image", "shape": shape, "axes": "CYX", "pixel_size_um": None}
    prepared = {"channels": 1, "images": {"image": info}}
    members, tiles = [Member.load(work / MODEL)], work / "tiles.zarr"
    return (
        PredictionData(members, work / STORE, prepared, {"image": "test"}, tiles),
        PredictSettings.made(predict=PredictSection(tile=TILE, batch=1), device="cpu"),
        PredictionResources(memory_bytes=4e9, threads=1),
    )


def digest_of(folder: Path) -> str:
    """Digest of all chunks of the finished tiles."""
    whole = hashlib.sha256()
    for path in sorted((folder / "image").rglob("c/**/*")):
        if path.is_file():
            whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


def by_cluster(work: Path, workers: int) -> tuple[float, str]:
    """Seconds with started workers."""
    from unet.config.sections import ClusterSection
    from unet.prediction.tiles.cluster import on_cluster
    from unet.prediction.tiles.predict import predict_fold

    target = work / "tiles.zarr"
    section = ClusterSection(workers=workers, threads=1, memory_gb=4)
    seconds: list[float] = []
    with on_cluster(
        section, models=[work / MODEL], alone={}, prepared=work / STORE, device="cpu",
        folder=work / "dask",
    ) as run:  # fmt: skip
        run.client.wait_for_workers(workers)

        def timed(job: Any, todo: Iterable[Any]) -> Iterator[Any]:
            started = time.perf_counter()
            yield from run(job, todo)
            seconds.append(time.perf_counter() - started)

        # The first time loads the libraries and the network in each worker.
        for _ in range(2):
            remove(target)
            predict_fold(*arguments_of(work), run=timed)
    return seconds[-1], digest_of(target)


def by_jobs(work: Path, jobs: int) -> tuple[float, str]:
    """Seconds of this number of parallel processes, from their start to the end of the last."""
    from unet.prediction.tiles.predict import gather

    target = work / "tiles.zarr"
    remove(target)
    command = [sys.executable, __file__, "--work", str(work), "--job"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    running = [
        subprocess.Popen([*command, f"{i}/{jobs}"], env=env, stdout=subprocess.PIPE, text=True)
        for i in range(jobs)
    ]
    found = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a job failed")
    gather(target, [json.loads(text.splitlines()[-1]) for text in found])
    return time.perf_counter() - started, digest_of(target)


def keep_on(cores: Iterable[int]) -> None:
    """Pins all threads of this process, and of processes that it starts, to these cores."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def by_network(work: Path, processes: int) -> float:
    """Seconds of the network alone: WINDOWS windows, shared by processes that have started."""
    command = [sys.executable, __file__, "--work", str(work), "--windows"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [*command, str(WINDOWS // processes)], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(processes)
    ]  # fmt: skip
    pipes = [(process.stdin, process.stdout) for process in running]
    for _, out in pipes:
        assert out is not None
        out.readline()  # is up
    started = time.perf_counter()
    for into, _ in pipes:
        assert into is not None
        into.close()
    if any(process.wait() for process in running):
        raise SystemExit("a process failed")
    return time.perf_counter() - started


def windows(work: Path, number: int) -> None:
    """The work of one process: warm up, wait for the start signal, compute."""
    import torch

    from unet.models.inference import Predictor
    from unet.prediction.tiles.ensemble import Member

    torch.set_num_threads(1)
    network = Member.load(work / MODEL).model.network()
    predictor = Predictor([network], torch.device("cpu"), "float32")
    window = np.random.default_rng(0).random((1, 1, TILE, TILE), dtype=np.float32)
    predictor(window)
    print("up", flush=True)
    sys.stdin.read()
    for _ in range(number):
        predictor(window)


def job(work: Path, index: int, count: int) -> None:
    """The work of one job."""
    from unet.prediction.tiles.predict import predict_fold
    from unet.prediction.tiles.prediction_job import Share

    share = Share(index, count)
    entries = predict_fold(*arguments_of(work), share=share)
    print(json.dumps(entries))


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--work", type=Path, default=Path("results-workers"), help="weights, image")
    p.add_argument("--side", type=int, default=4096, help="of the image, in pixels")
    p.add_argument("--width", type=int, default=16)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--job", help=argparse.SUPPRESS)
    p.add_argument("--windows", type=int, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=RESULT)
    args = p.parse_args(argv)
    args.work = args.work.resolve()
    if args.job:
        job(args.work, *map(int, args.job.split("/")))
        return 0
    if args.windows:
        windows(args.work, args.windows)
        return 0
    prepare(args.work, Task(args.side, args.width, 20), 2)
    before = load()
    rows: dict[str, Any] = {}
    contents: set[str] = set()

    def alone(work: Path, number: int) -> tuple[float, str]:
        return by_network(work, number), ""

    ways = {
        "the network alone": alone, "dask workers": by_cluster, "jobs (predict.shards)": by_jobs,
    }  # fmt: skip
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("needs two cores")
    # Workers, and the cores that they and what starts them are kept on.
    cases = {"1 on 1": (1, cores[:1]), "1 on 2": (1, cores), "2 on 2": (2, cores)}
    for name, way in ways.items():
        times: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(args.rounds):
            for case, (number, on) in cases.items():
                keep_on(on)
                seconds, content = way(args.work, number)
                times[case].append(seconds)
                contents |= {content} - {""}
                print(f"{name}, {case}: {seconds:.1f} s", flush=True)
        medians = {case: median(found) for case, found in times.items()}
        rows[name] = {"seconds": medians, "ratio": medians["1 on 1"] / medians["2 on 2"],
                      "rounds": times}  # fmt: skip
    if len(contents) != 1:
        raise SystemExit("the tiles differ")
    value = {
        "machine": {**torch_machine(), "load before": before, "load after": load()},
        "versions": versions("torch", "dask", "distributed"),
        "settings": {"side": args.side, "width": args.width, "tile": TILE, "rounds": args.rounds},
        "ways": rows,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    print("\nworkers on cores, seconds; ratio of 1 on 1 to 2 on 2\n")
    print(f"| | {' | '.join(cases)} | ratio |\n|---|{'---|' * len(cases)}---|")
    for name, row in rows.items():
        cells = " | ".join(f"{seconds:.1f}" for seconds in row["seconds"].values())
        print(f"| {name} | {cells} | {row['ratio']:.2f} |")
    print(f"\nthe same tiles in all of them; wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
