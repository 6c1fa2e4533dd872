"""Writes metrics.json: PSNR and SSIM of small images by an independent NumPy route, for tests/metrics.

Run: python tests/goldens/make-metrics.py [--check]   (NumPy; --check compares with scikit-image where installed)

SSIM here is the definition itself: every 11x11 window is cut out and weighted by the two-dimensional Gaussian, and
variances are means of squared differences. Nothing is separable and no second moments are subtracted.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np


def ssim(a, b, peak):
    i = np.arange(11) - 5
    window = np.exp(-(i[:, None] ** 2 + i[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    scores = []
    for c in range(a.shape[2]):
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p, q = a[y : y + 11, x : x + 11, c], b[y : y + 11, x : x + 11, c]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
                scores.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(scores))


def psnr(a, b, peak):
    return float(10 * np.log10(peak**2 / np.mean((a - b) ** 2)))


def pairs():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:19, 0:14]
    smooth = np.stack([128 + 90 * np.sin(x / 3 + c) * np.cos(y / 4 - c) for c in range(3)], axis=2)
    noise = rng.normal(size=smooth.shape)
    yield "noise", smooth, smooth + 12 * noise
    yield "brighter", smooth, smooth + 20
    yield "inverted", smooth, 255 - smooth
    yield "unrelated", rng.uniform(0, 255, smooth.shape), rng.uniform(0, 255, smooth.shape)
    yield "one window", smooth[:11, :11], (smooth + 5 * noise)[:11, :11]


def main():
    golden = []
    for name, a, b in pairs():
        a, b = (np.clip(np.rint(v), 0, 255).astype(np.uint8) for v in (a, b))
        fa, fb = a.astype(np.float64), b.astype(np.float64)
        golden.append({
            "name": name, "height": a.shape[0], "width": a.shape[1],
            "a": base64.b64encode(a.tobytes()).decode(), "b": base64.b64encode(b.tobytes()).decode(),
            "psnr": psnr(fa, fb, 255.0), "ssim": ssim(fa, fb, 255.0),
        })
        if "--check" in sys.argv:
            from skimage.metrics import peak_signal_noise_ratio, structural_similarity
            theirs = structural_similarity(a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
                                           use_sample_covariance=False)
            print(name, golden[-1]["ssim"] - theirs, golden[-1]["psnr"] - peak_signal_noise_ratio(a, b))
    Path(__file__).with_name("metrics.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
