"""The text-to-image model for training: FLUX's transformer with a small CLIP and a small T5 encoder.

The networks are the classes of diffusers and transformers themselves, so that an export is `save_pretrained`. Added here:
an initialisation for training from scratch, the flow-matching sampler, and, on a CPU, attention as two matrix products
(three times as fast in training as PyTorch's fused CPU kernel).
"""

import diffusers.models.transformers.transformer_flux as flux
import torch
from diffusers import FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

LATENT_SIZE = 16  # latent pixels on a side
IMAGE_TOKENS = (LATENT_SIZE // 2) ** 2


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """softmax(q k^T / sqrt(channels)) v for [B, tokens, heads, channels]."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def use_plain_attention() -> None:
    flux.dispatch_attention_fn = _attention


def add_text_arguments(parser) -> None:
    """Sizes of the text encoders, options of every script that makes them."""
    parser.add_argument("--t5-width", type=int, default=192)
    parser.add_argument("--t5-layers", type=int, default=3)
    parser.add_argument("--clip-width", type=int, default=128)
    parser.add_argument("--clip-layers", type=int, default=2)


def text_configs(args, clip_vocabulary: int, t5_vocabulary: int) -> dict:
    """Configurations of the encoders; the last two ids of CLIP's vocabulary are begin and end of text."""
    return {
        "clip": {
            "vocab_size": clip_vocabulary,
            "hidden_size": args.clip_width,
            "intermediate_size": 4 * args.clip_width,
            "num_hidden_layers": args.clip_layers,
            "num_attention_heads": args.clip_width // 64,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "projection_dim": args.clip_width,
            "bos_token_id": clip_vocabulary - 2,
            "eos_token_id": clip_vocabulary - 1,
            "pad_token_id": clip_vocabulary - 1,
        },
        "t5": {
            "vocab_size": t5_vocabulary,
            "d_model": args.t5_width,
            "d_kv": 64,
            "d_ff": 2 * args.t5_width,
            "num_layers": args.t5_layers,
            "num_heads": args.t5_width // 64,
            "feed_forward_proj": "gated-gelu",
            "dropout_rate": 0.0,
            "is_encoder_decoder": False,
            "use_cache": False,
            "pad_token_id": 0,
            "eos_token_id": 1,
        },
    }


def transformer_config(args, text: dict) -> dict:
    """Configuration of the transformer that reads what the encoders of `text` write."""
    return {
        "patch_size": 1,
        "in_channels": 4 * args.latent_channels,
        "num_layers": args.double,
        "num_single_layers": args.single,
        "attention_head_dim": 64,
        "num_attention_heads": args.width // 64,
        "joint_attention_dim": text["t5"]["d_model"],
        "pooled_projection_dim": text["clip"]["hidden_size"],
        "guidance_embeds": False,
        "axes_dims_rope": [16, 24, 24],
    }


class TextEncoders(nn.Module):
    """CLIP's and T5's small siblings."""

    def __init__(self, configs: dict):
        super().__init__()
        self.clip = CLIPTextModel._from_config(CLIPTextConfig(**configs["clip"]), attn_implementation="eager")
        self.t5 = T5EncoderModel(T5Config(**configs["t5"]))

    def encode_text(self, clip_ids, t5_ids):
        """Ids [B, T] -> pooled [B, Dc] and sequence [B, T, Dt]. No mask: padding is read, as FLUX does."""
        pooled = self.clip(clip_ids, return_dict=True).pooler_output
        return pooled, self.t5(t5_ids, return_dict=True).last_hidden_state


class TextToImage(TextEncoders):
    """Predicts the velocity noise - image of packed latents from two token sequences."""

    def __init__(self, configs: dict):
        super().__init__(configs)
        self.configs = configs
        self.transformer = FluxTransformer2DModel(**configs["transformer"])
        self.reset_transformer()
        side = torch.arange(LATENT_SIZE // 2).float()
        ids = torch.stack(torch.meshgrid(torch.zeros(1), side, side, indexing="ij"), dim=-1).view(-1, 3)
        self.register_buffer("image_ids", ids, persistent=False)

    def reset_transformer(self):
        """Xavier matrices; modulations and the head start at zero, so that every block starts as the identity."""
        for name, module in self.transformer.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                modulation = name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear"))
                if modulation or name == "proj_out":
                    nn.init.zeros_(module.weight)

    def velocity(self, x, t, pooled, text):
        """x [B, tokens, 4 C], t [B] in 0..1 (1 is noise)."""
        text_ids = torch.zeros(text.shape[1], 3, device=x.device)
        return self.transformer(
            hidden_states=x,
            timestep=t,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            img_ids=self.image_ids,
            txt_ids=text_ids,
            return_dict=False,
        )[0]


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] -> [B, h w / 4, 4 C], FLUX's order: channel slowest, then the 2x2 pixels."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: torch.Tensor) -> torch.Tensor:
    b, count, width = tokens.shape
    side = int(count**0.5)
    x = tokens.view(b, side, side, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, width // 4, 2 * side, 2 * side)


@torch.no_grad()
def sample(model: TextToImage, ids, empty_ids, steps: int, guidance: float, noise, dtype=torch.float32):
    """Euler steps over sigma = 1 .. 1/steps, 0 (shift 1) with true CFG against the empty prompt; packed latents."""
    device = noise.device
    sigmas = [*torch.linspace(1, 1 / steps, steps).tolist(), 0.0]
    x = noise
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        pooled, text = model.encode_text(*ids)
        none_pooled, none_text = (part.expand(len(x), *part.shape[1:]) for part in model.encode_text(*empty_ids))
        both = torch.cat([pooled, none_pooled]), torch.cat([text, none_text])
        for sigma, following in zip(sigmas, sigmas[1:]):
            t = torch.full((2 * len(x),), sigma, device=device)
            v = model.velocity(torch.cat([x, x]), t, *both).float()
            told, untold = v.chunk(2)
            x = x + (following - sigma) * (untold + guidance * (told - untold))
    return x
