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
        ("drag: {bias: 1 V, conductance: 6 uS, speed: [1 nm/s, 1 um/s]}", "safe_tip.threshold must be at least 2 times the highest set point, 6e-06 A"),
        ("pulse: {bias: 4, duration: [2, 1], reach: 1e-8}", "line 4, pulse: duration is from a number above 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path, text, why):
    path = written(tmp_path, LEAST + text + "\n")
    with pytest.raises(ProbeGymError, match=why) as caught:
        settings_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


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
