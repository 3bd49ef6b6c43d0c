# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of several nodes on this machine, apart from any other Ray that runs here.

Each node is a `ray start` of its own with a home and an environment of its own, as its admin would start it; nothing
of this process's environment reaches it.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import ray

RAY = Path(sys.executable).with_name("ray")
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"
STARTED = "Ray runtime started."
# Ports that several nodes on one machine would else share.
NODE = [
    "--num-cpus=8",
    "--num-gpus=1",
    "--object-store-memory=500000000",
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",
]
ACTORS = """
import json, ray
from ray._private.state import actors
ray.init(log_to_driver=False)
print(json.dumps([(actor["ActorClassName"], actor["Name"], actor["Address"]["NodeID"]) for actor in actors().values()]))
"""


def bare(home, **variables):
    """An environment of `variables` and what no program can do without."""
    return {"PATH": PATH, "HOME": str(home), **variables}


@dataclass
class Cluster:
    """Its address, the folder of its logs and sockets, and the `ray start` of each node, the head first."""

    address: str
    folder: Path
    starts: list = field(default_factory=list)

    def actors(self):
        """(class, name, id of the node) of every actor that was ever created, dead ones too."""
        return json.loads(self.python(ACTORS))

    def python(self, code):
        """What `code` prints when it runs beside the cluster."""
        command = [sys.executable, "-c", code]
        environment = bare(self.folder, RAY_ADDRESS=self.address)
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, timeout=60).stdout

    def start(self, environment, *options):
        """Start a node with one logical GPU; return when it has joined."""
        home = self.folder / f"node{len(self.starts)}"
        home.mkdir()
        log = home / "ray.log"
        # A node would else wait longer for its tasks than `stop` does.
        environment = bare(home, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0", **environment)
        ends_with_this_process = ["setpriv", "--pdeathsig", "TERM"]
        command = [*ends_with_this_process, RAY, "start", "--block", *options, f"--temp-dir={self.folder}", *NODE]
        with log.open("w") as output:
            self.starts.append(psutil.Popen(command, env=environment, stdout=output, stderr=output, cwd=home))
        deadline = time.monotonic() + 60
        while STARTED not in log.read_text():
            assert self.starts[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@contextmanager
def cluster(*environments):
    """A node for each environment, the first the head's.

    Its folder is not pytest's: the paths of Ray's sockets may have 107 characters in all.
    """
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        port, client_port = free_ports(2)
        made = Cluster(f"{ray.util.get_node_ip_address()}:{port}", Path(folder))
        head = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--include-dashboard=False"]
        try:
            for environment in environments:
                made.start(environment, *([f"--address={made.address}"] if made.starts else head))
            yield made
        finally:
            left = stop(made.starts)
        assert not left, f"still running after the cluster was stopped: {left}"


def stop(started):
    """End these processes and what they started, and nothing else; return what had to be killed."""
    running = [process for process in started if process.poll() is None]
    processes = [process for parent in running for process in [parent, *parent.children(recursive=True)]]
    for process in reversed(running):
        process.terminate()
    deadline = time.monotonic() + 20
    while (left := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=20)
    return left


def alive(process):
    """False also for one that is dead but that its parent has not asked about yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
