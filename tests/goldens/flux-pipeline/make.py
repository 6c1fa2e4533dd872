"""Writes two whole text-to-image pipelines with random weights, and what diffusers draws with them.

    python make.py

FLUX.1 in small, as folders in diffusers' layout: "dev" with guidance as an input and dynamic shifting, "schnell" with neither.
golden.safetensors of each: images of requests.json, uint8 [images, height, width, 3]. Needs torch, diffusers, transformers,
tokenizers and sentencepiece.
"""

import io
import json
import shutil
from pathlib import Path

import sentencepiece
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

HERE = Path(__file__).parent
TEXTS = [
    "a fox in the snow",
    "a red fox, a blue bird and a green frog",
    "portrait of an old sailor with a pipe, oil painting",
    "two lemons on a blue table in the morning",
]
REQUESTS = {
    "plain": {"prompt": ["a fox in the snow"], "height": 64, "width": 64},
    "two_prompts": {"prompt": ["a red fox", "a green frog on a table"], "height": 48, "width": 80, "num_inference_steps": 3},
    "true_cfg": {
        "prompt": ["a blue bird", "two lemons"],
        "negative_prompt": "snow",
        "true_cfg_scale": 2.5,
        "height": 64,
        "width": 64,
    },
    "second_prompts": {
        "prompt": ["a sailor"],
        "prompt_2": ["an oil painting of a sailor with a pipe"],
        "negative_prompt": [""],
        "negative_prompt_2": ["a frog"],
        "true_cfg_scale": 4.0,
        "guidance_scale": 1.5,
        "max_sequence_length": 24,
        "height": 64,
        "width": 32,
    },
    "each_twice": {"prompt": ["a fox", "a frog"], "num_images_per_prompt": 2, "height": 32, "width": 32},
}
DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 3.5, "max_sequence_length": 16}
SEED = 7


def randomise(model: torch.nn.Module, seed: int, gain: float = 1.0) -> torch.nn.Module:
    """Normal weights of a variance that keeps activations in range; zero-initialised parts would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
        parameter.data.normal_(std=gain * fan_in**-0.5, generator=generator)
        if "norm" in name and name.endswith("weight") and parameter.ndim == 1:
            parameter.data.add_(1)
    return model.half().float().eval()


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Byte pairs as CLIP has them, learned from the texts, as vocab.json and merges.txt."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=620, initial_alphabet=alphabet, end_of_word_suffix="</w>", special_tokens=[], show_progress=False
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
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def t5_tokenizer(folder: Path) -> T5TokenizerFast:
    """A unigram model as T5 has it, learned from the texts, as spiece.model."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 10),
        model_writer=(model := io.BytesIO()),  # a path would be written into the model
        vocab_size=90,
        character_coverage=1.0,
        normalization_rule_name="identity",
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        **{"hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2},
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return T5TokenizerFast.from_pretrained(folder)


def make(name: str, guidance_embeds: bool, heads: int, axes: tuple[int, int, int], shifting: dict) -> None:
    folder = HERE / name
    tokenizer, tokenizer_2 = clip_tokenizer(folder / "tokenizer"), t5_tokenizer(folder / "tokenizer_2")
    end = tokenizer.eos_token_id
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=128,
            d_model=24,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=sum(axes),
        num_attention_heads=heads,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=axes,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 8, 8],
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    for seed, (model, gain) in enumerate([(clip, 1.0), (t5, 1.0), (transformer, 1.0), (vae, 0.7)]):
        randomise(model, 40 + seed, gain)
    scheduler = FlowMatchEulerDiscreteScheduler(**shifting)
    parts = {"tokenizer": tokenizer, "tokenizer_2": tokenizer_2, "scheduler": scheduler}
    FluxPipeline(
        text_encoder=clip.half(), text_encoder_2=t5.half(), transformer=transformer.half(), vae=vae.half(), **parts
    ).save_pretrained(folder)
    for component, write in [("tokenizer", clip_tokenizer), ("tokenizer_2", t5_tokenizer)]:
        shutil.rmtree(folder / component)  # as their makers wrote them, without a tokenizer.json
        write(folder / component)

    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = {}
    for key, request in REQUESTS.items():
        count = len(request["prompt"]) * request.get("num_images_per_prompt", 1)
        generator = [torch.Generator().manual_seed(SEED + i) for i in range(count)]
        drawn = pipeline(**{**DEFAULTS, **request}, generator=generator, output_type="pt")
        images[key] = (drawn.images.permute(0, 2, 3, 1) * 255).round().byte().contiguous()
    save_file(images, folder / "golden.safetensors")


make("dev", True, 1, (4, 14, 14), {"shift": 3.0, "use_dynamic_shifting": True})
make("schnell", False, 2, (4, 6, 6), {"shift": 1.0})
(HERE / "requests.json").write_text(
    json.dumps({"seed": SEED, "defaults": DEFAULTS, "requests": REQUESTS}, indent=2) + "\n"
)
