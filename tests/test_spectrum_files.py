"""Measured maps: the file that ships, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib

import h5py
import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.physics import spectrum_files

SHAPE, CHANNELS = (9, 12), 16
TRIANGLE = np.concatenate([np.linspace(0, 3, 5)[:-1], np.linspace(3, -3, 9)[:-1], np.linspace(-3, 0, 5)[:-1]])


def cube(shape=SHAPE, channels: int = CHANNELS) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*shape, channels))


def write(path, values, order: str = "yxv", units=("m", "m", "V"), spectral=None, name: str = "scan/data", mode: str = "w", steps=(1e-9, 1e-9)):
    """A map in sidpy's layout; order: which axis of ``values`` is y, x and the spectrum. steps: between rows and columns, in ``units``."""
    scales = {kind: np.arange(values.shape[order.index(kind)]) * step for kind, step in zip("yx", steps, strict=True)}
    scales["v"] = TRIANGLE[: values.shape[order.index("v")]] if spectral is None else spectral
    with h5py.File(path, mode) as file:
        found = file.create_dataset(name, data=values)
        found.attrs["quantity"], found.attrs["units"] = "Piezoresponse", "a.u."
        for number, kind in enumerate(order):
            scale = file.create_dataset(f"{name}_{kind}", data=np.asarray(scales[kind], float))
            scale.attrs["name"], scale.attrs["units"] = {"y": "Y", "x": "X", "v": "Bias"}[kind], units["yxv".index(kind)]
            scale.make_scale()
            found.dims[number].attach_scale(scale)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.h5"


def refused(path, words: str, **options) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ProbeGymError, match=words) as caught:
        spectrum_files.read(path, **options)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 400
    return message


# ---- the file that ships ----


def test_shipped_map_is_what_its_note_says():
    found = spectrum_files.load()
    assert (found.name, found.kind, found.quantity, found.units) == ("BEPS_PTO_50x50", "loop", "Piezoresponse", "a.u.")
    assert found.image.shape == (50, 50) and found.spectra.shape == (2500, 64) and found.measurable.all()
    np.testing.assert_allclose(found.extent, (2e-6, 2e-6), rtol=1e-12)
    assert found.pixel_size == pytest.approx(2e-6 / 49)
    quarters = found.axis[[0, 16, 32, 48]]
    np.testing.assert_allclose(quarters, [0, 8.5, 0, -8.5], atol=1e-12)
    np.testing.assert_allclose(np.abs(np.diff(found.axis)), 8.5 / 16, rtol=1e-12)


def test_shipped_file_is_unchanged_and_its_licence_beside_it():
    path = spectrum_files.SHIPPED["BEPS_PTO_50x50"]
    note = (path.parent / "README.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in note
    assert "Permission is hereby granted, free of charge" in note and "pycroscopy/DTMicroscope" in note


def test_films_of_the_shipped_map_switch():
    """The median loop opens: more response on the way down from +8.5 V than on the way up, and of both signs."""
    found = spectrum_files.load()
    loop = np.median(found.spectra, axis=0)
    assert loop[32] > 2e-5 and loop[0] < -2e-5


def test_shipped_map_lies_as_its_labels_say():
    """The file's first axis is X: it must run along the columns."""
    with h5py.File(spectrum_files.SHIPPED["BEPS_PTO_50x50"]) as file:
        stored = file["Channel_000/generic/generic"][7, 31]
    np.testing.assert_array_equal(spectrum_files.load().spectra.reshape(50, 50, 64)[31, 7], stored.astype(np.float32))


def test_structural_image_of_the_shipped_map_tells_of_its_loops():
    """Neighbours in the image resemble each other, and brighter pixels have wider loops; raw piezoresponse shows neither."""
    found = spectrum_files.load()
    area = np.abs(0.5 * (found.spectra * (np.roll(found.axis, -1) - np.roll(found.axis, 1))).sum(-1))
    assert np.isfinite(found.image).all() and np.ptp(found.image) < 7
    assert np.corrcoef(found.image.ravel(), np.log(area))[0, 1] > 0.6
    assert np.corrcoef(found.image[:, 1:].ravel(), found.image[:, :-1].ravel())[0, 1] > 0.3


def test_a_map_is_found_by_name_or_path_and_shared(path):
    assert spectrum_files.load("BEPS_PTO_50x50") is spectrum_files.load("BEPS_PTO_50x50")
    assert spectrum_files.load(str(write(path, cube()))).name == "map"
    with pytest.raises(ProbeGymError, match="BEPS_PTO_50x50"):
        spectrum_files.load("PZT")


# ---- users' files ----


@pytest.mark.parametrize("order", ["yxv", "xyv", "vyx", "xvy"])
def test_axes_are_found_by_their_units_and_names(path, order):
    values = cube()
    stored = values.transpose([("yxv").index(kind) for kind in order])
    found = spectrum_files.read(write(path, stored, order))
    assert found.image.shape == SHAPE
    np.testing.assert_array_equal(found.spectra, values.reshape(-1, CHANNELS).astype(np.float32))
    np.testing.assert_allclose(found.extent, ((SHAPE[1] - 1) * 1e-9, (SHAPE[0] - 1) * 1e-9))


def test_units_are_converted(path):
    energies = np.linspace(500, 3500, CHANNELS)
    found = spectrum_files.read(write(path, np.abs(cube()), units=("nm", "um", "meV"), spectral=energies, steps=(2.0, 2e-3)))
    assert found.kind == "eels"
    np.testing.assert_allclose(found.axis, energies / 1e3)
    np.testing.assert_allclose(found.extent, (22e-9, 16e-9))
    np.testing.assert_allclose(found.image.ravel(), found.spectra.sum(-1), rtol=1e-5)


def test_image_of_loops_is_taken_before_poling(path):
    values = cube()
    values[..., 8] *= 1e3  # the second crossing of zero, after the positive half of the cycle
    found = spectrum_files.read(write(path, values))
    np.testing.assert_allclose(10**found.image, np.maximum(np.abs(values[..., 0]), 1e-3 * np.median(np.abs(values[..., 0]))), rtol=1e-5)


def test_silent_pixels_have_an_image(path):
    """A response of exactly zero has no logarithm."""
    values = cube()
    values[2, 3] = 0
    assert np.isfinite(spectrum_files.read(write(path, values)).image).all()
    assert np.isfinite(spectrum_files.read(write(path, 0 * values)).image).all()


def test_one_of_several_maps_is_named(path):
    values = cube()
    write(path, values, name="first/data")
    write(path, 2 * values, name="second/data", mode="a")
    assert "/first/data, /second/data" in refused(path, "2 three-dimensional datasets")
    refused(path, "no three-dimensional dataset 'third'", dataset="third")
    found = spectrum_files.read(path, dataset="second/data")
    np.testing.assert_array_equal(found.spectra, (2 * values).reshape(-1, CHANNELS).astype(np.float32))


def test_spectra_with_holes_are_refused_or_left_out(path):
    values = cube()
    values[1, 2, 3], values[4, 5, 6], values[4, 6, :] = np.nan, np.inf, 1e300  # the last overflows single precision
    write(path, values)
    assert "3 of 108 spectra" in refused(path, "NaN or infinity: measure these again, or interpolate")
    found = spectrum_files.read(path, allow_missing=True)
    assert np.flatnonzero(~found.measurable).tolist() == [14, 53, 54]
    assert np.isfinite(found.spectra).all() and np.isfinite(found.image).all()
    values[:5] = np.nan
    write(path, values)
    assert "60 of 108" in refused(path, "NaN or infinity", allow_missing=True)


# ---- what is refused ----


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "none.h5", "there is no file")
    refused(tmp_path, "there is no file")


def test_empty_file(path):
    path.write_bytes(b"")
    refused(path, "is empty")


def test_a_file_of_another_format(path):
    path.write_text("x,y,bias\n" * 100)
    refused(path, "not an HDF5 file")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated_file(path, share):
    whole = spectrum_files.SHIPPED["BEPS_PTO_50x50"].read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "cannot be read .*cut short")


@pytest.mark.parametrize("at", [8, 40, 48])
def test_damaged_superblock(path, at):
    """Version of the superblock, end of file, and where the root group is."""
    damaged = bytearray(write(path, cube()).read_bytes())
    damaged[at : at + 8] = b"\xee" * 8
    path.write_bytes(bytes(damaged))
    refused(path, "cannot be read|not an HDF5 file")


def test_no_map_inside(path):
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((5, 5))
    refused(path, "no three-dimensional dataset")


def test_axes_without_scales(path):
    with h5py.File(path, "w") as file:
        file["data"] = cube()
    refused(path, "no dimension scale on axis 0")


@pytest.mark.parametrize("units", [("m", "m", "nm"), ("m", "m", ""), ("m", "s", "V"), ("V", "m", "V")])
def test_wrong_units(path, units):
    message = refused(write(path, cube(), units=units), "has the axes")
    assert all(repr(unit) in message for unit in units)


def test_a_scale_of_another_length(path):
    write(path, cube())
    with h5py.File(path, "a") as file:
        del file["scan/data_v"]
        scale = file.create_dataset("scan/data_v", data=np.arange(5.0))
        scale.attrs["units"] = "V"
        scale.make_scale()
        file["scan/data"].dims[2].attach_scale(scale)
    refused(path, "scale of axis 2|cannot be read")


@pytest.mark.parametrize(
    ("spectral", "unit", "words"),
    [
        (np.linspace(-3, 3, CHANNELS), "V", "up and down"),
        (np.zeros(CHANNELS), "V", "up and down"),
        (np.linspace(3, 1, CHANNELS), "eV", "energies must ascend"),
        (np.full(CHANNELS, np.nan), "V", "finite numbers"),
    ],
)
def test_wrong_spectral_axis(path, spectral, unit, words):
    refused(write(path, cube(), units=("m", "m", unit), spectral=spectral), words)


def test_uneven_positions(path):
    write(path, cube())
    with h5py.File(path, "a") as file:
        file["scan/data_x"][3] *= 1.2
    refused(path, "even steps")


@pytest.mark.parametrize(("steps", "units"), [((2e-9, 1e-9), ("m", "m", "V")), ((1.0, 1.0), ("nm", "um", "V")), ((1.02, 1.0), ("nm", "nm", "V"))])
def test_pixels_that_are_not_square(path, steps, units):
    refused(write(path, cube(), units=units, steps=steps), "square")


def test_complex_data(path):
    refused(write(path, cube() * 1j), "complex")


def test_text_is_not_a_map(path):
    with h5py.File(path, "w") as file:
        file["data"] = np.full((9, 9, 9), b"text")
    refused(path, "not numbers")


@pytest.mark.parametrize("shape", [(2, 12, 16), (9, 12, 2)])
def test_too_small_a_map(path, shape):
    refused(write(path, cube(shape[:2], shape[2])), "has shape")


def test_too_large_a_map(path):
    """A few bytes of HDF5 may claim any size: it is refused before it is read."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(100_000, 100_000, 100), dtype="f8", chunks=(100, 100, 10))
    refused(path, "at most in all")


def test_values_in_other_files_are_not_fetched(path, tmp_path):
    other = write(tmp_path / "other.h5", cube())
    layout = h5py.VirtualLayout((*SHAPE, CHANNELS), "f8")
    layout[:] = h5py.VirtualSource(other, "scan/data", (*SHAPE, CHANNELS))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
    refused(path, "lies in other files")
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink(other, "scan/data")
    refused(path, "no three-dimensional dataset")
