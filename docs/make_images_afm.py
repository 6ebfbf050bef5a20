"""Draws the pictures of the force microscope's documentation: ``python docs/make_images_afm.py`` from the repository root."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from PIL import Image

from probegym.physics import surfaces, tips

FOLDER = Path(__file__).parent / "images"
EXTENT, SHAPE, KEY = (1e-6, 1e-6), (256, 256), 11
MATERIAL_COLOURS = ["#30475e", "#e7b85c", "#c8553d"]


def imaged(surface: surfaces.Surface, second: tuple[float, float, float, float] | None = None, radius: float = 1e-8) -> np.ndarray:
    """The whole map as a tip reads it, line by line, m."""
    rows, columns = surface.height.shape
    tip = tips.sharp(rows, radius=radius)
    if second:
        tip["second"][:] = second
    dy, dx = surface.pixel
    y = (np.arange(rows) + 0.5) * dy
    return tips.dilate_lines(surface.height[None], surface.extent, tip, y, dx / 2, dx, columns, maps=np.zeros(rows, int))[0]


def panel(axis, height: np.ndarray, title: str, extent=EXTENT, bar: float = 200.0) -> None:
    """Heights in nm with a colour bar and a scale bar of ``bar`` nm."""
    nm = height * 1e9
    low, high = np.quantile(nm, [0.001, 0.999])
    size = extent[1] * 1e9
    image = axis.imshow(nm - low, cmap="afmhot", vmin=0, vmax=1.05 * (high - low), extent=(0, size, extent[0] * 1e9, 0))
    bars = plt.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
    bars.ax.set_title("nm", fontsize=8)
    bars.ax.tick_params(labelsize=7)
    frame(axis, title, size, bar)


def frame(axis, title: str, size: float, bar: float) -> None:
    """Title and scale bar."""
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    line = axis.plot([0.05 * size, 0.05 * size + bar], [0.93 * size] * 2, color="white", lw=3, solid_capstyle="butt")[0]
    text = axis.text(0.05 * size + bar / 2, 0.905 * size, f"{bar:g} nm", color="white", fontsize=8, ha="center", va="bottom")
    line.set_path_effects([patheffects.Stroke(linewidth=5, foreground="black"), patheffects.Normal()])
    text.set_path_effects([patheffects.Stroke(linewidth=2, foreground="black"), patheffects.Normal()])


def surfaces_sheet() -> plt.Figure:
    """Every kind of surface with default parameters: as it is, and as a tip of 10 nm reads it."""
    figure, axes = plt.subplots(4, 4, figsize=(13.6, 13.2), layout="constrained")
    cells = iter(axes.ravel())
    built = {kind: surfaces.build(kind, KEY, EXTENT, SHAPE) for kind in surfaces.KINDS}
    for kind, surface in built.items():
        panel(next(cells), surface.height, f"{kind} on {surface.materials[0].name}" if len(surface.materials) > 1 else f"{kind}, {surface.materials[0].name}")
        panel(next(cells), imaged(surface), f"{kind}, read by a tip of 10 nm")
    littered = surfaces.with_debris(built["terraces"], surfaces.debris(KEY, EXTENT))
    panel(next(cells), imaged(littered), "terraces with debris, tip of 10 nm")
    panel(next(cells), imaged(built["nanoparticles"], (4e-8, 2.5e-8, 2e-9, 8e-9)), "nanoparticles, double tip")
    panel(next(cells), imaged(built["nanoparticles"], radius=4e-8), "nanoparticles, tip blunted to 40 nm")
    axis, patchy = next(cells), built["patches"]
    axis.imshow(patchy.material, cmap=matplotlib.colors.ListedColormap(MATERIAL_COLOURS[:2]), extent=(0, 1000, 1000, 0), interpolation="nearest")
    frame(axis, "patches: material", 1000, 200)
    for i, material in enumerate(patchy.materials):
        axis.text(30, 50 + 55 * i, f"{material.name}: E* = {material.modulus / 1e9:.3g} GPa", color="white", fontsize=8,
                  bbox={"facecolor": MATERIAL_COLOURS[i], "pad": 2, "edgecolor": "white"})  # fmt: skip
    return figure


def main() -> None:
    """Write docs/images/afm_surfaces.png."""
    FOLDER.mkdir(exist_ok=True)
    figure = surfaces_sheet()
    figure.savefig(FOLDER / "afm_surfaces.png", dpi=80)
    Image.open(FOLDER / "afm_surfaces.png").convert("RGB").quantize(128).save(FOLDER / "afm_surfaces.png", optimize=True)


if __name__ == "__main__":
    main()
