"""A SLURM of two nodes on this machine, for the tests. Its daemons listen only on 127.0.0.1, keep
everything in one folder, and are stopped by their process ids.

It needs Debian's packages (apt-get install slurmctld slurmd slurm-client munge), root, and a
machine without its own SLURM, because the ``srun`` inside jobs reads only /etc/slurm/slurm.conf.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ETC = Path("/etc/slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun")
# The first line of our files there, so that we never touch other files.
MARK = "# Written by tests/slurm/lab.py; removed when the tests are over."
NODES = ("n1", "n2")

SLURM_CONF = """{mark}
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
# Without this they listen on all addresses.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
SwitchType=switch/none
TaskPlugin=task/none
# No control groups and no accounting, because containers lack them: processes are found by their
# parents, their memory is checked every second, and ended jobs stay in the queue's list.
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5
# The node with the least load first, so that small jobs use both.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
# The nodes have the resources written here, not those of this machine.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=3
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} {size} Gres=gpu:fake:{gpus}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} {size}
PartitionName=cpu Nodes=n1,n2 Default=YES DefaultTime=10 MaxTime=120 State=UP
PartitionName=gpu Nodes=n1 DefaultTime=10 MaxTime=120 State=UP
"""
SIZE = "CPUs=8 Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=20000"
# GPUs of the first node; enough that no test waits for the jobs of another one.
GPUS = 8


def obstacle() -> str:
    """Why no SLURM can be started here; "" if it can."""
    if os.geteuid() != 0:
        return "needs root"
    where = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=where) is None]
    if missing:
        return (
            f"{', '.join(missing)} not installed "
            "(apt-get install --no-install-recommends slurmctld slurmd slurm-client munge)"
        )
    for path in (ETC / "slurm.conf", ETC / "gres.conf"):
        if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
            return f"{path} belongs to a SLURM of this machine"
    return ""


def free_ports(number: int) -> list[int]:
    """Free ports of 127.0.0.1."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def until(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    """Waits until a condition is true.

    Raises:
        TimeoutError: it is still false after ``seconds``.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s: {what}")
        time.sleep(pause)


def succeeds(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False, timeout=300).returncode == 0


@dataclass(frozen=True)
class SlurmJob:
    """A job in the queue's list, which also has ended jobs."""

    id: str
    name: str
    state: str
    comment: str
    nodes: str
    memory: str
    limit: str
    gpus: str
    start: str
    end: str


class CannotStart(Exception):
    """This machine does not allow a SLURM to start."""


@dataclass
class Lab:
    """The daemons, to ``start`` and ``stop``."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="unet-slurm-")))
    daemons: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def start(self) -> None:
        """Starts the daemons, and checks them with a job on both nodes.

        Raises:
            CannotStart: the machine does not allow it (no device nodes in a container).
        """
        self.folder.chmod(0o755)
        for name in ("state", *(f"spool-{node}" for node in NODES), "dev"):
            (self.folder / name).mkdir()
        for index in range(GPUS):
            # Clones of /dev/null: a GPU must be a device.
            device = self.folder / "dev" / f"nvidia{index}"
            try:
                os.mknod(device, 0o20666, os.makedev(1, 3))
            except OSError as error:
                raise CannotStart(f"no device nodes can be made here ({error.strerror})") from None
        self._configure()
        try:
            self._launch()
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.logs()}") from None

    def _configure(self) -> None:
        ETC.mkdir(exist_ok=True)
        host = socket.gethostname().partition(".")[0]
        text = SLURM_CONF.format(
            mark=MARK, host=host, ports=free_ports(3), folder=self.folder, size=SIZE, gpus=GPUS
        )
        (ETC / "slurm.conf").write_text(text, encoding="utf-8")
        devices = f"NodeName=n1 Name=gpu Type=fake File={self.folder}/dev/nvidia[0-{GPUS - 1}]\n"
        (ETC / "gres.conf").write_text(f"{MARK}\n{devices}", encoding="utf-8")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def _launch(self) -> None:
        files = ("key-file=munge.key", "socket=munge.socket", "pid-file=munge.pid",
                 "log-file=munge.log", "seed-file=munge.seed")  # fmt: skip
        options = [f"--{name}={self.folder}/{file}" for name, file in (f.split("=") for f in files)]
        munge = str(self.folder / "munge.socket")
        self._daemon("munged", "munged", "--foreground", "--num-threads=2", *options)
        until(lambda: succeeds("munge", "-n", "-S", munge), 300, "munged does not answer")
        self._daemon("slurmctld", "slurmctld", "-D")
        until(lambda: succeeds("scontrol", "ping"), 300, "slurmctld does not answer")
        for node in NODES:
            self._daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node)
        until(self._idle, 300, "the nodes are not idle")
        until(lambda: succeeds("srun", "-N2", "-n2", "true"), 300, "no job runs on both nodes")

    def _idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-t", "idle", "-N", "-p", "cpu", "-o", "%N"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return set(done.stdout.split()) == set(NODES)

    def _daemon(self, name: str, *words: str) -> None:
        path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, env={**os.environ, "PATH": path},
            )  # fmt: skip
        self.daemons.append((name, process))

    def stop(self) -> None:
        """Ends all jobs, stops the daemons, and removes all files."""
        try:
            if any(name == "slurmctld" for name, _ in self.daemons):
                subprocess.run(["scancel", "--full", "--user=root"], check=False, timeout=300)
                until(lambda: not self.active(), 20, "jobs do not end", 0.3)
        except (TimeoutError, subprocess.TimeoutExpired):
            pass
        for _, process in reversed(self.daemons):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()
        for name in ("slurm.conf", "gres.conf"):
            path = ETC / name
            if path.exists() and path.read_text(encoding="utf-8").startswith(MARK):
                path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        parts = []
        for path in sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            parts += [f"--- {path.name}", *lines[-15:]]
        return "\n".join(parts)

    def jobs(self) -> list[SlurmJob]:
        """All jobs since the start."""
        names = SlurmJob.__dataclass_fields__
        # Columns of fixed width, because they can contain any text.
        fields = ("JobArrayID", "Name", "State", "Comment", "NodeList", "MinMemory", "TimeLimit",
                  "tres-per-job", "StartTime", "EndTime")  # fmt: skip
        form = ",".join(f"{name}:200" for name in fields)
        done = subprocess.run(
            ["squeue", "-h", "-r", "--states=all", "-O", form],
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        rows = [
            [line[i : i + 200].strip() for i in range(0, 200 * len(fields), 200)]
            for line in done.stdout.splitlines()
        ]
        return sorted(
            (SlurmJob(**dict(zip(names, row, strict=True))) for row in rows),
            key=lambda job: [int(part) for part in job.id.split("_")],
        )

    def active(self, *names: str) -> list[SlurmJob]:
        """Jobs that wait, run or are just ending; only those with these names, if any are given."""
        going = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")
        return [j for j in self.jobs() if j.state in going and (not names or j.name in names)]


def of_rule(jobs: Sequence[SlurmJob], rule: str, *wildcards: str) -> list[SlurmJob]:
    """The jobs of a rule (with these values of wildcards), by the comment of the workflow."""
    wanted = [f"rule_{rule}", "_".join(("rule", rule, "wildcards", *wildcards))]
    if not wildcards:
        return [j for j in jobs if j.comment == wanted[0] or j.comment.startswith(wanted[0] + "_w")]
    return [j for j in jobs if j.comment == wanted[1]]
