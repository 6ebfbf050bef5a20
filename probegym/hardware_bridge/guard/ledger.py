"""What a sample has been through: dose and irreversible commands for each region, kept across restarts.

The file only grows; a charge stands in it, synchronised, before the exposure begins, and is never given back. A file that is
missing or damaged means that the budget is spent: a new sample gets its file from an operator.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Charge
from probegym.hardware_bridge.world import Refused

Region = tuple[int, int]
"""Column and row of a square of the sample."""


class Budget(BaseModel):
    """What every region of a sample may take: dose in electrons per square Angstrom, and irreversible commands."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dose: NonNegativeFloat
    changes: NonNegativeInt


@dataclass
class Spent:
    """Of one region."""

    dose: float = 0.0
    changes: int = 0


class Ledger:
    """One sample's account. Raises ProbeGymError where the file cannot be trusted."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.regions = Path(path), dict[Region, Spent]()
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise self._untrusted(f"cannot be read ({error.strerror})") from error
        *whole, torn = lines  # what follows the last line end was never acknowledged, so nothing was exposed for it
        try:
            entries = [_entry(line) for line in whole]
            self.budget = Budget.model_validate(entries[0]["budget"])
            for entry in entries[1:]:
                self._count([(int(x), int(y)) for x, y in entry["regions"]], float(entry["dose"]), int(entry["changes"]))
        except (codec.Malformed, ValidationError, LookupError, TypeError, ValueError) as error:
            raise self._untrusted(f"is damaged ({type(error).__name__})") from error
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        if torn:
            os.ftruncate(self.file, len(b"\n".join(lines)) - len(torn))
        self.broken = False

    @classmethod
    def create(cls, path: str | os.PathLike[str], budget: Budget) -> Ledger:
        """The account of a new sample; raises ProbeGymError where there is one already."""
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError as error:
            raise ProbeGymError(f"sample account {path} exists: open it, or name the new sample otherwise") from error
        except OSError as error:
            raise ProbeGymError(f"cannot write sample account {path} ({error.strerror})") from error
        try:
            _append(file, {"budget": budget.model_dump()})
        finally:
            os.close(file)
        _sync_folder(Path(path).absolute().parent)
        return cls(path)

    def _untrusted(self, why: str) -> ProbeGymError:
        return ProbeGymError(f"sample account {self.path} {why}: its budget counts as spent. An operator can begin a new sample")

    def _count(self, regions: Iterable[Region], dose: float, changes: int) -> None:
        if not (dose >= 0 and changes >= 0):
            raise ValueError("a charge below zero")
        for region in regions:
            spent = self.regions.setdefault(region, Spent())
            spent.dose += dose
            spent.changes += changes

    def room(self, regions: list[Region], charge: Charge) -> None:
        """Raise Refused where a charge would not fit into what is left of any of the regions."""
        if self.broken:
            raise Refused(f"sample account {self.path} could not be written: nothing more is exposed")
        for region in regions:
            spent = self.regions.get(region, Spent())
            if not spent.dose + charge.dose <= self.budget.dose * (1 + 1e-9):
                told = f"{spent.dose:.4g} of {self.budget.dose:.4g} electrons per square Angstrom are spent, {charge.dose:.4g} were asked for"
                raise Refused(f"region {region} of the sample has no dose left: {told}")
            if not spent.changes + charge.changes <= self.budget.changes:
                raise Refused(f"region {region} of the sample has had its {self.budget.changes} irreversible commands")

    def charge(self, regions: list[Region], charge: Charge) -> None:
        """Write a charge down before it is spent; raises Refused where there is no room, ProbeGymError when it cannot be written."""
        self.room(regions, charge)
        if not charge.dose and not charge.changes:
            return
        try:
            _append(self.file, {"regions": regions, "dose": charge.dose, "changes": charge.changes})
        except OSError as error:
            self.broken = True
            raise ProbeGymError(f"sample account {self.path} cannot be written ({error.strerror}): nothing is exposed") from error
        self._count(regions, charge.dose, charge.changes)

    def worst(self) -> Spent:
        """The most that any region has had."""
        every = list(self.regions.values()) or [Spent()]
        return Spent(max(s.dose for s in every), max(s.changes for s in every))

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


def _entry(line: bytes) -> codec.Json:
    checksum, _, text = line.partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        raise codec.Malformed("a line does not match its checksum")
    entry: codec.Json = codec.loads(text)
    return entry


def _append(file: int, entry: codec.Json) -> None:
    text = codec.dumps(entry).encode()
    line = b"%08x %s\n" % (zlib.crc32(text), text)
    if os.write(file, line) != len(line):
        raise OSError(28, "short write")
    getattr(os, "fdatasync", os.fsync)(file)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        os.fsync(number)
        os.close(number)
