"""BERT's WordPiece as Hugging Face's tokenizers has it, over a small vocabulary: python make-bert.py"""
import json
import random
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

HERE = Path(__file__).parent / "bert"

WORDS = "a photo of cat the painting un ##aff ##able ##s ##ing ##ed color ##ful want ##want runn , . ! - ' \" ( ) $ % & ~ ` ^".split()
MORE = "é e i s ss ##s ##e ##i ##ß ß σ ##σ 猫 写 真 １ 1 2 ##2 ##1 20 ##0 ∑ ♥ 🦊 ##🦊 … “ ” – ' ##' ñ n ##n о б ##б".split()
ALPHABET = [
    *"abcdefgstuxyz  ABCDEÉéèñŒßΣς,.!-'\"()$%&~`^12",
    *"\t\n\r\u00a0\u200b\u200d\u0301\u0308\ufffd\u0000\u0007\u2028\u3000\u0085\ue000\u180e",
    *"猫写真ｶﾅ가힣か々豈𠀀🦊♥∑…“”–ŷİıǅ",
    *["unaffable", "photo", "cats", "painting", "wanted", "[SEP]", "[MASK]", "[cls]", "[DEC]", "x" * 101, "s" * 100, "20"],
]


def main() -> None:
    HERE.mkdir(exist_ok=True)
    letters = [c for c in "abcdefghijklmnopqrstuvwxyz"] + [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    pieces = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *MORE, *letters[:20], *letters[26:46]]))
    (HERE / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = BertWordPieceTokenizer(str(HERE / "vocab.txt"), lowercase=True)
    tokenizer.add_special_tokens(["[DEC]", "[ENC]"])
    random.seed(0)
    texts = ["", "a photo of a cat", "Un-AFFABLE, wanting 2020!", "  é\u0301 ", "x" * 101, "s" * 100, "[SEP]a[DEC] [ENC]"]
    texts += ["".join(random.choices(ALPHABET, k=random.randint(1, 14))) for _ in range(600)]
    rows = [{"text": text, "ids": tokenizer.encode(text).ids} for text in texts]
    (HERE / "expected.json").write_text(json.dumps(rows, ensure_ascii=True) + "\n")


main()
