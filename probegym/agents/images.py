"""Pictures as files: PNG, and GIF films in one palette that keeps the screens' own colours."""

from __future__ import annotations

import io

import numpy as np

from probegym.envs.pictures_sketch import COLOURS, GROUND

EDGES = (1.0, 0.75, 0.5, 0.25)  # of a mark's colour in the pixels at its edge, which are those of thin lines and letters


def png(rgb: np.ndarray, height: int | None = None) -> bytes:
    """A picture (h, w, 3) uint8 as PNG; small ones are enlarged to ``height``."""
    from PIL import Image

    image = Image.fromarray(rgb)
    if height:
        image = image.resize((round(height * rgb.shape[1] / rgb.shape[0]), height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def gif(frames: list[np.ndarray], milliseconds: int = 1100, colours: int = 255, last: int | None = None) -> bytes:
    """Frames (h, w, 3) uint8 as an endless GIF; the last one stays for ``last`` ms, by default three times as long as the others.

    All share one palette, which keeps still what does not move, and the file small.
    """
    from PIL import Image

    palette = _palette([frames[i] for i in sorted({0, len(frames) // 3, 2 * len(frames) // 3, len(frames) - 1})], colours)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    stream = io.BytesIO()
    durations = [milliseconds] * (len(images) - 1) + [last or 3 * milliseconds]
    images[0].save(stream, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return stream.getvalue()


def _palette(frames: list[np.ndarray], colours: int):
    """An image with a palette for all: the screens' own colours with the shades of their edges; the commonest others; the rest so that small marks keep theirs too."""
    from PIL import Image

    packed = np.concatenate([frame.reshape(-1, 3).astype(np.int32) @ [65536, 256, 1] for frame in frames])
    found, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    found, counts = found[order], counts[order]
    rgb = np.stack([found >> 16, found >> 8 & 255, found & 255], 1).astype(np.uint8)
    _, first = np.unique(rgb // 8 @ np.array([65536, 256, 1]), return_index=True)  # the commonest of those that are alike
    shades = np.concatenate([share * np.array(COLOURS) + (1 - share) * np.array(GROUND) for share in EDGES]).round().astype(np.uint8)
    common = np.concatenate([shades, rgb[np.sort(first)[: colours // 2 - len(shades)]]])
    weighted = np.repeat(rgb, 1 + np.log2(counts).astype(int), axis=0)  # one pixel or a million: a colour counts by the logarithm
    others = Image.fromarray(weighted[None]).quantize(colours - len(common), dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*common.ravel().tolist(), *others])
    return palette
