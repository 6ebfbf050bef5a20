"""Plasmons of nanoparticle assemblies in electron energy loss: spheres and rods, coupled, every mode at once.

Each particle is a prolate spheroid (a sphere is one) that is polarised uniformly. All have the permittivity of Drude,
eps(E) = eps_inf - E_p^2 / (E^2 + i g E), with eps_inf and g in common and their own E_p (doping). With volumes 4 pi v,
depolarisation factors L and the dipole fields G between particles, the symmetric M = L - v^1/2 G v^1/2 and chi = eps_inf - 1
turn the coupled-dipole equations (alpha^-1 - G) p = E_0, alpha = v (eps - 1) / (1 + L (eps - 1)), into oscillators

    [E_p S M E_p - E^2 - i g E] q = E_p S v^1/2 E_0,    S = (1 + chi M)^-1,

whose eigenvectors do not depend on the energy: the loss is a sum over real modes n, (weight at the pixel) x g E / ((E_n^2 -
E^2)^2 + g^2 E^2). Around a medium of eps_m, eps is eps / eps_m. The probability per energy of a dipole at impact parameter b is

    Gamma = 4 alpha_f / (pi hbar c beta^2) [q^2 K_1^2(q b) Im a_perp + q^2 K_0^2(q b) Im a_z / gamma^2],    q = E / (hbar c beta gamma)

(Garcia de Abajo, Rev. Mod. Phys. 82, 209 (2010), 10.1103/RevModPhys.82.209; beta = v/c, gamma the Lorentz factor). The field
outside a uniformly polarised prolate spheroid is that of dipoles between its foci, of density 1 - t^2, and the field inside is
uniform; so trajectories close to a particle and through it need no further approximation (tests/test_plasmons.py integrates
the ellipsoid's potential along them).

Left out: retardation in the particles (they are small against hbar c / E), multipoles above the dipole, which matter for
gaps under 0.3 R (none is drawn), and above second order in the thickness over v / omega, non-local and surface damping, modes of a substrate, the phase exp(i E z / hbar v) between
particles. Energies are in eV, lengths in m outside and in nm inside this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import constants, ndimage
from scipy.special import k0, k1, roots_jacobi

from probegym.physics import drude, randomness
from probegym.physics.drude import HBAR_C, Material
from probegym.physics.image_formation import shot_noise
from probegym.physics.nanoparticles import Particles, layout
from probegym.physics.optics import ELECTRON_REST_ENERGY, lorentz_factor, velocity_ratio

BOHR = constants.value("Bohr radius") * 1e9  # nm
PER_NANOMETRE = 1e9
SHAPE = (50, 50)
AXIS = drude.energies(drude.MATERIALS["ITO"].window)


# ---- the modes of an assembly ----


def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where between the foci of a spheroid its dipoles sit, -1..1, and what share each carries: Gauss quadrature of 1 - t^2."""
    places, shares = roots_jacobi(count, 1, 1)
    return places, shares / shares.sum()


_CENTRE, _FEW, _MANY = _nodes(1), _nodes(3), _nodes(9)


def _points(particles: Particles, nodes: np.ndarray) -> np.ndarray:
    """Where these nodes of each particle are, (count, nodes, 2) in nm."""
    focus = PER_NANOMETRE * np.sqrt(np.maximum(particles.major**2 - particles.minor**2, 0))
    along = np.stack([np.cos(particles.angle), np.sin(particles.angle)], axis=1)
    return PER_NANOMETRE * particles.position[:, None] + focus[:, None, None] * nodes[:, None] * along[:, None]


def _shape_tensors(particles: Particles) -> tuple[np.ndarray, np.ndarray]:
    """Depolarisation in the plane (count, 2, 2), and out of it (count,)."""
    along = drude.depolarisation(particles.major / particles.minor)
    across = (1 - along) / 2
    axis = np.stack([np.cos(particles.angle), np.sin(particles.angle)], axis=1)
    return across[:, None, None] * np.eye(2) + (along - across)[:, None, None] * axis[:, :, None] * axis[:, None, :], across


def _interaction(particles: Particles) -> tuple[np.ndarray, np.ndarray]:
    """M = L - v^1/2 G v^1/2 in the plane (2 count, 2 count), ordered x of all, then y, and out of it (count, count).

    G is the field of one uniformly polarised spheroid averaged over another: the sum over both their nodes, since the mean of
    a harmonic function over a spheroid is the same sum.
    """
    count = len(particles)
    spheres, rods = _points(particles, _CENTRE[0]), _points(particles, _MANY[0])
    sets = [(spheres[i], _CENTRE[1]) if particles.round[i] else (rods[i], _MANY[1]) for i in range(count)]
    owner = np.repeat(np.arange(count), [len(share) for _, share in sets])
    where, share = np.concatenate([p for p, _ in sets]), np.concatenate([s for _, s in sets])
    first = np.searchsorted(owner, np.arange(count))
    apart = where[:, None] - where[None]
    square = (apart**2).sum(-1)
    square[owner[:, None] == owner[None]] = np.inf
    inverse = square**-1.5 * share[:, None] * share
    root = np.sqrt(volume(particles))
    scale = root[:, None] * root

    def reduced(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, first, 0), first, 1) * scale

    tilt = 3 * inverse / np.where(np.isinf(square), 1, square)
    xx, yy, xy = (reduced(tilt * apart[..., a] * apart[..., b] - (a == b) * inverse) for a, b in ((0, 0), (1, 1), (0, 1)))
    shape, out = _shape_tensors(particles)
    plane = -np.block([[xx, xy], [xy, yy]])
    index = np.arange(count)
    for a in (0, 1):
        for b in (0, 1):
            plane[a * count + index, b * count + index] += shape[:, a, b]
    return plane, np.diag(out) + reduced(inverse)


def volume(particles: Particles) -> np.ndarray:
    """Volume / 4 pi in nm^3, (count,): the polarisability of a perfect conductor is this over L."""
    return PER_NANOMETRE**3 * particles.minor**2 * particles.major / 3


@dataclass(frozen=True)
class Modes:
    """energy: (modes,) eV; drive: (modes, components) nm^3/2 eV, what the field on each particle's dipole does to the mode."""

    energy: np.ndarray
    drive: np.ndarray


def modes(particles: Particles, permittivity: float, medium: float = 1.0) -> tuple[Modes, Modes]:
    """Modes in the plane (components: x of all particles, then y) and out of it. Gaps must be such that dipoles suffice.

    permittivity: of the metal at high energy; medium: of what is around; both relative.
    """
    chi = permittivity / medium - 1
    out = []
    for matrix in _interaction(particles):
        copies = len(matrix) // len(particles)
        plasma = np.tile(particles.plasma_energy, copies) / np.sqrt(medium)
        screened = np.linalg.inv(np.eye(len(matrix)) + chi * matrix)
        coupled = plasma[:, None] * (screened @ matrix) * plasma
        square, vectors = np.linalg.eigh((coupled + coupled.T) / 2)
        drive = (vectors.T * plasma) @ screened * np.tile(np.sqrt(volume(particles)), copies)
        out.append(Modes(np.sqrt(np.maximum(square, 1e-12)), drive))
    return out[0], out[1]


# ---- the electron's field, and the loss at every pixel ----

_TABLE = 8192
_LEAST = np.float32(1e-6)  # nm^2, of a squared distance


@lru_cache(maxsize=32)
def _field_tables(momenta: tuple[float, ...], reach: float) -> np.ndarray:
    """Smooth parts of the field, q K_1(q b) - 1 / b and q K_0(q b) + q ln b, on 0..reach nm: (2, momenta, entries) float32."""
    b = (np.arange(_TABLE) + 0.5) * reach / _TABLE
    q = np.array(momenta)[:, None]
    return np.stack([q * k1(q * b) - 1 / b, q * (k0(q * b) + np.log(b))]).astype(np.float32)


def _fields(particles: Particles, x: np.ndarray, y: np.ndarray, momenta: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the electron at each pixel does to each particle, and half its chord there in nm, (count, pixels).

    In 1/nm: in the plane (momenta, 2 count, pixels), out of it (momenta, count, pixels).
    """
    count, points = len(particles), _points(particles, _MANY[0])
    far = [np.abs(points[..., axis, None] - [pixel.min(), pixel.max()]).max() for axis, pixel in enumerate((x, y))]
    reach = float(np.ceil((np.hypot(*far) + 1) / 128) * 128)
    tables, scale = _field_tables(momenta, reach), np.float32(_TABLE / reach)
    plane, out = np.empty((len(momenta), 2, count, len(x)), np.float32), np.empty((len(momenta), count, len(x)), np.float32)
    x, y = x.astype(np.float32), y.astype(np.float32)
    for group, steep, smooth in ((particles.round, _CENTRE, _CENTRE), (~particles.round, _MANY, _FEW)):
        field, along = np.zeros((len(momenta), 2, group.sum(), len(x)), np.float32), np.zeros((len(momenta), group.sum(), len(x)), np.float32)
        some = _points(particles, steep[0])[group].astype(np.float32)
        for node, share in enumerate(steep[1].astype(np.float32)):  # 1 / b and ln b
            dx, dy = x - some[:, node, :1], y - some[:, node, 1:]
            square = np.maximum(dx * dx + dy * dy, _LEAST)
            inverse = share / square
            field[0, 0] += dx * inverse
            field[0, 1] += dy * inverse
            along[0] += (-0.5 * share) * np.log(square)
        field[1:], along[:] = field[0], along[0] * np.array(momenta, np.float32)[:, None, None]
        some = _points(particles, smooth[0])[group].astype(np.float32)
        for node, share in enumerate(smooth[1].astype(np.float32)):
            dx, dy = x - some[:, node, :1], y - some[:, node, 1:]
            b = np.sqrt(np.maximum(dx * dx + dy * dy, _LEAST))
            entry = np.minimum((b * scale).astype(np.int32), _TABLE - 1)
            b = share / b
            dx *= b
            dy *= b
            for index in range(len(momenta)):
                strength = tables[0, index].take(entry)
                field[index, 0] += strength * dx
                field[index, 1] += strength * dy
                along[index] += share * tables[1, index].take(entry)
        plane[:, :, group], out[:, group] = field, along
    chord = _penetrate(particles, points, x, y, momenta, plane, out)
    return plane.reshape(len(momenta), 2 * count, len(x)), out, chord


def _penetrate(particles: Particles, points: np.ndarray, x, y, momenta, plane: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Take the dipoles' field off the part of each trajectory that runs inside and put the uniform one in its place.

    To second order in (thickness x q). Returns half the chord in nm, (count, pixels) float32.
    """
    minor, major = PER_NANOMETRE * particles.minor, PER_NANOMETRE * particles.major
    cos, sin = np.cos(particles.angle), np.sin(particles.angle)
    dx, dy = x - PER_NANOMETRE * particles.position[:, :1], y - PER_NANOMETRE * particles.position[:, 1:]
    u, v = (dx * cos[:, None] + dy * sin[:, None]) / major[:, None], (dy * cos[:, None] - dx * sin[:, None]) / minor[:, None]
    depth = 1 - u * u - v * v
    chord = np.zeros(depth.shape, np.float32)
    owner, pixel = np.nonzero(depth > 0)
    if not len(owner):
        return chord
    half = minor[owner] * np.sqrt(depth[owner, pixel])
    chord[owner, pixel] = half
    tensor, across = _shape_tensors(particles)
    size = volume(particles)[owner]
    inside = np.stack([dx[owner, pixel], dy[owner, pixel]], axis=1)
    change = np.einsum("iab,ib->ia", tensor[owner], inside) * (half / size)[:, None]
    outside = np.zeros_like(half)
    for node, share in enumerate(_MANY[1]):
        apart = np.stack([x[pixel], y[pixel]], axis=1) - points[owner, node].astype(np.float32)  # rounded as in the field it cancels
        b = np.sqrt(np.maximum((apart.astype(float) ** 2).sum(1), _LEAST))
        far = np.hypot(b, half)
        change -= (share * half / (b * b * far))[:, None] * apart
        outside += share * (half / far - np.arcsinh(half / b))
    along = across[owner] * half**3 / (3 * size) + outside
    for index, q in enumerate(momenta):
        plane[index, 0, owner, pixel] += change[:, 0]
        plane[index, 1, owner, pixel] += change[:, 1]
        out[index, owner, pixel] += q * along
    return chord


def pixels(shape: tuple[int, int], pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """x, y in m of the pixels' middles, (rows x columns,) each, row by row; rows run along y."""
    rows, columns = np.indices(shape)
    return (columns.ravel() + 0.5) * pixel_size, (rows.ravel() + 0.5) * pixel_size


def loss(particles: Particles, x: np.ndarray, y: np.ndarray, material: Material, voltage: float, axis: np.ndarray = AXIS, medium: float = 1.0,
         resolution: float = 0.0, collection: float = 0.0) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Loss probability per eV, (pixels, channels) float32, and thickness of material in m, (pixels,).

    x, y: (pixels,) m. material: its permittivity and damping (plasma energies are the particles' own). axis: (channels,) eV,
    evenly spaced. resolution: full width at half maximum of the spectrometer, eV. collection: angle in rad up to which bulk
    losses are collected, 0 leaves them out. The bulk loss is t / (pi a_0 m v^2) Im(-1/eps) ln(1 + q_c^2 / q_0^2), q_0^2 =
    q^2 + (2/t)^2: in particles smaller than v / omega the surface cuts it off (begrenzung).
    """
    x, y = PER_NANOMETRE * np.asarray(x, float), PER_NANOMETRE * np.asarray(y, float)
    beta, gamma = velocity_ratio(voltage), lorentz_factor(voltage)
    width = axis[1] - axis[0] if len(axis) > 1 else 1.0
    fine, smear = _channels(tuple(axis), resolution)
    nodes = _chebyshev(axis[0] - width / 2, axis[-1] + width / 2, HBAR_C * beta * gamma)
    momenta = tuple(nodes / (HBAR_C * beta * gamma))
    plane, out, chord = _fields(particles, x, y, momenta)
    strength = 4 * constants.alpha / (np.pi * HBAR_C * beta**2)
    between = np.stack([np.prod([(fine - m) / (n - m) for m in nodes if m != n], axis=0) for n in nodes])  # Lagrange
    weights, lines = [], []
    for kind, field, factor in zip(modes(particles, material.permittivity, medium), (plane, out), (1, gamma**-2), strict=True):
        line = strength * factor * drude.lorentzian(kind.energy[:, None], fine, material.damping)
        drive = kind.drive.astype(np.float32)
        for index in range(len(nodes)):
            weights.append(np.square(drive @ field[index]))
            lines.append((line * between[index]) @ smear)
    thickness = 2 * chord.sum(0)
    if collection:
        wave = ELECTRON_REST_ENERGY * beta * gamma / HBAR_C * collection  # largest transferred momentum, 1/nm
        for plasma in np.unique(particles.plasma_energy):
            there = chord[particles.plasma_energy == plasma]
            eps = drude.permittivity(Material(material.permittivity, plasma, material.damping, material.window), fine)
            log = np.log1p(wave**2 / (np.mean(momenta) ** 2 + np.maximum(there, 1e-3) ** -2))
            weights.append((2 * there * log).sum(0, keepdims=True, dtype=np.float32))
            lines.append(((-1 / eps).imag / (np.pi * BOHR * ELECTRON_REST_ENERGY * beta**2))[None] @ smear)
    spectra = np.concatenate(weights).T @ np.concatenate(lines).astype(np.float32)
    return np.maximum(spectra, 0), thickness / PER_NANOMETRE


def _chebyshev(low: float, high: float, scale: float) -> np.ndarray:
    """Energies between which the weights are interpolated: three, and one more for each 50 nm that the momentum (E / scale, 1/nm) resolves."""
    count = 3 + int(50 * (high - low) / scale)
    return np.maximum((low + high) / 2 - (high - low) / 2 * np.cos(np.pi * (np.arange(count) + 0.5) / count), 1e-3)


_FINER = 4


@lru_cache(maxsize=32)
def _channels(axis: tuple[float, ...], resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """A finer axis, and the matrix from it to the channels: mean over each one after a Gaussian of that full width at half maximum."""
    width = axis[1] - axis[0] if len(axis) > 1 else 1.0
    if not resolution:
        return np.array(axis), np.eye(len(axis))
    margin = int(np.ceil(1.5 * resolution / width))
    cells = (len(axis) + 2 * margin) * _FINER
    fine = axis[0] + width * ((np.arange(cells) + 0.5) / _FINER - margin - 0.5)
    sigma = np.hypot(resolution / np.sqrt(8 * np.log(2)), width / np.sqrt(12))
    smear = np.exp(-0.5 * ((fine[:, None] - np.array(axis)) / sigma) ** 2)
    smear /= smear.sum(0)
    return np.maximum(fine, 1e-3), smear


# ---- assemblies that are drawn ----

PARAMETERS = {
    "pixel_size": 3e-9, "count": 34.0, "radius": 8e-9, "spread": 0.15, "rods": 0.2, "aspect": 4.0, "clustered": 0.45, "gap": 0.6,
    "doped": 0.12, "doping": 0.8, "plasma_energy": 1.8, "permittivity": 3.9, "damping": 0.12, "medium": 1.0, "voltage": 60e3,
    "resolution": 0.03, "collection": 1.1e-3, "tail": 0.012, "tail_power": 2.2, "roughness": 0.03,
}  # fmt: skip
"""Parameters of an assembly and what they are when not given, each a number or one for every lane.

pixel_size, radius: m. count: particles sought in the field of view. spread: relative deviation of the radii. rods: share of
particles, with aspect ratios from 1.5 to ``aspect``. clustered: share of particles in dimers, trimers and chains, with gaps from
0.3 to ``gap`` radii. doped: share of particles whose plasma energy is ``doping`` times the others' (not to be seen in HAADF).
plasma_energy, damping, resolution: eV. voltage: V. collection: rad, up to which bulk plasmons are collected; usually not the
aperture's angle but the smaller one at which they decay into single electrons, q = E / (hbar v_F), 1.44/nm in ITO of 0.91 eV with
8e26 electrons of 0.35 m_e a m^3. tail: of the zero-loss peak, per eV at 0.5 eV, that falls with the power
``tail_power``. roughness: of the support, in the HAADF image, whose particles are about 1.
"""


def assembly(keys, parameters: dict, axis: np.ndarray = AXIS, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Specimens drawn from keys: HAADF images (lanes, rows, columns) and spectra (lanes, rows x columns, channels), float32.

    parameters: see PARAMETERS. Spectra are expected losses per eV and electron; ``detect`` makes counts of them. Images are
    about 1 in the middle of a particle, with the support's roughness but without counting noise.
    """
    keys = np.ascontiguousarray(keys, np.uint64).reshape(-1)
    told = _told(parameters, len(keys))
    images, spectra = np.empty((len(keys), *shape), np.float32), np.empty((len(keys), shape[0] * shape[1], len(axis)), np.float32)
    for lane, key in enumerate(keys):
        here = {name: float(values[lane]) for name, values in told.items()}
        particles = layout(key, here, shape)
        images[lane], spectra[lane] = _render(key, particles, here, axis, shape)
    return images, spectra


def _told(parameters: dict, lanes: int) -> dict[str, np.ndarray]:
    return {name: np.broadcast_to(np.asarray(parameters.get(name, usual), float), lanes) for name, usual in PARAMETERS.items()}


def _render(key, particles: Particles, told: dict, axis: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    x, y = pixels(shape, told["pixel_size"])
    material = Material(told["permittivity"], told["plasma_energy"], told["damping"], (axis[0], axis[-1]))
    lost, thickness = loss(particles, x, y, material, told["voltage"], axis, told["medium"], told["resolution"], told["collection"])
    tail = told["tail"] * (axis / 0.5) ** -told["tail_power"]
    # what is scattered out of the aperture is seen by the other detector: the spectrum dims where the HAADF image is bright
    passed = np.exp(-thickness / MEAN_FREE_PATH)
    lost += tail.astype(np.float32)
    lost *= passed[:, None]
    image = ndimage.gaussian_filter(thickness.reshape(shape) / (2 * told["radius"]), 0.45, mode="nearest")
    grain = randomness.normal(key, 0, "support", shape[0] * shape[1]).reshape(shape)
    image += told["roughness"] * (0.6 * grain + ndimage.gaussian_filter(grain, 1.2, mode="wrap") * 2)
    return image, lost


MEAN_FREE_PATH = 60e-9
"""m of material after which 1/e of the beam is left in the spectrometer's aperture; a design parameter."""


# ---- detection ----

CURRENT = 20e-12
"""A, of a monochromated probe."""


def detect(spectra: np.ndarray, exposure, keys, step, axis: np.ndarray = AXIS, current: float = CURRENT) -> np.ndarray:
    """Counts (lanes, channels) float32 of expected losses per eV and electron: Poisson noise of the dose.

    exposure: s, a number or (lanes,). keys (lanes,) and step, a number or (lanes,), say which noise it is. current: A.
    """
    spectra = np.asarray(spectra, np.float32)
    electrons = np.broadcast_to(np.asarray(exposure, float), len(spectra)) * (current / constants.e * (axis[1] - axis[0]))
    return shot_noise(spectra, electrons, randomness.subkey(keys, step, "eels"))
