"""A real Slurm of one node on this machine, for as long as a test lasts.

Debian's munged, slurmctld and slurmd, with their keys, state, sockets and logs in one folder and
their ports on the loopback address. The node has this machine's processors and memory, and one
GPU that is counted and handed out by Slurm, but is not there: a job that asks for it waits until
it is free. Nothing outside the folder is written, and no service of the system is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
INSTALL = "apt-get install slurmctld slurmd munge slurm-client (Debian), and run this as root"
NODE = "node1"
PARTITION = "batch"
# What a node has beside the environment of the one who submits: a job whose virtual environment is
# not found by its own path finds none.
NODE_PATH = "/usr/local/bin:/usr/bin:/bin"
PATIENCE = 60  # seconds

CONF = """\
ClusterName=hmdiff
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
# The loopback address alone.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# No control groups and no database: neither is there in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=5
ReturnToService=2
# Jobs that are over stay to be asked for.
MinJobAge=86400
TaskProlog={folder}/prolog
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1
PartitionName={partition} Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """What must be installed here, in a line; None where nothing must."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent or os.geteuid() != 0:
        return f"{', '.join(absent) or 'root'} not here: {INSTALL}"
    return None


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """The daemons of one Slurm, and what a client asks them.

    Attributes:
        folder: new; configuration, keys, state and logs.
        environment: variables with which a client finds this Slurm.
        cpus, memory_mb: of the node.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.cpus = os.cpu_count() or 1
        self.memory_mb = int(psutil.virtual_memory().total / 2**20 * 0.9)
        self._daemons: dict[str, subprocess.Popen] = {}

    def write(self) -> None:
        """Key and configuration."""
        self.folder.mkdir(mode=0o755)
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        conf = CONF.format(
            host=socket.gethostname(), folder=self.folder, node=NODE, partition=PARTITION,
            ctld_port=_free_port(), slurmd_port=_free_port(), cpus=self.cpus,
            memory=self.memory_mb,
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(f"NodeName={NODE} Name=gpu File=/dev/null\n")
        # Snakemake's job step drops SLURM_CONF: the srun of this node names its own.
        srun = f'SLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"'
        self._script("bin/srun", srun)
        self._script("prolog", f"echo export PATH={self.folder}/bin:{NODE_PATH}")

    def _script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def start(self) -> None:
        self.write()
        self._run(
            "munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key",
            f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munge.pid",
            f"--log-file={self.folder}/munge.log", f"--seed-file={self.folder}/munge.seed",
        )  # fmt: skip
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self.start_controller()
        self._run("slurmd", "-D", "-N", NODE)
        self._until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), "an idle node")

    def start_controller(self) -> None:
        """With the state that an earlier one has saved, if there was one."""
        self._run("slurmctld", "-D")
        self._until(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld")

    def kill_controller(self) -> None:
        """SIGKILL, as in a crash of its machine."""
        self._daemons["slurmctld"].kill()
        self._daemons["slurmctld"].wait(PATIENCE)

    def stop(self) -> None:
        """Cancel what runs, then end the daemons; wait for all of it."""
        if "slurmd" in self._daemons:
            self.ask("scancel", "--user=root")
            with contextlib.suppress(AssertionError):
                self._until(lambda: not self.ask("squeue", "-h").strip(), "an empty queue")
        for name in ("slurmd", "slurmctld", "munged"):
            daemon = self._daemons.get(name)
            if daemon is not None and daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def ask(self, *command: str) -> str:
        """What a client program prints; nothing where it fails."""
        done = subprocess.run(
            command, env=os.environ | self.environment, text=True, capture_output=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """The record of every job, those that are over among them, in order."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        # A value may hold spaces; a key follows a space and stands before an equals sign.
        found = [dict(re.findall(r"([\w/:]+)=(.*?)(?= +[\w/:]+=|$)", line)) for line in lines]
        return [job for job in found if "JobId" in job]

    def _run(self, name: str, *options: str) -> None:
        program = shutil.which(name, path=_path())
        assert program is not None, INSTALL
        with open(self.folder / f"{name}.out", "a") as out:
            self._daemons[name] = subprocess.Popen(
                [program, *options], env=os.environ | self.environment, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            assert not dead, f"{dead} ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"{what} does not come:\n{self.said()}"
            time.sleep(0.1)

    def said(self) -> str:
        """The end of every log."""
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        texts = (path.read_text(errors="replace").splitlines()[-15:] for path in logs)
        return "\n".join(line for text in texts for line in text)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A Slurm that runs inside the ``with``; SIGTERM ends it as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    slurm = Cluster(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        signal.signal(signal.SIGTERM, before)
