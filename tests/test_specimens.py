"""Specimen files: what ships, what is refused, and what the files say against abTEM."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from scipy import ndimage

from probegym.errors import ProbeGymError
from probegym.physics import native, specimens
from probegym.physics.image_formation import ImageFormer
from probegym.physics.recipes import RECIPES
from probegym.physics.specimens import Recipe
from tests.stem_reference import ANGSTROM, MRAD, random_states, scan, scanned

STANDARD = ("graphene-si", "mos2-vs", "srtio3")


@pytest.fixture
def small(tmp_path):
    """A tensor and a film of random numbers in one file."""
    rng = np.random.default_rng(0)
    beams = np.array([[x, y] for x in range(-2, 3) for y in range(-2, 3) if x * x + y * y < 6])
    waves = rng.normal(size=(len(beams), 30)) + 1j * rng.normal(size=(len(beams), 30))
    tensor = specimens.ScatteringTensor.from_matrix(60e3, 0.03, (8e-10, 9e-10), beams, waves @ waves.conj().T)
    specimen = specimens.Specimen("small", "random", 60e3, (8e-10, 9e-10), 0.03, {"adf": (0.04, 0.1)}, {"adf": tensor},
                                  rng.uniform(0, 5, (2, 1, 16, 16)).astype(np.float32) * 1e-9, 2e-9)  # fmt: skip
    path = tmp_path / "small.npz"
    specimens.save(specimen, path)
    return specimen, path


@pytest.mark.parametrize("name", STANDARD)
def test_standard_specimens_ship_and_make_images(name):
    specimen = specimens.read(specimens.SHIPPED / f"{name}.npz")
    assert specimen.name == name and specimen.energy == RECIPES[name].energy
    assert set(specimen.detectors) == set(specimen.tensors) == set(RECIPES[name].detectors)
    for tensor in specimen.tensors.values():
        former = ImageFormer(tensor, specimen.semiangle_cutoff, ("C10",))
        extent = specimen.extent[0] / ANGSTROM
        positions = np.stack(np.meshgrid(*[np.linspace(0, extent, 24, endpoint=False)] * 2), -1)
        image = scan(former, np.zeros((1, 1)), positions)[0]
        assert image.min() > -1e-6 and image.max() < 1 and image.std() / image.mean() > 0.05


def test_every_recipe_ships():
    assert set(RECIPES) <= {path.stem for path in specimens.SHIPPED.glob("*.npz")}


def test_shipped_files_are_small():
    assert sum(path.stat().st_size for path in specimens.SHIPPED.glob("*.npz")) < 30e6


def test_every_shipped_file_matches_its_checksum():
    for path in sorted(specimens.SHIPPED.glob("*.npz")):
        specimen = specimens.read(path)
        assert specimen.name == path.stem and (specimen.tensors or specimen.films is not None)


@pytest.mark.parametrize("detector", ["haadf", "maadf"])
def test_shipped_graphene_agrees_with_multislice(detector):
    recipe, specimen = RECIPES["graphene-si"], specimens.load("graphene-si")
    potential = specimens.slices_of(recipe)[0]
    middle = np.array(specimen.extent) / 2 / ANGSTROM
    positions = (middle + np.array([[0, 0], [0.8, 0], [1.42, 0], [-3.0, 2.0], [5.0, -4.0], [0.3, 0.7]]))[:, None]
    states = np.stack([np.zeros(25), random_states(1, 3)[0]])
    former = ImageFormer(specimen.tensors[detector], specimen.semiangle_cutoff)
    ours = scan(former, states, positions)
    theirs = [scanned(potential, recipe.energy, recipe.semiangle_cutoff, s, positions, recipe.detectors[detector]) for s in states]
    peak = theirs[0].max()
    assert np.abs(ours - theirs).max() < 1e-4 * peak


def peaks_of(image: np.ndarray) -> np.ndarray:
    """Heights of the atoms in an image of 0.1 Angstrom pixels, the brightest first."""
    return np.sort(image[image == ndimage.maximum_filter(image, size=11, mode="wrap")])[::-1]


@pytest.fixture(scope="module")
def graphene_image():
    specimen = specimens.load("graphene-si")
    former = ImageFormer(specimen.tensors["haadf"], 30 * MRAD, ("C10",))
    x, y = (np.arange(0, e / ANGSTROM, 0.1) for e in specimen.extent)
    return scan(former, np.zeros((1, 1)), np.stack(np.meshgrid(x, y), -1))[0]


def test_a_silicon_atom_is_five_times_as_bright_as_carbon(graphene_image):
    """5.01 for isolated atoms (physics.md 1b); the tails of the neighbours are the signal in the hexagon's centre."""
    peaks = peaks_of(graphene_image) - graphene_image.min()
    assert len(peaks) == 160
    assert peaks[0] / np.median(peaks) == pytest.approx(5.01, rel=0.05)


def test_brightness_of_an_atom_does_not_come_from_the_grid(graphene_image):
    """A cell of its own on a grid three times as fine: 80-180 mrad, 60 kV, 30 mrad."""
    from probegym.physics.structures import graphene_silicon

    fine = Recipe("fine", "", lambda _: graphene_silicon((2, 4)), gpts=(270, 320), slice_thickness=3.0)
    potential, atoms = specimens.slices_of(fine)[0], graphene_silicon((2, 4))
    far = atoms.get_distances(int(np.argmax(atoms.numbers)), range(len(atoms)), mic=True).argmax()
    places = atoms.positions[[int(np.argmax(atoms.numbers)), far], :2]
    silicon, carbon = scanned(potential, 60e3, 30.0, np.zeros(25), places, (80.0, 180.0))
    peaks = peaks_of(graphene_image)
    assert peaks[0] == pytest.approx(silicon, rel=0.05)
    assert np.median(peaks) == pytest.approx(carbon, rel=0.05)


# ---- files ----


def test_round_trip(small):
    specimen, path = small
    again = specimens.read(path)
    assert [getattr(again, f) for f in ("name", "energy", "extent", "semiangle_cutoff", "detectors", "slice_thickness")] == [
        getattr(specimen, f) for f in ("name", "energy", "extent", "semiangle_cutoff", "detectors", "slice_thickness")
    ]
    one, other = specimen.tensors["adf"], again.tensors["adf"]
    assert np.array_equal(one.first, other.first) and np.array_equal(one.second, other.second) and np.array_equal(one.beams, other.beams)
    assert np.abs(one.values - other.values).max() < 1e-4 * np.abs(one.values).max()
    assert np.abs(again.films - specimen.films).max() < 1e-3 * specimen.films.max()


def refused(path) -> str:
    with pytest.raises(ProbeGymError) as caught:
        specimens.read(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("content", [b"", b"not a specimen", b"PK\x03\x04", bytes(5000)], ids=["empty", "text", "stub", "zeros"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    assert "build" in refused(path)


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nothing.npz")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(small, share):
    _, path = small
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "build" in refused(path)


def test_no_flipped_bit_gets_through_as_another_specimen(small):
    """Anywhere in the file: either refused, or the flip hit a byte that carries nothing."""
    _, path = small
    content, rng, caught = path.read_bytes(), np.random.default_rng(0), 0
    sound = specimens.read(path)
    for place in rng.choice(len(content) * 8, 300, replace=False):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            got = specimens.read(path)
        except ProbeGymError as error:
            assert "\n" not in str(error)
            caught += 1
        else:
            assert np.array_equal(got.tensors["adf"].values, sound.tensors["adf"].values) and np.array_equal(got.films, sound.films)
            assert (got.energy, got.extent, got.detectors) == (sound.energy, sound.extent, sound.detectors)
    assert caught > 200


def rewritten(path, **changes) -> None:
    """The same file with another header; None takes an entry away."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(str(arrays.pop("header"))) | changes
    header = {name: value for name, value in header.items() if value is not None}
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


def test_another_format_is_refused(small):
    _, path = small
    rewritten(path, format=99)
    assert "format 99" in refused(path)


def test_changed_values_are_refused(small):
    _, path = small
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["adf/steps"] = arrays["adf/steps"] + 1
    np.savez(path, **arrays)
    assert "checksum" in refused(path)


@pytest.mark.parametrize("entry", ["sha256", "extent", "detectors", "energy"])
def test_a_header_with_something_missing_is_refused(small, entry):
    _, path = small
    rewritten(path, **{entry: None})
    refused(path)


def test_objects_in_a_file_are_not_unpickled(tmp_path, small):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "trap.npz"
    np.savez(path, header=np.array(Trap(), dtype=object), allow_pickle=True)
    refused(path)
    assert not (tmp_path / "executed").exists()


def test_unknown_specimen_lists_the_known():
    with pytest.raises(ProbeGymError, match="graphene-si"):
        specimens.load("unobtainium")


def test_saving_leaves_nothing_half_written(small, tmp_path, monkeypatch):
    specimen, path = small

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(ProbeGymError, match="No space left"):
        specimens.save(specimen, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saving_where_one_may_not_is_refused(small):
    specimen, path = small
    with pytest.raises(ProbeGymError, match="cannot write"):
        specimens.save(specimen, path / "inside-a-file" / "x.npz")


def test_the_users_own_specimen_comes_first(small, tmp_path, monkeypatch):
    specimen, _ = small
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path))
    specimens.save(specimen, tmp_path / "specimens" / "graphene-si.npz")
    assert specimens.available()["graphene-si"].parent == tmp_path / "specimens"


# ---- kernels ----


def test_no_compiler_is_said_plainly(monkeypatch, tmp_path):
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ProbeGymError, match="install gcc or clang"):
        native.library.__wrapped__("stem")
    assert not list(tmp_path.rglob("*.so"))


def test_a_failing_compiler_is_said_plainly(monkeypatch, tmp_path):
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ProbeGymError, match="failed"):
        native.library.__wrapped__("stem")
    assert not list(tmp_path.rglob("*.so"))


def test_an_unwritable_cache_names_the_setting(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ProbeGymError, match="PROBEGYM_CACHE"):
        native.library.__wrapped__("stem")


def test_no_two_films_share_their_atoms():
    """Equal seeds would repeat a pattern of atoms in another film, and a held-out film would not be new."""
    sets = [name for name in specimens.available() if name.startswith("film-")]
    films = np.concatenate([specimens.load(name).films.sum(1) for name in sets])
    flat = (films - films.mean((1, 2), keepdims=True)).reshape(len(films), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    owner = np.repeat(sets, [len(specimens.load(name).films) for name in sets])
    apart = owner[:, None] != owner[None, :]
    assert len(sets) >= 5 and np.abs((flat @ flat.T)[apart]).max() < 0.2
