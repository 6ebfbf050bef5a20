"""The gallery: the shipped policy beside the best script in the same episode, as films, and one sheet of all."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

import probegym
from probegym.agents import gallery
from probegym.agents.benchmark.rows import short
from probegym.agents.evaluate import evaluate
from probegym.agents.gallery import Side
from probegym.agents.images import gif
from probegym.agents.registry import make_agent
from probegym.agents.stories import play
from probegym.envs import single_env
from probegym.envs.pictures import Screen, coloured
from probegym.envs.pictures_sketch import GOOD, LINK, MARK, WARN, Box, Sketch
from tests.helpers import ROOT
from tests.terminal import call

ADATOM = "probegym/AdatomManipulation-v0"
WIDTH, HEIGHT = gallery.SIDE


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Everything that a command writes by default goes to a fresh folder."""
    monkeypatch.chdir(tmp_path)


# ---- the command ----


def test_a_film_of_every_environment_and_a_sheet_of_all(tmp_path):
    done = call("gallery", "--steps", 1)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "gallery"
    assert {path.name for path in folder.iterdir()} == {f"{short(env_id)}.gif" for env_id in probegym.ENVIRONMENTS} | {"sheet.png"}
    for env_id, agents in gallery.players(probegym.ENVIRONMENTS).items():
        assert all(name in done.output for name in agents)
        with Image.open(folder / f"{short(env_id)}.gif") as film:
            assert film.size == (2 * WIDTH + gallery.GAP, gallery.HEAD + HEIGHT) and film.n_frames == 2 and film.info["loop"] == 0
            first = np.asarray(film.convert("RGB"))[gallery.HEAD :]
            assert np.abs(first[:, :WIDTH].astype(int) - first[:, WIDTH + gallery.GAP :]).mean() < 2, "not the same episode"
    rows = -(-len(probegym.ENVIRONMENTS) // 2)
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size == (2 * WIDTH + gallery.GAP, rows * (gallery.CAPTION + HEIGHT + gallery.GAP) - gallery.GAP)


def test_only_what_is_asked_for_once_and_the_same_again(tmp_path):
    for out in ("a", "b"):
        done = call("gallery", "AdatomManipulation", "adatommanipulation-v0", "--out", out, "--seed", 7, "--steps", 2)
        assert done.exit_code == 0
        told = done.output.splitlines()
        assert (told[0], told[-1]) == (f"{out}/{short(ADATOM)}.gif", f"{out}/sheet.png")  # paths that can be copied
    assert [path.name for path in sorted((tmp_path / "a").iterdir())] == ["AdatomManipulation.gif", "sheet.png"]
    for name in ("AdatomManipulation.gif", "sheet.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("arguments", "mend"), [
    (("Nonsense",), "use one of StemTuning-v0"), (("AdatomManipulation", "--out", "taken"), "choose another with --out"), (("--steps", "0"), "--steps"), (("--seed", "-1"), "--seed"),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(arguments, mend, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = call("gallery", *arguments)
    assert done.exit_code == 2 and mend in done.output and len(done.output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_environment_without_a_policy_is_told_before_anything_is_played(monkeypatch):
    monkeypatch.setattr(gallery, "shipped", lambda: {})
    monkeypatch.setattr(gallery, "episode", lambda *_: pytest.fail("played"))
    done = call("gallery", "AdatomManipulation")
    assert done.exit_code == 2 and "no policy ships for probegym/AdatomManipulation-v0: train one, or leave the environment out" in " ".join(done.output.split())


# ---- who plays ----


def test_the_script_shown_is_the_one_that_the_reference_scores_call_the_best():
    with (ROOT / "docs/results/table.csv").open(newline="", encoding="utf-8") as file:
        best = {row["environment"]: row["agent"] for row in csv.DictReader(file) if row["best_script"] == "1"}
    assert {env_id: script for env_id, (_, script) in gallery.players(probegym.ENVIRONMENTS).items()} == best


@pytest.mark.parametrize("agent", ["adatom-manipulation", "corrected-drag"])
def test_it_is_the_episode_that_an_evaluation_plays(agent):
    results = evaluate(make_agent(agent), ADATOM, "id", 1, 11)
    seen = []
    played = play(make_agent(agent), single_env(ADATOM, scenario="id"), 11, seen.append)
    assert played.total == pytest.approx(float(results.returns[0])) and played.steps == results.steps[0] == len(seen) - 1
    assert played.over and bool(played.info["is_success"]) == results.success[0]
    side = gallery.episode("policy", agent, ADATOM, 11)
    assert side.success == results.success[0] and len(side.screens) == len(seen) and f"return {played.total:.2f}" in side.told


@pytest.mark.parametrize("agent", ["afm-tuning", "ramp-until-ringing"])
def test_an_episode_that_is_cut_is_said_to_be(agent):
    side = gallery.episode("policy", agent, "probegym/AfmTuning-v0", 3, steps=2)
    assert len(side.screens) == 3 and side.success is None and side.told.startswith("not at its end yet: 3 lines")


# ---- films ----


def side(screens: int, success: bool | None = True, seed: int = 0) -> Side:
    """An episode of grey screens, ever brighter."""
    rng = np.random.default_rng(seed)
    return Side("trained policy", "somebody", [np.full((540, 960, 3), 20 * k % 200 + rng.integers(20), np.uint8) for k in range(screens)], "at the goal: 3 images", success)


def test_who_has_ended_waits_and_the_last_frame_stays():
    with Image.open(io.BytesIO(gallery.film([side(3), side(6, False)]))) as film:
        assert film.n_frames == 6
        lasting, middle = [], []
        for index in range(6):
            film.seek(index)
            lasting.append(film.info["duration"])
            middle.append([int(film.convert("RGB").getpixel((x, gallery.HEAD + 180))[0]) for x in (320, WIDTH + gallery.GAP + 320)])
    assert lasting == [gallery.MILLISECONDS] * 5 + [gallery.LAST] and 250 <= gallery.MILLISECONDS <= 500
    left, right = zip(*middle, strict=True)
    assert left[2:] == (left[2],) * 4 and len(set(left[:3])) == 3 and len(set(right)) == 6


def test_long_episodes_lose_steps_in_between_but_neither_end(monkeypatch):
    with Image.open(io.BytesIO(gallery.film([side(90), side(40)]))) as film:
        assert film.n_frames == gallery.MOST_FRAMES
    rng = np.random.default_rng(1)
    noise = Side("", "", [np.pad(rng.integers(0, 255, (135, 240, 3)).astype(np.uint8), ((0, 405), (0, 720), (0, 0))) for _ in range(12)], "", True)
    whole = gallery.film([noise])
    monkeypatch.setattr(gallery, "MOST_BYTES", len(whole) // 2)
    less = gallery.film([noise])
    assert len(less) <= len(whole) // 2
    ends = []
    for content in (whole, less):
        with Image.open(io.BytesIO(content)) as film:
            ends.append(film.n_frames)
            film.seek(film.n_frames - 1)
            ends.append(np.asarray(film.convert("L"), int))
    assert ends[0] == 12 and 2 <= ends[2] <= 6 and np.abs(ends[1] - ends[3]).mean() < 4


def test_fine_marks_keep_their_colours_between_many_others():
    rng, at = np.random.default_rng(0), {}
    frames = []
    for _ in range(2):
        screen = Screen()
        screen.panel(Box(20, 68, 600, 380), coloured(rng.random((60, 95)), "warm"))
        sketch = Sketch(Box(640, 68, 300, 380), (0.0, 0.0, 1.0, 1.0))
        for index, colour in enumerate((GOOD, WARN, MARK, LINK)):
            sketch.cross((0.2 * index + 0.2, 0.5), colour)
            at[colour] = (172, round((640 + 300 * (0.2 * index + 0.2)) / 1.5))
        screen.panel(Box(640, 68, 300, 380), sketch)
        frames.append(np.asarray(Image.fromarray(screen.array()).resize(gallery.SIDE, Image.Resampling.LANCZOS)))
    with Image.open(io.BytesIO(gif(frames))) as film:
        shown = np.asarray(film.convert("RGB"), int)
    for row, column in at.values():
        assert np.abs(shown[row, column] - frames[0][row, column]).max() <= 16


def test_small_marks_keep_their_colours():
    frame = np.repeat(np.linspace(0, 255, 1296).astype(np.uint8)[None, :, None], 400, 0).repeat(3, 2)
    frame[200:206, 600:606] = (240, 196, 92)
    frame[10:200] = (18, 20, 24)
    with Image.open(io.BytesIO(gif([frame, frame[::-1].copy()]))) as film:
        shown = np.asarray(film.convert("RGB"), int)
    assert np.abs(shown[203, 603] - (240, 196, 92)).max() <= 8 and np.abs(shown[100, 5] - (18, 20, 24)).max() <= 3
    assert np.abs(shown[350] - frame[350]).max() <= 12
