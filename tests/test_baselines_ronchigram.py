"""The Ronchigram baseline: its model of the spectra, its fit, and whole episodes."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from probegym.agents.baselines_ronchigram import FILM, RonchigramSegments, Segments, fit
from probegym.agents.evaluate import evaluate
from probegym.agents.registry import make_agent
from probegym.envs.frames import grey_levels
from probegym.errors import ProbeGymError
from probegym.physics import specimens
from probegym.physics.ronchigram import RonchigramFormer

NAMES = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")
SCALES = np.array([10, 10, 10, 900, 900, 300, 300]) * 1e-9
EXCURSIONS = (30e-9, -30e-9)
ENERGY, CUTOFF, PIXELS = 60e3, 0.040, 42
TRAINING_SEED = 5_300_000


@pytest.fixture(scope="module")
def segments() -> Segments:
    return Segments(PIXELS, CUTOFF, ENERGY, NAMES, SCALES, EXCURSIONS)


def observed(segments: Segments, states: np.ndarray, electrons: float = 1e7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of frames of carbon films, with shot noise; states: (n, 7) in scales."""
    film, rng = specimens.load("film-carbon"), np.random.default_rng(seed)
    former = RonchigramFormer(film.films, ENERGY, film.extent[0], CUTOFF, PIXELS, NAMES, film.slice_thickness)
    variants, places = np.arange(len(states)) % 18, rng.uniform(0, 5e-9, (len(states), 2))
    frames = [former.frames(states * SCALES + np.eye(7)[0] * excursion, places, variants) for excursion in EXCURSIONS]
    return segments.observed(*grey_levels(rng.poisson(np.stack(frames, 1) * electrons).astype(np.float32)))


def test_expected_spectra_are_the_mean_of_those_observed(segments):
    """Over many films and places, at the frequencies that hold nearly all power; tuned, and astigmatic."""
    for state in (np.zeros(7), np.array([0.3, 0.6, 0, 0, 0, 0, 0])):
        spectra, noise = observed(segments, np.tile(state, (216, 1)))
        mean = (spectra - noise).mean(0)
        expected = segments.expected(np.append(state, FILM))
        strong = expected > 0.1 * expected.max()
        ratio = np.log(mean[strong] / expected[strong])
        assert np.corrcoef(np.log(mean[strong]), np.log(expected[strong]))[0, 1] > 0.95
        assert ratio.std() < 0.25


def test_slopes_are_derivatives(segments):
    """What the camera's pixels blur is held fixed in the slopes: a few per cent."""
    x, step = np.append(np.random.default_rng(1).uniform(-0.5, 0.5, 7), FILM), 0.01
    value, slopes = segments.expected(x, slopes=True)
    np.testing.assert_allclose(value, segments.expected(x), rtol=1e-4, atol=1e-5 * value.max())
    for row, slope in enumerate(slopes):
        move = step * np.eye(len(x))[row]
        difference = (segments.expected(x + move) - segments.expected(x - move)) / (2 * step)
        assert np.corrcoef(difference.ravel(), slope.ravel())[0, 1] > 0.93
        assert (difference * slope).sum() / (slope**2).sum() == pytest.approx(1, abs=0.15)


def test_the_fit_finds_small_aberrations_from_nothing(segments):
    """Films, shot noise and all: each of the seven to a tenth of its scale, and honestly so."""
    states = np.random.default_rng(2).uniform(-0.4, 0.4, (12, 7))
    spectra, noise = observed(segments, states)
    found = [
        fit(segments, s, n, np.append(np.zeros(7), FILM), np.zeros(7), 3 * np.eye(7), 0.05) for s, n in zip(spectra, noise, strict=True)
    ]
    errors = np.array([x[:7] for x, _ in found]) - states
    claimed = np.sqrt(np.array([np.diag(covariance)[:7] for _, covariance in found]))
    assert np.sqrt((errors**2).mean(0)).max() < 0.12
    assert 0.5 < np.sqrt((errors**2 / claimed**2).mean()) < 2.5


def test_exchanged_frames_change_the_sign(segments):
    """A column with aberrations c at an excursion D shows spectra like one with -c at -D."""
    spectra, noise = observed(segments, np.array([[0.4, -0.3, 0.2, 0.3, 0.0, -0.3, 0.2]]))
    start, wide = np.append(np.zeros(7), FILM), 3 * np.eye(7)
    there, _ = fit(segments, spectra[0], noise[0], start, np.zeros(7), wide, 0.05)
    back, _ = fit(segments, spectra[0, ::-1], noise[0, ::-1], start, np.zeros(7), wide, 0.05)
    np.testing.assert_allclose(there[:7], -back[:7], atol=0.08)


def test_it_tunes_training_episodes():
    results = evaluate(make_agent("ronchigram-segments", "probegym/StemTuning-v0"), "probegym/StemTuning-v0", "train", 8, TRAINING_SEED)
    assert results.success.sum() >= 7
    assert np.median(results.costs["measurements"]) <= 12


def test_it_sees_the_observation_alone_and_a_lane_does_not_see_its_neighbours():
    agent = RonchigramSegments()
    alone, together = (gym.make_vec("probegym/StemTuning-v0", num_envs=n, scenario="train", autoreset_mode="Disabled") for n in (1, 2))
    actions = []
    for envs in (alone, together):
        observation, _ = envs.reset(seed=TRAINING_SEED)
        envs.episodes.world.truth = None  # whoever asks for the hidden state fails
        agent.begin(envs.num_envs, 0)
        actions.append(agent.act(observation, envs.episodes))
    np.testing.assert_allclose(actions[0][0], actions[1][0], atol=1e-4)
    assert np.abs(actions[1][1] - actions[1][0]).max() > 0.05


def test_it_declares_before_the_budget_ends():
    """Not certain enough for its threshold, it still ends its episode itself."""
    results = evaluate(RonchigramSegments(threshold=0.0), "probegym/StemTuning-v0", "train", 2, TRAINING_SEED, budget=8)
    np.testing.assert_array_equal(results.costs["measurements"], 6)
    assert results.success.any()


@pytest.mark.parametrize("scenario", ["haadf-train", "shadow-train", "both"])
def test_other_frames_are_refused(scenario):
    with pytest.raises(ProbeGymError, match="two thin-film Ronchigrams"):
        evaluate(RonchigramSegments(), "probegym/StemTuning-v0", scenario, 1, TRAINING_SEED)
