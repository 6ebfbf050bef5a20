"""What a sample has been through: dose and irreversible commands for each region, kept across restarts.

The file only grows; a charge stands in it, synchronised, before the exposure begins, and is never given back. A file that is
missing or damaged means that the budget is spent: a new sample gets its file from an operator. The checksum of a line goes on
from the line before, so that none can be missing; one process at a time may have the file.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, ValidationError

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Charge
from probegym.hardware_bridge.records import files
from probegym.hardware_bridge.world import Refused

Region = tuple[int, int]
"""Column and row of a square of the sample."""


class Budget(BaseModel):
    """What every region of a sample may take: dose in electrons per square Angstrom, and irreversible commands.

    instrument: by whose coordinates regions are counted; on another the sample lies elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dose: NonNegativeFloat
    changes: NonNegativeInt
    region: PositiveFloat = 1e-6  # m, side of the squares
    instrument: str = ""


@dataclass
class Spent:
    """Of one region."""

    dose: float = 0.0
    changes: int = 0


class Ledger:
    """One sample's account. Raises ProbeGymError where the file cannot be trusted."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.regions, self.broken = Path(path), dict[Region, Spent](), False
        self.fault = ""  # of a guard, until an operator clears it
        try:
            self.file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_APPEND | files.BINARY), "ab", buffering=0)
        except OSError as error:
            raise self._untrusted(f"cannot be opened ({error.strerror})") from error
        try:
            files.lock(self.file.fileno())
            self._read()
        except BlockingIOError as error:
            self.close()
            raise ProbeGymError(f"sample account {self.path} is in use by another guard: end that one first") from error
        except OSError as error:
            self.close()
            raise self._untrusted(f"cannot be used ({error.strerror})") from error
        except ProbeGymError:
            self.close()
            raise

    def _read(self) -> None:
        content = self.path.read_bytes()
        *whole, torn = content.split(b"\n")  # what follows the last line end was never acknowledged, so nothing was exposed for it
        self.checksum, self.size = 0, len(content) - len(torn)
        try:
            budget, *charges = [self._entry(line) for line in whole]
            self.budget = Budget.model_validate(budget["budget"])
            for entry in charges:
                if "fault" in entry:
                    self.fault = str(entry["fault"])
                    continue
                self._count([(int(x), int(y)) for x, y in entry["regions"]], float(entry["dose"]), int(entry["changes"]))
        except (codec.Malformed, ValidationError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise self._untrusted(f"is damaged ({type(error).__name__})") from error
        if torn:
            self.file.truncate(self.size)

    @classmethod
    def create(cls, path: str | os.PathLike[str], budget: Budget) -> Ledger:
        """The account of a new sample; raises ProbeGymError where there is one already."""
        target = Path(path).absolute()
        scratch = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | files.BINARY, 0o644)
            try:
                files.write(file, _line({"budget": budget.model_dump()}, 0)[0])
                files.sync(file)
                os.link(scratch, target)  # there complete or not at all, and never over another
            finally:
                os.close(file)
                os.unlink(scratch)
            files.sync_folder(target.parent)
        except FileExistsError as error:
            raise ProbeGymError(f"sample account {path} exists: open it, or name the new sample otherwise") from error
        except OSError as error:
            raise ProbeGymError(f"cannot write sample account {path} ({error.strerror})") from error
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
        self.book(regions, charge)

    def book(self, regions: list[Region], charge: Charge) -> None:
        """Write down what was spent, whether there was room for it or not; raises ProbeGymError when it cannot be written."""
        if not charge.dose and not charge.changes:
            return
        self._append({"regions": regions, "dose": charge.dose, "changes": charge.changes})
        self._count(regions, charge.dose, charge.changes)

    def latch(self, fault: str) -> None:
        """Keep a fault for the guards to come, or clear it with an empty one. An account that cannot be written lets nothing be exposed anyway."""
        if fault != self.fault:
            self.fault = fault
            with contextlib.suppress(ProbeGymError):
                self._append({"fault": fault[:1000]})

    def _append(self, entry: codec.Json) -> None:
        line, checksum = _line(entry, self.checksum)
        try:
            if self.broken:
                raise OSError(0, "it failed before")  # half a line may stand at its end
            files.write(self.file.fileno(), line)
            files.sync(self.file.fileno())
            status, there = os.fstat(self.file.fileno()), os.stat(self.path)
            if (there.st_dev, there.st_ino) != (status.st_dev, status.st_ino) or status.st_size != self.size + len(line):
                raise OSError(0, "it was deleted, moved, or changed by somebody else")
        except (OSError, ValueError) as error:  # the latter of a file that was closed
            self.broken = True
            raise ProbeGymError(f"sample account {self.path} cannot be written ({getattr(error, 'strerror', error)}): nothing is exposed") from error
        self.checksum, self.size = checksum, self.size + len(line)

    def worst(self) -> Spent:
        """The most that any region has had."""
        every = list(self.regions.values()) or [Spent()]
        return Spent(max(s.dose for s in every), max(s.changes for s in every))

    def close(self) -> None:
        """Close the file; may be called again."""
        self.file.close()

    def _entry(self, line: bytes) -> codec.Json:
        checksum, _, text = line.partition(b" ")
        self.checksum = zlib.crc32(text, self.checksum)
        if checksum != b"%08x" % self.checksum:
            raise codec.Malformed("a line does not match its checksum")
        entry: codec.Json = codec.loads(text)
        return entry


def _line(entry: codec.Json, before: int) -> tuple[bytes, int]:
    text = codec.dumps(entry).encode()
    checksum = zlib.crc32(text, before)
    return b"%08x %s\n" % (checksum, text), checksum
