"""What a user says about an STM is read strictly: one clear line with file, line and key, or settings that mean what they say."""

from __future__ import annotations

import json

import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments import drivers
from probegym.hardware_bridge.instruments.nanonis import driver
from probegym.hardware_bridge.instruments.nanonis.settings import Settings, settings_file

LEAST = """\
rest: {bias: 0.5, current: 50e-12}
safe_tip: {threshold: 2e-6}
scan: {field_of_view: [1 nm, 1 um], speed: [1e-10, 1e-6], current: [1 pA, 1 nA], bias: 2 V}
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdef", "bcdefg", strict=True))


def written(folder, text):
    path = folder / "stm.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_come_with_units_and_without(tmp_path):
    s = settings_file(written(tmp_path, LEAST + "travel: 100 nm/s\nland: 2e1\nplace: 30pm\nhold: .05\nreach: 1.2e-7 m\nreal_time: false\n"))
    assert (s.travel, s.land, s.place, s.hold, s.reach, s.real_time) == (100e-9, 20.0, 30e-12, 0.05, 120e-9, False)
    assert (s.scan.field_of_view, s.scan.current, s.scan.bias, s.drag) == ((1e-9, 1e-6), (1e-12, 1e-9), 2.0, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("travel: 1e-6\ntravel: 2e-6", "line 5: the key 'travel' stands twice"), ("rest: {bias: 1, bias: 2}", "stands twice"),
        ("land: 1:30", "line 4, land: '1:30' is no number of s"), ("land: 0x10", "line 4, land: '0x10' is no number of s"), ("land: 1_0", "is no number of s"),
        ("land: yes", "line 4, land: 'yes' is no number of s"), ("land: true", "needed is a number of s"), ("land: ٣ s", "is no number of s"), ("land: 5 m", "'5 m' is no number of s"),
        ("travel: 1e400", "travel: Infinity m/s is more than"), ("travel: 1e400 m/s", "Infinity m/s is more than"), ("travel: 1e99999999999999999999 km/s", "is more than"),
        (f"travel: {'9' * 399}", "travel: 1.000e.399 m/s is more than"), (f"travel: {'9' * 5000}", "line 4: a number of 5000 digits"), ("travel: 010", "10 m/s is more than"),
        ("hold: .nan", "NaN s is more than"), ("hold: -.inf", "-Infinity s is more than"), ("hold: -1", "greater than or equal to 0"), (BOMB, "more than 100000 entries"),
        ("clearance: 0", "line 4, clearance: Input should be greater than 0"), ("pixels: 3", "line 4, pixels: Extra inputs"), ("land: !!python/name:os.system x", "not valid YAML"),
        ("a: &a [*a]", "not valid YAML|Extra inputs"), ("[" * 5000, "not valid YAML"), ("\x00", "not valid YAML"), ("? [a, b]\n: 3", "not valid YAML"),
        ("drag: {bias: 1 V, conductance: 6 uS, speed: [1 nm/s, 1 um/s]}", "safe_tip.threshold must be at least 2 times the highest setpoint, 6e-06 A"),
        ("travel: 1e-13", "line 4, travel: Input should be greater than or equal to 1e-12"), ("travel: 1e-11", "line 4, travel: Input should be greater than or equal to 1e-10"),
        ("withdraw: 1e-15", "line 4, withdraw: Input"), ("withdraw: 0.9 nm/s", "line 4, withdraw: Input should be greater than or equal to 1e-09"),
        ("drag: {bias: 0.01, conductance: 6 uS, speed: [1e-13, 1e-9]}", "line 4, drag.speed.0: Input should be greater"), ("place: 1.1 nm", "line 4, place: Input should be less"),
        ("hold: 11", "line 4, hold: Input should be less"), ("dip: {depth: [1 nm, 11 nm], bias: 1, duration: [1, 2], reach: 1e-9}", "line 4, dip.depth.1: Input should be less"),
        ("drag: {bias: 0.01, conductance: 78 uS, speed: [1e-9, 1e-9]}", "line 4, drag.conductance: Input should be less than 7.748"),
        ("drag: {bias: 1e-6, conductance: 1e-9, speed: [1e-9, 1e-9]}", "no drag is possible"),
        ("pulse: {bias: 4, duration: [2, 1], reach: 1e-8}", "line 4, pulse: duration is from a number above 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path, text, why):
    path = written(tmp_path, LEAST + text + "\n")
    with pytest.raises(ProbeGymError, match=why) as caught:
        settings_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("was", "now", "why"),
    [
        ("2e-6", "10 uA", "line 2, safe_tip.threshold: Input should be less than 1e-05"), ("bias: 2 V", "bias: 2 V, conductance: 7.8e-5", "line 3, scan.conductance: Input should be less"),
        ("bias: 2 V", "bias: 2 V, pixels: 7", "line 3, scan.pixels: Input"), ("speed: [1e-10", "speed: [9e-13", "line 3, scan.speed.0: Input"),
    ],
)  # fmt: skip
def test_what_no_instrument_can_keep_is_refused(tmp_path, was, now, why):
    with pytest.raises(ProbeGymError, match=why):
        settings_file(written(tmp_path, LEAST.replace(was, now)))


def test_a_product_that_rounding_has_raised_is_not_above_its_limit(tmp_path):
    assert 0.1 * 1e-5 > 0.5 * 2e-6
    assert settings_file(written(tmp_path, LEAST + "drag: {bias: 0.1, conductance: 1e-5, speed: [1e-9, 1e-6]}\n")).drag


def test_a_merge_key_merges_and_json_is_yaml(tmp_path):
    assert settings_file(written(tmp_path, LEAST + "<<: {travel: 1e-6}\n")).travel == 1e-6
    table = settings_file(written(tmp_path, LEAST)).model_dump(mode="json")
    assert isinstance(settings_file(written(tmp_path, json.dumps(table))), Settings)


def test_the_path_of_settings_counts_from_the_file_that_names_it(tmp_path, monkeypatch):
    folder = tmp_path / "stm"
    folder.mkdir()
    path = written(folder, LEAST.replace("0.5,", "0,"))
    (folder / "stm.json").write_text(json.dumps({"driver": "nanonis", "ports": [1, 2, 3], "settings": "stm.yaml"}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    told = drivers.from_file((folder / "stm.json").relative_to(tmp_path))
    assert told["settings"] == str(path)
    for opened in (driver.writer, driver.safety):
        with pytest.raises(ProbeGymError, match="its current over bias is above") as caught:  # it was read
            opened(told, "test")
        assert str(path) in str(caught.value)
    absolute = {"driver": "nanonis", "settings": str(path)}
    (folder / "stm.json").write_text(json.dumps(absolute), encoding="utf-8")
    assert drivers.from_file(folder / "stm.json") == absolute
