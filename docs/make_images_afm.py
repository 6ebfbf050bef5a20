"""Draws the pictures of the force microscope's documentation: ``python docs/make_images_afm.py`` from the repository root, which takes half a minute."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from probegym.agents import bundle
from probegym.physics import approach, tapping

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import afm  # the cases and lines that the benchmark measures

FOLDER = Path(__file__).parent / "images"
PI_ERROR = 1.06  # nm, geometric mean of the best fixed PI on training seeds at 8 Hz


def tuning_curve() -> plt.Figure:
    """How the shipped policy of AfmTuning was learned, from the curve that its bundle keeps."""
    spec = json.loads((bundle.find("afm-tuning") / "policy.json").read_text())
    columns = dict(zip(spec["curve"]["columns"], np.array(spec["curve"]["rows"]).T, strict=True))
    update = columns["update"] / 1000
    shown = (("height_error_nm", "rms height error / nm"), ("line_rate", "line rate / Hz"), ("crashes", "episodes with a crash, explored / %"))
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axis, (name, label) in zip(axes, shown, strict=True):
        axis.plot(update, columns[name] * (100 if name == "crashes" else 1), color="#30475e", lw=1.5)
        axis.set(xlabel="gradient steps / 1000", title=label, xlim=(0, update[-1]))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].yaxis.set(major_locator=FixedLocator([0.4, 0.6, 1, 1.5]), minor_locator=NullLocator(), major_formatter="{x:g}")
    axes[0].axhline(PI_ERROR, color="#c8553d", lw=1.2, ls="--")
    axes[0].text(0.98 * update[-1], 1.04 * PI_ERROR, "fixed PI at 8 Hz", color="#c8553d", fontsize=8, ha="right")
    return figure


def approach_sheet() -> plt.Figure:
    """Amplitude, phase and peak force against distance: reference (dots) and averaged model (lines), down and up."""
    cases = {"A0 = 15 nm: attractive only": (15, 0.5, 1.08), "A0 = 20 nm: two branches, jumps": (20, 0.5, 1.08), "A0 = 60 nm: repulsive, smooth": (60, 0.5, 1.08)}
    figure, axes = plt.subplots(3, 3, figsize=(12.5, 9), sharex="col", layout="constrained")
    for column, (title, (drive, low, high)) in zip(axes.T, cases.items(), strict=True):
        one, *sample = afm.garcia(drive)
        dots, fine = (afm.down_and_up(one, n, low, high) for n in (50, 350))
        reference, fast = approach.curve(one, dots, *sample, direct=True, modes=1, steps=afm.STEPS), approach.curve(one, fine, *sample)
        for axis, name, unit in zip(column, ("amplitude", "phase", "peak_force"), (1e9, 180 / np.pi, 1e9), strict=True):
            for at, trace, style in ((fine, fast, {"lw": 1.4}), (dots, reference, {"ls": "", "marker": "o", "ms": 3.6, "mfc": "none"})):
                half, values = len(at) // 2, getattr(trace, name)[0] * unit
                label = "averaged" if "lw" in style else "integrated"
                axis.plot(at[:half] * 1e9, values[:half], color="#1f5f8b", label=f"{label}, approach", **style)
                axis.plot(at[half:] * 1e9, values[half:], color="#c8553d", label=f"{label}, retract", **style)
        column[0].set_title(title, fontsize=10)
        column[1].axhline(90, color="grey", lw=0.6)
        column[2].set_ylim(-1, max(column[2].get_ylim()[1], 20))
        column[2].set_xlabel("distance of the resting tip, nm")
    for axis, label in zip(axes[:, 0], ("amplitude, nm", "phase, degrees", "peak force, nN"), strict=True):
        axis.set_ylabel(label)
    axes[0, 1].legend(fontsize=8)
    figure.suptitle("Approach curves: k = 40 N/m, Q = 400, 350 kHz, R = 20 nm, E* = 1.51 GPa, H = 0.064 aJ", fontsize=11)
    return figure


def agreement_column(axes, line: tapping.Track) -> None:
    """A scan line in both models: height, amplitude and phase."""
    one = afm.feedback()
    traces = {"integrated, two modes": (afm.scanned(one, line, 50, direct=True), {"color": "#c8553d", "lw": 2.6, "alpha": 0.6}),
              "averaged": (afm.scanned(one, line, 50), {"color": "#1f5f8b", "lw": 1.0})}  # fmt: skip
    x = 2.0 * np.arange(line.height.shape[1])
    axes[0].fill_between(x, line.height[0] * 1e9, -3, color="0.88", label="what the tip meets")
    for label, (trace, style) in traces.items():
        axes[0].plot(x, (trace.height[0] - one.setpoint) * 1e9, label=label, **style)
        axes[1].plot(x, trace.amplitude[0] * 1e9, label=label, **style)
        axes[2].plot(x, np.degrees(trace.phase[0]), label=label, **style)
    axes[1].axhline(one.setpoint * 1e9, color="grey", lw=0.6)
    axes[0].set_title("the two models, 50 oscillations a pixel", fontsize=10)


def feedback_column(axes, line: tapping.Track) -> None:
    """The averaged model with three gains over one line, noise on."""
    x = 2.0 * np.arange(line.height.shape[1])
    axes[0].fill_between(x, line.height[0] * 1e9, -3, color="0.88")
    for label, integral, colour in (("I = 150 /s: parachutes", 150.0, "#e0a030"), ("I = 1,500 /s: good", 1500.0, "#1f5f8b"), ("I = 5,000 /s: rings", 5000.0, "#c8553d")):
        one = tapping.Setup(**(vars(afm.feedback(integral)) | {"proportional": 0.1, "temperature": 295.0, "sensor_noise": 1e-13}))
        trace = afm.scanned(one, line, 50)
        for axis, values in zip(axes, ((trace.height[0] - one.setpoint) * 1e9, trace.amplitude[0] * 1e9, np.degrees(trace.phase[0])), strict=True):
            axis.plot(x, values, color=colour, lw=1.1, label=label)
    axes[1].axhline(30, color="grey", lw=0.6, ls="--", label="free amplitude")
    axes[1].legend(handles=axes[1].lines[-1:], fontsize=8, loc="lower right")
    axes[0].set_title("three feedback gains", fontsize=10)


def lines_sheet() -> plt.Figure:
    """A line over nanoparticles: the averaged model against the reference, and good, slow and ringing feedback."""
    figure, axes = plt.subplots(3, 2, figsize=(12.5, 8.5), sharex=True, sharey="row", layout="constrained")
    tracks = afm.line("nanoparticles", 3, lines=8)
    best = np.ptp(tracks.height, axis=1).argmax()
    line = tapping.Track(*(v[[best]] for v in vars(tracks).values()))
    agreement_column(axes[:, 0], line)
    feedback_column(axes[:, 1], line)
    for axis, label in zip(axes[:, 0], ("height less setpoint, nm", "amplitude, nm", "phase, degrees"), strict=True):
        axis.set_ylabel(label)
    for axis in axes[0]:
        axis.legend(fontsize=8, loc="upper right")
    for axis in axes[2]:
        axis.set_xlabel("along the line, nm (to the right)")
    axes[0, 0].set_ylim(bottom=-3)
    figure.suptitle("Gold particles on mica: k = 40 N/m, Q = 400, 300 kHz, piezo resonance 10 kHz", fontsize=11)
    return figure


def main() -> None:
    """Write the pictures into docs/images; names on the command line choose some."""
    sheets = {"afm_tuning_curve": tuning_curve, "afm_approach": approach_sheet, "afm_lines": lines_sheet}
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or sheets:
        path = FOLDER / f"{name}.png"
        sheets[name]().savefig(path, dpi=80)
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
