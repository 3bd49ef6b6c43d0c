# SPDX-License-Identifier: Apache-2.0
# The command of every run script: sourced by them after they have chosen a method (method.sh), a model and a backend.
# Each value is VAR=${VAR:-default}, so the environment wins over the method's, the model's and the backend's, in this
# order. README.md lists the variables. Arguments go last to main_ppo, where they win over everything.

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$examples/models/$MODEL_NAME.sh"
source "$examples/backends/$BACKEND.sh"

PYTHON=${PYTHON:-python}
METHOD=$(basename "$here" _trainer)
DATA_DIR=${DATA_DIR:-data}
TRAIN_DATA=${TRAIN_DATA:-virl39k}
TEST_DATA=${TEST_DATA:-mmk12}
TRAIN_FILES=${TRAIN_FILES:-$DATA_DIR/$TRAIN_DATA/train.parquet}
TEST_FILES=${TEST_FILES:-[$DATA_DIR/$TEST_DATA/test.parquet,$DATA_DIR/$TEST_DATA/test_blind.parquet]}
SEED=${SEED:-1}
TEMPERATURE=${TEMPERATURE:-1.0}
MIN_PIXELS=${MIN_PIXELS-}
MAX_PIXELS=${MAX_PIXELS-}
IMAGE_PATCH_SIZE=${IMAGE_PATCH_SIZE:-}
THINKING=${THINKING:-}
LR_SCHEDULE=${LR_SCHEDULE:-constant}
MAX_TOKENS=${MAX_TOKENS:-$((2 * (MAX_PROMPT + MAX_RESPONSE)))}
GPU_MEMORY=${GPU_MEMORY:-0.6}
VAL_N=${VAL_N:-1}
VAL_TEMPERATURE=${VAL_TEMPERATURE:-1.0}
VAL_TOP_P=${VAL_TOP_P:-$TOP_P}
VAL_EVERY=${VAL_EVERY:-5}
SAVE_EVERY=${SAVE_EVERY:-20}
RECORD_EVERY=${RECORD_EVERY:-20}
EPOCHS=${EPOCHS:-2}
STEPS=${STEPS:-}
NNODES=${NNODES:-1}
NGPUS=${NGPUS:-8}
PROJECT=${PROJECT:-verl-ext}
EXPERIMENT=${EXPERIMENT:-${METHOD}_${MODEL_NAME}_$BACKEND}
SAVE_DIR=${SAVE_DIR:-checkpoints/$PROJECT/$EXPERIMENT}
LOGGER=${LOGGER:-[console,file]}
LORA=${LORA:-0}
OFFLOAD=${OFFLOAD:-0}

DATA=(
    data.train_files="$TRAIN_FILES"
    data.val_files="$TEST_FILES"
    data.train_batch_size="$TRAIN_BATCH"
    data.max_prompt_length="$MAX_PROMPT"
    data.max_response_length="$MAX_RESPONSE"
    data.filter_overlong_prompts=True
    data.truncation=error
    data.seed="$SEED"
    ${IMAGE_PATCH_SIZE:+data.image_patch_size="$IMAGE_PATCH_SIZE"}
    ${THINKING:++data.apply_chat_template_kwargs.enable_thinking="$THINKING"}
)
if [ -n "$MIN_PIXELS" ] && [ -n "$MAX_PIXELS" ]; then
    DATA+=(+data.mm_processor_kwargs.min_pixels="$MIN_PIXELS" +data.mm_processor_kwargs.max_pixels="$MAX_PIXELS")
elif [ -n "$MIN_PIXELS$MAX_PIXELS" ]; then
    echo "MIN_PIXELS=$MIN_PIXELS MAX_PIXELS=$MAX_PIXELS: give both or neither; the processor ignores one alone" >&2
    exit 2
fi

MODEL=(actor_rollout_ref.model.path="$MODEL_PATH")

ACTOR=(
    actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH"
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$MAX_TOKENS"
    actor_rollout_ref.actor.optim.lr="$LR"
    actor_rollout_ref.actor.optim.weight_decay=0.01
)

ROLLOUT=(
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.load_format=auto
    actor_rollout_ref.rollout.n="$N"
    actor_rollout_ref.rollout.temperature="$TEMPERATURE"
    actor_rollout_ref.rollout.top_p="$TOP_P"
    actor_rollout_ref.rollout.top_k="$TOP_K"
    actor_rollout_ref.rollout.tensor_model_parallel_size="$ROLLOUT_TP"
    actor_rollout_ref.rollout.gpu_memory_utilization="$GPU_MEMORY"
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="$MAX_TOKENS"
    actor_rollout_ref.rollout.val_kwargs.do_sample=True
    actor_rollout_ref.rollout.val_kwargs.n="$VAL_N"
    actor_rollout_ref.rollout.val_kwargs.temperature="$VAL_TEMPERATURE"
    actor_rollout_ref.rollout.val_kwargs.top_p="$VAL_TOP_P"
)

REF=(
    actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="$MAX_TOKENS"
)

TRAINER=(
    trainer.nnodes="$NNODES"
    trainer.n_gpus_per_node="$NGPUS"
    trainer.total_epochs="$EPOCHS"
    trainer.test_freq="$VAL_EVERY"
    trainer.save_freq="$SAVE_EVERY"
    trainer.project_name="$PROJECT"
    trainer.experiment_name="$EXPERIMENT"
    trainer.default_local_dir="$SAVE_DIR"
    trainer.logger="$LOGGER"
)
if [ -n "$STEPS" ]; then
    TRAINER+=(trainer.total_training_steps="$STEPS")
fi

EXTRA=(
    reward.custom_reward_function.path=pkg://verl_ext.rewards.math_answer
    +reward.custom_reward_function.reward_kwargs.format_weight="$FORMAT_WEIGHT"
)
if [ -n "$PERCEPTION" ]; then
    EXTRA+=(+perception="$PERCEPTION" ${RECIPE:+recipe="$RECIPE"} perception.record_every="$RECORD_EVERY")
else
    EXTRA+=(algorithm.adv_estimator=grpo +recipe="${RECIPE:-$BASELINE}")
fi
use_backend

# verl's file logger empties its file when it starts, so each start gets one of its own: in the run's folder, where
# `verl-ext report` finds it, and below it where nothing is trained.
choose_metrics_file() { # ARGUMENTS
    local folder=$SAVE_DIR val_only=False number=0
    for argument in "$@"; do
        case $argument in
            trainer.default_local_dir=*) folder=${argument#*=} ;;
            *trainer.val_only=*) val_only=${argument#*=} ;;
        esac
    done
    [[ ${val_only,,} != true ]] || folder=$folder/evaluation
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    while [ -e "$folder/metrics-$number.jsonl" ]; do
        number=$((number + 1))
    done
    export VERL_FILE_LOGGER_PATH=$folder/metrics-$number.jsonl
}

ARGUMENTS=("${DATA[@]}" "${MODEL[@]}" "${ACTOR[@]}" "${ROLLOUT[@]}" "${REF[@]}" "${TRAINER[@]}" "${EXTRA[@]}" "$@")
case ${DRY_RUN:-0} in
    0)
        [ -n "${VERL_FILE_LOGGER_PATH:-}" ] || choose_metrics_file "${ARGUMENTS[@]}"
        # Workers of a Ray that is already running do not have this shell's environment.
        variables=ray_kwargs.ray_init.runtime_env.env_vars
        exec "$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}" \
            "++$variables.VERL_FILE_LOGGER_PATH=\"$VERL_FILE_LOGGER_PATH\""
        ;;
    1) exec "$PYTHON" -m verl_ext.cli validate "${ARGUMENTS[@]}" ;;
    print) printf '%s\n' "${ARGUMENTS[@]}" ;;
    *) echo "DRY_RUN=$DRY_RUN: write 1 (validate) or print (one argument a line)" >&2 && exit 2 ;;
esac
