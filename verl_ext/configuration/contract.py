# SPDX-License-Identifier: Apache-2.0
"""What this package relies on in verl: a table with one entry a symbol, and its comparison with the installed verl."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Symbol:
    """A symbol of verl's.

    Attributes:
        name: `module:qualified.name`.
        used_in: our files that use it.
        overridden: its parameters, where we override it: any change matters.
        called: how we call it: positional arguments by their names here, then keyword arguments as `name=`.
        defaults: defaults that we rely on.
        source: what its source must say, where we rely on more than the signature.
    """

    name: str
    used_in: str
    overridden: tuple[str, ...] | None = None
    called: tuple[str, ...] | None = None
    defaults: dict[str, object] = field(default_factory=dict)
    source: tuple[str, ...] = ()


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TRAINER = "verl.trainer.ppo.v1.trainer_base:PPOTrainer"
MIXIN = "trainer/perception_trainer.py"
PASSES = "trainer/signal_passes.py"
WATCHED = "supervision/watched_trainer.py"
SEPARATE = "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync"
ULYSSES = "verl.utils.ulysses:"
CHECKPOINT_ENGINE = "verl.checkpoint_engine:CheckpointEngine"
WORKERS = "verl.workers.engine_workers:"
WORKER = "worker/actor_worker.py"
PADDING = "verl.workers.utils.padding:"
TENSORDICT = "verl.utils.tensordict_utils:"
AGENT_LOOPS = "verl.trainer.ppo.v1.agent_loop_tq:"
DATASET = "verl.utils.dataset.rl_dataset:RLHFDataset"

SYMBOLS = [
    # Plug-in
    Symbol("verl:DataProto", "plugin.py (loaded at the end of `import verl`)"),
    # Trainer
    Symbol(f"{TRAINER}.__init__", MIXIN, overridden=words("self config"), source=("config.trainer.v1.trainer_mode",)),
    Symbol(
        f"{TRAINER}._init_resource_pool_mgr",
        MIXIN,
        overridden=("self",),
        source=("self.role_worker_mapping", "ray.remote(ActorRolloutRefWorker)"),
    ),
    Symbol(
        f"{TRAINER}._compute_old_log_prob",
        PASSES,
        overridden=words("self batch metrics"),
        source=(
            '"calculate_entropy": True',
            '"temperature"',
            "self.actor_rollout_wg.compute_log_prob(batch)",
            'fields=data.select("old_log_probs", "entropy")',
        ),
    ),
    Symbol(
        f"{TRAINER}._compute_advantage",
        MIXIN,
        overridden=words("self batch metrics"),
        source=('"uid"', '"response_mask"', '"rm_scores"', '"rollout_log_probs"', '"advantages"'),
    ),
    Symbol(
        f"{TRAINER}._update_actor",
        MIXIN,
        overridden=words("self batch metrics"),
        source=("batch.extra_info", "self.actor_rollout_wg.update_actor"),
    ),
    Symbol(
        f"{TRAINER}._compute_metrics",
        MIXIN,
        overridden=words("self batch metrics timing_raw global_steps epoch"),
        source=("compute_data_metrics(",),
    ),
    Symbol(f"{TRAINER}._init_tokenizer", MIXIN, source=("self.tokenizer =", "self.processor =")),
    # Agent loops
    Symbol(
        "verl.trainer.main_ppo:TaskRunnerV1.run",
        MIXIN,
        source=("self.config = config", "self.trainer = trainer_cls(config=config)", "self.init_agent_loop_manager()"),
    ),
    Symbol(
        "verl.trainer.main_ppo:TaskRunnerV1.init_agent_loop_manager",
        MIXIN,
        source=(
            'self.config.actor_rollout_ref.rollout.get("agent", {}).get("agent_loop_manager_class")',
            'load_class_from_fqn(manager_class_fqn, "AgentLoopManager")',
        ),
    ),
    Symbol("verl.workers.config.rollout:AgentLoopConfig.agent_loop_manager_class", MIXIN),
    Symbol(
        # Its parameters are read in the source, since Ray adds one of its own to the signature.
        f"{AGENT_LOOPS}AgentLoopWorkerTQ.__ray_actor_class__._agent_loop_postprocess",
        "rollout/agent_loops.py",
        source=(
            "self, output: AgentLoopOutput | list[AgentLoopOutput], validate, **kwargs",
            "await self._compute_score(outputs, kwargs=kwargs)",
            "field = output.as_dict()",
        ),
    ),
    Symbol(
        f"{AGENT_LOOPS}AgentLoopManagerTQ.__init__",
        "rollout/agent_loops.py",
        called=words("self config= llm_client= teacher_client= reward_loop_worker_handles="),
        source=("self.agent_loop_workers_class = AgentLoopWorkerTQ",),
    ),
    Symbol(
        "verl.experimental.agent_loop:AgentLoopManager._init_agent_loop_workers",
        "rollout/agent_loops.py",
        source=("self.agent_loop_workers_class.options(",),
    ),
    Symbol(
        "verl.experimental.agent_loop:AgentLoopOutput",
        "rollout/agent_loops.py",
        called=words("prompt_ids= response_ids= response_mask= response_logprobs= metrics= extra_fields="),
        source=('output["response_mask"] = torch.tensor(output.pop("response_mask")',),
    ),
    Symbol(
        "verl.workers.rollout.utils:get_vision_placeholder_token_ids",
        "rollout/agent_loops.py",
        called=("processor",),
        source=('("image", "video")',),
    ),
    # What the agent loop leaves in TransferQueue: every column of the data set, and the reward function's result.
    Symbol(
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ._agent_loop_postprocess",
        "records/recorder.py",
        source=("field.update(kwargs)", "multi_modal_inputs", '"reward_extra_info"'),
    ),
    Symbol(f"{DATASET}.__getitem__", "records/recorder.py", source=('row_dict["index"] = index',)),
    Symbol(
        f"{TRAINER}._step_once",
        MIXIN,
        source=(
            "self._compute_old_log_prob(batch, metrics=metrics)",
            "self._compute_advantage(batch, metrics=metrics)",
            "self._update_actor(batch, metrics=metrics)",
            'marked_timer("old_log_prob", timing_raw',
        ),
    ),
    Symbol(f"{TRAINER}.fit", MIXIN, source=("self.global_steps += 1", "self.timing_raw = {}")),
    # Resumption and faults
    Symbol(
        f"{TRAINER}.fit",
        WATCHED,
        overridden=words("self agent_loop_manager"),
        source=(
            "self.on_step_begin()",
            "self._save_checkpoint()",
            "self.on_step_end()",
            "epoch=current_epoch)",
            "current_epoch = (self.global_steps - 1) // self.steps_per_epoch",
        ),
    ),
    Symbol(
        f"{TRAINER}._save_checkpoint",
        WATCHED,
        overridden=("self",),
        source=('f"global_step_{self.global_steps}"', '"data.pt"', '"latest_checkpointed_iteration.txt"'),
    ),
    Symbol(f"{TRAINER}.on_step_begin", WATCHED, overridden=("self",)),
    Symbol(
        "verl.experimental.agent_loop:AgentLoopManager._init_agent_loop_workers",
        WATCHED,
        source=("self.agent_loop_workers = []",),
    ),
    Symbol(f"{TRAINER}._step_once", WATCHED, source=('partition_id="train"',)),
    Symbol(f"{TRAINER}.on_sample_end", WATCHED, overridden=("self",)),
    Symbol(f"{TRAINER}.step", WATCHED, overridden=words("self metrics timing_raw")),
    Symbol(
        f"{TRAINER}._setup",
        WATCHED,
        source=("self.llm_server_manager: LLMServerManager", "self.reward_loop_manager = RewardLoopManager("),
    ),
    Symbol(f"{SEPARATE}._setup", WATCHED, source=("self.standalone_server_manager: LLMServerManager",)),
    Symbol("verl.workers.rollout.llm_server:LLMServerManager.get_addresses", WATCHED, called=("self",)),
    Symbol(
        "verl.workers.rollout.llm_server:LLMServerManager._initialize_llm_servers",
        WATCHED,
        source=("self.server_handles = [",),
    ),
    Symbol(
        "verl.experimental.reward_loop.reward_loop:RewardLoopManager._init_reward_loop_workers",
        WATCHED,
        source=("self.reward_loop_workers = []",),
    ),
    Symbol("verl.single_controller.ray.base:RayWorkerGroup.workers", WATCHED),
    Symbol(f"{TRAINER}._build_replay_buffer", WATCHED, overridden=("self",)),
    Symbol(
        "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer",
        WATCHED,
        source=(
            "self._wait_for_next_poll(partition_id, last_debug_time)",
            "self.failure_keys: dict[str, set] = defaultdict(set)",
        ),
    ),
    Symbol(
        f"{TRAINER}._load_checkpoint",
        MIXIN,
        overridden=("self",),
        source=(
            'self.config.trainer.resume_mode == "auto"',
            "find_latest_ckpt_path(checkpoint_folder)",
            'os.path.join(global_step_folder, "actor")',
            'os.path.join(global_step_folder, "data.pt")',
        ),
    ),
    Symbol(
        "verl.utils.checkpoint.checkpoint_manager:find_latest_ckpt_path",
        "supervision/checkpoints.py",
        source=('directory_format="global_step_{}"',),
    ),
    Symbol(
        "verl.utils.checkpoint.fsdp_checkpoint_manager:FSDPCheckpointManager.load_checkpoint",
        "supervision/checkpoints.py",
        source=(
            'f"model_world_size_{self.world_size}_rank_{self.rank}.pt"',
            'f"optim_world_size_{self.world_size}_rank_{self.rank}.pt"',
            'f"extra_state_world_size_{self.world_size}_rank_{self.rank}.pt"',
        ),
    ),
    Symbol(
        "verl.utils.tracking:FileLogger.__init__",
        "supervision/kept_metrics.py",
        source=(
            'os.getenv("VERL_FILE_LOGGER_PATH", None)',
            'os.getenv("VERL_FILE_LOGGER_ROOT", ".")',
            'f"{self.experiment_name}.jsonl"',
            'open(self.filepath, "wb"',
        ),
    ),
    Symbol(TRAINER, MIXIN, source=('tag.get("is_padding", False)', "self.total_training_steps =", "self.tokenizer =")),
    Symbol("verl.trainer.ppo.utils:Role.Actor", MIXIN),
    Symbol("verl.trainer.ppo.utils:Role.ActorRollout", MIXIN),
    Symbol("verl.trainer.ppo.utils:Role.ActorRolloutRef", MIXIN),
    Symbol("verl.trainer.ppo.utils:Role.RefPolicy", MIXIN),
    Symbol("verl.utils.debug:marked_timer", PASSES, called=words("name timing_raw color=")),
    Symbol("verl.trainer.ppo.v1.trainer_base:register_trainer", "trainer/trainers.py", called=("name",)),
    Symbol("verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY", "trainer/trainers.py"),
    Symbol("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync", "trainer/trainers.py"),
    Symbol("verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync", "trainer/trainers.py"),
    Symbol(
        f"{SEPARATE}._compute_old_log_prob",
        PASSES,
        source=(
            "self.actor_rollout_wg.restore_model_from_cpu(0)",
            "super()._compute_old_log_prob(batch, metrics)",
            "self.actor_rollout_wg.restore_model_from_cpu(self.local_trigger_step)",
        ),
    ),
    Symbol(
        f"{SEPARATE}._init_resource_pool_mgr",
        "trainer/trainers.py",
        source=("ray.remote(DetachActorWorker)",),
    ),
    Symbol(
        "verl.experimental.separation.engine_workers:DetachActorWorker.save_model_to_cpu",
        "worker/detached_worker.py",
        overridden=words("self n"),
        source=("self.cpu_saved_models[n] =", "self.actor.engine.module"),
    ),
    Symbol("verl.trainer.ppo.core_algos:ADV_ESTIMATOR_REGISTRY", "configuration/validation.py"),
    Symbol("verl.trainer.ppo.core_algos:AdvantageEstimator.GAE", "configuration/validation.py"),
    # Worker
    Symbol(
        f"{WORKERS}ActorRolloutRefWorker.init_model",
        WORKER,
        overridden=("self",),
        source=("partial(ppo_loss, config=actor_config)", "self.actor.set_loss_fn(self.loss_fn)"),
    ),
    Symbol(f"{WORKERS}ActorRolloutRefWorker.compute_log_prob", WORKER, overridden=words("self data")),
    Symbol(f"{WORKERS}ActorRolloutRefWorker.__init__", WORKER, source=("self.actor:", "self.ref:", "self.config =")),
    Symbol(f"{WORKERS}TrainingWorker.__init__", WORKER, source=("self.engine:", "self.model_config =")),
    Symbol(f"{WORKERS}TrainingWorker.set_loss_fn", WORKER, called=words("self loss_fn")),
    Symbol(f"{WORKERS}TrainingWorker.infer_batch", WORKER, called=words("self data"), source=('"compute_loss"',)),
    Symbol("verl.single_controller.base.decorator:Dispatch.ONE_TO_ALL", WORKER),
    Symbol("verl.single_controller.base.decorator:register", WORKER, called=("dispatch_mode=",)),
    Symbol(
        "verl.single_controller.base.decorator:make_nd_compute_dataproto_dispatch_fn", WORKER, called=("mesh_name=",)
    ),
    Symbol("verl.utils.profiler:DistProfiler.annotate", WORKER, called=words("color= role=")),
    Symbol(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.forward_step",
        "passes/forward_step.py",
        overridden=words("self micro_batch loss_function forward_only"),
        source=('"model_output":', "self.prepare_model_outputs("),
    ),
    Symbol(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.prepare_model_inputs",
        "passes/token_layout.py",
        source=(
            'key="use_remove_padding", default=True',
            'micro_batch["temperature"]',
            "torch.nested.to_padded_tensor(",
        ),
    ),
    Symbol(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.prepare_model_outputs",
        "passes/fsdp/response_logits.py",
        overridden=words("self output output_args micro_batch logits_processor_func"),
        source=(
            'output_args["input_ids_rmpad_rolled"]',
            'output_args["temperature_rmpad"]',
            'output_args["temperature"]',
            'output_args["pad_size"]',
            "cu_seqlens = input_ids.offsets()",
        ),
    ),
    Symbol(
        "verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager.run_single",
        "config/recipe/dapo.yaml",
        source=('reward_extra_info["acc"] = score',),
    ),
    Symbol(
        "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer._dapo_filtered_keys",
        "config/recipe/dapo.yaml",
        source=('"reward_extra_info"', "self.filter_groups_metric"),
    ),
    Symbol(
        "verl.workers.engine.utils:postprocess_batch_func",
        "passes/fsdp/clean_pass.py",
        source=('for key, val in o["model_output"].items()', "restore_dynamic_batch(model_output[key], indices)"),
    ),
    Symbol(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngine._init_device_mesh",
        "passes/own_positions.py",
        source=("self.ulysses_parallel_group = None", 'self.ulysses_parallel_group = self.ulysses_device_mesh["sp"]'),
    ),
    Symbol(
        f"{ULYSSES}slice_input_tensor",
        "passes/own_positions.py",
        source=("x.size(dim) // sp_world_size", "slice(sp_rank * parts, (sp_rank + 1) * parts)"),
    ),
    Symbol("verl.workers.config:HFModelConfig.use_fused_kernels", "passes/fsdp/response_logits.py"),
    Symbol(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngine.forward_backward_batch",
        "passes/forward_step.py",
        source=("self.forward_step(",),
    ),
    Symbol(
        "verl.workers.config:HFModelConfig",
        "models/facts.py",
        called=words("path= hf_config= processor="),
    ),
    # Batches
    Symbol(f"{PADDING}response_from_nested", WORKER, called=words("tensor response_mask")),
    Symbol(f"{PADDING}response_to_nested", "trainer/rollout_batch.py", called=words("tensor response_mask")),
    Symbol(f"{PADDING}no_padding_2_padding", "worker/loss.py", called=words("tensor data")),
    Symbol(f"{TENSORDICT}assign_non_tensor_stack", "passes/ablated_batch.py", called=words("batch key values")),
    Symbol(f"{TENSORDICT}maybe_fix_3d_position_ids", "passes/ablated_batch.py", called=("data",)),
    Symbol(f"{TENSORDICT}assign_non_tensor", "passes/fsdp/paired_views.py", called=("batch", "calculate_entropy=")),
    Symbol(f"{TENSORDICT}get_non_tensor_data", "passes/token_layout.py", called=words("data= key= default=")),
    Symbol("verl.utils.device:get_device_id", "passes/token_layout.py", called=()),
    Symbol(f"{TENSORDICT}get", WORKER, called=words("data key"), defaults={"default": None}),
    # Loss
    Symbol(
        "verl.workers.utils.losses:ppo_loss",
        "worker/loss.py",
        overridden=words("config model_output data dp_group"),
        defaults={"dp_group": None},
        source=tuple(
            f'config.global_batch_info["{key}"]'
            for key in ("dp_size", "batch_num_tokens", "global_batch_size", "loss_scale_factor")
        ),
    ),
    Symbol(
        "verl.trainer.ppo.core_algos:agg_loss",
        "worker/loss.py",
        called=words(
            "loss_mat= loss_mask= loss_agg_mode= dp_size= batch_num_tokens= global_batch_size= loss_scale_factor="
        ),
    ),
    Symbol("verl.utils.metric:Metric.__init__", "worker/loss.py", called=words("self value= aggregation=")),
    Symbol("verl.utils.metric:AggregationType.SUM", "worker/loss.py"),
    Symbol("verl.workers.config:ActorConfig", "worker/loss.py", called=words("loss_agg_mode= global_batch_info=")),
    # Data set
    Symbol(
        f"{DATASET}.__init__",
        "rollout/dataset.py",
        called=words("self data_files= tokenizer= config= processor="),
        source=tuple(
            f"self.{name} ="
            for name in ("prompt_key", "image_key", "video_key", "max_prompt_length", "original_data_files")
        ),
    ),
    Symbol(f"{DATASET}.__getitem__", "rollout/dataset.py", overridden=words("self item")),
    Symbol(
        f"{DATASET}.maybe_filter_out_long_prompts",
        "rollout/dataset.py",
        overridden=words("self dataframe"),
        defaults={"dataframe": None},
    ),
    Symbol(
        f"{DATASET}._process_multi_modal_info",
        "rollout/dataset.py",
        overridden=words("messages image_patch_size config"),
    ),
    Symbol(
        f"{DATASET}.process_multi_modal_info",
        "rollout/dataset.py",
        source=("cls._process_multi_modal_info(messages, image_patch_size=image_patch_size, config=config)",),
    ),
    Symbol(
        "verl.experimental.agent_loop.agent_loop:AgentLoopBase.process_multi_modal_info",
        "rollout/dataset.py",
        source=("await self.dataset_cls.process_multi_modal_info(",),
    ),
    Symbol(
        f"{DATASET}._build_messages",
        "data/row_check.py",
        source=("<image>", 'if "bytes" in image:', "isinstance(image, str | os.PathLike)"),
    ),
    # Doctor
    Symbol("verl.plugin.platform:get_platform", "doctor/device.py", called=()),
    Symbol(
        "verl.utils.config:validate_config",
        "doctor/configuration.py",
        called=words("config= use_reference_policy= use_critic="),
    ),
    Symbol("verl.trainer.ppo.utils:need_critic", "doctor/configuration.py", called=("config",)),
    Symbol("verl.trainer.ppo.utils:need_reference_policy", "doctor/configuration.py", called=("config",)),
    Symbol("verl.trainer.ppo.v1:get_trainer_cls", "doctor/configuration.py", called=("name",)),
    Symbol("verl.utils.config:omega_conf_to_dataclass", "doctor/model.py", called=("config",)),
    Symbol(
        f"{TRAINER}._get_required_batch_multiple",
        "doctor/batches.py",
        source=("math.lcm(required_multiple, actor_global_mini_batch_size)", "actor_rollout_ref.rollout.n"),
    ),
    Symbol(
        f"{WORKERS}TrainingWorker.train_mini_batch",
        "doctor/batches.py",
        source=("mini_batch_size % self.engine.get_data_parallel_size() == 0",),
    ),
    Symbol(
        "verl.workers.engine.utils:prepare_micro_batches",
        "doctor/batches.py",
        source=("total_data_size % (force_group_size * micro_batch_size_per_gpu) == 0",),
    ),
    Symbol("verl.utils.dataset.rl_dataset:get_dataset_class", "doctor/prompts.py", called=("data_config",)),
    Symbol(
        f"{DATASET}._read_files_and_tokenize",
        "doctor/prompts.py",
        overridden=("self",),
        source=("self.dataframe",),
    ),
    Symbol(
        f"{DATASET}._process_multi_modal_info",
        "doctor/prompts.py",
        called=words("messages image_patch_size config"),
    ),
    Symbol(
        "verl.utils.tokenizer:build_multimodal_processor_inputs",
        "doctor/prompts.py",
        called=words("processor text= images= mm_processor_kwargs="),
    ),
    Symbol("verl.trainer.ppo.reward:get_custom_reward_fn", "doctor/reward.py", called=("config",)),
    Symbol("verl.trainer.ppo.reward:get_default_compute_score", "doctor/reward.py", called=("reward_name",)),
    # CPU platform
    Symbol("verl.plugin.platform:PlatformBase", "platforms/cpu/platform.py"),
    Symbol("verl.plugin.platform:PlatformRegistry.register", "platforms/cpu/platform.py", called=("platform=",)),
    Symbol(
        "verl.workers.engine.base:EngineRegistry.register",
        "platforms/cpu/engine.py",
        called=words("model_type= backend= device="),
    ),
    Symbol(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead._build_fsdp_module",
        "platforms/cpu/engine.py",
        overridden=words("self module"),
        source=(
            "self.engine_config.forward_only",
            "CPUOffloadPolicy(pin_memory=True)",
            'mixed_precision_config.get("param_dtype"',
            'mixed_precision_config.get("reduce_dtype"',
            'mixed_precision_config.get("buffer_dtype"',
        ),
    ),
    Symbol(
        "verl.utils.distributed:initialize_global_process_group_ray",
        "platforms/cpu/process_group.py",
        overridden=words("timeout_second backend"),
        defaults={"timeout_second": None, "backend": None},
    ),
    Symbol(
        "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer.__init__",
        "platforms/cpu/polling.py",
        called=words(
            "self trainer_mode= trainer_config= max_off_policy_threshold= max_off_policy_strategy= "
            "sampler_kwargs= poll_interval="
        ),
        defaults={"poll_interval": 2.0},
    ),
    Symbol(
        "verl.workers.rollout.vllm_rollout.vllm_rollout:ServerAdapter.__init__",
        "platforms/cpu/weight_socket.py",
        source=('self.zmq_handle = f"ipc:///tmp/rl-colocate-zmq-{job_id}-',),
    ),
    Symbol(
        "verl.workers.rollout.vllm_rollout.utils:vLLMColocateWorkerExtension._get_zmq_handle",
        "platforms/cpu/weight_socket.py",
        overridden=("self",),
        source=('return f"ipc:///tmp/rl-colocate-zmq-{job_id}-',),
    ),
    Symbol("verl.models.transformers.qwen2_vl:_custom_flash_attention_forward", "platforms/cpu/packed_attention.py"),
    Symbol(
        f"{ULYSSES}gather_seq_scatter_heads", "platforms/cpu/packed_attention.py", called=words("x seq_dim= head_dim=")
    ),
    Symbol(
        f"{ULYSSES}gather_heads_scatter_seq", "platforms/cpu/packed_attention.py", called=words("x seq_dim= head_dim=")
    ),
    Symbol(f"{ULYSSES}all_gather_tensor", "platforms/cpu/packed_attention.py", called=words("local_tensor group")),
    Symbol(f"{ULYSSES}get_ulysses_sequence_parallel_group", "platforms/cpu/packed_attention.py", called=()),
    Symbol(
        "verl.checkpoint_engine:CheckpointEngineRegistry.register",
        "platforms/cpu/checkpoint_engine.py",
        called=("backend",),
    ),
    Symbol(f"{CHECKPOINT_ENGINE}.prepare", "platforms/cpu/checkpoint_engine.py", overridden=("self",)),
    Symbol(f"{CHECKPOINT_ENGINE}.finalize", "platforms/cpu/checkpoint_engine.py", overridden=("self",)),
    Symbol(
        f"{CHECKPOINT_ENGINE}.build_topology",
        "platforms/cpu/checkpoint_engine.py",
        called=words("actor_wg_world_size rollout_world_size metadata"),
    ),
    Symbol(
        f"{CHECKPOINT_ENGINE}.send_weights",
        "platforms/cpu/checkpoint_engine.py",
        overridden=words("self weights global_steps"),
        defaults={"global_steps": None},
    ),
    Symbol(
        f"{CHECKPOINT_ENGINE}.receive_weights",
        "platforms/cpu/checkpoint_engine.py",
        overridden=words("self global_steps"),
        defaults={"global_steps": None},
    ),
]

PACKED_ATTENTION = words(
    "query_states key_states value_states attention_mask query_length is_causal position_ids sliding_window"
)
"""First parameters of verl's `_custom_flash_attention_forward`, which `attend_packed` replaces."""


def complaints(symbols: Iterable[Symbol]) -> list[str]:
    """What the installed verl no longer has as `symbols` say; one line each, naming our file that relies on it.

    Imports the modules that the symbols come from.
    """
    return [complaint for symbol in symbols if (complaint := _complaint(symbol)) is not None]


def _complaint(symbol: Symbol) -> str | None:
    try:
        found = _find(symbol.name)
        for check in (_parameters_changed, _not_callable, _defaults_changed, _source_changed):
            if (what := check(symbol, found)) is not None:
                return _broken(symbol, what)
    except (ImportError, AttributeError) as error:
        return _broken(symbol, f"is gone ({error})")
    return None


def _broken(symbol: Symbol, what: str) -> str:
    return f"verl {version('verl')}: {symbol.name} {what}; verl_ext/{symbol.used_in} relies on it"


def _find(name: str) -> Any:
    module, _, qualified = name.partition(":")
    return functools.reduce(getattr, qualified.split("."), importlib.import_module(module))


def _parameters_changed(symbol: Symbol, found: Any) -> str | None:
    if symbol.overridden is None:
        return None
    names = tuple(inspect.signature(found).parameters)
    return None if names == symbol.overridden else f"takes {names}, formerly {symbol.overridden}"


def _not_callable(symbol: Symbol, found: Any) -> str | None:
    if symbol.called is None:
        return None
    positional, keywords = _call_of(symbol.called)
    signature = inspect.signature(found)
    try:
        (signature.bind_partial if inspect.isclass(found) else signature.bind)(*positional, **keywords)
    except TypeError as error:
        return f"cannot be called as {symbol.called} any more ({error})"
    return None


def _call_of(called: tuple[str, ...]) -> tuple[list[None], dict[str, None]]:
    """As many positional arguments, and such keyword arguments."""
    keywords = [name[:-1] for name in called if name.endswith("=")]
    return [None] * (len(called) - len(keywords)), dict.fromkeys(keywords)


def _defaults_changed(symbol: Symbol, found: Any) -> str | None:
    parameters = inspect.signature(found).parameters if symbol.defaults else {}
    for name, default in symbol.defaults.items():
        now = parameters[name].default if name in parameters else "(no such parameter)"
        if now != default:
            return f"has the default {name}={now}, formerly {default}"
    return None


def _source_changed(symbol: Symbol, found: Any) -> str | None:
    source = inspect.getsource(inspect.unwrap(found)) if symbol.source else ""
    missing = [text for text in symbol.source if text not in source]
    return f"no longer says {missing}" if missing else None
