#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#SBATCH --job-name=verl-ext
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --output=%x-%j.log
set -euo pipefail

usage() {
    cat <<'END'
Runs a training command on the nodes of a Slurm job: Ray on all of them, the command on the first.

  sbatch [--nodes=N --gpus-per-node=G ...] scripts/launch_slurm.sh COMMAND

Submit it from the checkout, with the environment of verl-ext activated; Slurm hands it to every node.

  GPUS       GPUs of the whole job to wait for (nodes times GPUs of the first)
  DRY_RUN=1  print what would run

launch_ray.sh --help names what else can be set.
END
}

show() {
    echo "${@@Q}"
}

case ${1:---help} in --help | -h) usage && exit ;; --) shift ;; esac
dry=()
[ -z "${DRY_RUN:-}" ] || dry=(show)
# Slurm runs a copy of this file, so the other script is found from where the job was submitted.
launch=$SLURM_SUBMIT_DIR/scripts/launch_ray.sh
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
others=$((${#hosts[@]} - 1))
on_head=(srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}")

# Other users of the cluster can reach these nodes, so Ray asks for a token; jobs that share a node need a port each.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(</proc/sys/kernel/random/uuid)}
export PORT=${PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export RAY_OPTIONS="--num-cpus=$SLURM_CPUS_ON_NODE ${RAY_OPTIONS:-}"
# Without it a step may be bound to one core.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_ON_NODE
HEAD_IP=${HEAD_IP:-$("${on_head[@]}" python -c 'import ray; print(ray.util.get_node_ip_address())')}
export HEAD_IP

trap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT
if [ "$others" -gt 0 ]; then
    "${dry[@]}" srun --nodes="$others" --ntasks="$others" --exclude="${hosts[0]}" \
        bash "$launch" --join "$HEAD_IP:$PORT" &
fi
"${dry[@]}" "${on_head[@]}" bash "$launch" --nodes "${#hosts[@]}" \
    --gpus "${GPUS:-$((${#hosts[@]} * ${SLURM_GPUS_ON_NODE:-0}))}" -- "$@" &
if [ -z "${DRY_RUN:-}" ]; then
    wait $!
else
    # For all that is printed, before the trap ends what still runs.
    wait
fi
