# SPDX-License-Identifier: Apache-2.0
"""The scripts that start Ray on several nodes: a real head and a node that joins it; Slurm's commands by stand-ins."""

import shlex
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
import ray
from support.cluster import NODE, PATH, bare, free_ports, stop

SCRIPTS = Path(__file__).parents[3] / "scripts"
LAUNCH_RAY, LAUNCH_SLURM = SCRIPTS / "launch_ray.sh", SCRIPTS / "launch_slurm.sh"
TRAINING = ["python", "-m", "verl.trainer.main_ppo", "+perception=pgpo", "data.train_files=a b.parquet"]
SEES = """
import ray
ray.init(log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()), "nodes seen", flush=True)
raise SystemExit(7)
"""


def script(path, *arguments, home, **variables):
    command = ["bash", path, *arguments]
    environment = bare(home, **variables)
    return psutil.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def output(path, *arguments, home, status=0, **variables):
    process = script(path, *arguments, home=home, **variables)
    printed, _ = process.communicate(timeout=150)
    assert process.returncode == status, printed
    return printed


@pytest.mark.parametrize("path", [LAUNCH_RAY, LAUNCH_SLURM], ids=lambda path: path.name)
def test_help_and_syntax(path, tmp_path):
    assert path.name in output(path, "--help", home=tmp_path)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "2"], "no command after --"),
        (["--", "true"], "say how many nodes"),
        (["--node", "2"], "unknown argument --node"),
    ],
)
def test_a_mistake_is_named(arguments, message, tmp_path):
    assert f"launch_ray: {message}" in output(LAUNCH_RAY, *arguments, home=tmp_path, status=1)


def test_over_ssh(tmp_path):
    variables = {"HEAD_IP": "10.0.0.1", "PORT": "7000", "RAY_OPTIONS": "--num-gpus=4 --temp-dir=/r"}
    printed = output(LAUNCH_RAY, "--hosts", "b c", "--", *TRAINING, home=tmp_path, DRY_RUN="1", **variables)
    commands = [shlex.split(line) for line in printed.splitlines()]
    options = ["--num-gpus=4", "--temp-dir=/r"]
    head = ["ray", "start", "--head", "--block", "--node-ip-address=10.0.0.1", "--port=7000", *options]
    assert head in commands
    assert ["wait_for_nodes", "3", "0"] in commands
    assert commands[-1] == TRAINING
    remote = {words[2]: shlex.split(words[3]) for words in commands if words[:2] == ["ssh", "-tt"]}
    assert sorted(remote) == ["b", "c"]
    for words in remote.values():
        assert words[-4:] == ["bash", str(LAUNCH_RAY), "--join", "10.0.0.1:7000"]
        assert "RAY_OPTIONS=--num-gpus=4 --temp-dir=/r" in words


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_head_and_a_node_that_joins():
    """With Ray's token, as under Slurm; the command's status is the script's, and its Ray ends with it."""
    port, client_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        variables = {"PORT": str(port), "WAIT": "90", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}
        options = " ".join([*NODE, f"--temp-dir={folder}"])
        head_options = f"{options} --ray-client-server-port={client_port} --include-dashboard=False"
        join = ["--join", f"{ray.util.get_node_ip_address()}:{port}"]
        joined = script(LAUNCH_RAY, *join, home=folder, RAY_OPTIONS=options, **variables)
        command = ["--nodes", "2", "--gpus", "2", "--", "python", "-c", SEES]
        try:
            head = output(LAUNCH_RAY, *command, home=folder, status=7, RAY_OPTIONS=head_options, **variables)
        finally:
            stop([joined])
        assert "launch_ray: 2 nodes, 2 GPUs" in head
        assert "2 nodes seen" in head
        assert not [process for process in psutil.process_iter(["cmdline"]) if folder in str(process.info["cmdline"])]


@pytest.fixture
def slurm(tmp_path):
    """Variables of a job of three nodes, and stand-ins for Slurm's commands: `srun` drops its options."""
    commands = tmp_path / "bin"
    commands.mkdir()
    stand_ins = {
        "scontrol": "#!/bin/sh\nprintf '%s\\n' node-1 node-2 node-3\n",
        "srun": '#!/bin/sh\nwhile case $1 in -*) true ;; *) false ;; esac; do shift; done\nexec "$@"\n',
    }
    for name, text in stand_ins.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return {
        "PATH": f"{commands}:{PATH}",
        "SLURM_SUBMIT_DIR": str(SCRIPTS.parent),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node-[1-3]",
        "SLURM_CPUS_ON_NODE": "64",
        "SLURM_GPUS_ON_NODE": "8",
        "DRY_RUN": "1",
    }


def test_slurm(slurm, tmp_path):
    printed = output(LAUNCH_SLURM, *TRAINING, home=tmp_path, **slurm)
    others, head = sorted(map(shlex.split, printed.splitlines()), key=lambda words: "--nodes=1" in words)
    address = f"{ray.util.get_node_ip_address()}:23456"
    launch = ["bash", str(LAUNCH_RAY)]
    assert others == ["srun", "--nodes=2", "--ntasks=2", "--exclude=node-1", *launch, "--join", address]
    assert head[:4] == ["srun", "--nodes=1", "--ntasks=1", "--nodelist=node-1"]
    assert head[4:] == [*launch, "--nodes", "3", "--gpus", "24", "--", *TRAINING]


def test_slurm_hands_on_what_the_nodes_need(slurm, tmp_path):
    """Here `bash` is a stand-in too: it prints what the other script would find. The head's ends after the others'."""
    prints, joined = tmp_path / "bin" / "bash", tmp_path / "joined"
    prints.write_text(
        '#!/bin/sh\necho "$PORT $HEAD_IP $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $RAY_OPTIONS"\n'
        f'case "$*" in *--join*) touch {joined} ;; *) until [ -e {joined} ]; do sleep 0.1; done ;; esac\n'
    )
    prints.chmod(0o755)
    slurm = {**slurm, "HEAD_IP": "10.0.0.1", "DRY_RUN": ""}
    process = subprocess.run(
        ["/bin/bash", LAUNCH_SLURM, *TRAINING], env=bare(tmp_path, **slurm), capture_output=True, text=True, check=True
    )
    assert [line.strip() for line in process.stdout.splitlines()] == ["23456 10.0.0.1 token 36 --num-cpus=64"] * 2
