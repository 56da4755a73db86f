"""A Slurm cluster of one node, with its own key, ports and state."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import need

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=1
MessageTimeout=30
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: Its files.
    """

    folder: Path

    def run(self, *words: object, check: bool = True) -> str:
        """Output of a command of Slurm, such as ``sbatch``."""
        done = subprocess.run(
            [str(word) for word in words], env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """Variables for commands of Slurm."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def wait(self, seconds: float = 180.0) -> None:
        """Wait until no job is left; those that were queued again start without Slurm's delay.

        Raises:
            AssertionError: Some are left.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            left = self.run("squeue", "--noheader", check=False)
            if not left.strip():
                return
            for job in self.run(
                "squeue", "--noheader", "-t", "PD", "-o", "%A", check=False
            ).split():
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
            time.sleep(0.5)
        raise AssertionError(left + self.logs())

    def logs(self) -> str:
        """The logs of both daemons."""
        return "\n".join(
            path.read_text(errors="replace") for path in self.folder.glob("slurm*.log")
        )


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster; its daemons end with the block.

    Args:
        folder: An empty folder with a short path, for sockets.
    """
    munged, controller, node = need("munged"), need("slurmctld"), need("slurmd")
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "slurm.conf").write_text(
        _CONF.format(
            host=host, folder=folder, user=user, controller=_free_port(), node=_free_port(),
            cpus=len(os.sched_getaffinity(0)),
        )
    )  # fmt: skip
    running = Cluster(folder)
    with ExitStack() as stack:
        for words in (
            [munged, "--foreground", "--force", f"--key-file={key}",
             f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
             f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
            [controller, "-D", "-f", str(folder / "slurm.conf")],
            [node, "-D", "-f", str(folder / "slurm.conf"), "-N", host],
        ):  # fmt: skip
            with (folder / f"{Path(words[0]).name}.out").open("wb") as output:
                process = stack.enter_context(
                    subprocess.Popen(
                        words, stdout=output, stderr=subprocess.STDOUT, env=running.environment,
                        start_new_session=True,
                    )
                )  # fmt: skip
            stack.callback(process.terminate)
            time.sleep(0.5)
        deadline = time.monotonic() + 30
        while "idle" not in running.run("sinfo", "--noheader", "-o", "%T", check=False):
            assert time.monotonic() < deadline, running.logs()
            time.sleep(0.3)
        yield running


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
