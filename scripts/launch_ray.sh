#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
    cat <<'END'
Runs a training command on several nodes with Ray, and stops the Ray that it started when the command ends.

  launch_ray.sh --nodes N [--gpus G] -- COMMAND   on the head: start Ray, wait for N nodes (and G GPUs), run COMMAND
  launch_ray.sh --join HEAD:PORT                  on each other node: wait for the head, join, leave when it is gone
  launch_ray.sh --hosts "B C" -- COMMAND          all from the head: B and C join over ssh

Every node needs the same Python environment at the same path; activate it first. With --hosts, also this checkout.

  PORT         of the head's Ray (6379)
  HEAD_IP      address by which the other nodes reach the head (what Ray finds)
  WAIT         seconds to wait for the head or for the other nodes (600)
  RAY_OPTIONS  further options of "ray start", e.g. "--num-gpus=8 --temp-dir=/scratch/ray"
  RAY_AUTH_MODE, RAY_AUTH_TOKEN  Ray's; must be the same on every node (disabled)
  DRY_RUN=1    print what would run
END
}

die() {
    echo "launch_ray: $*" >&2
    exit 1
}

show() {
    echo "${@@Q}"
}

wait_for_port() { # HOST PORT
    local end=$((SECONDS + WAIT))
    until (: >"/dev/tcp/$1/$2") 2>/dev/null; do
        ((SECONDS < end)) || die "no Ray at $1:$2 after $WAIT s"
        sleep 1
    done
}

wait_for_nodes() { # NODES GPUS, with RAY_ADDRESS set
    wait_for_port "$ip" "$PORT"
    timeout "$WAIT" python - "$@" <<'END' || die "not all of $1 nodes and $2 GPUs joined within $WAIT s"
import sys, time, ray
nodes, gpus = map(int, sys.argv[1:])
ray.init(log_to_driver=False, logging_level="ERROR")
while True:
    joined, found = sum(node["Alive"] for node in ray.nodes()), int(ray.cluster_resources().get("GPU", 0))
    if joined >= nodes and found >= gpus:
        sys.exit(print(f"launch_ray: {joined} nodes, {found} GPUs"))
    time.sleep(1)
END
}

PORT=${PORT:-6379}
WAIT=${WAIT:-600}
# Unset, Ray decides on each node by itself: a head where somebody has once run Ray then refuses the other nodes.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled}
read -ra options <<<"${RAY_OPTIONS:-}"
dry=()
[ -z "${DRY_RUN:-}" ] || dry=(show)

nodes='' gpus=0 join='' hosts=()
while [ $# -gt 0 ]; do
    case $1 in
        --nodes) nodes=$2 && shift ;;
        --gpus) gpus=$2 && shift ;;
        --join) join=$2 && shift ;;
        --hosts) read -ra hosts <<<"$2" && shift ;;
        --help | -h) usage && exit ;;
        --) shift && break ;;
        *) die "unknown argument $1; see --help" ;;
    esac
    shift
done

if [ -n "$join" ]; then
    [[ $join == *:* ]] || join=$join:$PORT
    "${dry[@]}" wait_for_port "${join%:*}" "${join##*:}"
    "${dry[@]}" exec ray start --block --address="$join" "${options[@]}"
    exit
fi

[ $# -gt 0 ] || die "no command after --; see --help"
[ ${#hosts[@]} -eq 0 ] || nodes=$((${#hosts[@]} + 1))
[ -n "$nodes" ] || die "say how many nodes: --nodes N, or --hosts \"B C\""
ip=${HEAD_IP:-$(python -c 'import ray; print(ray.util.get_node_ip_address())')}
export RAY_ADDRESS=$ip:$PORT

# Ray's own processes end with "ray start --block"; "ray stop" would end every Ray on this node.
trap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT
"${dry[@]}" ray start --head --block --node-ip-address="$ip" --port="$PORT" "${options[@]}" &
head=$!
for host in "${hosts[@]}"; do
    there=$(show env --chdir="$PWD" PATH="$PATH" RAY_AUTH_MODE="$RAY_AUTH_MODE" RAY_OPTIONS="${RAY_OPTIONS:-}" \
        bash "$(realpath "$0")" --join "$RAY_ADDRESS")
    # A terminal, so that the remote side ends with this one.
    "${dry[@]}" ssh -tt "$host" "$there" </dev/null &
done
"${dry[@]}" wait_for_nodes "$nodes" "$gpus" &
joined=$!
if [ -z "${DRY_RUN:-}" ]; then
    wait -n "$head" "$joined" || die "Ray is not complete, see above"
    kill -0 "$head" || die "Ray has stopped, see above"
else
    wait
fi
"${dry[@]}" "$@" &
wait $!
