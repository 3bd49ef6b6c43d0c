#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
    cat <<'END'
Evaluates a checkpoint with lmms-eval: sampled at temperature 1 with several seeds (avg@8), and greedily.

  evaluate.sh CHECKPOINT

CHECKPOINT is a step of a run (.../global_step_100, merged first by verl's merger), a folder in Hugging Face's
format, or hub:NAME for a model of the hub.

  TASKS           tasks of lmms-eval, separated by commas; empty: merge only
                  (MathVista, MathVerse, We-Math, LogicVista, DynaMath, MMMU-Pro)
  SAMPLES         seeds of the sampled runs (8); 0: none
  GREEDY          0: no greedy run (1)
  OUTPUT          a new folder for the results (evaluations/<run>-<step>)
  MAX_RESPONSE    tokens a response (2048)
  MAX_LENGTH      tokens of prompt and response (8192)
  TP, GPU_MEMORY  tensor parallelism and share of GPU memory of vLLM (1, 0.8)
  BATCH           questions handed to vLLM at a time (256)
  PYTHON          Python that has verl and verl-ext (python)
  EVAL_PYTHON     Python that has lmms-eval (PYTHON's)
  DRY_RUN=1       print what would run
END
}

die() {
    echo "evaluate: $*" >&2
    exit 1
}

run() {
    if [ -n "${DRY_RUN:-}" ]; then
        echo "${@@Q}"
    else
        "$@"
    fi
}

merge() { # STEP; sets $model
    local actor=$1/actor backend=fsdp
    model=$1/merged
    if compgen -G "$actor/huggingface/*.safetensors" >/dev/null; then
        model=$actor/huggingface
        return
    fi
    [ -f "$actor/fsdp_config.json" ] || backend=megatron
    [ $backend = fsdp ] || [ -d "$actor/model" ] || die "$actor holds neither an FSDP nor a Megatron checkpoint"
    compgen -G "$model/*.safetensors" >/dev/null && return
    run "$PYTHON" -m verl.model_merger merge --backend $backend --local_dir "$actor" --target_dir "$model.partial"
    [ ! -d "$model.partial/lora_adapter" ] || die "$model.partial has an adapter; merge it into the model first"
    run mv "$model.partial" "$model"
}

evaluate() { # NAME SEED TEMPERATURE
    local engine=tensor_parallel_size=$TP,gpu_memory_utilization=$GPU_MEMORY,max_model_len=$MAX_LENGTH
    # lmms-eval takes the larger of the model's and the request's new tokens, so both are told.
    run "$EVAL_PYTHON" -m lmms_eval \
        --model vllm \
        --model_args "model=$model,$engine,max_new_tokens=$MAX_RESPONSE" \
        --tasks "$TASKS" \
        --batch_size "$BATCH" \
        --gen_kwargs "temperature=$3,top_p=1.0,max_new_tokens=$MAX_RESPONSE,seed=$2" \
        --seed "$2" \
        --log_samples \
        --output_path "$OUTPUT/$1"
}

case ${1:-} in
    --help | -h) usage && exit ;;
    '') die "no checkpoint; see --help" ;;
esac
[ $# -eq 1 ] || die "one checkpoint, not $#; see --help"

all=mathvista_testmini_cot_reasoning,mathverse_testmini_reasoning,wemath_testmini_reasoning
all=$all,logicvista_reasoning,dynamath_reasoning,mmmu_pro_reasoning
TASKS=${TASKS-$all}
SAMPLES=${SAMPLES:-8}
GREEDY=${GREEDY:-1}
MAX_RESPONSE=${MAX_RESPONSE:-2048}
MAX_LENGTH=${MAX_LENGTH:-8192}
TP=${TP:-1}
GPU_MEMORY=${GPU_MEMORY:-0.8}
BATCH=${BATCH:-256}
PYTHON=${PYTHON:-python}
EVAL_PYTHON=${EVAL_PYTHON:-$PYTHON}

checkpoint=${1%/}
name=$(basename "$(dirname "$checkpoint")")-$(basename "$checkpoint")
OUTPUT=${OUTPUT:-evaluations/$name}
if [ -n "$TASKS" ] && compgen -G "$OUTPUT/*/" >/dev/null; then
    die "$OUTPUT has the runs of an earlier evaluation, which would be averaged with these; remove it, or set OUTPUT"
fi
case $checkpoint in
    hub:*) model=${checkpoint#hub:} ;;
    *)
        [ -d "$checkpoint" ] || die "no such checkpoint: $checkpoint"
        if [ -d "$checkpoint/actor" ]; then
            merge "$checkpoint"
        elif [ -f "$checkpoint/config.json" ]; then
            model=$checkpoint
        else
            die "$checkpoint is neither a step of a run (actor/) nor a model (config.json)"
        fi
        ;;
esac
[ -n "$TASKS" ] || exit 0

if [ -z "${DRY_RUN:-}" ]; then
    "$EVAL_PYTHON" -c 'import lmms_eval' 2>/dev/null || die "$EVAL_PYTHON has no lmms-eval; see docs/evaluating.md"
fi
for ((seed = 0; seed < SAMPLES; seed++)); do
    evaluate "sampled-$seed" "$seed" 1.0
done
[ "$GREEDY" = 0 ] || evaluate greedy 0 0
run "$PYTHON" "$(dirname "${BASH_SOURCE[0]}")/evaluation_table.py" "$OUTPUT"
