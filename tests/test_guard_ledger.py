"""The sample's account: what was spent stays spent, whatever happens to the process or the file."""

from __future__ import annotations

import errno
import os
import re
import zlib

import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Charge
from probegym.hardware_bridge.guard import ledger as module
from probegym.hardware_bridge.guard.ledger import Budget, Ledger, Spent
from probegym.hardware_bridge.world import Refused
from tests.helpers import python

HERE = [(0, 0)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sample.jsonl"


@pytest.fixture
def ledger(path) -> Ledger:
    return Ledger.create(path, Budget(dose=100.0, changes=3))


def reopened(ledger: Ledger) -> Ledger:
    ledger.close()
    return Ledger(ledger.path)


def untrusted(why: str):
    return pytest.raises(ProbeGymError, match=f"^sample account .* {re.escape(why)}.*: its budget counts as spent")


def test_what_was_spent_stays_spent(ledger):
    ledger.charge([(0, 0), (-1, 2)], Charge(1.0, 60.0, 1))
    ledger.charge(HERE, Charge(1.0, 0.1 + 0.2, 0))
    again = reopened(ledger)
    assert again.regions == ledger.regions == {(0, 0): Spent(60.3, 1), (-1, 2): Spent(60.0, 1)} and again.budget == ledger.budget
    assert again.worst() == Spent(60.3, 1)
    with pytest.raises(Refused, match=r"^region \(0, 0\) of the sample has no dose left: 60.3 of 100 electrons per square Angstrom are spent, 40 were asked for$"):
        again.charge([(5, 5), (0, 0)], Charge(1.0, 40.0, 0))
    assert (5, 5) not in again.regions and (5, 5) not in reopened(again).regions


def test_irreversible_commands_are_counted(ledger):
    for _ in range(3):
        ledger.charge(HERE, Charge(0.0, 0.0, 1))
    with pytest.raises(Refused, match=r"^region \(0, 0\) of the sample has had its 3 irreversible commands$"):
        reopened(ledger).charge(HERE, Charge(0.0, 0.0, 1))


def test_what_costs_nothing_is_not_written(ledger):
    size = ledger.path.stat().st_size
    ledger.charge(HERE, Charge(5.0, 0.0, 0))
    assert ledger.path.stat().st_size == size and not ledger.regions and ledger.worst() == Spent()


def test_a_budget_is_used_up_and_not_passed(ledger):
    for _ in range(1000):
        ledger.charge(HERE, Charge(0.0, 0.1, 0))
    assert 99.99 < ledger.worst().dose <= 100.0 * (1 + 1e-9)
    for dose in (0.1, 1e-6, float("nan"), float("inf")):
        with pytest.raises(Refused):
            ledger.charge(HERE, Charge(0.0, dose, 0))


@pytest.mark.parametrize("wrong", [{"dose": -1.0, "changes": 1}, {"dose": float("nan"), "changes": 1}, {"dose": 1.0, "changes": -1}, {"dose": 1.0}])
def test_budgets_are_checked(wrong):
    with pytest.raises(ValueError):
        Budget.model_validate(wrong)


def test_an_account_is_begun_once(ledger):
    ledger.charge(HERE, Charge(0.0, 50.0, 0))
    with pytest.raises(ProbeGymError, match="exists: open it, or name the new sample otherwise"):
        Ledger.create(ledger.path, Budget(dose=1e9, changes=9))
    assert reopened(ledger).worst().dose == 50.0 and os.listdir(ledger.path.parent) == [ledger.path.name]


def test_no_account_is_begun_on_a_full_disk(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 3)
        with pytest.raises(ProbeGymError, match=r"cannot write sample account .* \(only [0-9]+ of [0-9]+ bytes were taken\)"):
            Ledger.create(path, Budget(dose=1.0, changes=1))
    assert not os.listdir(path.parent)
    with pytest.raises(ProbeGymError, match="cannot write sample account"):
        Ledger.create(path.parent / "nowhere" / "sample", Budget(dose=1.0, changes=1))


def test_a_missing_account_is_spent(path):
    with untrusted("cannot be opened (No such file or directory)"):
        Ledger(path)
    assert not path.exists()


def test_a_charge_that_was_cut_off_does_not_count(ledger):
    """Cut at every byte of a charge that was never acknowledged: nothing was exposed for it."""
    ledger.charge(HERE, Charge(0.0, 30.0, 1))
    kept = ledger.path.read_bytes()
    ledger.charge([(0, 0), (7, 7)], Charge(0.0, 20.0, 1))
    whole = ledger.path.read_bytes()
    ledger.close()
    for end in range(len(kept), len(whole)):
        ledger.path.write_bytes(whole[:end])
        again = Ledger(ledger.path)
        assert again.regions == {(0, 0): Spent(30.0, 1)} and ledger.path.read_bytes() == kept
        again.charge(HERE, Charge(0.0, 70.0, 0))
        assert reopened(again).worst().dose == 100.0
        again.close()


def test_any_other_damage_spends_the_budget(ledger):
    for dose in (30.0, 20.0, 10.0):
        ledger.charge(HERE, Charge(0.0, dose, 0))
    ledger.close()
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole) - 1)]
    damaged += [b"", b"\n", whole[:20], b"".join(lines[1:]), b"".join([lines[0], *lines[2:]]), b"".join([*lines, lines[-1]]), b"".join([lines[0], lines[2], lines[1]]), whole + b"\n"]
    damaged += [whole.replace(b" ", b"  "), whole.replace(b"\n", b"\r\n"), b"\xff" * 100 + b"\n"]
    for content in damaged:
        ledger.path.write_bytes(content)
        with untrusted("is damaged"):
            Ledger(ledger.path)
        assert ledger.path.read_bytes() == content


@pytest.mark.parametrize("entry", [
    {"regions": [[0, 0]], "dose": -1.0, "changes": 0}, {"regions": [[0, 0]], "dose": 0.0, "changes": -1}, {"regions": [[0, 0]], "dose": "x", "changes": 0},
    {"regions": [[0]], "dose": 1.0, "changes": 0}, {"regions": 5, "dose": 1.0, "changes": 0}, {"dose": 1.0}, [], {"regions": [[0, 0]], "dose": 10**400, "changes": 0},
])  # fmt: skip
def test_entries_that_cannot_be_spend_the_budget(ledger, entry):
    with open(ledger.path, "ab") as stream:
        stream.write(module._line(entry, zlib.crc32(ledger.path.read_bytes()[9:-1]))[0])
    with untrusted("is damaged"):
        reopened(ledger)


def torn(taken: int):
    """A disk that takes a part of what is written."""
    write = os.write
    return lambda file, content: write(file, content[:taken])


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_a_full_disk_spends_nothing_and_lets_nothing_more_pass(ledger, monkeypatch, taken):
    ledger.charge(HERE, Charge(0.0, 10.0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn(taken))
        with pytest.raises(ProbeGymError, match=r"cannot be written \(only [0-9]+ of [0-9]+ bytes were taken\): nothing is exposed"):
            ledger.charge(HERE, Charge(0.0, 20.0, 0))
    for charge in (Charge(0.0, 1.0, 0), Charge(0.0, 0.0, 0)):
        with pytest.raises(Refused, match="could not be written: nothing more is exposed"):
            ledger.charge(HERE, charge)
    assert reopened(ledger).worst().dose == 10.0


@pytest.mark.parametrize("name", ["fdatasync", "write", "fstat"])
def test_a_failing_disk_is_told(ledger, monkeypatch, name):
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fails)
        with pytest.raises(ProbeGymError, match="cannot be written \\(Input/output error\\)"):
            ledger.charge(HERE, Charge(0.0, 20.0, 0))
    assert ledger.broken and reopened(ledger).worst().dose in (0.0, 20.0)


def test_a_charge_is_on_the_disk_before_it_counts(ledger, monkeypatch):
    synced: list[bool] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(not ledger.regions and os.fstat(file).st_size > ledger.size))
    ledger.charge(HERE, Charge(0.0, 20.0, 0))
    assert synced == [True]


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: os.replace(path, f"{path}.old") or path.write_text(""), lambda path: open(path, "ab").write(b"x")])
def test_an_account_that_somebody_changes_is_not_written_on(ledger, harm):
    harm(ledger.path)
    replaced = (ledger.path.parent / "sample.jsonl.old").exists()
    if replaced:
        os.unlink(f"{ledger.path}.old")
    with pytest.raises(ProbeGymError, match=r"deleted, moved, or changed by somebody else|No such file"):
        ledger.charge(HERE, Charge(0.0, 20.0, 0))


def test_one_process_at_a_time(ledger):
    code = "import sys; from probegym.hardware_bridge.guard.ledger import Ledger, ProbeGymError\ntry:\n Ledger(sys.argv[1]); print('open')\nexcept ProbeGymError as error: print(error)"
    with pytest.raises(ProbeGymError, match="is in use by another guard: end that one first"):
        Ledger(ledger.path)
    assert "in use by another guard" in python(code, ledger.path)
    ledger.close()
    ledger.close()
    assert python(code, ledger.path) == "open"


def test_what_was_spent_beyond_the_budget_is_booked(ledger):
    ledger.book(HERE, Charge(0.0, 500.0, 0))
    assert reopened(ledger).worst().dose == 500.0
    assert codec.loads(ledger.path.read_bytes().splitlines()[0][9:])["budget"] == {"dose": 100.0, "changes": 3, "region": 1e-6, "instrument": ""}


def test_a_fault_is_written_once(ledger):
    for fault, faults in (("a spark", 1), ("a spark", 1), ("", 2), ("", 2), ("another", 3)):
        ledger.latch(fault)
        assert ledger.path.read_bytes().count(b"fault") == faults
    assert reopened(ledger).fault == "another"
