"""Writes single files of Stable Diffusion, tiny and with random weights, and what diffusers makes of them.

    python make.py        (needs torch, diffusers, transformers and safetensors)

The files have the names of the original releases, made from diffusers' and transformers' models by the inverse of the
mapping under test; diffusers' own converters must lead back. expected.json has, by diffusers' and transformers' names, shape
and SHA-256 of every tensor (its float32 values), and the configs. full-size.json has, for the published sizes, a SHA-256 of
all names and shapes in the release's layout and in diffusers'.
"""

import hashlib
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = Path(__file__).parent
generator = torch.Generator().manual_seed(29)
expected: dict[str, dict] = {}

Tensors = dict[str, torch.Tensor]


def randomize(model: torch.nn.Module) -> Tensors:
    """Random weights that float16 has exactly; norms' scales too, which would be ones."""
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.normal_(std=fan_in**-0.5, generator=generator)
        parameter.data = parameter.data.half().float()
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.endswith("position_ids")}


def expect(key: str, config: dict, tensors: Tensors) -> None:
    """Names of text encoders without "text_model.", which some versions of transformers write."""
    named = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    sums = {name: hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()[:16] for name, tensor in named.items()}
    expected[key] = {"config": config, "tensors": {name: [list(named[name].shape), sums[name]] for name in sorted(named)}}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def half(tensors: Tensors) -> Tensors:
    return {name: tensor.half().contiguous() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def same(found: Tensors, wanted: Tensors, what: str) -> None:
    assert found.keys() == wanted.keys(), (what, sorted(found.keys() ^ wanted.keys())[:10])
    for name in wanted:
        assert torch.equal(found[name].float(), wanted[name]), (what, name)


# The U-Net, block by block of the release's model.

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_names(config, names: list[str]) -> dict[str, str]:
    """From diffusers' names to the release's, by building the release's list of blocks in its order."""
    moves: dict[str, str] = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "time_embedding.cond_proj.": "time_embed.cond_proj.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
    }
    levels, layers = len(config.block_out_channels), config.layers_per_block
    block = 1
    for level in range(levels):
        for layer in range(layers):
            moves[f"down_blocks.{level}.resnets.{layer}."] = f"input_blocks.{block}.0."
            moves[f"down_blocks.{level}.attentions.{layer}."] = f"input_blocks.{block}.1."
            block += 1
        if level + 1 < levels:
            moves[f"down_blocks.{level}.downsamplers.0.conv."] = f"input_blocks.{block}.0.op."
            block += 1
    block = 0
    for level in range(levels):
        for layer in range(layers + 1):
            modules = [f"up_blocks.{level}.resnets.{layer}."]
            if "CrossAttn" in config.up_block_types[level]:
                modules.append(f"up_blocks.{level}.attentions.{layer}.")
            if layer == layers and level + 1 < levels:
                modules.append(f"up_blocks.{level}.upsamplers.0.")
            for i, module in enumerate(modules):
                moves[module] = f"output_blocks.{block}.{i}."
            block += 1
    renamed = {}
    for name in names:
        prefix = next(prefix for prefix in moves if name.startswith(prefix))
        rest = name[len(prefix) :]
        if "resnets." in prefix:
            part, kind = rest.rsplit(".", 1)
            rest = f"{RESNET[part]}.{kind}"
        renamed[name] = moves[prefix] + rest
    return renamed


def unet_original(config, w: Tensors) -> Tensors:
    return {original: w[name] for name, original in unet_names(config, list(w)).items()}


# The autoencoder.


def vae_original(w: Tensors, levels: int) -> Tensors:
    parts = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    o: Tensors = {}
    for name, tensor in w.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for i in range(levels):
            new = new.replace(f"encoder.down_blocks.{i}.resnets", f"encoder.down.{i}.block")
            new = new.replace(f"encoder.down_blocks.{i}.downsamplers.0", f"encoder.down.{i}.downsample")
            new = new.replace(f"decoder.up_blocks.{i}.resnets", f"decoder.up.{levels - 1 - i}.block")
            new = new.replace(f"decoder.up_blocks.{i}.upsamplers.0", f"decoder.up.{levels - 1 - i}.upsample")
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0." in new:
            half_, rest = new.split("mid_block.attentions.0.")
            part, kind = rest.rsplit(".", 1)
            new = f"{half_}mid.attn_1.{parts[part]}.{kind}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        o[new] = tensor
    return o


# Text encoders.


def clip_names(w: Tensors) -> Tensors:
    return {name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": t for name, t in w.items()}


def open_clip_original(w: Tensors) -> Tensors:
    w = {name.removeprefix("text_model."): tensor for name, tensor in w.items()}
    o: Tensors = {
        "positional_embedding": w["embeddings.position_embedding.weight"],
        "token_embedding.weight": w["embeddings.token_embedding.weight"],
        "logit_scale": torch.tensor(4.6),
    }
    layers = 1 + max(int(name.split(".")[2]) for name in w if name.startswith("encoder.layers."))
    for i in range(layers):
        a, b = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            o[f"{b}.attn.in_proj_{kind}"] = torch.cat([w[f"{a}.self_attn.{p}_proj.{kind}"] for p in "qkv"])
            for name, original in {
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "self_attn.out_proj": "attn.out_proj",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }.items():
                o[f"{b}.{original}.{kind}"] = w[f"{a}.{name}.{kind}"]
    for kind in ("weight", "bias"):
        o[f"ln_final.{kind}"] = w[f"final_layer_norm.{kind}"]
    if "text_projection.weight" in w:
        o["text_projection"] = w["text_projection.weight"].T.contiguous()
    return o


COMMON = dict(norm_num_groups=2, layers_per_block=1, sample_size=8)
X, D = "CrossAttn", ""


def levels(*kinds: str) -> dict:
    return dict(
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds], up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)]
    )


ADDED = dict(addition_embed_type="text_time", addition_time_embed_dim=2)
UNETS = {
    "sd1": dict(
        COMMON,
        **levels(X, D),
        block_out_channels=(4, 8),
        layers_per_block=2,
        cross_attention_dim=6,
        attention_head_dim=2,
    ),
    "sd2": dict(
        COMMON,
        **levels(X, D),
        block_out_channels=(4, 8),
        cross_attention_dim=10,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        in_channels=9,
    ),
    "sdxl": dict(
        COMMON,
        **levels(D, X, X),
        **ADDED,
        block_out_channels=(4, 4, 8),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=14,
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        projection_class_embeddings_input_dim=8 + 6 * 2,
    ),
    "sdxl-refiner": dict(
        COMMON,
        **levels(D, X, D),
        **ADDED,
        block_out_channels=(4, 4, 8),
        transformer_layers_per_block=2,
        cross_attention_dim=8,
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        projection_class_embeddings_input_dim=8 + 5 * 2,
    ),
    "ssd-1b": dict(
        COMMON,
        **levels(D, X, X),
        **ADDED,
        block_out_channels=(4, 4, 8),
        mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=(1, 1, 2),
        reverse_transformer_layers_per_block=[[2, 3], [2, 1], 1],
        cross_attention_dim=14,
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        projection_class_embeddings_input_dim=8 + 6 * 2,
        time_cond_proj_dim=6,
    ),
}
CLIP = dict(vocab_size=16, hidden_size=6, intermediate_size=10, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=7)
BIG = dict(CLIP, hidden_size=8, num_hidden_layers=3, num_attention_heads=4, hidden_act="gelu", projection_dim=5)

unets: dict[str, Tensors] = {}
for key, config in UNETS.items():
    model = UNet2DConditionModel(**config)
    weights = randomize(model)
    unets[key] = unet_original(model.config, weights)
    back = convert_ldm_unet_checkpoint(prefixed("model.diffusion_model.", unets[key]), dict(model.config))
    if key == "ssd-1b":  # the converter does not know that embedding under this name
        back["time_embedding.cond_proj.weight"] = weights["time_embedding.cond_proj.weight"]
    same(back, weights, key)
    expect(key, json.loads(json.dumps(config)), weights)

VAE = dict(
    down_block_types=["DownEncoderBlock2D"] * 3,
    up_block_types=["UpDecoderBlock2D"] * 3,
    block_out_channels=(2, 4, 4),
    layers_per_block=1,
    norm_num_groups=2,
    latent_channels=4,
)
model = AutoencoderKL(**VAE)
weights = randomize(model)
vae = vae_original(weights, 3)
same(convert_ldm_vae_checkpoint(prefixed("first_stage_model.", vae), dict(model.config)), weights, "vae")
expect("vae", json.loads(json.dumps(VAE)), weights)

clip_weights = clip_names(randomize(CLIPTextModel(CLIPTextConfig(**CLIP))))
expect("clip", CLIP, clip_weights)
back = convert_ldm_clip_checkpoint(prefixed("cond_stage_model.transformer.", clip_weights))
same(clip_names(back), clip_weights, "clip")


def back_from_open_clip(encoder, original: Tensors, prefix: str) -> Tensors:
    return clip_names(convert_open_clip_checkpoint(encoder, prefixed(prefix, original), prefix=prefix))


big = CLIPTextModelWithProjection(CLIPTextConfig(**BIG))
big_weights = clip_names(randomize(big))
big_clip = open_clip_original(big_weights)
expect("open-clip", BIG, big_weights)
back = back_from_open_clip(big, big_clip, "conditioner.embedders.1.model.")
same({name: t for name, t in back.items()}, big_weights, "open-clip")

# Stable Diffusion 2 uses all layers but the last: diffusers' model does not have it.
short = {k: t for k, t in big_weights.items() if ".layers.2." not in k and k != "text_projection.weight"}
expect("open-clip-penultimate", dict(BIG, num_hidden_layers=2), short)

UNET, FIRST = "model.diffusion_model.", "first_stage_model."

# Stable Diffusion 1 as Lightning saved it, with what is beside the weights in the published files.
lightning = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")


class ModelCheckpoint:
    pass


ModelCheckpoint.__module__ = lightning.__name__
lightning.ModelCheckpoint = ModelCheckpoint
for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[lightning.__name__] = lightning
sd1 = {
    **prefixed(UNET, half(unets["sd1"])),
    **prefixed(FIRST, half(vae)),
    **prefixed("cond_stage_model.transformer.", half(clip_weights)),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(7).half()[None],
    "betas": torch.linspace(0, 1, 10),
    "alphas_cumprod": torch.linspace(1, 0, 10),
    "sqrt_alphas_cumprod": torch.linspace(1, 0, 10),
    "model_ema.decay": torch.tensor(0.9999),
    "model_ema.num_updates": torch.tensor(840000, dtype=torch.int32),
    **{"model_ema.diffusion_model" + name.replace(".", ""): t.half() for name, t in list(unets["sd1"].items())[:3]},
}
state = {
    "epoch": 3,
    "global_step": 875000,
    "pytorch-lightning_version": "1.4.2",
    "state_dict": sd1,
    "callbacks": {ModelCheckpoint: {"best_model_score": np.float64(0.5), "best_model_path": "x"}},
    "optimizer_states": [],
}
torch.save(state, HERE / "sd1-tiny.ckpt", pickle_module=pickle, pickle_protocol=2)

# Stable Diffusion 2 for inpainting.
sd2 = {
    **prefixed(UNET, unets["sd2"]),
    **prefixed("cond_stage_model.model.", big_clip),
    "posterior_mean_coef1": torch.linspace(0, 1, 10),
}
save_file(half(sd2), HERE / "sd2-inpainting-tiny.safetensors")

# XL, with its header.
sdxl = {
    **prefixed(UNET, unets["sdxl"]),
    **prefixed("conditioner.embedders.0.transformer.", clip_weights),
    **prefixed("conditioner.embedders.1.model.", big_clip),
    **prefixed(FIRST, vae),
}
save_file(half(sdxl), HERE / "sdxl-tiny.safetensors", metadata={"modelspec.architecture": "stable-diffusion-xl-v1-base", "modelspec.prediction_type": "epsilon"})
refiner = {**prefixed(UNET, unets["sdxl-refiner"]), **prefixed("conditioner.embedders.0.model.", big_clip)}
save_file(half(refiner), HERE / "sdxl-refiner-tiny.safetensors")
save_file(half(unets["ssd-1b"]), HERE / "ssd-1b-unet-tiny.safetensors")

(HERE / "expected.json").write_text(json.dumps(expected, separators=(",", ":")).replace('},"', '},\n"') + "\n")

# The published sizes, of which there are only names and shapes.

XL = dict(
    **levels(D, X, X),
    block_out_channels=(320, 640, 1280),
    cross_attention_dim=2048,
    attention_head_dim=(5, 10, 20),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
SD = dict(**levels(X, X, X, D), block_out_channels=(320, 640, 1280, 1280))
FULL = {
    "sd1": dict(SD, cross_attention_dim=768, attention_head_dim=8),
    "sd1-inpainting": dict(SD, cross_attention_dim=768, attention_head_dim=8, in_channels=9),
    "sd2": dict(SD, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True),
    "sdxl": dict(XL, transformer_layers_per_block=(1, 2, 10)),
    "sdxl-refiner": dict(
        XL,
        **levels(D, X, X, D),
        block_out_channels=(384, 768, 1536, 1536),
        transformer_layers_per_block=4,
        cross_attention_dim=1280,
        attention_head_dim=(6, 12, 24, 24),
        projection_class_embeddings_input_dim=2560,
    ),
    "ssd-1b": dict(
        XL,
        mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=(1, 2, 4),
        reverse_transformer_layers_per_block=[[4, 4, 10], [2, 1, 1], 1],
    ),
    "vega": dict(
        XL,
        mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=(1, 1, 2),  # published with the way up written out, which is the mirror
    ),
}


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


full = {}
for key, config in FULL.items():
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    shapes = {name: ",".join(map(str, tensor.shape)) for name, tensor in model.state_dict().items()}
    names = unet_names(model.config, list(shapes))
    full[key] = {
        "config": config,
        "tensors": len(shapes),
        "parameters": sum(p.numel() for p in model.parameters()),
        "original": digest([f"{names[name]} {shape}" for name, shape in shapes.items()]),
        "diffusers": digest([f"{name} {shape}" for name, shape in shapes.items()]),
    }
(HERE / "full-size.json").write_text(json.dumps(full, separators=(",", ":")).replace('},"', '},\n"') + "\n")
