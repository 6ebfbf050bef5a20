"""How many images, frames and environment steps a second; memory and start-up time.

Every rate is the median over repeats of at least ``--seconds``. abTEM scans the same 64 x 64 image in the same run,
between two timings of ours, with the fastest of four settings; building its potential, and
our loading of the tensor, count for neither. Start-up and memory are taken in fresh processes.

    python benchmarks/throughput.py [--seconds 1] [--device cuda] [--only images abtem]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from report import box, json_line, rate, table
from scipy import constants

import probegym  # noqa: F401  registers the environments
from probegym.envs.stem_tuning import Settings
from probegym.hardware_bridge.twins.stem import StemConfig
from probegym.physics import specimens
from probegym.physics.image_formation import ImageFormer, raster, shot_noise
from probegym.physics.optics import to_polar
from probegym.physics.ronchigram import RonchigramFormer
from probegym.physics.threads import available_threads
from probegym.scenarios import load

PIXELS, BATCHES, LANES = 64, (16, 64, 256), 64
TORCH_BATCHES = {"cpu": (1, 16, 64), "cuda": (256, 1024, 4096)}
ABTEM_SETTINGS = ({"max_batch": 32}, {"max_batch": 8}, {"lazy": False, "max_batch": 8}, {"lazy": False, "max_batch": 32})
ROOT = Path(__file__).parents[1]
MEMORY_LANES = 1024


class Graphene:
    """The image of scenario ``graphene``: its optics, field of view and dose, over random states of its box."""

    def __init__(self):
        scenario = load("stem_tuning", "graphene")
        self.world, series = StemConfig(**scenario.world), Settings(**scenario.task).haadf
        specimen = specimens.load(self.world.specimens[0])
        self.former = ImageFormer(specimen.tensors["haadf"], self.world.semiangle_cutoff, self.world.names, self.world.source_size)
        self.pixel_size = series.field_of_view / series.pixels
        self.electrons = self.world.beam_current * series.dwell_time / constants.e

    def batch(self, lanes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(lanes)
        states = rng.uniform(-1, 1, (lanes, len(self.world.names))) * box("graphene", self.world.names)
        return states, *raster(lanes, PIXELS, self.pixel_size, rng.uniform(0, 1e-8, (lanes, 2)))

    def work(self, lanes: int, threads: int | None, noise: bool = False):
        """A function that forms one batch of images."""
        states, x, y = self.batch(lanes)
        keys, electrons = np.arange(lanes, dtype=np.uint64), np.full(lanes, self.electrons)

        def images():
            found = self.former.images(states, x, y, PIXELS, self.pixel_size, threads)
            return shot_noise(found, electrons, keys) if noise else found

        return images


def image_rates(graphene: Graphene, seconds: float) -> list[tuple]:
    """Rows (batch, threads, noiseless, with shot noise) of images a second."""
    rows = []
    for threads in sorted({1, available_threads()}):
        os.environ["PROBEGYM_THREADS"] = str(threads)  # shot_noise has no argument for it
        for lanes in (1, *BATCHES):
            rows.append((lanes, threads, *(rate(graphene.work(lanes, threads, noise), lanes, seconds) for noise in (False, True))))
        del os.environ["PROBEGYM_THREADS"]
    return rows


def abtem_ratio(graphene: Graphene, seconds: float) -> dict:
    """Images a second of ours around one full 64 x 64 scan by abTEM, all threads for both."""
    import abtem

    from probegym.physics.recipes import RECIPES

    abtem.config.set({"diagnostics.progress_bar": False})
    recipe, states = RECIPES["graphene-si"], graphene.batch(64)[0]
    potential = specimens.slices_of(recipe)[0]
    polar = to_polar(dict(zip(graphene.world.names, states[0], strict=True)))
    probe = abtem.Probe(energy=recipe.energy, semiangle_cutoff=recipe.semiangle_cutoff, soft=False, aberrations=polar)
    probe.grid.match(potential)
    detector = abtem.AnnularDetector(*recipe.detectors["haadf"])

    def scan(rows: int, settings: dict) -> float:
        field = PIXELS * graphene.pixel_size * 1e10
        grid = abtem.GridScan((0, 0), (field, field * rows / PIXELS), gpts=(PIXELS, rows), endpoint=False)
        began = time.perf_counter()
        measured = probe.scan(potential, scan=grid, detectors=detector, **settings)
        if settings.get("lazy", True):
            measured.compute()
        return time.perf_counter() - began

    scan(1, {})  # plans its transforms
    trials = {str(settings): (scan(8, settings), settings) for settings in ABTEM_SETTINGS}
    _, best = min(trials.values(), key=lambda trial: trial[0])
    work = graphene.work(64, None)
    before, spent, after = rate(work, 64, seconds), scan(PIXELS, best), rate(work, 64, seconds)
    ours = (before + after) / 2
    return {"abtem_seconds_per_image": spent, "abtem_settings": str(best), "images_per_second": ours, "ratio": ours * spent}


def quiet(actions: np.ndarray) -> np.ndarray:
    """Small steps that never declare the microscope tuned."""
    actions *= 0.1
    actions[..., -1] = -1
    return actions


def single_rate(scenario: str, seconds: float) -> float:
    """Steps a second of one environment as gym.make gives it, resets included."""
    env = gym.make("probegym/StemTuning-v0", scenario=scenario)
    env.reset(seed=0)
    action = quiet(np.random.default_rng(0).uniform(-1, 1, env.action_space.shape).astype(np.float32))

    def steps():
        for _ in range(100):
            if any(env.step(action)[2:4]):
                env.reset()

    return rate(steps, 100, seconds)


def vector_rate(scenario: str, lanes: int, seconds: float) -> float:
    """Environment steps a second of the native vector environment, resets included."""
    env = gym.make_vec("probegym/StemTuning-v0", lanes, vectorization_mode="vector_entry_point", scenario=scenario)
    env.reset(seed=0)
    actions = quiet(np.random.default_rng(0).uniform(-1, 1, env.action_space.shape).astype(np.float32))

    def steps():
        for _ in range(4):
            env.step(actions)

    return rate(steps, 4 * lanes, seconds)


def torch_rates(graphene: Graphene, device: str, seconds: float) -> list[tuple]:
    """Rows (what, device, batch, a second) of the torch forms; data stays on the device."""
    import torch

    from probegym.physics.differentiable import TorchImageFormer, TorchRonchigramFormer

    film, names = specimens.load("film-carbon"), graphene.world.names
    ronchigram = RonchigramFormer(film.films, film.energy, film.extent[0], film.semiangle_cutoff, 42, names, film.slice_thickness)
    images, frames, rows = TorchImageFormer(graphene.former, device), TorchRonchigramFormer(ronchigram, device), []
    for lanes in TORCH_BATCHES[torch.device(device).type]:
        states, x, y = (torch.as_tensor(array, dtype=torch.float32, device=device) for array in graphene.batch(lanes))
        places, variant = torch.stack([x[:, 0], y[:, 0]], 1), torch.arange(lanes, device=device) % len(film.films)
        models = {
            "images": lambda states, x=x, y=y: images.images(states, x, y, PIXELS, graphene.pixel_size),
            "Ronchigrams": lambda states, places=places, variant=variant: frames.frames(states, places, variant),
        }
        for name, model in models.items():
            for gradient in (False, True):
                work = _torch_work(model, states, gradient)
                rows.append((name + (" with gradient" if gradient else ""), device, lanes, rate(work, lanes, seconds / 2)))
    return rows


def _torch_work(model, states, gradient: bool):
    import torch

    def work() -> None:
        if gradient:
            leaf = states.clone().requires_grad_()
            model(leaf).square().sum().backward()
        else:
            with torch.no_grad():
                model(states)
        if states.is_cuda:
            torch.cuda.synchronize()

    return work


START = """
import sys, time
began = time.perf_counter()
import gymnasium, probegym
imported = time.perf_counter()
env = gymnasium.make("probegym/StemTuning-v0", scenario=sys.argv[1])
env.reset(seed=0)
print(imported - began, time.perf_counter() - imported)
"""

MEMORY = """
import re, sys, gymnasium, probegym
env = gymnasium.make_vec("probegym/StemTuning-v0", int(sys.argv[2]), vectorization_mode="vector_entry_point", scenario=sys.argv[1])
env.reset(seed=0)
for _ in range(3):
    env.step(0.1 * env.action_space.sample() - 0.1)
status = open("/proc/self/status").read()  # the peak that getrusage gives would include this process's parent
print(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) * 1024)
"""


def fresh(code: str, *arguments, **environment: str) -> list[float]:
    """The numbers that a fresh process prints."""
    command, surroundings = [sys.executable, "-c", code, *map(str, arguments)], os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def start_times() -> list[tuple]:
    """Rows (scenario, kernels, import, make and reset) in seconds; the median of three where kernels are cached."""
    rows = []
    for scenario in ("graphene", "train", "both"):
        imported, made = np.median([fresh(START, scenario) for _ in range(3)], axis=0)
        rows.append((scenario, "cached", imported, made))
    with tempfile.TemporaryDirectory() as folder:
        rows.append(("graphene", "compiled first", *fresh(START, "graphene", PROBEGYM_CACHE=folder)))
    return rows


def sections(graphene: Graphene, seconds: float, devices: list[str]) -> dict:
    """Section -> a function that measures it and returns a title, a header and rows."""
    import torch

    scenarios = {"graphene": "HAADF", "graphene-both": "HAADF and Ronchigram", "both": "the same, 8 particles", "train": "two Ronchigrams"}

    def images():
        header = ("batch", "threads", "noiseless", "shot noise")
        return "Exact 64 x 64 graphene images a second", header, image_rates(graphene, seconds)

    def ratio():
        found = abtem_ratio(graphene, seconds)
        return "One 64 x 64 graphene image, this process, all threads", tuple(found), [tuple(found.values())]

    def environments():
        rows = [(scenario, seen, 1, single_rate(scenario, seconds)) for scenario, seen in scenarios.items()]
        rows += [(scenario, seen, LANES, vector_rate(scenario, LANES, seconds)) for scenario, seen in scenarios.items()]
        return "Environment steps a second, resets included", ("scenario", "sees", "lanes", "env-steps/s"), rows

    def memory():
        rows = [(scenario, MEMORY_LANES, fresh(MEMORY, scenario, MEMORY_LANES)[0] / 1e9) for scenario in scenarios]
        return "Peak memory of a process", ("scenario", "lanes", "GB"), rows

    def start():
        return "Start in a fresh process, s", ("scenario", "kernels", "import", "make + first reset"), start_times()

    def with_torch():
        torch.set_num_threads(1)  # a second thread on a busy machine costs more than it brings
        rows = [row for device in devices for row in torch_rates(graphene, device, seconds)]
        on = torch.cuda.get_device_name(devices[-1]) if torch.device(devices[-1]).type == "cuda" else "one thread"
        return f"Torch forms ({on})", ("what", "device", "batch", "per second"), rows

    return {
        "images": images,
        "abtem": ratio,
        "environments": environments,
        "torch": with_torch,
        "memory": memory,
        "start": start,
    }


def main() -> None:
    names = ("images", "abtem", "environments", "torch", "memory", "start")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of one measurement")
    parser.add_argument("--device", help="of the torch forms; without it the CPU, and a GPU when there is one")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    options = parser.parse_args()
    import torch

    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    figures = {}
    for name, measure in sections(Graphene(), options.seconds, devices).items():
        if name in options.only:
            title, header, rows = measure()
            table(title, header, rows)
            figures[name] = [dict(zip(header, row, strict=True)) for row in rows]
    json_line("throughput", **figures)


if __name__ == "__main__":
    main()
