"""The operator's screens: one layout for every environment, colour maps that do not lie, scale bars of the right length."""

from __future__ import annotations

from itertools import combinations

import gymnasium as gym
import numpy as np
import pytest

from probegym.envs import pictures
from probegym.envs.pictures import Box, Screen, Sketch, coloured, font, round_length, told_angle, told_length
from tests.environments import CASES, Registered, registered


def lightness(name: str) -> np.ndarray:
    """CIELAB L* of the 256 colours of a map, sRGB under D65 (IEC 61966-2-1, CIE 15)."""
    rgb = coloured(np.arange(256.0)[None], name)[0] / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


# ---- colours ----


@pytest.mark.parametrize("name", ["grey", "warm", "height"])
def test_lightness_rises_evenly(name):
    seen = lightness(name)
    smooth = np.convolve(np.diff(seen), np.full(9, 1 / 9), "valid")  # eight bits are steps
    assert np.diff(seen).min() > -0.5 and smooth.min() > 0.1
    assert np.abs(seen - np.linspace(seen[0], seen[-1], 256)).max() < 7 and np.ptp(seen) > 85


def test_the_cyclic_map_closes_and_is_as_dark_both_ways():
    rgb, seen = coloured(np.arange(256.0)[None], "cyclic")[0].astype(int), lightness("cyclic")
    assert np.abs(rgb[0] - rgb[-1]).max() <= 2
    assert abs(int(seen.argmin()) - 128) < 4 and np.abs(seen - seen[::-1]).max() < 4
    smooth = np.convolve(np.diff(seen), np.full(9, 1 / 9), "valid")
    assert (smooth[:100] < 0).all() and (smooth[-100:] > 0).all()


@pytest.mark.parametrize(("name", "published"), [("warm", "magma"), ("cyclic", "twilight")])
def test_maps_are_the_published_ones(name, published):
    colormaps = pytest.importorskip("matplotlib").colormaps
    theirs = 255 * colormaps[published](np.linspace(0, 1, 256))[:, :3]
    assert np.abs(coloured(np.arange(256.0)[None], name)[0] - theirs).max() <= 3


def test_what_is_not_known_is_background():
    shown = coloured(np.array([[0.0, np.nan, 1.0]]), "warm")
    assert tuple(shown[0, 1]) == pictures.BACKGROUND and shown[0, 2].sum() > shown[0, 0].sum()


# ---- the layout of every environment ----


class Written(list):
    """Words as they were drawn: text, and their rectangle (left, top, right, bottom)."""


@pytest.fixture
def words(monkeypatch) -> Written:
    """All words that any screen draws."""
    kept = Written()
    draw = Screen._word

    def word(self, text, x, y, size, colour, anchor):
        if text.strip() and text != "°":  # the ring of Å stands on its A
            kept.append((text, self.draw.textbbox((round(x), round(y)), text, font=font(size), anchor=f"l{anchor[1]}")))
        draw(self, text, x, y, size, colour, anchor)

    monkeypatch.setattr(Screen, "_word", word)
    return kept


@pytest.fixture
def bars(monkeypatch) -> list[tuple]:
    """All scale bars that any screen draws: box, what is as wide as it, and how that is told where it is no length."""
    kept = []
    draw = Screen.scale_bar
    monkeypatch.setattr(Screen, "scale_bar", lambda self, box, view, *told: (kept.append((box, view, *told)), draw(self, box, view, *told)))
    return kept


def drawn(subject: Registered, truth: bool) -> np.ndarray:
    """A picture some steps into an episode, as a twin or as an instrument shows it."""
    env = subject.bare(render_mode="rgb_array")
    env.reset(seed=3)
    for action in subject.actions(3):
        if any(env.step(action)[2:4]):
            break
    if not truth:
        env.episodes.truth = {}
    return env.render()


@pytest.mark.parametrize("truth", [True, False], ids=["twin", "instrument"])
def test_one_canvas_title_and_gauges_in_one_place_and_no_text_on_another(subject, words, truth):
    picture = drawn(subject, truth)
    assert picture.shape == (pictures.HEIGHT, pictures.WIDTH, 3)
    text, (left, top, *_) = words[0]
    assert text[0].isupper() and abs(left - pictures.EDGE) <= 2 and 10 <= top <= 20
    assert any(abs(box[0] - pictures.EDGE) <= 2 and 0 <= box[1] - pictures.FOOT <= 8 for _, box in words), "no gauge at the lower left"
    assert (picture[:, : pictures.EDGE - 2] == pictures.BACKGROUND).all() and (picture[:, pictures.WIDTH - pictures.EDGE + 2 :] == pictures.BACKGROUND).all()
    for (one, a), (other, b) in combinations(words, 2):
        across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert across <= 1 or down <= 1, f"{one!r} and {other!r} lie on each other"
    missing = font(14).getmask("\uffff")
    for letter in {letter for one, _ in words for letter in one} - {" "}:
        assert bytes(font(14).getmask(letter)) != bytes(missing), f"the font has no {letter!r}"


def test_what_is_imaged_has_a_scale_bar_of_its_field_of_view(subject, bars):
    drawn(subject, True)
    assert bars and all(0 < view < (1 if told else 1e-3) and box.width > 100 for box, view, *told in bars)


def test_the_bar_of_a_ronchigram_fits_its_aperture(bars):
    env = gym.make("probegym/StemTuning-v0", scenario="id", render_mode="rgb_array").unwrapped
    frames = env.reset(seed=3)[0]["ronchigram"]
    env.render()
    assert [told for *_, told in bars] == [told_angle] * 2
    lit = (frames.mean(0) > 40).mean()  # a disc of 40 mrad
    assert bars[0][1] == pytest.approx(0.040 * np.sqrt(np.pi / lit), rel=0.02)


def test_a_whole_frame_of_the_afm_is_told_as_whole(words):
    env = gym.make("probegym/AfmTuning-v0", scenario="grains", render_mode="rgb_array").unwrapped
    env.reset(seed=3)
    over = False
    while not over:
        over = any(env.step(np.zeros(6, np.float32))[2:4])
    env.render()
    assert {"line 32 of 32 of the frame", "32 of 40 lines allowed"} <= {text for text, _ in words}


def test_every_environment_is_drawn():
    assert {subject.id for subject in registered()} == set(CASES)


# ---- marks ----


@pytest.mark.parametrize(("view", "length"), [(10e-9, "2 nm"), (1.5e-9, "0.2 nm"), (40e-6, "10 µm"), (0.5682e-9, "0.1 nm"), (0.1e-9, "20 pm"), (250e-9, "50 nm")])
def test_a_scale_bar_is_as_long_as_it_says(view, length, words):
    screen = Screen()
    words.clear()
    screen.scale_bar(Box(100, 100, 300, 300), view)
    assert "".join(text for text, _ in words).replace("u", "µ") == length
    number, unit = length.split()
    pixels = (screen.array()[386] == 255).all(1).sum() - 1
    assert pixels == pytest.approx(300 * float(number) * {"pm": 1e-12, "nm": 1e-9, "µm": 1e-6}[unit] / view, abs=1)


def test_a_scale_bar_can_be_read_over_any_picture(words):
    screen, box = Screen(), Box(100, 100, 300, 300)
    screen.panel(box, np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (300, 300, 3)))
    words.clear()
    screen.scale_bar(box, 0.08, told_angle)
    (text, (left, top, right, bottom)), *rest = words
    assert (text, rest) == ("20 mrad", [])
    around = screen.array()[top - 2 : bottom + 2, left - 3 : right + 3]
    grey = np.ptp(around.astype(int), axis=2).max()
    assert grey <= 6 and (around[[0, -1]] == pictures.BACKGROUND).all() and (around[:, [0, -1]] == pictures.BACKGROUND).all()


@pytest.mark.parametrize(("most", "length"), [(3e-9, 2e-9), (2e-9, 2e-9), (9.9e-7, 5e-7), (1e-6, 1e-6)])
def test_lengths_are_round(most, length):
    assert round_length(most) == pytest.approx(length)


@pytest.mark.parametrize(("length", "told"), [(5e-10, "0.5 nm"), (2e-11, "20 pm"), (1e-6, "1 µm"), (5e-7, "500 nm")])
def test_lengths_have_their_usual_unit(length, told):
    assert told_length(length) == told


def test_costs_are_told_in_units_that_suit_their_limits():
    info = {"measurements": np.array(3), "time": np.array(90.0), "dose": np.array(1.5e6), "damage": np.array(0.0), "time_limit": np.array(600.0)}
    assert [gauge.label for gauge in pictures.costs(info, "images")] == ["3 images", "1.5 of 10 min", "1.5e6 e/Å²"]
    assert [gauge.share for gauge in pictures.costs(info, "images")] == [None, pytest.approx(0.15), None]
    assert not pictures.costs(info | {"time": np.array(500.0)}, "images")[1].good


def test_a_sketch_stays_in_its_box_and_marks_the_right_place():
    box = Box(100, 80, 200, 200)
    screen, sketch = Screen(), Sketch(Box(100, 80, 200, 200), (0.0, 0.0, 1.0, 1.0))
    sketch.disc((0.25, 0.75), 0.05, (255, 0, 0))
    sketch.disc((1.0, 0.5), 0.3, (0, 255, 0))
    assert screen.panel(box, sketch) == box
    picture = screen.array()
    assert tuple(picture[80 + 150, 100 + 50]) == (255, 0, 0)
    assert tuple(picture[180, 299]) == (0, 255, 0) and (picture[:, 300:] == pictures.BACKGROUND).all()


def test_a_picture_keeps_its_shape_in_a_panel():
    there = Screen().panel(Box(0, 100, 300, 300), np.zeros((20, 60, 3), np.uint8))
    assert there == Box(0, 200, 300, 100)
