"""Writes png.json: PNG files made by Pillow, their pixels as RGB and their texts, for tests/images/png.test.ts.

Run: python tests/goldens/make-png.py                 (Pillow and NumPy; written with 13.0 and 2.4)
     python tests/goldens/make-png.py --read FILE     prints what Pillow reads from a file
"""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

TEXTS = {
    "parameters": "ein schöner Fuchs\nSteps: 50, Sampler: DDIM",  # Latin-1: Pillow writes tEXt
    "comment": "狐 🦊 – prompt",  # not Latin-1: Pillow writes iTXt
}


def file(name, mode, texts=TEXTS, **options):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:13, 0:21]
    smooth = np.stack([x * 12, y * 19, (x + y) * 7], axis=2)
    noisy = smooth + rng.integers(0, 8, smooth.shape)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    image = image.quantize(200) if mode == "P" else image.convert(mode)
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    if name == "zipped":
        info.add_text("zipped", "abc " * 50, zip=True)
        info.add_itxt("zipped 2", "狐" * 50, zip=True)
        texts = texts | {"zipped": "abc " * 50, "zipped 2": "狐" * 50}
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info, **options)
    rgb = image.convert("RGB")
    return {
        "name": name, "width": rgb.width, "height": rgb.height, "text": texts,
        "png": base64.b64encode(out.getvalue()).decode(), "rgb": base64.b64encode(rgb.tobytes()).decode(),
    }


def main():
    golden = [
        file("RGB", "RGB"), file("RGB, best compression", "RGB", optimize=True), file("RGBA", "RGBA"),
        file("grey", "L"), file("grey and alpha", "LA"), file("palette", "P"), file("zipped", "RGB"),
    ]
    Path(__file__).with_name("png.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if sys.argv[1:2] == ["--read"]:
    image = Image.open(sys.argv[2])
    image.load()
    print(image.size, image.mode, np.asarray(image).reshape(-1)[:9].tolist(), image.text)
else:
    main()
