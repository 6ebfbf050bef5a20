"""Ferroelectric films under a force microscope's tip: domains, walls, and the hysteresis loop behind every pixel.

A film has up and down domains of a labyrinth or of stripes (relaxed by the equation of Swift & Hohenberg, Phys. Rev. A 15, 319
(1977), 10.1103/PhysRevA.15.319), crossed by thin lamellae whose polarisation lies in the plane (a-domains). Its remanent
piezoresponse loops have the nine parameters of Jesse, Lee & Kalinin, Rev. Sci. Instrum. 77, 073702 (2006),
10.1063/1.2214699, as functions of the distances to walls and lamellae and of the walls' curvature, with correlated disorder:
walls nucleate switching, so loops are narrower there; lamellae clamp, so loops are flat there; where both meet, the wall is
mobile, so loops are tall. How much, and how far it reaches, are design parameters. Bias in V, response in arbitrary units.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, rfft2
from scipy.special import erf

from probegym.physics import randomness

SHAPE = (50, 50)


def triangle(steps: int = 64, amplitude: float = 8.5) -> np.ndarray:
    """Bias of one triangular cycle in V, (steps,): from 0 up, down through 0, and back; steps is a multiple of 4."""
    quarter = steps // 4
    return amplitude * (np.abs((np.arange(steps) + quarter) % steps - 2 * quarter) * -1.0 + quarter) / quarter


AXIS = triangle()


def oscillator(frequency, amplitude, resonance, quality) -> np.ndarray:
    """Complex response of a driven simple harmonic oscillator, arrays that broadcast together; frequencies in one unit.

    Its modulus is A0 w0^2 / sqrt((w0^2 - w^2)^2 + (w w0 / Q)^2), A0 at rest and A0 Q at resonance: what band excitation fits.
    """
    frequency, resonance = np.asarray(frequency, float), np.asarray(resonance, float)
    return amplitude * resonance**2 / (resonance**2 - frequency**2 + 1j * frequency * resonance / quality)


def loops(bias: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Remanent hysteresis loops (..., steps) of nine parameters (..., 9): a0..a4, b0..b3.

    a0: response at large negative bias; a1: height; a2, a3: V, where the rising and the falling branch switch; a4: slope, 1/V;
    b0, b1: V, width of the rising transition before and after its switching bias; b2, b3: of the falling one.
    Branch i has y = (g erf((V - a) / g) + b_lo) / (b_lo + b_hi) with g = b_lo below a and b_hi above, response a0 + a1 y + a4 V
    (as in BGlib, after Jesse et al. 2006; there g goes over within a few mV, here at once).
    """
    a, b = parameters[..., :5, None], parameters[..., 5:, None]
    low, high = int(bias.argmin()), int(bias.argmax())
    steps = np.arange(len(bias))
    falling = (steps - high) % len(bias) < (low - high) % len(bias)
    out = np.empty((*parameters.shape[:-1], len(bias)))
    for branch, at in ((~falling, 0), (falling, 1)):
        centre, before, after = a[..., 2 + at, :], b[..., 2 * at, :], b[..., 2 * at + 1, :]
        apart = bias[branch] - centre
        width = np.where(apart < 0, before, after)
        out[..., branch] = (width * erf(apart / width) + before) / (before + after)
    return a[..., 0, :] + a[..., 1, :] * out + a[..., 4, :] * bias


PARAMETERS = {
    "pixel_size": 20e-9, "period": 260e-9, "anisotropy": 0.3, "wall": 30e-9, "lamellae": 4.0, "lamella": 50e-9, "defects": 3.0,
    "response": 1.0, "coercive": 4.2, "imprint": 0.9, "width": 1.2, "slope": 0.0, "softening": 0.35, "clamping": 0.6, "mobility": 0.9,
    "bowing": 0.5, "disorder": 0.12, "disorder_length": 80e-9, "roughness": 0.05,
}  # fmt: skip
"""Parameters of a film and what they are when not given, each a number or one for every lane.

pixel_size, period (of the up and down domains), wall, lamella (widths), disorder_length: m. anisotropy: 0 a labyrinth, 1 stripes.
lamellae, defects: mean number in the field of view. response: height of the loop in a domain; coercive, imprint, width (of
the transitions): V; slope: 1/V, of the electrostatic force where loops are taken with the bias on. softening: share of the
coercive bias that a wall takes away. clamping: share of the response that a lamella takes away. mobility: how much taller
loops are where a wall meets a lamella. bowing: V, shift of the loop on a wall whose radius of curvature is the period over 2
pi. disorder: relative deviation of what is correlated over disorder_length. roughness: of the image, whose domains are +-1.
"""

_GROWTH, _STEPS = 0.7, 30


def film(keys, parameters: dict, bias: np.ndarray = AXIS, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Films drawn from keys: images (lanes, rows, columns) and noiseless loops (lanes, rows x columns, steps), float32.

    The image is the piezoresponse A cos(phase) before poling: up domains positive, down domains negative, walls and lamellae
    about 0. parameters: see PARAMETERS.
    """
    keys = np.ascontiguousarray(keys, np.uint64).reshape(-1)
    told = {name: np.broadcast_to(np.asarray(parameters.get(name, usual), float), len(keys)) for name, usual in PARAMETERS.items()}
    images, spectra = np.empty((len(keys), *shape), np.float32), np.empty((len(keys), shape[0] * shape[1], len(bias)), np.float32)
    for lane, key in enumerate(keys):
        images[lane], coefficients = coefficients_of(key, {name: float(values[lane]) for name, values in told.items()}, shape)
        spectra[lane] = loops(bias, coefficients.reshape(-1, 9))
    return images, spectra


def coefficients_of(key, told: dict, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Image (rows, columns) and the nine loop parameters (rows, columns, 9) of one key; told: every one of PARAMETERS."""
    up, distance, curvature = domains(key, told, shape)
    lamella = _lamellae(key, told, shape)
    wall = np.exp(-((distance / told["wall"]) ** 2))
    clamped = 1 / (1 + np.exp((lamella - told["lamella"] / 2) / (0.15 * told["lamella"])))
    near = np.exp(-((np.maximum(lamella - told["lamella"] / 2, 0) / told["lamella"]) ** 2))
    rough = _correlated(key, "disorder", 5, told["disorder_length"] / told["pixel_size"], shape) * told["disorder"]
    defect = _defects(key, told, shape)

    height = told["response"] * np.exp(rough[0]) * (1 - told["clamping"] * clamped) * (1 + told["mobility"] * wall * near) * (1 - 0.2 * wall)
    soft = (1 - told["softening"] * wall) * (1 - 0.6 * told["softening"] * near)
    coercive = told["coercive"] * np.exp(rough[1]) * soft * (1 + 0.35 * defect)
    shift = told["imprint"] * (1 + 2 * rough[2] + 0.3 * up) + told["bowing"] * wall * curvature * told["period"] / (2 * np.pi) + 2.0 * defect
    width = told["width"] * np.exp(rough[3])[..., None] * (1 + np.stack([0.5 * wall, 0.2 * wall + 0.6 * near, 0.5 * wall, 0.6 * near], axis=-1))
    low = height * (-0.5 + 0.5 * rough[4] - 0.1 * up)
    slope = np.full(shape, told["slope"])
    coefficients = np.concatenate([np.stack([low, height, shift + coercive, shift - coercive, slope], axis=-1), width], axis=-1)
    grain = randomness.normal(key, 0, "image", shape[0] * shape[1]).reshape(shape)
    image = up * np.tanh(distance / (0.6 * told["wall"])) * np.exp(rough[0]) * (1 - 0.85 * clamped) + told["roughness"] * grain
    return image, coefficients


def domains(key, told: dict, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up (+1) or down (-1), distance to the nearest wall in m, and curvature of the level lines in 1/m, each (rows, columns).

    The curvature is positive where an up domain bulges into a down one.
    """
    size = 16 * int(np.ceil(1.2 * max(shape) / 16))
    pixel = told["pixel_size"]
    k, direction = _wave_vectors(size, 2 * np.pi * pixel / told["period"])
    turn = np.pi * float(randomness.uniform(key, 0, "orientation", 1)[0, 0])
    order = randomness.normal(key, 0, "domains", size * size).reshape(size, size) * 0.3
    linear = _GROWTH - (1 - k**2) ** 2 - 0.6 * told["anisotropy"] * (k * np.sin(direction - turn)) ** 2
    implicit = 1 / (1 - linear + 2 * _GROWTH)
    for _ in range(_STEPS):
        cubed = np.minimum(order * order, 4.0) * order
        order = irfft2(((1 + 2 * _GROWTH) * rfft2(order) - rfft2(cubed)) * implicit, s=(size, size))
    smooth = irfft2(rfft2(order) * np.exp(-0.5 * (0.5 * k) ** 2), s=(size, size))
    gy, gx = np.gradient(smooth, pixel)
    steep = np.hypot(gx, gy) + 0.1 * np.abs(smooth).max() * 2 * np.pi / told["period"]
    curvature = -(np.gradient(gx / steep, pixel, axis=1) + np.gradient(gy / steep, pixel, axis=0))
    crop = np.s_[: shape[0], : shape[1]]
    up = np.where(order > 0, 1.0, -1.0)
    return up[crop], (pixel * _distance(order))[crop], curvature[crop]


def _distance(order: np.ndarray) -> np.ndarray:
    """Distance in pixels to where a field changes its sign: to the nearest pixel of the other sign, less how far that is past it."""
    gy, gx = np.gradient(order)
    past = np.clip(np.abs(order) / np.maximum(np.hypot(gx, gy), 1e-12), 0, 1)
    out = np.empty_like(order)
    for side in (order > 0, order <= 0):
        apart, (row, column) = ndimage.distance_transform_edt(side, return_indices=True)
        out[side] = (apart - past[row, column])[side]
    return np.where(past < 0.7, past, np.maximum(out, 0.7))


def _wave_vectors(size: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Length over ``unit`` (1/pixel), and direction, on the half plane of rfft2."""
    ky, kx = np.meshgrid(2 * np.pi * np.fft.fftfreq(size), 2 * np.pi * np.fft.rfftfreq(size), indexing="ij")
    return np.hypot(kx, ky) / unit, np.arctan2(ky, kx)


def _lamellae(key, told: dict, shape: tuple[int, int]) -> np.ndarray:
    """Distance in m to the middle of the nearest a-domain, (rows, columns). They run in two directions at right angles."""
    count = _count(key, "lamellae", told["lamellae"])
    if not count:
        return np.full(shape, np.inf)
    drawn = randomness.uniform(key, 0, "lamella", 4 * count).reshape(count, 4)
    turn = np.pi / 2 * (float(randomness.uniform(key, 0, "lattice", 1)[0, 0]) + (drawn[:, 0] < 0.3))
    y, x = np.indices(shape) * told["pixel_size"]
    extent = np.array([shape[1], shape[0]]) * told["pixel_size"]
    middle, half = drawn[:, 1:3] * extent, (0.2 + 0.8 * drawn[:, 3]) * extent.max() / 2
    dx, dy = x - middle[:, 0, None, None], y - middle[:, 1, None, None]
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    beyond = np.maximum(np.abs(dx * cos + dy * sin) - half[:, None, None], 0)
    return np.hypot(dy * cos - dx * sin, beyond).min(0)


def _defects(key, told: dict, shape: tuple[int, int]) -> np.ndarray:
    """Strength, up to 1 and with its sign, of point defects that pin and shift the loops around them; they are not in the image."""
    count = _count(key, "defects", told["defects"])
    drawn = randomness.uniform(key, 0, "defect", 3 * max(count, 1)).reshape(-1, 3)[:count]
    y, x = np.indices(shape)
    strength = np.zeros(shape)
    reach = 0.7 * told["disorder_length"] / told["pixel_size"]
    for a, b, c in drawn:
        strength += (1 if c < 0.5 else -1) * np.exp(-0.5 * ((x - a * shape[1]) ** 2 + (y - b * shape[0]) ** 2) / reach**2)
    return np.clip(strength, -1, 1)


def _count(key, stream: str, mean: float) -> int:
    """A whole number within 50 % of its mean, which may be 0."""
    return int(np.floor(mean * (0.5 + float(randomness.uniform(key, 0, stream, 1)[0, 0])) + 0.5))


def _correlated(key, stream: str, fields: int, length: float, shape: tuple[int, int]) -> np.ndarray:
    """Normal fields (fields, rows, columns) of variance 1 and correlation exp(-r^2 / 2 length^2), length in pixels: filtered white noise."""
    size = 16 * int(np.ceil((max(shape) + 2 * length) / 16))
    white = randomness.normal(key, 0, stream, fields * size * size).reshape(fields, size, size)
    k, _ = _wave_vectors(size, 1.0)
    gain = np.exp(-0.25 * (k * length) ** 2)
    impulse = irfft2(gain, s=(size, size))
    return irfft2(rfft2(white) * gain, s=(size, size))[:, : shape[0], : shape[1]] / np.sqrt((impulse**2).sum())


def measure(spectra: np.ndarray, noise, keys, step, failures=0.0) -> np.ndarray:
    """Loops (lanes, steps) float32 as measured: with Gaussian noise and, in a share of the steps, a failed fit of the resonance.

    noise: standard deviation in units of the response; failures: share; each a number or (lanes,). A failed fit is off by a
    log-normal factor around 30 of the noise, of either sign. keys (lanes,) and step, a number or (lanes,), say which noise.
    """
    spectra = np.asarray(spectra, np.float32)
    lanes, steps = spectra.shape
    noise, failures = (np.broadcast_to(np.asarray(value, float), lanes)[:, None] for value in (noise, failures))
    wrong = randomness.normal(keys, step, "loop noise", steps)
    if np.any(failures):
        failed = randomness.uniform(keys, step, "failed fits", steps)
        spike = np.sign(wrong) * 30 * np.exp(randomness.normal(keys, step, "spikes", steps))
        wrong = np.where(failed < failures, spike, wrong)
    return (spectra + noise * wrong).astype(np.float32)
