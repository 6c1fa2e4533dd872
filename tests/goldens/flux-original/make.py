"""Writes single files of FLUX.1 and what belongs to it, tiny and with random weights, and what diffusers makes of them.

    python make.py        (needs torch, diffusers, transformers, safetensors and gguf)

The files have the names of the original releases, made from diffusers' and transformers' models by the inverse of the
mapping under test. expected.json has the SHA-256 of every tensor (its float32 values) by diffusers' and transformers' names,
and the configs.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

HERE = Path(__file__).parent
ROWS, COLUMNS, TEXT_TOKENS = 3, 5, 4
generator = torch.Generator().manual_seed(11)
expected: dict[str, dict] = {}

Tensors = dict[str, torch.Tensor]


def randomize(model: torch.nn.Module) -> Tensors:
    """Random weights that float16 has exactly; norms' scales too, which would be ones."""
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.normal_(std=fan_in**-0.5, generator=generator)
        parameter.data = parameter.data.half().float()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def expect(name: str, config: dict, tensors: Tensors) -> None:
    sums = {key: hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()[:16] for key, tensor in tensors.items()}
    shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
    expected[name] = {"config": config, "tensors": {key: [shapes[key], sums[key]] for key in sorted(tensors)}}


def half(tensors: Tensors) -> Tensors:
    return {name: tensor.half().contiguous() for name, tensor in tensors.items()}


# FLUX.1, section by section of the release's model.


def flux_original(w: Tensors, doubles: int, singles: int, guidance: bool) -> Tensors:
    o: Tensors = {}

    def put(original: str, *names: str) -> None:
        for kind in ("weight", "bias"):
            o[f"{original}.{kind}"] = torch.cat([w[f"{name}.{kind}"] for name in names])

    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    embedders = {"time_in": "timestep", "vector_in": "text", **({"guidance_in": "guidance"} if guidance else {})}
    for original, name in embedders.items():
        put(f"{original}.in_layer", f"time_text_embed.{name}_embedder.linear_1")
        put(f"{original}.out_layer", f"time_text_embed.{name}_embedder.linear_2")
    for i in range(doubles):
        a, b = f"double_blocks.{i}", f"transformer_blocks.{i}"
        put(f"{a}.img_mod.lin", f"{b}.norm1.linear")
        put(f"{a}.txt_mod.lin", f"{b}.norm1_context.linear")
        put(f"{a}.img_attn.qkv", *(f"{b}.attn.to_{x}" for x in "qkv"))
        put(f"{a}.txt_attn.qkv", *(f"{b}.attn.add_{x}_proj" for x in "qkv"))
        put(f"{a}.img_attn.proj", f"{b}.attn.to_out.0")
        put(f"{a}.txt_attn.proj", f"{b}.attn.to_add_out")
        for stream, ff, norm in (("img", "ff", "norm"), ("txt", "ff_context", "norm_added")):
            put(f"{a}.{stream}_mlp.0", f"{b}.{ff}.net.0.proj")
            put(f"{a}.{stream}_mlp.2", f"{b}.{ff}.net.2")
            o[f"{a}.{stream}_attn.norm.query_norm.scale"] = w[f"{b}.attn.{norm}_q.weight"]
            o[f"{a}.{stream}_attn.norm.key_norm.scale"] = w[f"{b}.attn.{norm}_k.weight"]
    for i in range(singles):
        a, b = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        put(f"{a}.modulation.lin", f"{b}.norm.linear")
        put(f"{a}.linear1", f"{b}.attn.to_q", f"{b}.attn.to_k", f"{b}.attn.to_v", f"{b}.proj_mlp")
        put(f"{a}.linear2", f"{b}.proj_out")
        o[f"{a}.norm.query_norm.scale"] = w[f"{b}.attn.norm_q.weight"]
        o[f"{a}.norm.key_norm.scale"] = w[f"{b}.attn.norm_k.weight"]
    put("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):
        scale, shift = w[f"norm_out.linear.{kind}"].chunk(2)
        o[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    return o


def flux_diffusers(o: Tensors, names: Tensors) -> Tensors:
    """The original's tensors, which may be rounded, by diffusers' names: rows are found by a model of row numbers."""
    rows, start = {}, 0
    for name, tensor in names.items():
        rows[name] = torch.arange(start, start := start + len(tensor))
    where = {}
    for original, numbers in flux_original(rows, 1, 2, True).items():
        for row, number in enumerate(numbers.tolist()):
            where[number] = (original, row)
    return {name: torch.stack([o[where[n][0]][where[n][1]] for n in numbers.tolist()]) for name, numbers in rows.items()}


FLUX = dict(
    in_channels=8,
    num_layers=1,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    pooled_projection_dim=32,
    guidance_embeds=True,
    axes_dims_rope=(4, 6, 6),
)
flux = FluxTransformer2DModel(**FLUX)
weights = randomize(flux)
original = flux_original(weights, 1, 2, True)
save_file(half(original), HERE / "flux1-tiny.safetensors")
expect("flux", {**FLUX, "axes_dims_rope": list(FLUX["axes_dims_rope"])}, weights)

# As the usual tools do: matrices of blocks quantised, what leads in and out in float16, vectors in float32.
KEPT = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")
rounded = {}
writer = GGUFWriter(HERE / "flux1-tiny-Q8_0.gguf", "flux")
for name, tensor in original.items():
    kind = Type.F32 if tensor.ndim == 1 else Type.F16 if name.startswith(KEPT) else Type.Q8_0
    stored = quantize(tensor.numpy(), kind)
    rounded[name] = torch.from_numpy(dequantize(stored, kind).copy())
    writer.add_tensor(name, stored, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
q8_weights = flux_diffusers(rounded, weights)
expect("flux-q8_0", expected["flux"]["config"], q8_weights)

# Older scaled fp8, as a part of a file of several models; the scale is not a power of two.
scaled: Tensors = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
rounded = {}
for name, tensor in original.items():
    if tensor.ndim == 1:
        scaled[name] = rounded[name] = tensor.bfloat16()
        continue
    scale = tensor.abs().max() / 448
    scaled[name] = (tensor / scale).to(torch.float8_e4m3fn)
    scaled[name.replace(".weight", ".scale_weight")] = scale
    scaled[name.replace(".weight", ".scale_input")] = torch.tensor(1.0)
    rounded[name] = scaled[name].float() * scale
saved = {f"model.diffusion_model.{name}": tensor for name, tensor in scaled.items()}
save_file({**saved, "vae.decoder.conv_in.bias": torch.zeros(1)}, HERE / "flux1-tiny-scaled.safetensors")
scaled_weights = flux_diffusers(rounded, weights)
expect("flux-scaled", expected["flux"]["config"], scaled_weights)

grid = torch.stack(torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij"), dim=-1)
inputs = {
    "sample": torch.randn(1, ROWS * COLUMNS, FLUX["in_channels"], generator=generator),
    "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, FLUX["joint_attention_dim"], generator=generator),
    "pooled_projection": torch.randn(1, FLUX["pooled_projection_dim"], generator=generator),
    "timestep": torch.tensor([0.73]),
    "guidance": torch.tensor([3.5]),
}
outputs = {}
for name, state in {"flux": weights, "flux-q8_0": q8_weights, "flux-scaled": scaled_weights}.items():
    flux.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    with torch.no_grad():
        outputs[name] = flux(
            hidden_states=inputs["sample"],
            encoder_hidden_states=inputs["encoder_hidden_states"],
            pooled_projections=inputs["pooled_projection"],
            timestep=inputs["timestep"],
            guidance=inputs["guidance"],
            img_ids=torch.cat([torch.zeros(ROWS * COLUMNS, 1), grid.reshape(-1, 2)], dim=1),
            txt_ids=torch.zeros(TEXT_TOKENS, 3),
        ).sample
save_file({**inputs, **outputs}, HERE / "golden.safetensors")

# The autoencoder.


def autoencoder_original(w: Tensors, levels: int) -> Tensors:
    parts = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    o: Tensors = {}
    for name, tensor in w.items():
        side, *rest = name.split(".")
        if rest[0] == "mid_block" and rest[1] == "resnets":
            rest = ["mid", f"block_{int(rest[2]) + 1}", *rest[3:]]
        elif rest[0] == "mid_block":
            part = parts[".".join(rest[3:-1])]
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
            rest = ["mid", "attn_1", part, rest[-1]]
        elif rest[0] == "up_blocks":
            rest[:2] = ["up", str(levels - 1 - int(rest[1]))]
        elif rest[0] == "down_blocks":
            rest[:2] = ["down", rest[1]]
        if rest[0] in ("up", "down"):
            rest = [*rest[:2], "block", *rest[3:]] if rest[2] == "resnets" else [*rest[:2], rest[2][:-2], *rest[4:]]
        rest = ["nin_shortcut" if part == "conv_shortcut" else "norm_out" if part == "conv_norm_out" else part for part in rest]
        o[".".join([side, *rest])] = tensor
    return o


VAE = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(4, 8, 8),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    norm_num_groups=2,
    use_quant_conv=False,
    use_post_quant_conv=False,
    mid_block_add_attention=True,
    sample_size=1024,
    scaling_factor=0.3611,
    shift_factor=0.1159,
)
weights = randomize(AutoencoderKL(**VAE))
save_file(half(autoencoder_original(weights, 3)), HERE / "ae-tiny.safetensors")
expect("vae", {key: list(value) if isinstance(value, tuple) else value for key, value in VAE.items()}, weights)

# CLIP's text encoder, as it is in a whole CLIP.
CLIP = dict(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=9)
clip = CLIPTextModel(CLIPTextConfig(**CLIP, hidden_act="quick_gelu", eos_token_id=2))
weights = {name.removeprefix("text_model."): tensor for name, tensor in randomize(clip).items()}
others = {
    "text_model.embeddings.position_ids": torch.arange(9)[None],
    "text_projection.weight": torch.zeros(3, 32),
    "logit_scale": torch.tensor(1.0),
    "visual_projection.weight": torch.zeros(3, 3),
    "vision_model.embeddings.class_embedding": torch.zeros(3),
}
saved = half({f"text_model.{name}": tensor for name, tensor in weights.items() if "position_ids" not in name})
save_file({**saved, **others}, HERE / "clip-tiny.safetensors")
expect("clip", CLIP, {name: tensor for name, tensor in weights.items() if "position_ids" not in name})

# T5's encoder: float16 with both embeddings, scaled fp8 of the newer kind, GGUF.
T5 = dict(vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu")
weights = randomize(T5EncoderModel(T5Config(**T5, tie_word_embeddings=False)))
embedding = weights.pop("encoder.embed_tokens.weight", weights["shared.weight"])
weights["shared.weight"] = embedding
save_file(
    {**half(weights), "encoder.embed_tokens.weight": embedding.half(), "shared.weight": (embedding + 1).half()},
    HERE / "t5-tiny.safetensors",
)
expect("t5", T5, weights)

newer: Tensors = {}
rounded = {}
for name, tensor in weights.items():
    if tensor.ndim == 1 or "shared" in name or "relative" in name:
        newer[name] = tensor.half()
        rounded[name] = tensor
        continue
    scale = tensor.abs().max() / 448
    newer[name] = (tensor / scale).to(torch.float8_e4m3fn)
    newer[name.replace(".weight", ".weight_scale")] = scale
    newer[name.replace(".weight", ".input_scale")] = torch.tensor(1.0)
    described = json.dumps({"format": "float8_e4m3fn"}).encode()
    newer[name.replace(".weight", ".comfy_quant")] = torch.tensor(list(described), dtype=torch.uint8)
    rounded[name] = newer[name].float() * scale
layers = {name[: -len(".comfy_quant")]: {"format": "float8_e4m3fn"} for name in newer if name.endswith(".comfy_quant")}
metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
save_file(newer, HERE / "t5-tiny-scaled.safetensors", metadata=metadata)
expect("t5-scaled", T5, rounded)

PARTS = {
    "layer.0.layer_norm": "attn_norm",
    **{f"layer.0.SelfAttention.{x}": f"attn_{x}" for x in "qkvo"},
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    "layer.1.layer_norm": "ffn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
}
writer = GGUFWriter(HERE / "t5-tiny-Q5_0.gguf", "t5encoder")
rounded = {}
for name, tensor in weights.items():
    block = name.removeprefix("encoder.block.").split(".")
    stem = {"shared.weight": "token_embd", "encoder.final_layer_norm.weight": "enc.output_norm"}.get(name)
    stem = stem or f"enc.blk.{block[0]}.{PARTS['.'.join(block[1:-1])]}"
    # Rows of `o` have 24 elements, which is no whole block.
    kind = Type.F32 if tensor.ndim == 1 else Type.F16 if "rel_b" in stem or tensor.shape[1] % 32 else Type.Q5_0
    stored = quantize(tensor.numpy(), kind)
    rounded[name] = torch.from_numpy(np.array(dequantize(stored, kind)))
    writer.add_tensor(f"{stem}.weight", stored, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
expect("t5-q5_0", T5, rounded)

lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in expected.items()]
(HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
