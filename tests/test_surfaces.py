"""Surfaces have the statistics they were asked for, and the same key gives the same surface."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from probegym.errors import ProbeGymError
from probegym.physics import randomness, surfaces
from probegym.physics.surfaces import Material, build

EXTENT, SHAPE = (1e-6, 1e-6), (256, 256)


def square(kind: str, key: int = 1, **parameters) -> surfaces.Surface:
    return build(kind, key, EXTENT, SHAPE, **parameters)


@pytest.mark.parametrize("kind", surfaces.KINDS)
def test_every_kind_is_a_map_in_metres(kind):
    surface = build(kind, 5, (8e-7, 1.25e-6), (160, 250))
    assert surface.height.shape == surface.material.shape == (160, 250)
    assert surface.height.dtype == np.float32 and surface.material.dtype == np.uint8
    assert surface.height.min() == 0 and 1e-9 < surface.height.max() < 1e-7
    assert set(np.unique(surface.material)) == set(range(len(surface.materials)))
    assert surface.pixel == pytest.approx((5e-9, 5e-9)) and surface.properties().shape == (len(surface.materials), 3)


@pytest.mark.parametrize("kind", surfaces.KINDS)
def test_the_key_decides_everything(kind):
    one, again, other = square(kind, 3), square(kind, 3), square(kind, 4)
    assert one.height.tobytes() == again.height.tobytes() and one.material.tobytes() == again.material.tobytes()
    assert abs(one.height - other.height).max() > 1e-10


def test_a_subkey_is_a_key():
    key = randomness.subkey(np.array([7], np.uint64), 0, "surface")[0]
    assert square("grains", key).height.tobytes() == square("grains", int(key)).height.tobytes()


def test_terraces_lie_whole_steps_apart():
    surface = square("terraces", step_height=3e-10, bunching=0, roughness=0, width=1e-7)
    levels = surface.height / 3e-10
    flat = abs(levels - np.rint(levels)) < 1e-3
    assert flat.mean() > 0.93  # the rest are the edges, a pixel wide
    assert len(np.unique(np.rint(levels[flat]))) == np.rint(levels.max()) + 1 > 8  # none is skipped


def test_terraces_have_the_width_and_the_bunching_asked_for():
    plain = [square("terraces", key, width=5e-8, direction=0.0, waviness=0, roughness=0, bunching=0).height.max() / 1e-9 for key in range(20)]
    assert np.mean(plain) == pytest.approx(20, abs=0.5)
    bunched = [square("terraces", key, width=5e-8, direction=0.0, waviness=0, roughness=0, bunching=1).height.max() / 1e-9 for key in range(20)]
    assert np.mean(bunched) == pytest.approx(60, rel=0.06)


def test_a_grating_has_its_pitch_depth_duty_and_walls():
    surface = build("grating", 2, EXTENT, (64, 1000), pitch=1.25e-7, depth=3e-8, duty=0.4, rotation=0.0, wall_angle=np.arctan(1.5), roughness=0)
    line = surface.height[0].astype(float)
    up = np.flatnonzero((line[:-1] < 1.5e-8) & (line[1:] >= 1.5e-8))
    assert np.diff(up) == pytest.approx(125, abs=1)
    assert line.max() == pytest.approx(3e-8, rel=1e-5) and (line > 1.5e-8).mean() == pytest.approx(0.4, abs=0.005)
    slope = np.gradient(line, 1e-9)
    assert np.quantile(abs(slope[(line > 1e-9) & (line < 2.9e-8)]), 0.5) == pytest.approx(1.5, rel=0.01)
    assert ((line > 1e-9) & (line < 2.9e-8)).mean() == pytest.approx(16 * (28 / 1.5) / 1000, rel=0.1)


def test_a_grating_is_rotated():
    surface = build("grating", 2, EXTENT, (400, 400), rotation=0.1, roughness=0)
    rise = [np.flatnonzero((row[:-1] < 1e-8) & (row[1:] >= 1e-8))[2] for row in surface.height[150:250:99]]
    assert rise[0] - rise[1] == pytest.approx(99 * np.tan(0.1), abs=1.5)


@pytest.mark.parametrize("rms", [5e-10, 2e-9, 8e-9])
def test_grains_have_the_rms_roughness(rms):
    assert square("grains", rms=rms).height.std() == pytest.approx(rms, rel=1e-4)


def test_grains_have_their_size():
    height = build("grains", 3, EXTENT, (400, 400), grain_size=5e-8, disorder=0.5, relief=0.2).height
    peaks = (height == ndimage.maximum_filter(height, 9)).sum()
    assert peaks == pytest.approx(400, rel=0.1)  # (1 um / 50 nm)^2


def test_roughness_has_its_correlation_length():
    grid = surfaces._grid(3, EXTENT, SHAPE)
    noise = grid.rough("x", 4e-8)
    assert noise.std() == pytest.approx(1, rel=1e-4) and abs(noise.mean()) < 1e-5
    spectrum = abs(np.fft.rfft2(noise)) ** 2
    correlation = np.fft.irfft2(spectrum)[0] / noise.size
    at = np.array([5, 10])
    assert correlation[at] == pytest.approx(np.exp(-((at / 256e6 / 4e-8) ** 2)), abs=0.08)


def test_nanoparticles_are_spheres_that_do_not_overlap():
    surface = square("nanoparticles", 6, radius=1.5e-8, spread=0.0, roughness=0, density=5e13)
    tops = (surface.height == ndimage.maximum_filter(surface.height, 3)) & (surface.height > 2.9e-8)
    assert surface.height.max() == pytest.approx(3e-8, rel=0.01)
    assert tops.sum() >= 45 and (surface.material == 1).mean() == pytest.approx(50 * np.pi * 1.5e-8**2 / 1e-12, rel=0.06)
    assert ((surface.height > 0) == (surface.material == 1)).all()
    y, x = np.argwhere(tops).T
    far = np.hypot(y[:, None] - y, x[:, None] - x) + 1e3 * np.eye(len(y))
    assert far[far > 2].min() * 1e-6 / 256 > 2 * 1.5e-8 - 9e-9


def test_a_crowd_of_particles_is_thinned_out():
    crowd = square("nanoparticles", 6, radius=3e-8, spread=0.0, density=1e15)
    assert 0.3 < (crowd.material == 1).mean() < 0.6  # random sequential addition jams at 0.547


def test_density_counts_per_area():
    small, large = build("nanoparticles", 8, EXTENT, SHAPE), build("nanoparticles", 8, (2e-6, 2e-6), (512, 512))
    assert (large.material == 1).sum() / (small.material == 1).sum() == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("coverage", [0.2, 0.6])
def test_patches_cover_their_share_and_stand_out(coverage):
    surface = square("patches", coverage=coverage, contrast=2e-9)
    on = surface.material == 1
    assert on.mean() == pytest.approx(coverage, abs=1e-3)
    assert surface.height[on].mean() - surface.height[~on].mean() == pytest.approx(2e-9, rel=0.1)
    silicon, elastomer = surface.properties()
    assert silicon[0] > 100 * elastomer[0] and elastomer[1] > silicon[1] and elastomer[2] > silicon[2] == 0


def test_fibrils_are_as_high_as_thick_and_as_long_as_asked_for():
    surface = build("fibrils", 2, EXTENT, (512, 512), radius=4e-9, length=3e-7, density=1e13, roughness=0)
    assert surface.height.max() == pytest.approx(8e-9, rel=0.02)
    assert 0.6 < (surface.material == 1).mean() / (10 * 3e-7 * 8e-9 / 1e-12) < 1.05  # some crosses, some leaves the map


def test_stiff_fibrils_are_straight():
    def spread(persistence):
        surface = build("fibrils", 2, EXTENT, (512, 512), length=8e-7, density=1e12, persistence=persistence, roughness=0)
        return np.ptp(np.argwhere(surface.material == 1), axis=0).max()

    assert spread(1e-4) > 1.5 * spread(3e-8)


def test_a_tilted_sample_is_tilted():
    surface = square("patches", tilt=(0.01, -0.02), contrast=0.0, roughness=0.0)
    slopes = np.gradient(surface.height.astype(float), *surface.pixel)
    assert np.median(slopes[0]) == pytest.approx(0.01, rel=1e-3) and np.median(slopes[1]) == pytest.approx(-0.02, rel=1e-3)


def test_debris_lies_on_the_ground_and_can_be_taken_away():
    surface = square("terraces", bunching=0)
    particles = surfaces.debris(9, EXTENT, count=8, radius=2e-8, spread=0.0)
    littered = surfaces.with_debris(surface, particles)
    assert littered.materials[-1] is surfaces.MATERIALS["elastomer"] and len(littered.materials) == 2
    lying = littered.material == 1
    assert (littered.height[~lying] == surface.height[~lying]).all() and (littered.height >= surface.height).all()
    x, y, radius, _ = particles.T
    at = (y * 256e6).astype(int), (x * 256e6).astype(int)
    assert littered.height[at] - surface.height[at] == pytest.approx(2 * radius, rel=0.02)
    assert (surfaces.debris_at(particles, x, y) == np.arange(8)).all()
    particles[3, 3] = 0
    fewer = surfaces.with_debris(surface, particles)
    assert fewer.height[at][3] == surface.height[at][3] and fewer.height[at][2] == littered.height[at][2]
    assert surfaces.debris_at(particles, x[3], y[3]) == -1
    particles[:, 3] = 0
    assert surfaces.with_debris(surface, particles).height.tobytes() == surface.height.tobytes()


def test_no_debris_is_no_debris():
    none = surfaces.debris(9, EXTENT, count=0)
    assert none.shape == (0, 4) and surfaces.debris_at(none, np.zeros(3), np.zeros(3)).tolist() == [-1] * 3
    assert not surfaces.with_debris(square("patches"), none).material.max() > 1


def test_reduced_modulus_and_pair_constant():
    silicon = surfaces.MATERIALS["silicon"]
    assert silicon.modulus == pytest.approx(130e9 / (1 - 0.28**2) / 2)  # two equal bodies
    assert surfaces.MATERIALS["polystyrene"].hamaker == pytest.approx(6.4e-20, rel=0.01, abs=0)


def test_materials_can_be_named_or_given():
    own = Material("own", 1e9, 1e-19, 5.0)
    surface = square("nanoparticles", material=own, substrate="elastomer")
    assert surface.materials == (surfaces.MATERIALS["elastomer"], own)


BAD = {
    "unknown kind": lambda: square("hills"),
    "unknown parameter": lambda: square("grains", pitch=1e-7),
    "not a number": lambda: square("grains", rms="2 nm"),
    "NaN": lambda: square("grains", rms=float("nan")),
    "negative": lambda: square("terraces", step_height=-1e-9),
    "walls meet": lambda: square("grating", wall_angle=0.1),
    "too many": lambda: square("nanoparticles", density=1e17),
    "too many grains": lambda: square("grains", grain_size=2e-9),
    "too long": lambda: square("fibrils", length=1e-4, radius=1e-9, density=5e14),
    "unknown material": lambda: square("patches", material="cheese"),
    "material of a wrong type": lambda: square("patches", material=3),
    "extent": lambda: build("grains", 1, (1e-6, np.nan), SHAPE),
    "shape": lambda: build("grains", 1, EXTENT, (256, 2)),
    "key": lambda: square("grains", -1),
    "tilt": lambda: square("grains", tilt=(np.inf, 0)),
    "no modulus": lambda: Material("air", 0.0, 1e-19),
    "debris": lambda: surfaces.with_debris(square("grains"), np.zeros((2, 4))),
    "debris shape": lambda: surfaces.with_debris(square("grains"), np.ones((2, 3))),
    "debris count": lambda: surfaces.debris(1, EXTENT, count=-1),
    "debris radius": lambda: surfaces.debris(1, EXTENT, radius=0.0),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_are_named(mistake):
    with pytest.raises(ProbeGymError) as caught:
        BAD[mistake]()
    assert "\n" not in str(caught.value)
