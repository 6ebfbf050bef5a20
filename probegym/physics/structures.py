"""Atomic structures of the standard specimens, built with ASE. Lengths in Angstrom, as ASE has them."""

from __future__ import annotations

import numpy as np

GRAPHENE_LATTICE = 2.46
MOS2_LATTICE, MOS2_HALF_THICKNESS = 3.18, 1.565
SRTIO3_LATTICE = 3.905
CARBON_DENSITY = 0.09  # atoms per cubic Angstrom, amorphous carbon at about 1.8 g/cm^3


def graphene_silicon(repeats: tuple[int, int] = (5, 8)):
    """Monolayer graphene with one three-fold Si dopant at the centre of the cell."""
    from ase import Atoms

    a, b = GRAPHENE_LATTICE, GRAPHENE_LATTICE * np.sqrt(3)
    positions = np.array([[0, 0, 0], [b / 6, a / 2, 0], [b / 2, a / 2, 0], [2 * b / 3, 0, 0]]) + [b / 12, a / 4, 1.5]
    atoms = Atoms("C4", positions=positions, cell=[b, a, 3.0], pbc=True) * (*repeats, 1)
    centre = atoms.cell.diagonal()[:2] / 2
    atoms.numbers[np.argmin(((atoms.positions[:, :2] - centre) ** 2).sum(1))] = 14
    return atoms


def mos2(repeats: tuple[int, int] = (6, 4)):
    """Monolayer MoS2; the lower S of a pair follows the upper one."""
    from ase import Atoms

    a, b, h = MOS2_LATTICE, MOS2_LATTICE * np.sqrt(3), MOS2_HALF_THICKNESS
    positions = [[0, 0, 0], [a / 2, b / 6, h], [a / 2, b / 6, -h], [a / 2, b / 2, 0], [0, 2 * b / 3, h], [0, 2 * b / 3, -h]]
    cell = Atoms(["Mo", "S", "S"] * 2, positions=np.array(positions) + [a / 4, b / 12, 3.0], cell=[a, b, 6.0], pbc=True)
    return cell * (*repeats, 1)


def mos2_vacancies(repeats: tuple[int, int] = (6, 4), vacancies: int = 2):
    """Monolayer MoS2 with single S vacancies in the upper sulphur layer, spread over the cell."""
    atoms = mos2(repeats)
    upper = np.nonzero((atoms.numbers == 16) & (atoms.positions[:, 2] > 3.0))[0]
    sites = np.array([[(i + 0.5) / vacancies, (i + 0.5) / vacancies] for i in range(vacancies)]) * atoms.cell.diagonal()[:2]
    distance = ((atoms.positions[upper, None, :2] - sites) ** 2).sum(-1)
    del atoms[upper[distance.argmin(0)]]
    return atoms


def _sites(atoms, count: int, apart: float, rng, among: np.ndarray) -> list[int]:
    """``count`` atoms of ``among``, drawn at random, further than ``apart`` from each other in the periodic plane if possible."""
    extent = atoms.cell.diagonal()[:2]
    chosen: list[int] = []
    for index in rng.permutation(among):
        gaps = atoms.positions[chosen, :2] - atoms.positions[index, :2]
        if len(chosen) < count and (np.hypot(*(gaps - extent * np.rint(gaps / extent)).T) > apart).all():
            chosen.append(int(index))
    return chosen


def graphene_defects(seed: int, repeats: tuple[int, int] = (5, 8)):
    """Monolayer graphene with 3 or 4 Si and 3 or 4 N on carbon sites and 2 or 3 single vacancies; not relaxed."""
    rng = np.random.default_rng((seed, 3))
    atoms = graphene_silicon(repeats)
    atoms.numbers[:] = 6
    silicon, nitrogen, vacancies = (int(rng.integers(low, low + 2)) for low in (3, 3, 2))
    sites = _sites(atoms, silicon + nitrogen + vacancies, 3.5, rng, np.arange(len(atoms)))
    atoms.numbers[sites[:silicon]] = 14
    atoms.numbers[sites[silicon : silicon + nitrogen]] = 7
    del atoms[sites[silicon + nitrogen :]]
    return atoms


def mos2_defects(seed: int, repeats: tuple[int, int] = (6, 4)):
    """Monolayer MoS2 with 3 or 4 single and 2 or 3 double S vacancies and 2 or 3 W on Mo sites; not relaxed."""
    rng = np.random.default_rng((seed, 4))
    atoms = mos2(repeats)
    upper = np.nonzero((atoms.numbers == 16) & (atoms.positions[:, 2] > 3.0))[0]
    single, double, tungsten = (int(rng.integers(low, low + 2)) for low in (3, 2, 2))
    atoms.numbers[_sites(atoms, tungsten, 5.0, rng, np.nonzero(atoms.numbers == 42)[0])] = 74
    vacant = _sites(atoms, single + double, 4.0, rng, upper)
    below = [index + 1 for index in vacant[:double]]
    del atoms[vacant + below]
    return atoms


def srtio3_defects(seed: int, repeats: int = 5, layers: int = 4):
    """SrTiO3 along [001], 1.6 nm, with half-empty Sr columns, La on Sr sites and a polar nanoregion.

    In the nanoregion (Gaussian, 5 Angstrom) Ti moves by 0.25 Angstrom in the plane and O by half of that against it:
    hardly seen by HAADF, plainly by the centre of mass. Not relaxed.
    """
    rng = np.random.default_rng((seed, 5))
    atoms = srtio3(repeats, layers)
    extent, angle = atoms.cell.diagonal()[:2], rng.uniform(0, 2 * np.pi)
    gap = atoms.positions[:, :2] - rng.uniform(0, extent)
    gap -= extent * np.rint(gap / extent)
    shift = 0.25 * np.select([atoms.numbers == 22, atoms.numbers == 8], [1.0, -0.5]) * np.exp(-(gap**2).sum(1) / (2 * 5.0**2))
    column = np.unique(np.rint(atoms.positions[:, :2] / SRTIO3_LATTICE * 4).astype(int), axis=0, return_inverse=True)[1]
    sites = _sites(atoms, 5, 3.5, rng, np.nonzero((atoms.numbers == 38) & (atoms.positions[:, 2] < SRTIO3_LATTICE))[0])
    alike = [np.nonzero(column == column[site])[0] for site in sites]
    atoms.numbers[np.concatenate([rng.permutation(strontium)[:2] for strontium in alike[:2]])] = 57
    atoms.positions[:, :2] += shift[:, None] * [np.cos(angle), np.sin(angle)]
    del atoms[np.concatenate([rng.permutation(strontium)[:2] for strontium in alike[2:]])]
    return atoms


def srtio3(repeats: int = 4, layers: int = 13):
    """SrTiO3 along [001]; 13 unit cells are 5.1 nm."""
    from ase import Atoms

    scaled = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    cell = Atoms(["Sr", "Ti", "O", "O", "O"], scaled_positions=scaled, cell=[SRTIO3_LATTICE] * 3, pbc=True)
    cell.positions += SRTIO3_LATTICE / 4
    return cell * (repeats, repeats, layers)


def amorphous(symbols: dict[str, float], density: float, minimum_distance: float, extent: float, thickness: float, seed: int):
    """Random sequential packing with a minimum distance, periodic in the plane: a model of an amorphous film.

    symbols: element -> fraction. density: atoms per cubic Angstrom. minimum_distance, extent (side of the cell), thickness: Angstrom.
    """
    from ase import Atoms

    rng = np.random.default_rng(seed)
    box, side = np.array([extent, extent, thickness]), minimum_distance
    bins = np.maximum((box // side).astype(int), 1)
    count = round(density * extent**2 * thickness)
    cells: dict[tuple, list] = {}
    positions: list[np.ndarray] = []
    around = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
    while len(positions) < count:
        point = rng.random(3) * box
        home = np.minimum((point / box * bins).astype(int), bins - 1)
        close = False
        for i, j, k in around:
            for other in cells.get(((home[0] + i) % bins[0], (home[1] + j) % bins[1], home[2] + k), ()):
                gap = point - other
                gap[:2] -= box[:2] * np.rint(gap[:2] / box[:2])
                close |= bool(gap @ gap < side**2)
        if not close:
            cells.setdefault(tuple(home), []).append(point)
            positions.append(point)
    elements = rng.choice(list(symbols), size=count, p=list(symbols.values()))
    return Atoms(list(elements), positions=np.array(positions), cell=box, pbc=True)


def carbon_film(extent: float, seed: int):
    """Amorphous carbon, 1 to 4 nm thick, on a cell of side ``extent``, Angstrom."""
    thickness = float(np.random.default_rng((seed, 1)).uniform(10, 40))
    return amorphous({"C": 1.0}, CARBON_DENSITY, 1.3, extent, thickness, seed)


def contaminated_carbon(extent: float, seed: int):
    """A 1.5 nm carbon film with three to six round islands of amorphous carbon, 1 to 3 nm thick, grown on it."""
    rng = np.random.default_rng((seed, 2))
    atoms = amorphous({"C": 1.0}, CARBON_DENSITY, 1.3, extent, 45.0, seed)
    height = np.full(len(atoms), 15.0)
    for _ in range(rng.integers(3, 7)):
        centre, radius, grown = rng.uniform(0, extent, 2), rng.uniform(5, 14), rng.uniform(10, 30)
        gap = atoms.positions[:, :2] - centre
        gap -= extent * np.rint(gap / extent)
        height = np.where(np.hypot(*gap.T) < radius, np.maximum(height, 15.0 + grown), height)
    return atoms[atoms.positions[:, 2] < height]


def gold_nanoparticle(diameter: float, seed: int):
    """A roughly spherical fcc Au particle cut from the crystal at a random orientation and centre; diameter in Angstrom."""
    from ase.build import bulk
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    repeats = int(np.ceil(diameter / 4.08)) + 2
    atoms = bulk("Au", "fcc", a=4.08, cubic=True) * (repeats, repeats, repeats)
    atoms.positions -= atoms.positions.mean(0) + rng.uniform(-1, 1, 3)
    atoms.positions = atoms.positions @ Rotation.random(rng=rng).as_matrix().T
    atoms = atoms[np.linalg.norm(atoms.positions, axis=1) <= diameter / 2]
    return atoms


def gold_on_carbon(extent: float, thickness: float, diameters: tuple[float, ...], seed: int):
    """Au nanoparticles resting on an amorphous carbon film; the beam meets the particles first. All lengths in Angstrom."""
    rng = np.random.default_rng(seed)
    film = amorphous({"C": 1.0}, CARBON_DENSITY, 1.3, extent, thickness, seed)
    tallest = max(diameters)
    film.positions[:, 2] += tallest
    film.cell[2, 2] = thickness + tallest
    centres: list[np.ndarray] = []
    for index, diameter in enumerate(diameters):
        particle = gold_nanoparticle(diameter, seed + 1000 * index)
        centre = np.array([extent / 2, extent / 2]) if len(diameters) == 1 else _apart(rng, centres, extent, tallest)
        centres.append(centre)
        particle.positions[:, :2] += centre
        particle.positions[:, 2] += tallest - particle.positions[:, 2].max()
        film.extend(particle)
    film.pbc = True
    film.wrap()
    return film


def _apart(rng, centres: list, extent: float, distance: float) -> np.ndarray:
    """A random point of the periodic cell, if possible further than ``distance`` from those there are."""
    for _ in range(200):
        point = rng.uniform(0, extent, 2)
        gaps = [np.linalg.norm(point - c - extent * np.rint((point - c) / extent)) for c in centres]
        if min(gaps, default=np.inf) > distance:
            break
    return point
