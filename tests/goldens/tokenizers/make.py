"""Writes small tokenizers of CLIP's and T5's kind, texts, and what transformers makes of them.

    python make.py

Needs transformers, tokenizers and sentencepiece. Folders, each with expected.json:

    clip            vocab.json, merges.txt and both configs; all bytes, as CLIP has them
    clip-json       tokenizer.json alone, of few letters: others are unknown; a pad token that is an ordinary character
    clip-sd2        the same but for the pad token, which one config says to be "!" and the other the end's, as of Stable Diffusion 2
    clip-sdxl       the same, "!" an added token, as of the second text encoder of SDXL
    clip-bare       vocab.json and merges.txt alone
    t5              spiece.model alone, normalizing by SentencePiece's own nmt_nfkc
    t5-json         tokenizer.json, normalizing by a few rules, some of which end in combining marks; added tokens of all kinds
    t5-identity     tokenizer.json without a table to normalize by
"""

import io
import itertools
import json
import random
import shutil
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, CLIPTokenizer, T5Tokenizer

HERE = Path(__file__).parent
LENGTH = 77

COLOURS = "red green blue black white golden silver".split()
SUBJECTS = "fox cat portrait lighthouse dog street robot woman smiling mountain painting photograph landscape drawing".split()
PLACES = "in the snow,at night,on a blue background,under the sea,with round glasses,near the old harbour,holding a sign that says hello,wearing a yellow raincoat,in watercolour,at sunset,with long curly hair".split(",")
CAPTIONS = [
    f"{article} {colour} {subject} {place}{end}"
    for article, colour, subject, place, end in itertools.product(
        ("a", "The"), COLOURS, SUBJECTS, PLACES, ("", ", oil on canvas.", "! it's 2024", " & don't 50%")
    )
]

TEXTS = [
    "", " ", "\n", "\t \n", "a", "A cat holding a sign that says hello world", "a red fox in the snow", "  leading", "trailing  ",
    "  double  spaces\n", "\u00a0no-break\u00a0space\u00a0", "\u3000ideographic\u3000space", "tab\tand\rreturn\r\nline", "\x85next\x85line",
    "it's don't we're I've I'm they'll he'd", "IT'S DON'T WE'RE", "it’s don’t “quoted” ‘x’", "''s 's' !'s", "o'clock rock'n'roll",
    "ΣΑΣ İ", "ΟΔΟΣ ΟΔΥΣΣΕΥΣ", "Σ", "ΑΣ.", "ß ẞ Straße", "ǅ ǲ ŉ", "ı I i İ", "don’t ½ ①", "½¼¾ ²³ ⅷ Ⅷ ٣ ३ 12 3.14 1,000",
    "é e\u0301 E\u0301 é\u0301", "Å \u212b A\u030a", "ﬁ ﬂ ﬃ ﬁ\u0301", "ｆｕｌｌ ｗｉｄｔｈ ～ ！", "ｶﾞ カ\u3099", "가 \u1100\u1161 각", "\u0958 \u0915\u093c",
    "!\ufeff", "a\ufeffb", "\ufeffa", "!\ufeff\ufeff?", "!\u200b\u200c\u200d\u2060", "a\u00adb", "\u2581", "\u2581a", "a\u2581b \u2581\u2581c", "_ __",
    "\x00", "a\x00b", "\x01\x02\x07\x08\x0b\x0c\x1b\x7f", "a\x1fb", "\x80\x9f", "\ufffd \ufffe \uffff", "\u202eright to left\u202c", "\u2066x\u2069",
    "شلام مرحبا بالعالم", "שלום עולם", "مَرْحَبًا", "हिन्दी नमस्ते", "ไทย ภาษา", "日本語の狐", "雪の中の赤い狐", "中文字符测试，你好！", "한국어 여우", "Привет, мир", "Ёлка",
    "🦊", "🦊🦊 🦊", "👩‍👩‍👧‍👦", "👍🏽 👍", "🇩🇪🇫🇷", "❤️ ❤", "1️⃣ #️⃣", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "fox🦊fox", "𝔉𝔬𝔵 𝒻", "𐐀𐐨", "𠀀𪛖",
    "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "<|ENDOFTEXT|>", "<|STARTOFTEXT|>", "x<|StartOfText|>y", "<|endoftext|><|endoftext|>",
    "!!<|ENDOFTEXT|>!!", "<|endoftext|", "<|endoftext|>>", "<|<|endoftext|>", "＜|endoftext|＞", "<|endo ftext|>", "</s>", "a</s>b", "a </s> b", "<pad>", "<unk>", "a<unk>b", "<unk><unk> 狐<unk>狐",
    "<extra_id_0>", "<extra_id_99>x", "a<extra_id_7> <extra_id_100>", "<EXTRA_ID_0>", "＜unk＞", "＜/s＞a", "</S>", "</w>", "a</w>", "a </w> b", "<w>",
    "x <extra_id_3> y", "x<extra_id_3>y", "  <extra_id_3>  <extra_id_3>  ", "a<extra_id_7>", "a <extra_id_7> b", "_<extra_id_7>", "é<extra_id_7>", "!<extra_id_7>!", "狐<extra_id_7>",
    "Azz", "azedzed", "AZZ azz", "xAzzx", "Azz</s>Azz", "hello hello! othello Hello", "hello",
    "!", "!!", "! !", "a!b", "...", "…", "?!?!", "#tag @name", "a-b_c/d\\e", "(1+2)*3=9", "C++ C#", "e-mail: a.b@c.de", "https://example.org/?q=a+b#c",
    "$100 €50 £5 ¥500", "«guillemets» ‹x›", "–—―‐‑−", "°C ℃ ℉ №", "™ ® © ℗", "a\u0300\u0301\u0302\u0303b", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "ﷺ ﷽", "㌀ ㍿ ㋿", "ĳ ŀ ʼn", "ſ ẛ", "K Ω Å", "\u1e9b\u0323", "x\u0338= \u226a\u0338", "\U0001d160", "\u0344 \u0374 \u037e \u0387", "\u2126 \u1fee \u1fef",
    "(((masterpiece))), [best quality:1.3]", "a:b::c", "BREAK AND NOT", "a\n\nb\n", "\r", "\r\n\r\n", "a\r\n", "q" * 100, "A" * 50 + "b" * 50, "?" * 90, "9" * 80,
    "a red fox " * 60, "狐" * 120, "狐 " * 120, "🦊 " * 50, " " * 300 + "x" + " " * 300, "x" + "\u0301" * 200, "the old harbour near " * 40 + "</s> END", "<|endoftext|>" * 90,
]  # fmt: skip


def random_texts(count: int) -> list[str]:
    """Mixtures of words, blanks, and characters from all of Unicode as far as it is old."""
    draw = random.Random(11)
    assigned = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    latin = [c for c in assigned if ord(c) < 0x250]
    marks = [c for c in assigned if unicodedata.category(c) in ("Mn", "Mc", "Cf")]
    pieces = [
        lambda: draw.choice(draw.choice(CAPTIONS).split()),
        lambda: draw.choice((" ", " ", "  ", "\n", "\u00a0", "\t")),
        lambda: draw.choice(latin),
        lambda: draw.choice(assigned),
        lambda: draw.choice(latin) + draw.choice(marks),
        lambda: draw.choice("'.,!?\"()-<>|_/#"),
        lambda: draw.choice(("<|endoftext|>", "<|startoftext|>", "</s>", "<pad>", "<extra_id_3>", "'s", "'LL")),
    ]
    return ["".join(draw.choices(pieces, (5, 6, 3, 3, 2, 2, 0.5))[0]() for _ in range(draw.randint(1, 14))) for _ in range(count)]


def byte_pairs(vocab_size: int, alphabet: list[str]) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    reference = CLIPTokenizer()
    tokenizer.normalizer = reference._tokenizer.normalizer
    tokenizer.pre_tokenizer = reference._tokenizer.pre_tokenizer
    tokenizer.train_from_iterator(
        CAPTIONS,
        trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False),
    )
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def clip_vocab(merges: list[tuple[str, str]], alphabet: list[str]) -> dict[str, int]:
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_vocab(name: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    write_json(HERE / name / "vocab.json", vocab)
    (HERE / name / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def token(content: str, **options) -> dict:
    return dict(content=content, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) | options


def sentencepiece_model(folder: str | Path, vocab_size: int, **options) -> None:
    """Writes spiece.model."""
    corpus = [*CAPTIONS[::5], *("Ein Fuchs im Schnee; élan, naïve café, Straße.", "x½ y² ﬁn") * 40]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=(model := io.BytesIO()),  # a path would be written into the model
        vocab_size=vocab_size,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    Path(folder, "spiece.model").write_bytes(model.getvalue())


def write_expected(name: str, tokenizer, texts: list[str]) -> None:
    """Ids of each text at LENGTH without the padding behind them, and how many there would be without a limit."""
    padded = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True).input_ids
    rows = []
    for text, ids in zip(texts, padded, strict=True):
        tokens = len(tokenizer(text).input_ids)
        assert len(ids) == LENGTH and all(i == tokenizer.pad_token_id for i in ids[tokens:])
        rows.append([tokens, *ids[:tokens]])
    write_json(HERE / name / "expected.json", rows)
    print(name, type(tokenizer).__name__, len(tokenizer), sum(row[0] > LENGTH for row in rows), "cut")


for folder in HERE.iterdir():
    if folder.is_dir():
        shutil.rmtree(folder)
texts = [*TEXTS, *random_texts(300)]
write_json(HERE / "texts.json", texts)

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
merges = byte_pairs(620, alphabet)
vocab = clip_vocab(merges, alphabet)
start, end = "<|startoftext|>", "<|endoftext|>"
write_vocab("clip", vocab, merges)
config = dict(
    add_prefix_space=False,
    added_tokens_decoder={vocab[start]: token(start, normalized=True), vocab[end]: token(end)},
    bos_token=start,
    eos_token=end,
    unk_token=end,
    pad_token=end,
    do_lower_case=True,
    errors="replace",
    model_max_length=LENGTH,
    tokenizer_class="CLIPTokenizer",
)
write_json(HERE / "clip" / "tokenizer_config.json", config)
write_json(
    HERE / "clip" / "special_tokens_map.json",
    dict(bos_token=token(start, normalized=True), eos_token=end, pad_token=end, unk_token=token(end)),
)
write_expected("clip", CLIPTokenizer.from_pretrained(HERE / "clip"), texts)

write_vocab("clip-sd2", vocab, merges)
ends = dict(bos_token=start, eos_token=end, unk_token=end)
plain = dict(ends, pad_token=end, do_lower_case=True, model_max_length=LENGTH, tokenizer_class="CLIPTokenizer")
write_json(HERE / "clip-sd2" / "tokenizer_config.json", plain)
write_json(HERE / "clip-sd2" / "special_tokens_map.json", dict(ends, pad_token="!"))
write_expected("clip-sd2", CLIPTokenizer.from_pretrained(HERE / "clip-sd2"), texts)

write_vocab("clip-sdxl", vocab, merges)
with_pad = dict(config, pad_token="!", added_tokens_decoder={vocab["!"]: token("!"), **config["added_tokens_decoder"]})
write_json(HERE / "clip-sdxl" / "tokenizer_config.json", with_pad)
write_json(HERE / "clip-sdxl" / "special_tokens_map.json", dict(ends, pad_token="!"))
write_expected("clip-sdxl", CLIPTokenizer.from_pretrained(HERE / "clip-sdxl"), texts)

write_vocab("clip-bare", vocab, merges)
write_expected("clip-bare", CLIPTokenizer.from_pretrained(HERE / "clip-bare"), texts)

few = sorted(set("abcdefghijklmnopqrstuvwxyz!'.,0123456789"))
merges = byte_pairs(200, few)
merges = [(a, b) for a, b in merges if all(c in few for c in (a + b).replace("</w>", ""))]
small = CLIPTokenizer(vocab=clip_vocab(merges, few), merges=merges, pad_token="!", model_max_length=20)
with tempfile.TemporaryDirectory() as folder:
    small.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        write_json(HERE / "clip-json" / file, json.loads(Path(folder, file).read_text()))
write_expected("clip-json", CLIPTokenizer.from_pretrained(HERE / "clip-json"), texts)

(HERE / "t5").mkdir()
sentencepiece_model(HERE / "t5", 260, normalization_rule_name="nmt_nfkc")
write_expected("t5", T5Tokenizer.from_pretrained(HERE / "t5"), texts)

RULES = {"A": "a", "\u00c9": "\u00e9", "e\u0301": "\u00e9", "\u00bd": "1/2", "\ufb01": "fi", "\r": " ", "\x07": "", "\u3000": " "}
RULES |= {"\u00df": "ss", "\u72d0": "fox", "o\u0308": "\u00f6", "a\u0301\u0308": "q", "z": "zed"}
with tempfile.TemporaryDirectory() as folder:
    rules = Path(folder, "rules.tsv")
    codes = lambda text: " ".join(f"{ord(c):X}" for c in text)  # noqa: E731
    rules.write_text("".join(f"{codes(a)}\t{codes(b)}\n" for a, b in RULES.items()))
    sentencepiece_model(folder, 230, normalization_rule_tsv=str(rules))
    saved = T5Tokenizer.from_pretrained(folder)
    saved.save_pretrained(f"{folder}/saved")
    write_json(HERE / "t5-json" / "tokenizer.json", json.loads(Path(folder, "saved", "tokenizer.json").read_text()))
strips = token("<extra_id_3>", lstrip=True, rstrip=True)
word = token("<extra_id_7>", single_word=True)
added = [token("<pad>"), token("</s>"), token("<unk>"), strips, word]
config = dict(
    added_tokens_decoder={
        **{saved.convert_tokens_to_ids(t["content"]): t for t in added},
        len(saved): token("Azz", normalized=True, special=False),
        len(saved) + 1: token("hello", normalized=True, special=False, single_word=True, lstrip=True),
    },
    additional_special_tokens=[f"<extra_id_{i}>" for i in range(100)],
    eos_token="</s>",
    extra_ids=100,
    legacy=True,
    model_max_length=1000000000000000019884624838656,
    pad_token="<pad>",
    tokenizer_class="T5Tokenizer",
    unk_token="<unk>",
)
write_json(HERE / "t5-json" / "tokenizer_config.json", config)
write_expected("t5-json", T5Tokenizer.from_pretrained(HERE / "t5-json"), texts)

with tempfile.TemporaryDirectory() as folder:
    sentencepiece_model(folder, 230, normalization_rule_name="identity")
    T5Tokenizer.from_pretrained(folder).save_pretrained(f"{folder}/saved")
    (HERE / "t5-identity").mkdir()
    write_json(HERE / "t5-identity" / "tokenizer.json", json.loads(Path(folder, "saved", "tokenizer.json").read_text()))
write_expected("t5-identity", T5Tokenizer.from_pretrained(HERE / "t5-identity"), texts)
