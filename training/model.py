"""A compact class-conditional DiT for training, and its diffusion process.

The mathematics are those of `DiTTransformer2DModel` in Hugging Face diffusers (adaLN-Zero DiT of
Peebles & Xie 2023, https://arxiv.org/abs/2212.09748), so that `export.py` can write the weights
under the names diffusers uses. Two things differ in form only:

* one timestep/label embedder is shared by all blocks (diffusers' files hold a copy per block);
* during training a random half of the tokens may skip the middle blocks (token routing after TREAD,
  Krause et al. 2025, https://arxiv.org/abs/2501.04765). Sampling always uses every token.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

TRAIN_STEPS = 1000
BETA_START, BETA_END = 1e-4, 2e-2


@dataclass
class DiTConfig:
    """Shape of the network; the defaults are those of the embedded model."""

    width: int = 256
    heads: int = 4
    depth: int = 8
    patch: int = 4
    size: int = 64
    channels: int = 3
    classes: int = 9

    def to_dict(self) -> dict:
        return asdict(self)


def sincos_2d(width: int, grid: int) -> torch.Tensor:
    """Fixed position table [grid * grid, width]: column half first, then row half, sin before cos."""
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * omega
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = axis.repeat(grid, 1), axis.repeat_interleave(grid, dim=0)
    return torch.cat([columns, rows], dim=1).float()


def timestep_features(t: torch.Tensor, dim: int = 256) -> torch.Tensor:
    """Sinusoids of the timestep, cosines first; the last frequency is exactly 1 / 10000."""
    half = dim // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / (half - 1))
    angles = t[:, None].float() * frequency
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(channels)) v for [B, heads, tokens, channels]."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    # On a CPU two products and a softmax train three times as fast as PyTorch's fused kernel.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1) @ v


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Self-attention and MLP, each normalised, modulated and gated by the conditioning vector."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ada = nn.Linear(width, 6 * width)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.ada(cond).chunk(6, dim=1)
        h = modulate(x, shift_a, scale_a, eps=1e-6)
        q, k, v = (self.split_heads(proj(h)) for proj in (self.to_q, self.to_k, self.to_v))
        h = attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate_a[:, None] * self.to_out(h)
        h = modulate(x, shift_m, scale_m, eps=1e-5)
        return x + gate_m[:, None] * self.fc2(F.gelu(self.fc1(h), approximate="tanh"))


class DiT(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        width, grid = config.width, config.size // config.patch
        self.patch_embed = nn.Linear(config.channels * config.patch**2, width)
        self.register_buffer("positions", sincos_2d(width, grid), persistent=False)
        self.time_in = nn.Linear(256, width)
        self.time_out = nn.Linear(width, width)
        self.labels = nn.Embedding(config.classes + 1, width)  # last row: "no class"
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.head_ada = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.channels * config.patch**2)
        self.reset_parameters()

    def reset_parameters(self):
        """The DiT initialisation: Xavier matrices, zero modulations and a zero output head."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for weight in (self.labels.weight, self.time_in.weight, self.time_out.weight):
            nn.init.normal_(weight, std=0.02)
        for module in [self.head_ada, self.head, *(block.ada for block in self.blocks)]:
            nn.init.zeros_(module.weight)

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, tokens, C * p * p], channel slowest (the order of a conv kernel)."""
        b, p = images.shape[0], self.config.patch
        grid = self.config.size // p
        x = images.reshape(b, -1, grid, p, grid, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(b, grid * grid, -1)

    def unpatchify(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, tokens, p * p * C] (channel fastest, as DiT's head has it) -> [B, C, H, W]."""
        b, p, c = tokens.shape[0], self.config.patch, self.config.channels
        grid = self.config.size // p
        x = tokens.reshape(b, grid, grid, p, p, c).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(b, c, grid * p, grid * p)

    def forward(
        self,
        images: torch.Tensor,
        t: torch.Tensor,
        labels: torch.Tensor,
        routed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predicts the noise in `images`.

        `routed` [B, kept] lists the tokens that pass through the middle blocks (all but the first
        two and the last); the others bypass them. None means all tokens.
        """
        x = self.patch_embed(self.patchify(images)) + self.positions
        cond = self.time_out(F.silu(self.time_in(timestep_features(t)))) + self.labels(labels)
        cond = F.silu(cond)

        first, last = 2, len(self.blocks) - 1
        for block in self.blocks[:first]:
            x = block(x, cond)
        if routed is None:
            for block in self.blocks[first:last]:
                x = block(x, cond)
        else:
            b, tokens, width = x.shape
            flat = (routed + torch.arange(b, device=x.device)[:, None] * tokens).flatten()
            bypass = x.flatten(0, 1)
            part = bypass.index_select(0, flat).view(b, -1, width)
            for block in self.blocks[first:last]:
                part = block(part, cond)
            x = bypass.index_copy(0, flat, part.flatten(0, 1)).view(b, tokens, width)
        x = self.blocks[last](x, cond)

        shift, scale = self.head_ada(cond).chunk(2, dim=1)
        return self.unpatchify(self.head(modulate(x, shift, scale, eps=1e-6)))


def alphas_cumprod() -> torch.Tensor:
    """Signal power left at each of the 1000 training timesteps (linear betas, as in DDPM and DiT)."""
    betas = torch.linspace(BETA_START, BETA_END, TRAIN_STEPS, dtype=torch.float32)
    return torch.cumprod(1 - betas, dim=0)


@torch.no_grad()
def sample_ddim(
    model,
    labels: torch.Tensor,
    steps: int,
    guidance: float,
    noise: torch.Tensor,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Deterministic DDIM with classifier-free guidance on all channels; returns images in [-1, 1].

    Timesteps are those of diffusers' DDIMScheduler with "leading" spacing and offset 1, the last step
    ends on the signal level of timestep 0 (set_alpha_to_one = False).
    """
    device_type = noise.device.type
    power = alphas_cumprod().to(noise.device)
    ratio = TRAIN_STEPS // steps
    timesteps = [i * ratio + 1 for i in reversed(range(steps))]
    no_class = torch.full_like(labels, model.config.classes)
    x = noise
    for t in timesteps:
        a, a_next = power[t], power[max(t - ratio, 0)]
        rows = torch.full((2 * len(labels),), t, device=noise.device)
        with torch.autocast(device_type, dtype, enabled=dtype != torch.float32):
            eps = model(torch.cat([x, x]), rows, torch.cat([labels, no_class])).float()
        with_class, without = eps.chunk(2)
        eps = without + guidance * (with_class - without)
        start = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = a_next.sqrt() * start + (1 - a_next).sqrt() * eps
    return x
