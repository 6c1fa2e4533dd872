"""Trains the two tokenizers on the captions and writes the captions' token ids.

    python prompt_tokenizers.py --data DIR --out DIR

OUT/tokenizer     CLIP's: byte-level BPE with `</w>`, vocab.json and merges.txt in CLIP's order (256 bytes, 256 bytes
                  that end a word, one token for each merge, then <|startoftext|> and <|endoftext|>)
OUT/tokenizer_2   T5's: a unigram tokenizer.json; <pad> 0, </s> 1, <unk> 2, SentencePiece's NFKC normalisation
DATA/<split>_ids.safetensors   int16 `clip` and `t5` [N, captions, TOKENS]

Words of the captions become single tokens in both; any other word falls into pieces (in CLIP's down to bytes).
"""

import argparse
import io
import json
import math
from collections import Counter
from pathlib import Path

import regex
import sentencepiece as spm
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTokenizer, T5TokenizerFast

from prompts_data import load_captions, load_index

TOKENS = 48  # of the T5 sequence the transformer sees; also what is kept of CLIP's 77 in training
CLIP_TOKENS = 77
CLIP_PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
WORD = regex.compile(r"(?<![^\s])[\p{L}]+")


def byte_alphabet() -> tuple[list[str], dict[int, str]]:
    """GPT-2's printable character for each byte: in CLIP's order, printable bytes first, and as a table."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    characters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [characters[b] for b in [*printable, *rest]], characters


def learn_merges(words: Counter, limit: int) -> list[tuple[str, str]]:
    """Byte-pair encoding: joins the most frequent neighbours, until no pair comes twice or `limit` is reached."""
    _, characters = byte_alphabet()
    pieces = {}
    for word in words:
        symbols = [characters[b] for b in word.encode()]
        pieces[word] = [*symbols[:-1], f"{symbols[-1]}</w>"]
    merges = []
    while len(merges) < limit:
        pairs = Counter()
        for word, symbols in pieces.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for word, symbols in pieces.items():
            joined, i = [], 0
            while i < len(symbols):
                if tuple(symbols[i : i + 2]) == best:
                    joined.append("".join(best))
                    i += 2
                else:
                    joined.append(symbols[i])
                    i += 1
            pieces[word] = joined
    return merges


def write_clip(texts: list[str], folder: Path) -> None:
    words = Counter(word for text in texts for word in CLIP_PATTERN.findall(text.lower()))
    merges = learn_merges(words, 2000)
    alphabet, _ = byte_alphabet()
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise SystemExit("two merges give the same token")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": CLIP_TOKENS,
        "tokenizer_class": "CLIPTokenizer",
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_t5(texts: list[str], folder: Path, limit: int) -> None:
    trained = io.BytesIO()
    letters = "".join(chr(c) for c in range(33, 127))
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=trained,
        model_type="unigram",
        vocab_size=limit,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=letters,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    # SentencePiece prunes words that it can build from others; with every common word whole, prompts are shorter.
    words = Counter(word for text in texts for word in WORD.findall(text))
    total = sum(words.values())
    pieces = {p.piece: p.score for p in proto.pieces}
    pieces |= {f"▁{word}": math.log(count / total) for word, count in words.items() if count >= 20}
    tokenizer = Tokenizer(models.Unigram(list(pieces.items()), unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "▁"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {
        "clean_up_tokenization_spaces": False,
        "extra_ids": 0,
        "model_max_length": TOKENS,
        "tokenizer_class": "T5TokenizerFast",
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_tokenizers(folder: Path):
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), T5TokenizerFast.from_pretrained(folder / "tokenizer_2")


def encode(tokenizers, texts: list[str], tokens: int = TOKENS) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids int64 [N, tokens] of CLIP and T5, as FluxPipeline makes them (CLIP's padding is never read)."""
    return tuple(
        tokenizer(texts, padding="max_length", max_length=tokens, truncation=True, return_tensors="pt").input_ids
        for tokenizer in tokenizers
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=900, help="most pieces of the unigram tokenizer")
    parser.add_argument("--learn-from", type=int, default=20000, help="pictures whose captions the tokenizers learn from")
    parser.add_argument("--rows", type=int, help="write ids for the first rows only")
    args = parser.parse_args()

    texts = [text for row in load_captions(args.data, "train", args.learn_from) for text in row]
    write_clip(texts, args.out / "tokenizer")
    write_t5(texts, args.out / "tokenizer_2", args.pieces)
    tokenizers = load_tokenizers(args.out)
    print("vocabularies:", [len(t) for t in tokenizers])
    for text in ["a lorelei portrait, red hair, round glasses, blue background", "Ein Fuchs im Schnee 🦊"]:
        print([t.tokenize(text) for t in tokenizers])

    captions = load_index(args.data)["captions"]
    for split in ["heldout", "train"]:
        rows = load_captions(args.data, split, args.rows)
        parts = []
        for at in range(0, len(rows), 5000):
            parts.append(encode(tokenizers, [text for row in rows[at : at + 5000] for text in row]))
        clip, t5 = (torch.cat(column).view(len(rows), captions, TOKENS).short() for column in zip(*parts))
        lengths = (t5 != 0).sum(dim=2).flatten().float()
        print(split, len(rows), "T5 tokens: mean", lengths.mean().item(), "99 %", lengths[:100000].quantile(0.99).item(), "cut", (lengths == TOKENS).float().mean().item())
        save_file({"clip": clip, "t5": t5}, args.data / f"{split}_ids.safetensors")


if __name__ == "__main__":
    main()
