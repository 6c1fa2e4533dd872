"""Writes LoRA files for Stable Diffusion in the forms of the common trainers, and the weights that they are merged into.

    python make.py

The models are the tiny ones of ../sd-original. Every form is merged by hand in float64; where diffusers loads it, its fused
weights must agree, and are what is kept. Needs torch, transformers, diffusers and peft.
"""

import json
import sys
import types
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_open_clip_checkpoint
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = Path(__file__).parent
ORIGINALS = HERE.parent / "sd-original"
generator = torch.Generator().manual_seed(71)
configs = {key: value["config"] for key, value in json.loads((ORIGINALS / "expected.json").read_text()).items()}
UNET = "model.diffusion_model."


class Model:
    """The parts of a pipeline, and where they come from in the release's names."""

    def __init__(self, key, file):
        self.key, self.xl = key, key == "sdxl"
        file = {name: w.float() if w.is_floating_point() else w for name, w in file.items()}
        self.unet = UNet2DConditionModel(**configs[key])
        self.unet.load_state_dict(convert_ldm_unet_checkpoint(dict(file), dict(self.unet.config)))
        clip = convert_ldm_clip_checkpoint(dict(file))
        self.encoders = [self.filled(CLIPTextModel(CLIPTextConfig(**configs["clip"])), clip)]
        if self.xl:
            second = CLIPTextModelWithProjection(CLIPTextConfig(**configs["open-clip"]))
            prefix = "conditioner.embedders.1.model."
            self.encoders.append(self.filled(second, convert_open_clip_checkpoint(second, dict(file), prefix=prefix)))
        self.bases = self.state()
        # Original modules by value: names of the file whose tensors are those of diffusers'.
        self.original = {}
        for name, w in self.bases["unet"].items():
            twins = [o for o, v in file.items() if o.startswith(UNET) and v.shape == w.shape and torch.equal(v, w)]
            assert len(twins) == 1, (name, twins)
            self.original[name.removesuffix(".weight")] = twins[0].removeprefix(UNET).removesuffix(".weight")

    @staticmethod
    def filled(encoder, state):
        own = encoder.state_dict()
        by_short = {name.removeprefix("text_model."): w for name, w in state.items()}
        encoder.load_state_dict({name: by_short.get(name.removeprefix("text_model."), w) for name, w in own.items()})
        return encoder

    def state(self):
        parts = {"unet": self.unet, **dict(zip(["text_encoder", "text_encoder_2"], self.encoders))}
        return {
            key: {name.removeprefix("text_model."): w.clone() for name, w in part.state_dict().items() if not name.endswith("position_ids")}
            for key, part in parts.items()
        }

    def fused(self, path, weight):
        """The tensors that change, as diffusers merges them."""
        more = dict(text_encoder_2=self.encoders[1], tokenizer_2=None) if self.xl else dict(safety_checker=None, feature_extractor=None)
        kind = StableDiffusionXLPipeline if self.xl else StableDiffusionPipeline
        pipe = kind(vae=None, text_encoder=self.encoders[0], tokenizer=None, unet=self.unet, scheduler=EulerDiscreteScheduler(), **more)
        pipe.load_lora_weights(str(path.parent), weight_name=path.name)
        pipe.fuse_lora(components=list(self.bases), lora_scale=weight)
        pipe.unload_lora_weights()
        changed = {}
        for component, tensors in self.state().items():
            for name, w in tensors.items():
                if not torch.equal(w, self.bases[component][name]):
                    changed[f"{component}.{name}"] = w.contiguous()
        self.unet.load_state_dict(self.bases["unet"])
        for encoder, component in zip(self.encoders, ["text_encoder", "text_encoder_2"]):
            self.filled(encoder, self.bases[component])
        return changed


class Form:
    """A LoRA file as it grows, with the weights merged by hand."""

    def __init__(self, name, model, weight, down="lora_down.weight", up="lora_up.weight", dtype=torch.float32):
        self.name, self.model, self.weight, self.down, self.up, self.dtype = name, model, weight, down, up, dtype
        self.file, self.merged = {}, {}

    def add(self, path, component, module, rank, alpha=None, tensor_alpha=True, joint="."):
        w = self.model.bases[component][f"{module}.weight"]
        down = torch.randn(rank, *w.shape[1:], generator=generator).to(self.dtype)
        up = torch.randn(w.shape[0], rank, *([1] * (w.ndim - 2)), generator=generator).mul(0.2).to(self.dtype)
        self.file[f"{path}{joint}{self.down}"], self.file[f"{path}{joint}{self.up}"] = down, up
        if alpha is not None and tensor_alpha:
            self.file[f"{path}.alpha"] = torch.tensor(float(alpha))
        delta = torch.einsum("or,ri->oi", up.flatten(1).double(), down.flatten(1).double()).reshape(w.shape)
        self.merged[f"{component}.{module}.weight"] = w.double() + self.weight * (alpha or rank) / rank * delta

    def save(self, by_diffusers, metadata=None):
        path = HERE / f"{self.name}.safetensors"
        save_file(self.file, path, metadata=metadata or {"format": "pt"})
        merged = {name: tensor.float() for name, tensor in self.merged.items()}
        if by_diffusers:
            fused = self.model.fused(path, self.weight)
            assert fused.keys() == merged.keys(), (self.name, sorted(fused.keys() ^ merged.keys()))
            for name, tensor in fused.items():
                torch.testing.assert_close(tensor, merged[name], atol=2e-6, rtol=2e-6, msg=f"{self.name} {name}")
            merged = fused
        save_file(merged, HERE / f"{self.name}.merged.safetensors", metadata={"weight": repr(self.weight)})
        print(self.name, len(merged))


# The file names a class of Lightning's, which need not be there.
for name in ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[name].ModelCheckpoint = type("ModelCheckpoint", (), {})
sd1 = Model("sd1", torch.load(ORIGINALS / "sd1-tiny.ckpt", weights_only=False)["state_dict"])
sdxl = Model("sdxl", load_file(ORIGINALS / "sdxl-tiny.safetensors"))


def modules(model, component, *parts, matrices=False):
    """Modules of several axes that have one of the parts in their names."""
    return [
        name.removesuffix(".weight")
        for name, w in model.bases[component].items()
        if name.endswith(".weight") and w.ndim > 1 and (not matrices or w.ndim == 2) and any(part in name for part in parts)
    ]


flat = lambda name: name.replace(".", "_")
ATTENTION = (".attn1.", ".attn2.", ".ff.", "proj_in", "proj_out")
TEXT = ("self_attn.", "mlp.")

# kohya's scripts for XL: the release's names.
form = Form("kohya-sdxl", sdxl, 0.8)
for module in modules(sdxl, "unet", *ATTENTION):
    form.add("lora_unet_" + flat(sdxl.original[module]), "unet", module, 2, 1)
for number, component in (("1", "text_encoder"), ("2", "text_encoder_2")):
    for module in modules(sdxl, component, *TEXT):
        form.add(f"lora_te{number}_text_model_" + flat(module), component, module, 2, 1)
form.save(by_diffusers=True)

# The same for Stable Diffusion 1, with diffusers' names.
form = Form("kohya-sd1", sd1, -0.6, dtype=torch.float16)
for module in modules(sd1, "unet", *ATTENTION):
    form.add("lora_unet_" + flat(module), "unet", module, 2, 4)
for module in modules(sd1, "text_encoder", *TEXT):
    form.add("lora_te_text_model_" + flat(module), "text_encoder", module, 2, 4)
form.save(by_diffusers=True)

# diffusers and PEFT, with alphas in the header only; convolutions too.
form = Form("peft", sdxl, 1.2, down="lora_A.weight", up="lora_B.weight")
targets = modules(sdxl, "unet", ".attn2.to_", "conv1", "downsamplers", "conv_shortcut", "linear_1")
alphas = {module: 3 for module in targets[::3]}
for module in targets:
    form.add(f"unet.{module}", "unet", module, 2, alphas.get(module, 4), tensor_alpha=False)
texts = modules(sdxl, "text_encoder_2", "q_proj", "fc1")
for module in texts:
    form.add(f"text_encoder_2.text_model.{module}", "text_encoder_2", module, 2, 6, tensor_alpha=False)
header = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": alphas, "unet.target_modules": targets}
header |= {"text_encoder_2.r": 2, "text_encoder_2.lora_alpha": 6, "text_encoder_2.target_modules": ["q_proj", "fc1"]}
form.save(by_diffusers=True, metadata={"lora_adapter_metadata": json.dumps(header)})

# diffusers before it had PEFT.
form = Form("processors", sd1, 1.0, down="down.weight", up="up.weight")
for module in modules(sd1, "unet", ".attn1.to_", ".attn2.to_"):
    block, part = module.removesuffix(".0").rsplit(".", 1)
    form.add(f"unet.{block}.processor.{part}_lora", "unet", module, 2)
for module in modules(sd1, "text_encoder", "self_attn."):
    form.add(f"text_encoder.text_model.{module}.lora_linear_layer", "text_encoder", module, 2)
form.save(by_diffusers=True)

# What diffusers merges otherwise or not at all: alphas that differ, are 0 or missing, layers of all kinds.
form = Form("locon-sdxl", sdxl, 0.5)
rest = [m for m in modules(sdxl, "unet", "") if not any(part in m for part in (".ff.", ".attn1."))]
for i, module in enumerate(rest[::2]):
    form.add("lora_unet_" + flat(sdxl.original[module]), "unet", module, 1 + i % 3, [1, 0.5, None, 0, 8][i % 5])
for i, module in enumerate(modules(sdxl, "text_encoder_2", "mlp.", "text_projection")):
    form.add("lora_te2_" + ("" if "projection" in module else "text_model_") + flat(module), "text_encoder_2", module, 2, 1 + i)
form.save(by_diffusers=False)

# Dotted, as ComfyUI has it.
form = Form("dotted-sd1", sd1, 1.0)
for i, module in enumerate(modules(sd1, "unet", "conv2", "upsamplers", "time_emb_proj", "conv_in")):
    form.add(f"diffusion_model.{sd1.original[module]}", "unet", module, 2, 1 + i % 2)
for module in modules(sd1, "text_encoder", "fc2"):
    form.add(f"text_encoders.clip_l.transformer.text_model.{module}", "text_encoder", module, 2, 3)
form.save(by_diffusers=False)
