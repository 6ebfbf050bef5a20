"""A person at the keyboard: piped keys, what is refused, what stays hidden, and the comparison at the end."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import probegym
from probegym.agents.base import RandomAgent
from probegym.console import plain
from probegym.envs.controls import Choice
from probegym.errors import ProbeGymError
from probegym.terminal import compare
from probegym.terminal.compare import Row, others, players, table
from probegym.terminal.game import Game, purpose, section
from probegym.terminal.play import Play, half_blocks, keys
from tests.terminal import call

SHORT = [name.removeprefix("probegym/").removesuffix("-v0") for name in probegym.ENVIRONMENTS]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bounds_only(monkeypatch):
    """Nobody plays for comparison but random and oracle, and not for long."""
    monkeypatch.setattr(compare, "players", lambda env_id: ["random", "oracle"])
    monkeypatch.setattr(compare, "PATIENCE", 0.5)


def play(*arguments, text: str = "") -> str:
    done = call("play", *arguments, input=text)
    assert done.exit_code == 0, done.output
    return done.output


def line(told: str, who: str) -> str:
    """The row of the table that begins with a name."""
    return next(one for one in told.splitlines() if re.match(rf"{who} +(missed|reached)", one))


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.usefixtures("bounds_only")
def test_every_environment_is_played_by_lines(name, tmp_path):
    told = play(name, "--seed", 5, text="u\n+\nn\n0\n\nx\nh\nq\n")
    first, *_ = told.splitlines()
    assert first.startswith("1 ") and purpose(f"probegym/{name}-v0") in first
    assert re.search(r"no key 'x': 1(-[2-9])? n p choose", told) and "done" in told
    assert float(re.split(r" {2,}", line(told, "you"))[2]) == pytest.approx(float(line(told, "you").split()[2]))
    with Image.open(tmp_path / "runs/play/frame.png") as frame:
        assert frame.width > 200


@pytest.mark.usefixtures("bounds_only")
def test_an_episode_to_its_end():
    told = play("StemTuning", "--seed", 5, text="2\n]\n]\n-\nu\n\n1\n0\n8\n+\n\n\n\n")
    assert "2 C12a         at 0 nm, change +9.5 nm, to 9.5 nm" in told and "astigmatism" in told and "images 4 of 40" in told
    assert told.count("the episode is over") == 1  # and no key is read after it
    head = next(one for one in told.splitlines() if one.startswith("who"))
    assert head.split()[:6] == ["who", "goal", "score", "images", "seconds", "e/Å²"] and "strehl" in head
    assert "missed" in line(told, "you") and "reached" in line(told, "oracle") and "score: the environment's return" in told


@pytest.mark.usefixtures("bounds_only")
def test_play_ends_with_its_input_and_on_q():
    for text in ("", "q\n", "3\nq\n\n"):
        assert "missed" in line(play("StemTuning", "--seed", "1", text=text), "you")


@pytest.mark.usefixtures("bounds_only")
def test_a_masked_choice_is_told_and_not_made():
    told = play("SpectrumExploration", "--scenario", "bare", "--seed", 5, text="\n\nq\n")
    assert "spectra 6 of 88" in told and "spectra 7 of 88" not in told and "makes no sense now (it is masked)" in told


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(("Bogus",), "unknown environment"), (("IsingInference", "--scenario", "bogus"), "use one of train"), (("StemTuning", "--seed", "-1"), "greater than or equal to 0"), (("StemTuning", "--out", "/dev/null/x"), "choose another with --out")],
)
def test_mistakes_are_told_before_anything_is_played(arguments, hint):
    done = call("play", *arguments)
    assert done.exit_code != 0 and hint in (done.output + str(done.exception)) and not Path("runs").exists()


def test_the_truth_is_hidden_until_it_is_asked_for():
    game, other = (Game("probegym/StemTuning-v0", "id", 5) for _ in range(2))
    for one in (game, other):
        one.press("\n")
    assert "strehl" not in game.status() and game.score() == pytest.approx(-0.02) and game.score_name() == "score without hidden terms"
    assert np.array_equal(game.picture(), other.picture())
    assert other.press("t").startswith("the hidden truth is shown")
    assert "strehl" in other.status() and not np.array_equal(game.picture(), other.picture())
    assert other.score() == pytest.approx(other.total()) == pytest.approx(game.total()) != pytest.approx(game.score())
    other.press("t")
    game.end()
    assert "strehl" in game.status() and game.score_name() == "score" and not np.array_equal(game.picture(), other.picture())
    assert "strehl" not in other.status() and (game.row().who, other.row().who) == ("you", "you, truth seen")


def test_keys_choose_and_move():
    game = Game("probegym/AdatomManipulation-v0", "id", 5)
    assert game.press("p") == "" and game.controls.parts[game.chosen].name == "conductance"
    assert game.press("+") == "conductance is at its end" and game.press("-") == ""
    assert game.press("[") == "" and game.values["conductance"] == pytest.approx(6 - 3 * 11 / 60)
    game.press("2")
    game.press("W")
    game.press("d")
    assert game.values["end"] == pytest.approx((0.1, -1.0))  # up is towards smaller y, as in the image
    game.press("0")
    assert game.values == game.controls.start()
    with pytest.raises(ProbeGymError, match="end x is a number from -2 to 2 nm"):
        game.put("end", (3.0, 0.0))


def test_changes_are_made_once_and_other_values_stay():
    stem, adatom = Game("probegym/StemTuning-v0", "id", 5), Game("probegym/AdatomManipulation-v0", "id", 5)
    stem.put("C10", 3.0)
    stem.step()
    assert stem.values["C10"] == 0 and stem.controls["C10"].told(0.0, stem.observation) == "at 3 nm"
    adatom.put("bias", 9.0)
    adatom.step()
    assert adatom.values["bias"] == 9.0


def test_labels_are_closed_when_no_combination_is_open():
    game = Game("probegym/LevelSelection-v0", "place", 5)
    closed = game.closed()
    assert closed["instrument"] == [False] * 3
    assert closed["flake"] == (game.observation["flakes"][:, 3] == 0).tolist() and any(closed["flake"])
    game.put("flake", 3)
    assert game.masked() and "masked" in game.foreseen()
    with pytest.raises(ProbeGymError, match="flake 3 makes no sense now"):
        game.step()
    game.put("instrument", 1)
    assert not game.masked() and re.fullmatch(r"time [\d.]+ s", game.foreseen())
    assert game.step().startswith("done") and game.steps == 1


def test_what_does_not_fit_any_more_is_told_beforehand():
    game = Game("probegym/IsingInference-v0", "id", 5)
    assert "more than is left" not in game.foreseen()
    game.env.episodes.limits["time"] = 600.0
    game.put("hold", 3)
    assert "more than is left: the episode would end without it" in game.foreseen()


@pytest.mark.parametrize("env_id", probegym.ENVIRONMENTS)
def test_the_goal_is_explained(env_id):
    assert purpose(env_id).endswith(".") and len(section(env_id, "Description")) > 100 and section(env_id, "Episode End")


# ---- the others ----


def test_a_person_is_counted_as_an_agent_is():
    """Random's actions by hand give random's row."""
    env_id, agent = "probegym/IsingInference-v0", RandomAgent()
    game = Game(env_id, "id", 7)
    agent.begin(1, 7)
    names = [part.name for part in game.controls.parts]
    while not game.over:
        game.values = dict(zip(names, agent.act({}, game.env.episodes)[0].tolist(), strict=True))
        game.step()
    mine, random = game.row(), next(others(env_id, "id", 7))
    assert isinstance(random, Row) and (mine.success, mine.costs, mine.metrics) == (random.success, random.costs, random.metrics)
    assert mine.score == pytest.approx(random.score)


def test_who_takes_too_long_is_left_out_by_name():
    found = list(others("probegym/StemTuning-v0", "beacon", 5, patience=0.0))
    assert {"random", "beacon", "nelder-mead", "oracle"} <= set(found)
    assert "stem-tuning-ronchigram" not in found and "ronchigram-segments" not in found  # they need what this scenario does not show
    told = compare.passed_over(["beacon"], 5.0)
    assert told == "left out, as they take more than 5 s: beacon (--all waits for them)" and compare.passed_over([]) == ""


def test_players_are_those_of_the_environment():
    assert players("probegym/AfmTuning-v0") == ["random", "fixed-pi", "fixed-settings", "relay-autotune", "ramp-until-ringing", "afm-tuning", "oracle"]


def test_scores_near_zero_have_one_sign():
    assert [compare.signed(score) for score in (-0.001, 0.0, 0.004, -0.006)] == ["+0.00", "+0.00", "+0.00", "-0.01"]


def test_the_table_is_ranked_and_shows_what_was_spent():
    none = {"time": 0.0, "dose": 0.0, "damage": 0.0, "measurements": 1.0}
    rows = [Row("you", False, -1.0, none, {"lines": 1.0, "height_error": 2e-9}), Row("oracle", True, 2.0, none | {"time": 3.5}, {"lines": 1.0, "height_error": 1e-10, "more": 1.0})]
    head, lines = table("probegym/AfmTuning-v0", rows)
    assert head == ["who", "goal", "score", "lines", "seconds", "height error"]
    assert lines == [["oracle", "reached", "+2.00", "1", "3.5", "100 pm"], ["you", "missed", "-1.00", "1", "0", "2 nm"]]


# ---- the terminal ----


def test_half_blocks_hold_the_colours():
    picture = np.zeros((4, 3, 3), np.uint8)
    picture[0] = (250, 10, 20)
    text = half_blocks(picture, 80)
    assert text.count("\u2580") == 6 and text.startswith("\x1b[38;2;250;10;20m\x1b[48;2;0;0;0m") and len(text.splitlines()) == 2
    assert half_blocks(np.zeros((64, 128, 3), np.uint8), 40).splitlines()[0].count("\u2580") == 40


def test_arrows_are_keys():
    class Pressed(io.StringIO):
        def isatty(self) -> bool:
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probegym.terminal.play._unbuffered", lambda stream: io.StringIO())
        assert "".join(keys(Pressed("\x1b[A2\x1b[D\t\n"))) == "w2an\n"


@pytest.mark.parametrize(("name", "scenario"), [("SpectrumExploration", "bare"), ("BeamManipulation", "id")])
def test_a_terminal_shows_picture_controls_and_keys(name, scenario, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: (100, 50))
    shown = io.StringIO()
    game = Game(f"probegym/{name}-v0", scenario, 5)
    Play(game, tmp_path, plain(file=shown, force_terminal=True, width=100))._draw("hello")
    text = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", shown.getvalue())
    assert len(text.splitlines()) <= 50 and "hello" in text and "q end" in text
    assert all(f"{index + 1} {part.name}" in text for index, part in enumerate(game.controls.parts))
    assert not any(isinstance(part, Choice) for part in game.controls.parts) or "parked" in text
    pictures = shown.getvalue()
    assert ("\x1b[38;2;240;180;41m" in pictures or "\x1b[48;2;240;180;41m" in pictures) == (scenario == "bare")  # the cell that is meant
