"""Writes whole pipelines of Stable Diffusion with random weights, and what diffusers draws with them.

    OMP_NUM_THREADS=1 python make.py

Folders in diffusers' layout: "sd1" (PNDM), "sd2" (DDIM, v-prediction, prompts padded with "!"), "sdxl" (Euler), "refiner" (Euler,
the second text encoder alone), "lcm" (takes the guidance scale, few noisy steps), "inpaint" (nine channels in).
golden.safetensors of each: images of requests.json, uint8 [images, height, width, 3]. input.safetensors: an image and a mask.
Needs torch, diffusers, transformers and tokenizers.
"""

import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = Path(__file__).parent
SEED = 11
TEXTS = [
    "a fox in the snow",
    "a red fox, a blue bird and a green frog",
    "portrait of an old sailor with a pipe, oil painting",
    "two lemons on a blue table in the morning",
]
PLAIN = {
    "plain": {"prompt": ["a fox in the snow"]},
    "two_prompts": {"prompt": ["a red fox", "a green frog!"], "negative_prompt": ["snow", "snow"], "height": 48, "width": 80},
    "unguided": {"prompt": ["a sailor"], "guidance_scale": 1.0, "height": 56, "width": 40},
    "rescaled": {"prompt": ["a blue bird"], "negative_prompt": ["frog"], "guidance_rescale": 0.7},
    "each_twice": {"prompt": ["a fox"], "num_images_per_prompt": 2},
}
XL = {
    "second_prompts": {
        "prompt": ["a sailor"],
        "prompt_2": ["an oil painting of a sailor"],
        "negative_prompt": [""],
        "negative_prompt_2": ["a frog"],
    },
    "sizes": {
        "prompt": ["two lemons"],
        "original_size": [96, 128],
        "crops_coords_top_left": [4, 12],
        "target_size": [72, 56],
        "negative_original_size": [16, 24],
        "negative_crops_coords_top_left": [1, 2],
        "negative_target_size": [40, 48],
    },
    "skipping": {"prompt": ["a fox"], "negative_prompt": ["snow"], "clip_skip": 1},
}
IMAGE = {
    "image": {"prompt": ["a red fox"], "strength": 0.6},
    "image_with_negative": {"prompt": ["a frog", "a fox"], "negative_prompt": ["snow", ""], "strength": 0.99},
}
SCORES = {"scores": {"prompt": ["a fox"], "strength": 0.5, "aesthetic_score": 7.0, "negative_aesthetic_score": 1.5}}
MASKED = {
    "masked": {"prompt": ["a red fox"], "strength": 1.0},
    "masked_in_part": {"prompt": ["a frog"], "negative_prompt": ["snow"], "strength": 0.7},
}
SIZE = {"height": 64, "width": 64}


def randomise(model: torch.nn.Module, seed: int, gain: float = 1.0) -> torch.nn.Module:
    """Normal weights of a variance that keeps activations in range; zero-initialised parts would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
        parameter.data.normal_(std=gain * fan_in**-0.5, generator=generator)
        if "norm" in name and name.endswith("weight") and parameter.ndim == 1:
            parameter.data.add_(1)
    return model.half().float().eval()


def clip_tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    """Byte pairs as CLIP has them, learned from the texts, as vocab.json and merges.txt."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # CLIP's table begins with "!", which Stable Diffusion 2 and XL pad with.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=560, initial_alphabet=alphabet, end_of_word_suffix="</w>", special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    for letter in alphabet:
        vocabulary.setdefault(letter + "</w>", len(vocabulary))
    for special in ["<|startoftext|>", "<|endoftext|>"]:
        vocabulary[special] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, act: str, projected: bool, seed: int):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=width + 2 if projected else width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return randomise((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed)


def autoencoder(scaling: float) -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 8, 8],
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
        scaling_factor=scaling,
    )
    return randomise(vae, 43, 0.7)


X, D = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def unet(kinds, **config) -> UNet2DConditionModel:
    blocks = {"down_block_types": [k[0] for k in kinds], "up_block_types": [k[1] for k in reversed(kinds)]}
    return randomise(UNet2DConditionModel(sample_size=8, norm_num_groups=2, layers_per_block=1, **blocks, **config), 42, 0.9)


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAFETY = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def images_of(pipeline, request: dict, extra: dict) -> torch.Tensor:
    count = len(request["prompt"]) * request.get("num_images_per_prompt", 1)
    generator = [torch.Generator().manual_seed(SEED + i) for i in range(count)]
    # XL stacks the sizes of several prompts in another order than their texts: one prompt is as meant.
    drawn = pipeline(**{"num_inference_steps": 5, **extra, **request}, generator=generator, output_type="pt").images
    return (drawn.permute(0, 2, 3, 1) * 255).round().byte().contiguous()


def make(name: str, pipeline, tokenizers: dict[str, str], requests: dict, img2img=None, inpaint=None) -> None:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ["text_encoder", "text_encoder_2", "unet", "vae"]:
        model = getattr(pipeline, part, None)
        if model is not None:
            model.half()
    pipeline.save_pretrained(folder)
    for component, pad in tokenizers.items():
        shutil.rmtree(folder / component)  # as its maker wrote it, without a tokenizer.json
        clip_tokenizer(folder / component, pad)
    golden, asked = {}, {}
    kinds = [(None, requests, SIZE)]
    image = {"image": INPUT} | ({} if inpaint else {})
    if img2img:
        kinds.append((img2img, IMAGE | (SCORES if name == "refiner" else {}), image))
    if inpaint:
        kinds.append((inpaint, MASKED, {**image, "mask_image": MASK, **SIZE}))
    for other, group, extra in kinds:
        drawing = (other or type(pipeline)).from_pretrained(folder, torch_dtype=torch.float32)
        drawing.set_progress_bar_config(disable=True)
        for key, request in group.items():
            golden[key] = images_of(drawing, request, extra)
            asked[key] = request
    save_file(golden, folder / "golden.safetensors")
    REQUESTS[name] = asked


REQUESTS: dict = {}
rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
picture = torch.stack([4 * rows, 4 * columns, (rows * columns) // 16], dim=2).byte()
hole = (((rows - 30) ** 2 + (columns - 36) ** 2) < 400).byte() * 255
INPUT, MASK = Image.fromarray(picture.numpy()), Image.fromarray(hole.numpy())
save_file({"image": picture, "mask": hole.unsqueeze(2).contiguous()}, HERE / "input.safetensors")

END, BANG = "<|endoftext|>", "!"
own = clip_tokenizer(HERE / ".end", END)
padded = clip_tokenizer(HERE / ".bang", BANG)
first = lambda: text_encoder(own, 8, 3, "quick_gelu", False, 40)  # noqa: E731
second = lambda: text_encoder(padded, 12, 3, "gelu", True, 41)  # noqa: E731

make(
    "sd1",
    diffusers.StableDiffusionPipeline(
        vae=autoencoder(0.18215),
        text_encoder=first(),
        tokenizer=own,
        unet=unet([X, X, D], block_out_channels=[4, 8, 8], attention_head_dim=2, cross_attention_dim=8),
        scheduler=diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        **SAFETY,
    ),
    {"tokenizer": END},
    PLAIN,
    diffusers.StableDiffusionImg2ImgPipeline,
    diffusers.StableDiffusionInpaintPipeline,
)
make(
    "sd2",
    diffusers.StableDiffusionPipeline(
        vae=autoencoder(0.18215),
        text_encoder=text_encoder(padded, 10, 2, "gelu", False, 40),
        tokenizer=padded,
        unet=unet(
            [X, D], block_out_channels=[4, 8], attention_head_dim=[1, 2], cross_attention_dim=10, use_linear_projection=True
        ),
        scheduler=diffusers.DDIMScheduler(
            **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"
        ),
        **SAFETY,
    ),
    {"tokenizer": BANG},
    PLAIN,
    diffusers.StableDiffusionImg2ImgPipeline,
)
XL_UNET = dict(
    block_out_channels=[4, 8, 12],
    attention_head_dim=[1, 2, 3],
    transformer_layers_per_block=[1, 1, 2],
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=4,
)
EULER = dict(**BETAS, steps_offset=1, timestep_spacing="leading")
make(
    "sdxl",
    diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(0.13025),
        text_encoder=first(),
        text_encoder_2=second(),
        tokenizer=own,
        tokenizer_2=padded,
        unet=unet([D, X, X], cross_attention_dim=20, projection_class_embeddings_input_dim=14 + 6 * 4, **XL_UNET),
        scheduler=diffusers.EulerDiscreteScheduler(**EULER),
        add_watermarker=False,
    ),
    {"tokenizer": END, "tokenizer_2": BANG},
    PLAIN | XL,
    diffusers.StableDiffusionXLImg2ImgPipeline,
    diffusers.StableDiffusionXLInpaintPipeline,
)
make(
    "refiner",
    diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=autoencoder(0.13025),
        text_encoder=None,
        text_encoder_2=second(),
        tokenizer=None,
        tokenizer_2=padded,
        unet=unet([D, X, X], cross_attention_dim=12, projection_class_embeddings_input_dim=14 + 5 * 4, **XL_UNET),
        scheduler=diffusers.EulerDiscreteScheduler(**EULER),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    ),
    {"tokenizer_2": BANG},
    {},
    diffusers.StableDiffusionXLImg2ImgPipeline,
)
make(
    "lcm",
    diffusers.LatentConsistencyModelPipeline(
        vae=autoencoder(0.18215),
        text_encoder=first(),
        tokenizer=own,
        unet=unet([X, D], block_out_channels=[4, 8], attention_head_dim=2, cross_attention_dim=8, time_cond_proj_dim=6),
        scheduler=diffusers.LCMScheduler(),
        **SAFETY,
    ),
    {"tokenizer": END},
    {
        "plain": {"prompt": ["a fox in the snow"], "num_inference_steps": 4},
        "guided": {"prompt": ["a red fox", "a frog"], "guidance_scale": 3.0, "num_inference_steps": 3},
    },
)
make(
    "inpaint",
    diffusers.StableDiffusionInpaintPipeline(
        vae=autoencoder(0.18215),
        text_encoder=first(),
        tokenizer=own,
        unet=unet([X, D], in_channels=9, block_out_channels=[4, 8], attention_head_dim=2, cross_attention_dim=8),
        scheduler=diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        **SAFETY,
    ),
    {"tokenizer": END},
    {},
    None,
    diffusers.StableDiffusionInpaintPipeline,
)
for folder in [".end", ".bang"]:
    shutil.rmtree(HERE / folder)
defaults = {"num_inference_steps": 5}
(HERE / "requests.json").write_text(json.dumps({"seed": SEED, "defaults": defaults, "requests": REQUESTS}, indent=2) + "\n")
