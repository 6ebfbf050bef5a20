"""Draws the pictures of the exploration's documentation: ``python docs/make_images_spectra.py FOLDER`` from the repository root.

FOLDER holds what ``benchmarks/spectrum_exploration.py --save FOLDER`` and ``benchmarks/spectra_policies.py --save FOLDER`` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

import probegym  # noqa: F401  registers the environments
from probegym.agents.bundle import BundlePolicy

FOLDER = Path(__file__).parent / "images"
SEED = 10_000_003
ORDER = LinearSegmentedColormap.from_list("order", ["#5a96dc", "#e88c50"])  # from the first place to the last, as on the screen
WORLDS = {"id": "plasmons, peak ratio", "near-imprint": "loops, imprint", "far-recorded": "measured loops, clean area"}
COLOURS = {"policy": "#d62728", "fixed-weights": "#1f77b4", "dkl-ei": "#2ca02c", "dkl-ucb": "#17becf", "coordinates-ei": "#9467bd", "curiosity": "#8c564b",
           "schedule": "#e377c2", "bright-pixels": "#bcbd22", "even-grid": "#7f7f7f", "random-places": "#000000"}  # fmt: skip


def explored(world: str, seed: int) -> tuple[dict, dict, object]:
    """Memory and truth of one lane at the end of an episode of the shipped policy, and its task."""
    envs = gym.make_vec("probegym/SpectrumExploration-v0", num_envs=1, scenario=world, autoreset_mode="Disabled")
    policy = BundlePolicy("spectrum-exploration")
    policy.begin(1, seed)
    observation, _ = envs.reset(seed=seed)
    over = False
    while not over:
        observation, _, terminated, truncated, _ = envs.step(policy.act(observation, envs.episodes))
        over = bool(terminated[0] or truncated[0])
    memory, truth = ({name: array[0] for name, array in lanes.items()} for lanes in (envs.episodes.memory, envs.episodes.truth))
    return memory, truth, envs.episodes.task


def paths() -> plt.Figure:
    """Path over the image, what the surrogate expects and does not know, the truth, and spectra at chosen places."""
    figure, axes = plt.subplots(len(WORLDS), 5, figsize=(17, 3.4 * len(WORLDS)), layout="constrained")
    for row, (world, title) in zip(axes, WORLDS.items(), strict=True):
        memory, truth, task = explored(world, SEED)
        image = task.settings.image
        shape, um = (image.rows, image.columns), 1e6 * image.field_of_view
        extent = (0, um, um * image.rows / image.columns, 0)
        order = memory["order"]
        pixels = np.flatnonzero(order)[np.argsort(order[order > 0])]
        y, x = (np.array(np.divmod(pixels, image.columns)) + 0.5) * 1e6 * image.pixel_size
        best = int(np.where(memory["known"], memory["value"], -np.inf).argmax())
        scalar = truth[f"scalar {task.settings.scalarizers[int(memory['target'])]}"]
        maps = (("image", memory["image"], "gray"), ("expected", memory["mean"], "magma"), ("uncertainty", memory["deviation"], "magma"), ("truth", scalar, "magma"))
        for axis, (name, values, colours) in zip(row, maps, strict=False):
            low, high = np.percentile(values, [0.5, 99.9])
            shown = axis.imshow(values.reshape(shape), cmap=colours, vmin=low, vmax=high, extent=extent)
            if name != "image":
                figure.colorbar(shown, ax=axis, fraction=0.046).ax.tick_params(labelsize=7)
            axis.set_title(f"{title}: {name}" if name == "image" else name, fontsize=10)
            axis.tick_params(labelsize=7)
        row[0].set_ylabel("um", fontsize=8)
        row[0].plot(x, y, "-", color="#5cc88c", lw=0.5, alpha=0.25)
        row[0].scatter(x, y, c=np.arange(len(x)), cmap=ORDER, s=16, zorder=2)
        row[3].scatter(x, y, s=4, c="#5cc88c")
        for place, colour in zip((best, pixels[0], pixels[len(pixels) // 2]), ("#d62728", "#1f77b4", "#7f7f7f"), strict=True):
            top, left = np.array(divmod(place, image.columns)) + 0.5
            row[0].plot(1e6 * image.pixel_size * left, 1e6 * image.pixel_size * top, "s", mfc="none", mec=colour, ms=8, mew=1.5)
            row[4].plot(memory["axis"], memory["total"][place] / memory["visits"][place], color=colour, lw=1)
        row[4].set_title("spectra: best (red), first, middle", fontsize=10)
        row[4].set_xlabel("energy loss, eV" if task.settings.spectrum.detector == "eels" else "bias, V", fontsize=8)
        row[4].tick_params(labelsize=7)
    return figure


def curves(folder: Path) -> plt.Figure:
    """Mean regret of every agent against the number of spectra, with 95 % bootstrap intervals."""
    titles = WORLDS | {"rugged-doped": "more doped particles", "rugged-defects": "imprint, many defects", "rugged-switch": "target changes at 48"}
    worlds = [world for world in titles if any((folder / f"{kind}-{world}.npz").is_file() for kind in ("scripts", "policies"))]
    figure, axes = plt.subplots(-(-len(worlds) // 3), 3, figsize=(15.6, 4.2 * -(-len(worlds) // 3)), layout="constrained", squeeze=False)
    for axis in axes.flat[len(worlds) :]:
        axis.remove()
    for axis, world in zip(axes.flat, worlds, strict=False):
        found = {}
        for kind in ("scripts", "policies"):
            path = folder / f"{kind}-{world}.npz"
            if path.is_file():
                with np.load(path) as data:
                    found |= {name.split("/")[0]: data[name] for name in data.files if name.endswith("/curve")}
        for name, colour in COLOURS.items():
            if name not in found:
                continue
            runs = found[name]
            spectra = 5 + np.arange(runs.shape[1])
            drawn = np.random.default_rng(0).integers(0, len(runs), (500, len(runs)))
            low, high = np.quantile(runs[drawn].mean(1), [0.025, 0.975], axis=0)
            axis.plot(spectra, runs.mean(0), color=colour, lw=2 if name == "policy" else 1.2, label=f"{name} ({len(runs)})")
            axis.fill_between(spectra, low, high, color=colour, alpha=0.12, lw=0)
        axis.set_title(titles[world], fontsize=11)
        axis.set(xlabel="spectra", ylabel="mean regret", ylim=(0, None), xlim=(5, 88))
        axis.legend(fontsize=7, title="agent (episodes)", title_fontsize=7)
    return figure


def main() -> None:
    """Write the pictures into docs/images."""
    folder = Path(sys.argv[1])
    for name, figure in (("spectrum_exploration_paths", paths()), ("spectrum_exploration_regret", curves(folder))):
        figure.savefig(FOLDER / f"{name}.png", dpi=80)


if __name__ == "__main__":
    main()
