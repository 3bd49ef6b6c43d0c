# SPDX-License-Identifier: Apache-2.0
"""The tiny Qwen2.5-VL as Megatron-Core's own GPTModel, and verl's own Megatron engine around it, on a CPU.

What needs a GPU is left out or stands in: Transformer Engine's norm and attention are replaced by small ones, and the
vision-language model around the decoder does what Megatron-Bridge's does, with the Hugging Face vision tower.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel import scatter_to_sequence_parallel_region
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.overrides import TorchFunctionMode
from verl.workers.config import McoreEngineConfig
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead


def on_the_cpu():
    """Let Megatron-Core place tensors and draw random numbers without CUDA."""
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.synchronize = lambda *_args: None
    CudaRNGStatesTracker.fork = lambda *_args: nullcontext()
    OnTheCPU().__enter__()


class OnTheCPU(TorchFunctionMode):
    """Tensors asked for on "cuda" are made on the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0]
        kwargs.pop("pin_memory", None)
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class Norm(torch.nn.RMSNorm):
    """An RMSNorm that does not mind sequence parallelism."""

    def __init__(self, config, hidden_size, eps=1e-5, **_unused):
        super().__init__(hidden_size, eps=eps)


def zigzag(values, ranks, rank):
    """The two chunks of `values`, along the first dimension, that context-parallel `rank` has."""
    chunks = values.chunk(2 * ranks)
    return values if ranks == 1 else torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]])


def joined(parts):
    """The inverse of `zigzag`, from the parts of all ranks."""
    if len(parts) == 1:
        return parts[0]
    halves = [part.chunk(2) for part in parts]
    return torch.cat([first for first, _ in halves] + [second for _, second in reversed(halves)])


class AllGather(torch.autograd.Function):
    """The `values` of all ranks of a group; torch's own has no gradient for parts of the world on gloo."""

    @staticmethod
    def forward(ctx, values, group):
        ctx.group = group
        parts = [torch.empty_like(values) for _ in range(group.size())]
        torch.distributed.all_gather(parts, values, group=group)
        return tuple(parts)

    @staticmethod
    def backward(ctx, *gradients):
        total = torch.stack(gradients)
        torch.distributed.all_reduce(total, group=ctx.group)
        return total[ctx.group.rank()], None


class CausalAttention(torch.nn.Module):
    """Causal attention within each sequence, packed or padded, cut over context-parallel ranks or not."""

    def __init__(self, *_args, **_unused):
        super().__init__()

    def forward(self, query, key, value, _mask, packed_seq_params=None, **_unused):
        group = parallel_state.get_context_parallel_group()
        ranks, rank = group.size(), group.rank()
        if packed_seq_params is None:
            return self._attend(*(self._whole(x, group) for x in (query, key, value)), ranks, rank)
        lengths = (packed_seq_params.cu_seqlens_q_padded.diff() // ranks).tolist()
        outputs = [
            self._attend(*(self._whole(x[:, None], group) for x in parts), ranks, rank)[:, 0]
            for parts in zip(*(x.split(lengths) for x in (query, key, value)), strict=True)
        ]
        return torch.cat(outputs)

    @staticmethod
    def _whole(values, group):
        if group.size() == 1:
            return values
        return joined(AllGather.apply(values.contiguous(), group))

    @staticmethod
    def _attend(query, key, value, ranks, rank):
        query, key, value = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        output = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return zigzag(output.permute(2, 0, 1, 3).flatten(2), ranks, rank)


def transformer_config(hf_config, *, tensor=1, sequence=False, pipeline=1, chunks=1, context=1):
    text = hf_config.text_config
    return TransformerConfig(
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        num_attention_heads=text.num_attention_heads,
        num_query_groups=text.num_key_value_heads,
        ffn_hidden_size=text.intermediate_size,
        layernorm_epsilon=text.rms_norm_eps,
        normalization="RMSNorm",
        activation_func=silu,
        gated_linear_unit=True,
        add_bias_linear=False,
        add_qkv_bias=True,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        mrope_section=text.rope_parameters["mrope_section"],
        tensor_model_parallel_size=tensor,
        sequence_parallel=sequence,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
        context_parallel_size=context,
        pipeline_dtype=torch.float32,
        variable_seq_lengths=True,
        moe_token_dispatcher_type="alltoall",  # unused; the default does not go with variable lengths
        batch_p2p_comm=False,
        gradient_accumulation_fusion=False,
        use_cpu_initialization=True,
    )


def gpt_model(config, hf, positions, chunk):
    """The text decoder's layers of one chunk of this pipeline stage, with the weights of `hf`."""
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = Norm
    spec.submodules.self_attention.submodules.core_attention = ModuleSpec(module=CausalAttention)
    rank = parallel_state.get_pipeline_model_parallel_rank()
    stages, chunks = config.pipeline_model_parallel_size, config.virtual_pipeline_model_parallel_size or 1
    own = config.num_layers // (stages * chunks)
    model = GPTModel(
        config=config,
        transformer_layer_spec=TransformerBlockSubmodules(layer_specs=[spec] * own, layer_norm=Norm),
        vocab_size=hf.config.text_config.vocab_size,
        max_sequence_length=2048,
        pre_process=rank == chunk == 0,
        post_process=(rank, chunk) == (stages - 1, chunks - 1),
        vp_stage=chunk if chunks > 1 else None,
        position_embedding_type=positions,
        rotary_base=int(hf.config.text_config.rope_parameters["rope_theta"]),
        scatter_embedding_sequence_parallel=positions == "rope",
    )
    load(model, hf.model.language_model)
    return model.eval()


@torch.no_grad()
def load(model, text):
    """Copy the weights of Hugging Face's decoder `text`, this tensor-parallel rank's part."""
    ranks, rank = parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()

    def part(weight, dim=0):
        return weight.chunk(ranks, dim)[rank]

    groups = text.config.num_key_value_heads
    if model.pre_process:
        model.embedding.word_embeddings.weight.copy_(part(text.embed_tokens.weight))
    if model.post_process:
        model.output_layer.weight.copy_(part(text.embed_tokens.weight))
        model.decoder.final_layernorm.weight.copy_(text.norm.weight)
    for layer in model.decoder.layers:
        theirs = text.layers[layer.layer_number - 1]
        attention, mlp = layer.self_attention, layer.mlp
        for name in ("weight", "bias"):
            projections = [getattr(getattr(theirs.self_attn, f"{p}_proj"), name) for p in "qkv"]
            by_group = [torch.cat(of) for of in zip(*(p.chunk(groups) for p in projections), strict=True)]
            getattr(attention.linear_qkv, name).copy_(part(torch.cat(by_group)))
        attention.linear_proj.weight.copy_(part(theirs.self_attn.o_proj.weight, 1))
        gate, up = part(theirs.mlp.gate_proj.weight), part(theirs.mlp.up_proj.weight)
        mlp.linear_fc1.weight.copy_(torch.cat([gate, up]))
        mlp.linear_fc2.weight.copy_(part(theirs.mlp.down_proj.weight, 1))
        layer.input_layernorm.weight.copy_(theirs.input_layernorm.weight)
        layer.pre_mlp_layernorm.weight.copy_(theirs.post_attention_layernorm.weight)


class VisionLanguageModel(MegatronModule):
    """Image features in place of placeholders, positions made of the ids, `language_model.forward` called directly."""

    def __init__(self, config, hf, chunk):
        super().__init__(config=config)
        self.language_model = gpt_model(config, hf, "mrope", chunk)
        self.vp_stage = self.language_model.vp_stage
        self.pre_process, self.post_process = self.language_model.pre_process, self.language_model.post_process
        self.share_embeddings_and_output_weights = False
        self.model_type = self.language_model.model_type
        self._hf = (hf,)  # not a submodule: its weights are not this rank's
        self.tower_runs = 0

    def set_input_tensor(self, input_tensor):
        self.language_model.set_input_tensor(input_tensor[0] if isinstance(input_tensor, list) else input_tensor)

    def forward(self, input_ids, attention_mask=None, pixel_values=None, image_grid_thw=None, **kwargs):
        kwargs["position_ids"] = self._positions(input_ids, image_grid_thw)
        embeddings = self._embeddings(input_ids, pixel_values, image_grid_thw) if self.pre_process else None
        return self.language_model.forward(None, decoder_input=embeddings, attention_mask=attention_mask, **kwargs)

    def _positions(self, input_ids, grid):
        (hf,) = self._hf
        types = (input_ids == hf.config.image_token_id).int()
        return hf.model.get_rope_index(input_ids, types, grid)[0]

    def _embeddings(self, input_ids, pixel_values, grid):
        (hf,) = self._hf
        embeddings = self.language_model.embedding(input_ids=input_ids, position_ids=None).transpose(0, 1).contiguous()
        if pixel_values is not None:
            self.tower_runs += 1
            features = torch.cat(list(hf.model.get_image_features(pixel_values, grid).pooler_output))
            mask = (input_ids == hf.config.image_token_id)[..., None].expand_as(embeddings)
            embeddings = embeddings.masked_scatter(mask, features.to(embeddings))
        group = parallel_state.get_context_parallel_group()
        embeddings = zigzag(embeddings.transpose(0, 1), group.size(), group.rank()).contiguous()
        return scatter_to_sequence_parallel_region(embeddings) if self.config.sequence_parallel else embeddings


class Engine(MegatronEngineWithLMHead):
    """verl's engine around a model that is already built."""

    def __init__(self, module, hf_config, *, packed):
        config = module[0].config
        self.module, self.tf_config, self.mode = module, config, None
        self.enable_routing_replay = False
        off = SimpleNamespace(enable=False, enable_train=False)
        self.model_config = SimpleNamespace(
            hf_config=hf_config, mtp=off, tokenizer=SimpleNamespace(pad_token_id=0), model_type="language_model"
        )
        self.engine_config = McoreEngineConfig(
            use_remove_padding=packed,
            use_fused_kernels=False,
            tensor_model_parallel_size=config.tensor_model_parallel_size,
            sequence_parallel=config.sequence_parallel,
            pipeline_model_parallel_size=config.pipeline_model_parallel_size,
            virtual_pipeline_model_parallel_size=config.virtual_pipeline_model_parallel_size,
            context_parallel_size=config.context_parallel_size,
        )


def engine(hf, *, packed, chunks=1, **parallel):
    """An engine on the model-parallel groups that this process is in; packed runs are text at plain positions."""
    config = transformer_config(hf.config, chunks=chunks, **parallel)
    if not packed:
        return Engine([VisionLanguageModel(config, hf, i) for i in range(chunks)], hf.config, packed=False)
    text = SimpleNamespace(architectures=["Qwen2ForCausalLM"])
    return Engine([gpt_model(config, hf, "rope", i) for i in range(chunks)], text, packed=True)
