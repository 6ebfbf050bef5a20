"""What an operator is shown of commands, readings, budgets and limits: words and numbers with units, small grey images, short curves."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor, Range
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.programs import quantities
from probegym.hardware_bridge.programs.quantities import reading_unit

DOSE = "e⁻/Å²"
MOST_PIXELS, MOST_POINTS, MOST_NUMBERS = 512, 1000, 8  # of a side, a curve, a small array
LEAST_SIDE = 6  # rows from which an array is an image, not so many curves
TAILS = (1.0, 99.0)  # percentiles that are black and white
NAMED = "names"  # argument that names the components of the other one


def readable(command: Json) -> list[list[str]]:
    """A command in JSON as (argument, value with unit), complete: what an operator agrees to must all be seen.

    Where an argument ``names`` names the components of a quantity, each is shown under its name.
    """
    arguments = command["arguments"]
    names = arguments.get(NAMED)
    named = [name for name, given in arguments.items() if isinstance(names, list) and isinstance(given, dict) and np.size(given["value"]) == len(names)]
    told: list[list[str]] = []
    for name, given in arguments.items():
        if not isinstance(given, dict):
            told += [] if named and name == NAMED else [[name, _plain(given)]]
            continue
        texts = [quantity(float(x), given["unit"]) for x in np.ravel(np.asarray(given["value"], float))]
        told += [[label, text] for label, text in zip(names, texts, strict=True)] if name in named else [[name, ", ".join(texts)]]
    return told


def _plain(given: Any) -> str:
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, list):
        return (" × " if all(isinstance(entry, int) for entry in given) else ", ").join(_plain(entry) for entry in given)
    return str(given)


def quantity(value: float, unit: str) -> str:
    """A number with its unit for people, micro as µ."""
    return quantities.quantity(value, unit).replace(" u", " µ")


def scale_bar(command: Json | None) -> Json | None:
    """Length in words and share of the image's width of a bar of 1, 2 or 5 times a power of ten; None where no field of view is known."""
    told = (command or {}).get("arguments", {}).get("field_of_view")
    width = float(np.max(told["value"])) if isinstance(told, dict) else 0.0
    if not width > 0:
        return None
    power = 10.0 ** math.floor(math.log10(0.4 * width))
    length = max(step * power for step in (1, 2, 5) if step * power <= 0.4 * width * (1 + 1e-9))
    return {"share": length / width, "text": quantity(length, told["unit"])}


def limits(descriptor: Descriptor) -> list[list[str]]:
    """(verb and argument, limits in words) of everything that an instrument can do."""
    told = []
    for verb, capability in sorted(descriptor.capabilities.items()):
        told.append([verb, str(capability.effect) + (", approved each time" if capability.approval else "")])
        for name, allowed in capability.ranges.items():
            told.append([f"{verb}: {name}", _range(allowed, codec.ARGUMENTS[verb][name][1] or "1")])
    return told


def _range(allowed: Range, unit: str) -> str:
    words = f"{_span(allowed.low, min, unit)} to {_span(allowed.high, max, unit)}"
    for label, most in (("steps up to", allowed.step), ("at most", allowed.rate)):
        if most is not None:
            words += f", {label} {_span(most, max, unit)}" + (" a second" if label == "at most" else "")
    return words


def _span(numbers: Any, widest: Any, unit: str) -> str:
    return quantity(float(widest(np.atleast_1d(numbers))), unit)


def bars(status: Json) -> list[Json]:
    """Spending against limits: name, words, and the share that is spent, from 0 to 1."""
    spent, most, sample, budget = (status[name] for name in ("spent", "limits", "sample", "budget"))
    return [
        _bar("Time, this run", spent["seconds"], most["seconds"], "s"),
        _bar("Irreversible, this run", spent["changes"], most["changes"], ""),
        _bar("Dose, worst region of the sample", sample["dose"], budget["dose"], DOSE),
        _bar("Irreversible, worst region", sample["changes"], budget["changes"], ""),
    ]


def _bar(name: str, spent: float, most: float, unit: str) -> Json:
    share = min(1.0, spent / most) if most > 0 else float(spent > 0)
    if unit == "s" and not most:
        return {"name": name, "text": "not armed yet", "share": 0.0}
    return {"name": name, "text": f"{_digits(spent)} of {_digits(most)} {unit}".rstrip(), "share": share}


def _digits(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u202f") if 1e3 <= number < 1e7 else f"{number:.4g}"


def views(verb: str, arrays: Arrays) -> list[Json]:
    """Readings of one command as images, curves and numbers, each with its unit; ``arrays`` have a leading axis of one lane."""
    axis = arrays["axis"][0] if "axis" in arrays and arrays["axis"].ndim == 2 else None
    told = []
    for name, array in arrays.items():
        if name == "axis" or array.dtype.kind not in "biuf" or array.shape[:1] != (1,) or not array.size:
            continue
        told.append({"name": name} | _view(np.asarray(array[0], float), reading_unit(verb, name, "mean"), axis))
    return told


def _view(values: np.ndarray, unit: str, axis: np.ndarray | None) -> Json:
    if values.ndim == 2 and min(values.shape) >= LEAST_SIDE:
        return _image(values, unit)
    if values.size > MOST_NUMBERS and values.shape[-1] > MOST_NUMBERS and values.ndim <= 2:
        return _curves(np.atleast_2d(values), unit, axis)
    if values.size <= MOST_NUMBERS:
        return {"kind": "numbers", "text": ", ".join(quantity(float(x), unit) if math.isfinite(x) else "none" for x in values.ravel())}
    return {"kind": "numbers", "text": " × ".join(map(str, values.shape)) + " numbers"}


def _image(values: np.ndarray, unit: str) -> Json:
    """Grey levels 1 to 255 between the percentiles TAILS, 0 where there is no number; averaged over blocks when it is large."""
    block = math.ceil(max(values.shape) / MOST_PIXELS)
    rows, columns = (max(1, n // block) for n in values.shape)
    tall, wide = min(block, values.shape[0]), min(block, values.shape[1])
    small = values[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide).mean((1, 3))
    known = np.isfinite(small)
    low, high = np.percentile(small[known], TAILS) if known.any() else (0.0, 0.0)
    grey = 1 + 254 * np.clip((np.where(known, small, low) - low) / ((high - low) or 1.0), 0, 1)
    levels = np.where(known, np.round(grey), 0).astype(np.uint8)
    return {
        "kind": "image", "rows": rows, "columns": columns, "size": f"{values.shape[1]} × {values.shape[0]}", "grey": base64.b64encode(levels.tobytes()).decode(),
        "low": quantity(float(low), unit), "high": quantity(float(high), unit), "missing": int((~known).sum()),
    }  # fmt: skip


def _curves(values: np.ndarray, unit: str, axis: np.ndarray | None) -> Json:
    """Curves over the sample's number, or over ``axis`` where it fits; long ones keep least and most of every stretch."""
    across = axis if axis is not None and len(axis) == values.shape[1] else None
    known = values[np.isfinite(values)]
    ends = (0.0, float(values.shape[1] - 1)) if across is None else (float(across[0]), float(across[-1]))
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    return {
        "kind": "curves", "curves": [[None if not math.isfinite(y) else y for y in _thinned(row)] for row in values[:MOST_NUMBERS]],
        "bottom": low, "top": high, "low": quantity(low, unit), "high": quantity(high, unit), "first": f"{ends[0]:.4g}", "last": f"{ends[1]:.4g}",
    }  # fmt: skip


def _thinned(row: np.ndarray) -> list[float]:
    stretch = math.ceil(2 * len(row) / MOST_POINTS)
    if len(row) <= MOST_POINTS:
        return [float(y) for y in row]
    kept: list[float] = []
    for first in range(0, len(row), stretch):
        part = row[first : first + stretch]
        kept += [float(np.min(part)), float(np.max(part))]
    return kept
