"""Writes tiny text encoders with random weights, and what transformers makes of some tokens.

    OMP_NUM_THREADS=1 python make.py

Needs torch and transformers.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

HERE = Path(__file__).parent
CLIP = dict(
    vocab_size=60,
    hidden_size=12,
    intermediate_size=20,
    projection_dim=5,
    num_hidden_layers=3,
    num_attention_heads=3,
    max_position_embeddings=11,
    bos_token_id=57,
)
T5 = dict(
    vocab_size=50,
    d_model=10,
    d_kv=3,
    d_ff=14,
    num_layers=2,
    num_heads=4,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
)


def randomize(model, seed):
    """Norms' scales are ones and biases zeros as initialised, which would hide that they are used."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        # Scores of attention are far from equal, so that softmax matters.
        parameter.data.normal_(std=2 * fan_in**-0.5, generator=generator)
    return model.eval()


def save(folder, model, tensors, weights=None):
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    weights = model.state_dict() if weights is None else weights
    save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "golden.safetensors")


def clip_outputs(model, ids):
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
        text = model.text_model(input_ids=ids) if hasattr(model, "text_projection") else out
    tensors = {"ids": ids, "pooled": text.pooler_output, "last_hidden_state": out.last_hidden_state}
    if hasattr(model, "text_projection"):
        tensors["projected"] = out.text_embeds
    return tensors | {f"hidden_states[{i}]": state for i, state in enumerate(out.hidden_states)}


# The end (59) comes early, with other tokens behind it; at the last place; and not at all.
ENDS = torch.tensor([[57, 3, 59, 59, 59, 59], [57, 8, 14, 2, 40, 59], [57, 9, 9, 1, 0, 12]])
# 58 ends the text, 59 is a token that was added: the greatest id is not the end.
ADDED = torch.tensor([[57, 59, 3, 58, 58, 58, 0], [57, 1, 2, 59, 4, 5, 58]])

eos_2 = randomize(CLIPTextModel(CLIPTextConfig(**CLIP, hidden_act="quick_gelu", eos_token_id=2)), 1)
weights = {f"text_model.{name}": tensor for name, tensor in eos_2.state_dict().items()}
weights["text_model.embeddings.position_ids"] = torch.arange(11)[None]
save(HERE / "clip-eos-2", eos_2, clip_outputs(eos_2, ENDS), weights)  # as old versions wrote it

added = randomize(CLIPTextModel(CLIPTextConfig(**CLIP, hidden_act="gelu", eos_token_id=58)), 2)
added.half().float()  # as it is saved
save(HERE / "clip-added-token", added, clip_outputs(added, ADDED), {k: v.half() for k, v in added.state_dict().items()})

projection = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP, hidden_act="gelu", eos_token_id=2))
randomize(projection, 3)
save(HERE / "clip-projection", projection, clip_outputs(projection, ENDS))

vision = dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, image_size=2, patch_size=1)
torch.manual_seed(0)  # of the part that nobody reads
whole = CLIPModel(CLIPConfig(text_config=projection.config.to_dict(), vision_config=vision, projection_dim=5))
state = whole.state_dict() | projection.state_dict()
assert set(projection.state_dict()) < set(whole.state_dict())
save_file({k: v.clone().contiguous() for k, v in state.items()}, HERE / "clip-projection" / "whole.safetensors")


def t5_outputs(model, tokens, rows):
    ids = torch.randint(0, T5["vocab_size"], (rows, tokens), generator=torch.Generator().manual_seed(tokens))
    ids[0, tokens // 2 :] = 0  # padding, which is attended
    with torch.no_grad():
        return {f"ids.{tokens}": ids, f"last_hidden_state.{tokens}": model(input_ids=ids).last_hidden_state}


f32 = randomize(T5EncoderModel(T5Config(**T5)), 4)
save(HERE / "t5", f32, t5_outputs(f32, 150, 1) | t5_outputs(f32, 7, 2) | t5_outputs(f32, 1, 1))

bf16 = randomize(T5EncoderModel(T5Config(**T5)), 5).bfloat16()
state = {k: v for k, v in bf16.state_dict().items() if k != "shared.weight"}
save(HERE / "t5-bf16", bf16, t5_outputs(bf16.float(), 9, 2), {k: v.bfloat16() for k, v in state.items()})

# The first T5, with its decoder; the encoder's own embedding differs from the shared one and goes before it.
old = T5 | dict(feed_forward_proj="relu", relative_attention_num_buckets=9, relative_attention_max_distance=20)
whole = randomize(T5ForConditionalGeneration(T5Config(**(old | dict(num_layers=1)))), 6)
state = whole.state_dict() | {"shared.weight": torch.zeros(50, 10)}
state["encoder.embed_tokens.weight"] = whole.encoder.embed_tokens.weight.data
save(HERE / "t5-relu", whole, t5_outputs(whole.encoder, 40, 1), state)

# Far more distances than tiny models see, with odd numbers of buckets too.
buckets = {}
for count, far in [(32, 128), (32, 512), (4, 3), (9, 20), (16, 5), (64, 1000)]:
    relative = torch.arange(-far - 300, far + 301)
    found = T5Attention._relative_position_bucket(relative, bidirectional=True, num_buckets=count, max_distance=far)
    changes = [i for i in range(len(found)) if i == 0 or found[i] != found[i - 1]]
    buckets[f"{count},{far}"] = [[int(relative[i]), int(found[i])] for i in changes]  # from where on which
(HERE / "buckets.json").write_text(json.dumps(buckets) + "\n")
