"""Writes LoRA files in the forms of the common trainers, and the weights that they are merged into.

    python make.py

The transformer is ../flux/tiny-dev. Every form is merged by hand in float64; where diffusers loads it, its fused weights
must agree, and are what is kept. Needs torch, transformers, diffusers and peft.
"""

import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).parent
BASE = HERE.parent / "flux" / "tiny-dev" / "transformer"
generator = torch.Generator().manual_seed(57)

CLIP = CLIPTextConfig(
    vocab_size=20,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=10,
)
clip = CLIPTextModel(CLIP)
for parameter in clip.parameters():
    parameter.data.normal_(std=0.3, generator=generator)
text_encoder = {"text_model." + name.removeprefix("text_model."): w.clone() for name, w in clip.state_dict().items()}
text_encoder.pop("text_model.embeddings.position_ids", None)
save_file(text_encoder, HERE / "text_encoder.safetensors")
transformer = load_file(BASE / "diffusion_pytorch_model.safetensors")
bases = {"transformer": transformer, "text_encoder": text_encoder}

DOUBLE = {
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.net.0.proj"],
    "img_mlp.2": ["ff.net.2"],
    "txt_mlp.0": ["ff_context.net.0.proj"],
    "txt_mlp.2": ["ff_context.net.2"],
    "img_mod.lin": ["norm1.linear"],
    "txt_mod.lin": ["norm1_context.linear"],
}
SINGLE = {"linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], "linear2": ["proj_out"], "modulation.lin": ["norm.linear"]}
AROUND = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
original = {
    **{f"double_blocks.{i}.{o}": [f"transformer_blocks.{i}.{m}" for m in ms] for i in range(2) for o, ms in DOUBLE.items()},
    **{f"single_blocks.{i}.{o}": [f"single_transformer_blocks.{i}.{m}" for m in ms] for i in range(2) for o, ms in SINGLE.items()},
    **{o: [m] for o, m in AROUND.items()},
}
linears = [name.removesuffix(".weight") for name, w in transformer.items() if w.ndim == 2]
clip_linears = [name.removesuffix(".weight") for name, w in text_encoder.items() if "proj.weight" in name or ".fc" in name and w.ndim == 2]
FINAL = "final_layer.adaLN_modulation.1"


class Form:
    """A LoRA file as it grows, with the weights merged by hand."""

    def __init__(self, name, weight, down="lora_down.weight", up="lora_up.weight", dtype=torch.float32):
        self.name, self.weight, self.down, self.up, self.dtype = name, weight, down, up, dtype
        self.file, self.merged = {}, {}

    def add(self, path, component, modules, rank, alpha=None, tensor_alpha=True, swapped=False, bias=False):
        """Rows of up are those of the modules, in their order; `alpha` None means none is written."""
        base = bases[component]
        rows = [base[f"{m}.weight"].shape[0] for m in modules]
        down = torch.randn(rank, base[f"{modules[0]}.weight"].shape[1], generator=generator).to(self.dtype)
        up = torch.randn(sum(rows), rank, generator=generator).mul(0.2).to(self.dtype)
        self.file[f"{path}.{self.down}"] = down
        self.file[f"{path}.{self.up}"] = up
        if alpha is not None and tensor_alpha:
            self.file[f"{path}.alpha"] = torch.tensor(float(alpha))
        scale = self.weight * ((alpha or rank) / rank)
        parts = [up.double()]
        if bias:
            self.file[f"{path}.lora_B.bias"] = torch.randn(sum(rows), generator=generator)
            parts.append(self.file[f"{path}.lora_B.bias"].double())
        if swapped:
            parts = [torch.cat([part[len(part) // 2 :], part[: len(part) // 2]]) for part in parts]
        start = 0
        for module, n in zip(modules, rows):
            some = parts[0][start : start + n]
            self.merged[f"{component}.{module}.weight"] = base[f"{module}.weight"].double() + scale * some @ down.double()
            if bias:
                self.merged[f"{component}.{module}.bias"] = base[f"{module}.bias"].double() + scale * parts[1][start : start + n]
            start += n

    def save(self, by_diffusers, metadata=None):
        path = HERE / f"{self.name}.safetensors"
        save_file(self.file, path, metadata={"format": "pt", **(metadata or {})})
        merged = {name: tensor.float() for name, tensor in self.merged.items()}
        if by_diffusers:
            fused = fused_by_diffusers(path, self.weight)
            assert fused.keys() == merged.keys(), (self.name, fused.keys() ^ merged.keys())
            for name, tensor in fused.items():
                torch.testing.assert_close(tensor, merged[name], atol=2e-6, rtol=2e-6, msg=f"{self.name} {name}")
            merged = fused
        save_file(merged, HERE / f"{self.name}.merged.safetensors", metadata={"weight": repr(self.weight)})


def fused_by_diffusers(path, weight):
    """The tensors that change, as diffusers merges them."""
    encoder = CLIPTextModel(CLIP)
    encoder.load_state_dict(clip.state_dict())
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=encoder,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=FluxTransformer2DModel.from_pretrained(BASE),
    )
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    pipe.fuse_lora(components=["transformer", "text_encoder"], lora_scale=weight)
    pipe.unload_lora_weights()
    fused = {f"transformer.{name}": w for name, w in pipe.transformer.state_dict().items()}
    for name, w in pipe.text_encoder.state_dict().items():
        fused[f"text_encoder.text_model.{name.removeprefix('text_model.')}"] = w
    return {
        name: w.contiguous()
        for name, w in fused.items()
        if not name.endswith("position_ids") and not torch.equal(w, bases[name.split(".")[0]][name.split(".", 1)[1]])
    }


AB = dict(down="lora_A.weight", up="lora_B.weight")

# diffusers and PEFT, with alphas in the header only.
form = Form("peft", 0.8, **AB)
ranks, alphas = {}, {}
for i, module in enumerate(linears):
    rank, alpha = (4, 8) if i % 3 else (2, 3)
    if not i % 3:
        ranks[module], alphas[module] = rank, alpha
    form.add(f"transformer.{module}", "transformer", [module], rank, alpha, tensor_alpha=False)
for module in clip_linears:
    form.add(f"text_encoder.{module}", "text_encoder", [module], 3, 6, tensor_alpha=False)
config = {"r": 4, "lora_alpha": 8, "rank_pattern": ranks, "alpha_pattern": alphas, "target_modules": linears}
clip_config = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]}
metadata = {**{f"transformer.{k}": v for k, v in config.items()}, **{f"text_encoder.{k}": v for k, v in clip_config.items()}}
form.save(by_diffusers=True, metadata={"lora_adapter_metadata": json.dumps(metadata)})

# The same with biases, and over the root of the rank.
form = Form("peft-bias", -0.5, **AB)
for module in linears[::4]:
    form.add(f"transformer.{module}", "transformer", [module], 4, 16 * 4**0.5, tensor_alpha=False, bias=True)
config = {"r": 4, "lora_alpha": 16, "use_rslora": True, "lora_bias": True, "target_modules": linears[::4]}
metadata = {f"transformer.{k}": v for k, v in config.items()}
form.save(by_diffusers=True, metadata={"lora_adapter_metadata": json.dumps(metadata)})

# ai-toolkit: no alphas at all, ranks that differ.
form = Form("ai-toolkit", 1.0, **AB)
for i, module in enumerate(linears[::3]):
    form.add(f"transformer.{module}", "transformer", [module], 1 + i % 5)
form.save(by_diffusers=True)

# Without the prefix, which diffusers passes over without a word; alphas in tensors.
form = Form("unprefixed", 0.7, **AB, dtype=torch.bfloat16)
for module in linears[::2]:
    form.add(module, "transformer", [module], 2, 5)
form.save(by_diffusers=False)

# kohya's scripts: what diffusers loads at any width.
form = Form("kohya", 0.9)
for path, modules in original.items():
    if "blocks" in path and "linear1" not in path:
        form.add("lora_unet_" + path.replace(".", "_"), "transformer", modules, 3, 1.5)
for module in clip_linears:
    form.add("lora_te1_" + module.replace(".", "_"), "text_encoder", [module], 2, 1)
form.save(by_diffusers=True)

# The rest of kohya's: linear1, whose split diffusers knows for FLUX's width only, and what it leaves out.
form = Form("kohya-rest", 1.3, dtype=torch.float16)
for path, modules in original.items():
    if "blocks" not in path or "linear1" in path:
        form.add("lora_unet_" + path.replace(".", "_"), "transformer", modules, 3, 0 if "img_in" in path else 2)
form.add("lora_unet_" + FINAL.replace(".", "_"), "transformer", ["norm_out.linear"], 2, 4, swapped=True)
form.save(by_diffusers=False)

# Dotted, as ComfyUI and some trainers have it, with either ending.
form = Form("dotted", 1.0)
for path, modules in original.items():
    if path.startswith(("double_blocks.1", "single_blocks.0")):
        form.add(f"diffusion_model.{path}", "transformer", modules, 2, 1)
for module in clip_linears[::2]:
    form.add(f"text_encoders.clip_l.transformer.{module}", "text_encoder", [module], 2, 3)
form.save(by_diffusers=False)
form = Form("dotted-ab", 1.0, **AB)
for path, modules in original.items():
    if not path.startswith(("double_blocks.1", "single_blocks.0")):
        form.add(f"diffusion_model.{path}", "transformer", modules, 2)
form.add(f"diffusion_model.{FINAL}", "transformer", ["norm_out.linear"], 2, swapped=True)
form.save(by_diffusers=False)

# diffusers' paths in kohya's writing.
form = Form("mixed", 0.6)
for module in linears:
    if ".attn." in module or "blocks" not in module:
        form.add("lora_transformer_" + module.replace(".", "_"), "transformer", [module], 3, 2)
for module in clip_linears:
    form.add("lora_te1_" + module.replace(".", "_"), "text_encoder", [module], 2, 1)
form.save(by_diffusers=True)

# XLabs.
form = Form("xlabs", 1.0, down="down.weight", up="up.weight")
for i in range(2):
    double, single = f"transformer_blocks.{i}.attn", f"single_transformer_blocks.{i}"
    form.add(f"double_blocks.{i}.processor.qkv_lora1", "transformer", [f"{double}.to_{p}" for p in "qkv"], 2)
    form.add(f"double_blocks.{i}.processor.qkv_lora2", "transformer", [f"{double}.add_{p}_proj" for p in "qkv"], 2)
    form.add(f"double_blocks.{i}.processor.proj_lora1", "transformer", [f"{double}.to_out.0"], 3)
    form.add(f"double_blocks.{i}.processor.proj_lora2", "transformer", [f"{double}.to_add_out"], 3)
    form.add(f"single_blocks.{i}.processor.qkv_lora", "transformer", [f"{single}.attn.to_{p}" for p in "qkv"], 2)
    form.add(f"single_blocks.{i}.processor.proj_lora", "transformer", [f"{single}.proj_out"], 2)
form.save(by_diffusers=True)
