"""Takes every check and every rule of the guard out, one at a time, and sees to it that a test fails: ``python benchmarks/guard_mutations.py [WORD ...]``.

A word runs those mutants only whose name holds it. Works on a copy of the package in a scratch folder; every mutant gets a fork of
this process, which has imported all but the package. Exits with 1 when a mutant survives.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BRIDGE = Path("probegym/hardware_bridge")
GATE, CHECKS, LEDGER, REQUESTS = (BRIDGE / "guard" / f"{name}.py" for name in ("gate", "checks", "ledger", "requests"))
LIMITS, CODEC = BRIDGE / "capabilities.py", BRIDGE / "codec.py"
TESTS = [f"tests/test_guard_{name}.py" for name in ("checks", "budgets", "gate", "ledger", "properties", "histories")]
FIRST = {GATE: "gate", CHECKS: "budgets", LEDGER: "ledger", REQUESTS: "gate", LIMITS: "checks", CODEC: "checks"}  # where a failure is likely
IMPORTED = ("hypothesis.stateful", "_hypothesis_pytestplugin", "pytest_timeout", "numpy", "pydantic", "scipy.constants", "gymnasium")
MOST_SECONDS = 300  # for the tests of one mutant

MUTANTS: dict[str, tuple[Path, str, str]] = {
    # finite, shape, type
    "JSON: infinite numbers": (CODEC, "if math.isinf(number := float(text)):", "if math.isnan(number := float(text)):"),
    "JSON: NaN": (CODEC, "parse_constant=_refuse_constant, ", ""),
    "JSON: entries twice": (CODEC, "if len(held) != len(pairs):", "if False:"),
    "command: more entries": (CODEC, 'set(content) != {"verb", "arguments"} or ', ""),
    "command: unknown verb": (CODEC, "    if kind is None:\n        raise Malformed(f\"there is no verb", "    if kind is None:\n        kind = Command\n    if kind is Command:\n        raise KeyError(f\"there is no verb"),
    "command: arguments lacking or more": (CODEC, "if unlike := sorted(set(wanted) ^ set(given)):", "if unlike := sorted(set(wanted) - set(given)):"),
    "quantity: unit": (CODEC, 'if given["unit"] != unit:', "if False:"),
    "quantity: number for a switch": (CODEC, "if isinstance(value, bool) or not isinstance(value, int | float) or abs", "if not isinstance(value, int | float) or abs"),
    "quantity: immense": (CODEC, "abs(value) > 1e300 or ", ""),
    "quantities: switches and text": (CODEC, " or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in flat)", ""),
    "quantities: switches": (CODEC, "not all(isinstance(n, int | float) and not isinstance(n, bool) for n in flat)", "not all(isinstance(n, int | float) for n in flat)"),
    "quantities: how many": (CODEC, "len(flat) > MAXIMUM_NUMBERS or ", ""),
    "quantities: finite": (CODEC, "if not np.isfinite(array).all():", "if False:"),
    "quantities: beyond floats": (CODEC, "except (ValueError, OverflowError) as error:\n        raise Malformed(f\"{name} is ragged", "except ValueError as error:\n        raise Malformed(f\"{name} is ragged"),
    "switch: number": (CODEC, "if not isinstance(given, bool):", "if not isinstance(given, int):"),
    "count: switch": (CODEC, "if isinstance(given, bool) or not isinstance(given, int) or not 0 <=", "if not isinstance(given, int) or not 0 <="),
    "names: how many": (CODEC, "len(given) > 1000 or ", ""),
    "messages about anything": (CODEC, "except (ValueError, RecursionError):  # an integer", "except ValueError:  # an integer"),
    "message: types of arrays": (CODEC, "or not TYPE.fullmatch(code) ", ""),
    "message: checksum": (CODEC, "if zlib.crc32(body, zlib.crc32(head)) != checksum:", "if False:"),
    "one lane, all components": (CHECKS, "if value.shape != wanted:", "if value.shape[:1] != (1,):"),
    "components of a stage": (CODEC, "return (unit.components,) if isinstance(unit.components, int)", "return (min(unit.components, 2),) if isinstance(unit.components, int)"),
    "components of aberrations": (CODEC, "else (len(named[unit.components]),)", "else (1,)"),
    # number and age
    "request: number": (CHECKS, "if not _whole(number) or not isinstance(stamp", "if not isinstance(stamp"),
    "request: switch for a number": (CHECKS, "and not isinstance(number, bool) and 0 <= number", "and 0 <= number"),
    "request: endless number": (CHECKS, "and 0 <= number < LARGEST_NUMBER", "and 0 <= number"),
    "request: time": (CHECKS, " or not isinstance(stamp, float) or not math.isfinite(stamp):", ":"),
    "request: infinite time": (CHECKS, " or not math.isfinite(stamp):", ":"),
    "request: doubled": (CHECKS, "if number <= self.last:", "if number < self.last:"),
    "request: out of order": (CHECKS, "if number <= self.last:", "if number == self.last:"),
    "request: number kept": (CHECKS, "        self.last = number\n", ""),
    "request: old": (CHECKS, "if not 0 <= now - stamp <= OLDEST_ASKED:", "if not 0 <= now - stamp:"),
    "request: future": (CHECKS, "if not 0 <= now - stamp <= OLDEST_ASKED:", "if not now - stamp <= OLDEST_ASKED:"),
    "request: before arming": (CHECKS, "if not stamp >= self.begun:", "if False:"),
    "request: action": (CHECKS, "    if not _whole(action):", "    if False:"),
    # state and lease
    "passing: state": (GATE, "        if self.state is not State.running:\n            raise Refused(f\"the gate is {self.state} ({self.why}): nothing passes\")\n        self._leased()", "        self._leased()"),
    "passing: held": (GATE, "        if self.state is not State.running:\n            raise Refused(f\"the gate is {self.state} ({self.why}): nothing passes\")\n        self._leased()",
                      "        if self.state not in (State.running, State.held):\n            raise Refused(f\"the gate is {self.state} ({self.why}): nothing passes\")\n        self._leased()"),
    "passing: lease": (GATE, "nothing passes\")\n        self._leased()", "nothing passes\")"),
    "passing: one at a time": (GATE, "if self.running is not None or self.waiting is not None:", "if self.waiting is not None:"),
    "passing: what waits": (GATE, "if self.running is not None or self.waiting is not None:", "if self.running is not None:"),
    "lease: compared": (GATE, "        if self.clock() > self.until:\n            self.disarm", "        if False:\n            self.disarm"),
    "lease: safe at its end": (GATE, "            self.disarm(\"the lease has ended: no operator was there\")\n            raise", "            raise"),
    "lease: renewed after its end": (GATE, "            self._leased()\n            self.until", "            self.until"),
    "lease: renewed by presence": (GATE, "            self._leased()\n            self.until = self.clock() + LEASE_SECONDS", "            self._leased()"),
    "lease: resumed after its end": (GATE, "        self._leased()\n        self.refusals = 0\n", "        self.refusals = 0\n"),
    "lease: ended by time": (GATE, "elif self.state in (State.running, State.held) and now > self.until:", "elif False:"),
    "lease: ended by time in a hold": (GATE, "elif self.state in (State.running, State.held) and now > self.until:", "elif self.state is State.running and now > self.until:"),
    "lease: on the way": (GATE, "admission.by, admission.until = min(self.until, now + SLACK_SECONDS)", "admission.by, admission.until = now + SLACK_SECONDS"),
    "sending: after reading back": (GATE, "        self._passable()  # reading controls back takes time\n", ""),
    "sending: after reading back what was agreed to": (GATE, "        self._passable()\n        charge = admission.charge", "        charge = admission.charge"),
    "outcome: no answer counts as one": (GATE, 'ending = "settled" if isinstance(outcome, Readings | Refused) else "lost"', 'ending = "settled"'),
    "outcome: lost in time counts as one": (GATE, 'self._note("lost", {"intent": lost.intent', 'self._note("settled", {"intent": lost.intent'),
    "sending: closed while it was written down": (GATE, "        if self.state is not State.running:\n            self._note(\"settled\"", "        if False:\n            self._note(\"settled\""),
    "sending: at once": (REQUESTS, "if not self.open or not now <= self.by:", "if not self.open:"),
    "sending: open": (REQUESTS, "if not self.open or not now <= self.by:", "if not now <= self.by:"),
    "sending: once": (REQUESTS, "        self.open = False\n        return self.command", "        return self.command"),
    # absolute limits
    "limits: verb": (LIMITS, "        capability = self.capabilities.get(command.verb)\n        if capability is None:", "        capability = self.capabilities.get(command.verb) or next(iter(self.capabilities.values()))\n        if capability is None:"),
    "limits: ranges": (LIMITS, "    if outside.any():", "    if False:"),
    "limits: below": (LIMITS, "outside = ~((values >= low) & (values <= high))", "outside = ~(values <= high)"),
    "limits: above": (LIMITS, "outside = ~((values >= low) & (values <= high))", "outside = ~(values >= low)"),
    "limits: components": (LIMITS, "if limits.ndim and values.shape[-1:] != limits.shape:", "if False:"),
    "limits: names": (LIMITS, "if (value not in known) if kind is str else (tuple(value) != known):", "if kind is not str and tuple(value) != known:"),
    "limits: lists of names": (LIMITS, "if (value not in known) if kind is str else (tuple(value) != known):", "if kind is str and value not in known:"),
    "limits: counts": (LIMITS, "if not all(low <= n <= high for n in np.atleast_1d(value)):", "if not all(low <= n for n in np.atleast_1d(value)):"),
    "description: missing limits": (LIMITS, "if kind is not bool and name not in table:", "if False:"),
    "description: unknown verb": (LIMITS, "if verb not in codec.VERBS:", "if False:"),
    "description: unknown arguments": (LIMITS, "if unknown := sorted(told - set(codec.ARGUMENTS[verb])):", "if unknown := []:"),
    "description: limits without read-back": (LIMITS, "if name not in capability.reads_back and any(", "if False and any("),
    "description: current without area": (LIMITS, "if capability.current and codec.VERBS[verb].area is Command.area:", "if False:"),
    "description: order of limits": (LIMITS, "if not np.all(np.asarray(self.low) <= np.asarray(self.high)):", "if False:"),
    "description: step of nothing": (LIMITS, "if any(n is not None and not np.all(np.asarray(n) > 0) for n in (self.step, self.rate)):", "if False:"),
    "checked: descriptor asked": (GATE, "capability = descriptor.check(command)", "capability = descriptor.capabilities[command.verb]"),
    # steps, rates, read-backs
    "rate: asked": (GATE, "        checks.in_rate(command, capability, measured, self._since)\n", ""),
    "rate: missing read-back": (CHECKS, "    if told is None:\n        raise Refused(f\"{label} is not read back\")\n", "    if told is None:\n        return np.zeros(2)\n"),
    "rate: read back as no number": (CHECKS, "if values.dtype.kind not in \"iuf\" or not np.isfinite(values).all():", "if values.dtype.kind not in \"iuf\":"),
    "rate: read back as text": (CHECKS, "if values.dtype.kind not in \"iuf\" or not np.isfinite(values).all():", "if values.dtype.kind in \"iuf\" and not np.isfinite(values).all():"),
    "rate: stale": (CHECKS, "oldest = min(OLDEST_READ, since)", "oldest = since"),
    "rate: from before the last move": (CHECKS, "oldest = min(OLDEST_READ, since)", "oldest = OLDEST_READ"),
    "rate: from the future": (CHECKS, "if not 0 <= told.age <= oldest:", "if not told.age <= oldest:"),
    "rate: of unknown age": (CHECKS, "if not 0 <= told.age <= oldest:", "if told.age < 0 or told.age > oldest:"),
    "rate: shape of the read-back": (CHECKS, "        if here.size != asked.size:\n            raise Refused(f\"{label} has {asked.size}", "        if False:\n            raise Refused(f\"{label} has {asked.size}"),
    "rate: step": (CHECKS, "        if allowed.step is not None:\n", "        if False:\n"),
    "rate: per second": (CHECKS, "        if allowed.rate is not None:\n", "        if False:\n"),
    "rate: compared": (CHECKS, "        beyond = ~(far <= most * (1 + 1e-9))\n        if beyond.any():", "        beyond = ~(far <= most * (1 + 1e-9))\n        if False:"),
    "rate: when it was set": (GATE, "        self.set_at |= dict.fromkeys(self.instrument.descriptor.capabilities[verb].reads_back.values(), self.clock())\n", ""),
    "rate: set in the run before": (GATE, "self.refusals, self.agreed, self.set_at, self.seen = 0, set(), {}, {}", "self.refusals, self.agreed, self.seen = 0, set(), {}"),
    "read-back: fault": (GATE, "            self.fail(f\"controls are not read back: {error}\")\n", ""),
    # costs
    "cost: seconds": (CHECKS, "if not seconds <= self.limits.seconds:", "if False:"),
    "cost: changes": (CHECKS, "if not changes <= self.limits.changes:", "if False:"),
    "cost: spent is kept": (GATE, "            self.account.spent = self.account.after(charge)\n", ""),
    "cost: asked": (GATE, "        self.account.after(charge)\n        places", "        places"),
    "cost: without bound": (LIMITS, "if not (0 <= takes <= seconds < np.inf and 0 <= exposure and 0 <= dose < np.inf):", "if False:"),
    "cost: division by nothing": (LIMITS, "except ArithmeticError as error:", "except MemoryError as error:"),
    "cost: area of nothing": (LIMITS, "if capability.current:", "if capability.current and command.area():"),
    "cost: dose at a rate": (LIMITS, "dose = capability.dose + capability.dose_rate * exposure", "dose = capability.dose"),
    "cost: dose of a current": (LIMITS, "dose += capability.current", "dose += 0 * capability.current"),
    "cost: overhead": (LIMITS, "seconds = takes + capability.overhead + rows * capability.line_overhead", "seconds = takes + capability.overhead"),
    "cost: irreversible": (LIMITS, "int(capability.effect is Effect.changes)", "0"),
    # where
    "place: field of view": (CHECKS, "half = getattr(command, \"field_of_view\", 0.0) / 2 * max(1.0, rows / max(columns, 1))", "half = 0.0"),
    "place: rows": (CHECKS, " * max(1.0, rows / max(columns, 1))", ""),
    "place: reach": (CHECKS, "margin = half + descriptor.capabilities[command.verb].reach + at.margin", "margin = half + at.margin"),
    "place: how well the stage is known": (CHECKS, ".reach + at.margin + ", ".reach + "),
    "place: borders": (CHECKS, " + ROUNDING * descriptor.region\n", "\n"),
    "place: stage": (CHECKS, "origin, shifts = at.stage, ", "origin, shifts = np.zeros(2), "),
    "place: shift": (CHECKS, "[np.zeros(2), at.shift]  #", "[np.zeros(2)]  #"),
    "place: where a shift goes": (CHECKS, "        shifts.append(command.shift[0])\n", "        pass\n"),
    "place: way of the stage": (CHECKS, "origin, asked = np.zeros(2), [*asked, at.stage]", "origin, asked = np.zeros(2), asked"),
    "place: target of the stage": (CHECKS, "origin, asked = np.zeros(2), [*asked, at.stage]", "asked = [*asked, at.stage]"),
    "place: stage not read back": (CHECKS, "        if capability is None and control not in measured:", "        if control not in measured:"),
    "place: stage in one number": (CHECKS, "        if place.size < 2:", "        if False:"),
    "place: beyond integers": (CHECKS, "if not (np.abs([low, high]) < LARGEST_NUMBER).all():", "if False:"),
    "place: how many": (CHECKS, "if (right - left + 1) * (top - bottom + 1) > MOST_REGIONS:", "if False:"),
    "place: unit of the account": (GATE, "if (budget.region, budget.instrument) != (here.region, here.name):", "if budget.instrument != here.name:"),
    "place: whose account": (GATE, "if (budget.region, budget.instrument) != (here.region, here.name):", "if budget.region != here.region:"),
    # the account
    "account: dose": (LEDGER, "if not spent.dose + charge.dose <= self.budget.dose * (1 + 1e-9):", "if False:"),
    "account: dose that is no number": (LEDGER, "if not spent.dose + charge.dose <= self.budget.dose * (1 + 1e-9):", "if spent.dose + charge.dose > self.budget.dose * (1 + 1e-9):"),
    "account: changes": (LEDGER, "if not spent.changes + charge.changes <= self.budget.changes:", "if False:"),
    "account: asked before": (GATE, "        self.ledger.room(places, charge)\n", ""),
    "account: asked while charging": (LEDGER, "        self.room(regions, charge)\n        self.book", "        self.book"),
    "account: charged": (GATE, "            self.ledger.charge(admission.places, charge)\n", ""),
    "account: counted": (LEDGER, "        self._count(regions, charge.dose, charge.changes)\n", ""),
    "account: written": (LEDGER, "            _write(self.file.fileno(), line)\n            status", "            status"),
    "account: short writes": (LEDGER, "    if os.write(file, line) != len(line):\n        raise OSError(28, \"short write\")\n", "    os.write(file, line)\n"),
    "account: synchronised": (LEDGER, "    files.sync(file)\n", ""),
    "account: broken": (LEDGER, "            self.broken = True\n", ""),
    "account: nothing after it broke": (LEDGER, "        if self.broken:", "        if False:"),
    "account: checksum": (LEDGER, "if checksum != b\"%08x\" % self.checksum:", "if len(checksum) != 8:"),
    "account: chain": (LEDGER, "self.checksum = zlib.crc32(text, self.checksum)", "self.checksum = zlib.crc32(text)"),
    "account: torn end": (LEDGER, "            self.file.truncate(self.size)", "            pass"),
    "account: charges below zero": (LEDGER, "if not (dose >= 0 and changes >= 0):", "if False:"),
    "account: damage": (LEDGER, "LookupError, TypeError, ValueError, ArithmeticError) as error", "LookupError, TypeError, ValueError) as error"),
    "account: missing": (LEDGER, "os.open(self.path, os.O_RDWR | os.O_APPEND | files.BINARY)", "os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | files.BINARY)"),
    "account: locked": (LEDGER, "            files.lock(self.file.fileno())\n", ""),
    "account: changed by others": (LEDGER, "if status.st_nlink < 1 or status.st_size != self.size + len(line):", "if status.st_nlink < 1:"),
    "account: deleted": (LEDGER, "if status.st_nlink < 1 or status.st_size != self.size + len(line):", "if status.st_size != self.size + len(line):"),
    "account: begun twice": (LEDGER, "os.link(scratch, target)", "os.rename(scratch, target); open(scratch, \"w\").close()"),
    "account: booked beyond the worst case": (GATE, "                self.ledger.book(admission.places, Charge(0.0, over, 0))\n", ""),
    # the record
    "record: intent before": (GATE, "            admission.intent = self.record.append(\"intent\", told)\n", "            admission.intent = 0\n"),
    "record: no intent, nothing sent": (GATE, "            self.fail(f\"nothing can be written down: {error}\")\n            raise Refused(self.why) from error\n", "            pass\n"),
    "record: any error": (GATE, "        except Exception as error:  # whatever ails account or record", "        except ProbeGymError as error:  # whatever ails account or record"),
    "record: full is a fault": (GATE, "                self.fail(f\"the record cannot be written: {error}\")", "                pass"),
    "record: any error of a note": (GATE, "            self.record.append(kind, payload, arrays)\n        except Exception as error:", "            self.record.append(kind, payload, arrays)\n        except ProbeGymError as error:"),
    "record: results": (GATE, "        self._note(\"result\", intent | {\"readings\": header}, arrays)\n", ""),
    "record: result not written": (GATE, "{\"readings\": header}, arrays)\n        self._faultless()\n", "{\"readings\": header}, arrays)\n"),
    "record: rejections": (GATE, "        self._note(\"rejected\",", "        dict(kind=\"rejected\", told=" ),
    # approval
    "approval: first actions": (GATE, "supervised = len(self.agreed | {action}) <= self.request.approvals and", "supervised = False and"),
    "approval: named by the session": (GATE, "supervised = len(self.agreed | {action}) <= self.request.approvals and", "supervised = action < self.request.approvals and action not in self.agreed and"),
    "approval: verbs": (GATE, "if not supervised and not capability.approval:", "if not supervised:"),
    "approval: yes": (GATE, "        if agreed is not True:\n            return None", "        if not agreed:\n            return None"),
    "approval: no": (GATE, "        if agreed is not True:\n            return None\n", ""),
    "approval: of what waits": (GATE, "if self.waiting is None or isinstance(number, bool) or self.waiting.number != number:", "if self.waiting is None:"),
    "approval: switch for a number": (GATE, "if self.waiting is None or isinstance(number, bool) or self.waiting.number", "if self.waiting is None or self.waiting.number"),
    "approval: once": (GATE, "        waiting, self.waiting = self.waiting, None\n", "        waiting = self.waiting\n"),
    "approval: checked again": (GATE, "            self._passable()\n            if self.clock() > waiting.until:", "            if self.clock() > waiting.until:"),
    "approval: too late": (GATE, "            if self.clock() > waiting.until:\n", "            if False:\n"),
    "approval: waits for ever": (GATE, "elif self.waiting is not None and now > self.waiting.until:", "elif False:"),
    "approval: not written down": (GATE, "\"command\": told})\n        self._faultless()\n", "\"command\": told})\n"),
    # refusals
    "refusals: counted": (GATE, "        self.refusals += 1\n", ""),
    "refusals: hold": (GATE, "        if self.refusals >= MOST_REFUSALS and self.state is State.running:", "        if False:"),
    "refusals: in a row": (GATE, "        self._faultless()\n        self.refusals = 0\n", "        self._faultless()\n"),
    "refusals: after a hold": (GATE, "        self._leased()\n        self.refusals = 0\n        self._go", "        self._leased()\n        self._go"),
    "refusals: of the instrument": (GATE, "            self._refused(admission.number, str(outcome))\n", ""),
    # outcomes
    "outcome: of what is under way": (GATE, "        if admission is not self.running:\n            raise Refused(\"this command is not under way\")\n", ""),
    "outcome: once": (GATE, "        self.running, admission.open = None, False\n", "        self.running, admission.open = admission, False\n"),
    "outcome: errors": (GATE, "        if not isinstance(outcome, Readings):\n            return f\"{command.verb}: {outcome}\", {}, {}\n", "        if not isinstance(outcome, Readings):\n            return None, {}, {}\n"),
    "outcome: closed gate": (GATE, "        if self.state not in (State.running, State.held):\n            self._make_safe(f\"{verb} ended", "        if self.state is State.fault:\n            self._make_safe(f\"{verb} ended"),
    "outcome: safe again after a closed gate": (GATE, "            self._make_safe(f\"{verb} ended after the gate had closed\")  # it may have moved what was safe before\n", ""),
    "outcome: plausible": (GATE, "            if trouble := checks.implausible(command, outcome, capability, self.seen):\n                return trouble, {}, arrays\n", ""),
    "outcome: costs": (CHECKS, "        if cost.shape != (1,) or cost.dtype.kind not in \"iuf\" or not (0 <= cost[0] < math.inf):", "        if False:"),
    "outcome: lacking": (CHECKS, "    if lacking := [name for name in wanted if name not in readings.values]:", "    if lacking := []:"),
    "outcome: shape": (CHECKS, "        if shape is not None and values.shape[1:] != tuple(shape):", "        if False:"),
    "outcome: lanes": (CHECKS, "        if values.shape[:1] != (1,) or values.dtype", "        if values.dtype"),
    "outcome: text": (CHECKS, "        if values.shape[:1] != (1,) or values.dtype.kind not in \"biuf\":", "        if values.shape[:1] != (1,):"),
    "outcome: range": (CHECKS, "        if not ((known >= low) & (known <= high)).all():", "        if False:"),
    "outcome: NaN": (CHECKS, "        if not ((known >= low) & (known <= high)).all():", "        if ((known < low) | (known > high)).any():"),
    "outcome: NaN where it may be": (CHECKS, "known = values[~np.isnan(values)] if name in capability.may_lack and values.dtype", "known = values[~np.isnan(values)] if values.dtype"),
    "outcome: frozen": (CHECKS, "            if seen.get(f\"{command.verb} {name}\") == checksum and known.size", "            if False and known.size"),
    "outcome: frozen integers": (CHECKS, "        if values.dtype.kind in \"iuf\" and values.size >= FRAME", "        if values.dtype.kind == \"f\" and values.size >= FRAME"),
    "outcome: landed": (GATE, "            return checks.landed(command, capability, self._driven(self.instrument.measured)), header, arrays\n", "            return None, header, arrays\n"),
    "outcome: landed where": (CHECKS, "        beyond = ~(off <= per_component(allowed.tolerance, asked, label))\n        if beyond.any():", "        beyond = ~(off <= per_component(allowed.tolerance, asked, label))\n        if False:"),
    "outcome: landed in how many numbers": (CHECKS, "        if here.size != asked.size:\n            return", "        if False:\n            return"),
    "outcome: trouble is a fault": (GATE, "        if trouble:\n            self.fail(trouble)\n", "        if trouble:\n"),
    "outcome: any trouble": (GATE, "        except Exception as error:  # a reading that not even", "        except ProbeGymError as error:  # a reading that not even"),
    "outcome: what a record can hold": (GATE, " if values.dtype.kind in \"biuf\"}  # what a record", "}  # what a record"),
    "outcome: more dose than at worst": (GATE, "            if over > 1e-9 * admission.charge.dose:", "            if False:"),
    "outcome: lost": (GATE, "        if self.running is not None and now > self.running.until:", "        if False:"),
    "outcome: lost is a fault": (GATE, "            self.fail(f\"{lost.command.verb} has not ended in time: what it did is not known\")\n", ""),
    # arming
    "arming: from which states": (GATE, "if self.state not in (State.disarmed, State.asked):", "if self.state is State.running:"),
    "arming: under way": (GATE, "before arming anew\")\n        self._idle()\n", "before arming anew\")\n"),
    "arming: request": (GATE, "request = Request.model_validate(content)", "request = Request.model_construct(**{**dict(environment='', scenario='', policy='', seconds=1.0, changes=1, approvals=0), **content})"),
    "arming: request in its own types": (REQUESTS, ", strict=True)", ")"),
    "arming: self-test": (GATE, "        self._make_safe(\"self-test before arming\")\n", ""),
    "arming: self-test failed": (GATE, "        self._make_safe(\"self-test before arming\")\n        self._faultless()\n", "        self._make_safe(\"self-test before arming\")\n"),
    "arming: asked for": (GATE, "        if request is None or not wanted:", "        if request is None:"),
    "arming: nonce": (GATE, "if not isinstance(word, str) or not secrets.compare_digest(word.encode(errors=\"surrogatepass\"), wanted.encode()):", "if not isinstance(word, str):"),
    "arming: nonce of another type": (GATE, "if not isinstance(word, str) or not secrets", "if not secrets"),
    "arming: nonce once": (GATE, "            self._go(State.disarmed, \"a wrong nonce was given\")\n", ""),
    "arming: nonce in time": (GATE, "        if self.clock() > self.until:\n            self._go(State.disarmed, \"the nonce", "        if False:\n            self._go(State.disarmed, \"the nonce"),
    "arming: nonce ended by time": (GATE, "        if self.state is State.asked and now > self.until:", "        if False:"),
    "arming: drawn nonce": (GATE, "f\"{secrets.randbelow(10**6):06d}\"", "\"000000\""),
    "arming: written down": (GATE, "        self._note(\"armed\", {\"request\": request.model_dump()})\n", ""),
    "arming: not written down": (GATE, "        self._note(\"armed\", {\"request\": request.model_dump()})\n        self._faultless()\n", "        self._note(\"armed\", {\"request\": request.model_dump()})\n"),
    "arming: not ready": (GATE, "            self.fail(f\"the instrument did not get ready: {error}\")\n", "            pass\n"),
    "arming: abort while getting ready": (GATE, "did not get ready: {error}\")\n        self._faultless()\n", "did not get ready: {error}\")\n        self.state = State.asked\n"),
    "arming: spent before": (GATE, "self.order, self.account = checks.Order(now), Account(Limits(request.seconds, request.changes))", "self.order, self.account = checks.Order(now), Account(Limits(request.seconds, request.changes), self.account.spent)"),
    "arming: agreed before": (GATE, "self.refusals, self.agreed, self.set_at, self.seen = 0, set(), {}, {}", "self.refusals, self.set_at, self.seen = 0, {}, {}"),
    "arming: decided before": (GATE, "checks.Order(now)", "checks.Order()"),
    # holding, disarming
    "hold: from running only": (GATE, "        if self.state is State.running:\n            self._go(State.held, why)", "        if True:\n            self._go(State.held, why)"),
    "hold: what was not sent": (GATE, "            self.running.open = False  # what was not sent yet stays\n", "            pass\n"),
    "resume: from a hold only": (GATE, "        if self.state is not State.held:\n            raise Refused(f\"there is nothing to go on from, the gate is {self.state}\")\n", ""),
    "disarm: safe": (GATE, "            self._close()\n            self._make_safe(why)\n            self._go(State.disarmed, why)", "            self._close()\n            self._go(State.disarmed, why)"),
    "disarm: closed first": (GATE, "            self.state, self.why = State.disarmed, why  # first, so that nothing passes while the safe state is taken\n", ""),
    "disarm: from a fault": (GATE, "        if self.state in (State.running, State.held, State.asked):\n            self.state, self.why = State.disarmed", "        if True:\n            self.state, self.why = State.disarmed"),
    "closing: what waits": (GATE, "self.request, self.word, self.waiting = None, \"\", None", "self.request, self.word = None, \"\""),
    "closing: nonce": (GATE, "self.request, self.word, self.waiting = None, \"\", None", "self.request, self.waiting = None, None"),
    "closing: what was not sent": (GATE, "        if self.running is not None:\n            self.running.open = False\n", ""),
    # faults
    "fault: latched": (GATE, "        self.state, self.why, self.cause = State.fault, why, ", "        self.why, self.cause = why, "),
    "fault: safe state": (GATE, "        self._latch(why)\n        self._make_safe(why)\n", "        self._latch(why)\n"),
    "fault: safe before it is written down": (GATE, "        self._latch(why)\n        self._make_safe(why)\n", "        self._latch(why)\n        self._note(\"state\", {\"state\": \"fault\"})\n        self._make_safe(why)\n"),
    "fault: safe state sent": (GATE, "            self._driven(self.instrument.safe, SAFE_SECONDS)\n", ""),
    "fault: safe state read back": (GATE, "self.safe = self._driven(self.instrument.is_safe) is True", "self.safe = True"),
    "fault: safe state not confirmed": (GATE, "            self._latch(f\"SAFE STATE NOT CONFIRMED ({trouble}), after: {why}\", why)\n", "            pass\n"),
    "fault: tried again": (GATE, "        elif self.state in (State.fault, State.disarmed) and not self.safe and now > self.tried + AGAIN_SECONDS:", "        elif False:"),
    "fault: tried again not at once": (GATE, " and not self.safe and now > self.tried + AGAIN_SECONDS:", " and not self.safe:"),
    "fault: safe at the start": (GATE, "elif self.state in (State.fault, State.disarmed) and not self.safe", "elif self.state is State.fault and not self.safe"),
    "fault: a driver's mistakes": (GATE, "        except Exception as error:\n            raise InstrumentFault", "        except MemoryError as error:\n            raise InstrumentFault"),
    "fault: left by reset alone": (GATE, "        if self.state is State.fault:  # which may have come meanwhile\n            return\n", ""),
    "fault: abort": (GATE, "        self.fail(f\"aborted: {why}\")", "        self.disarm(f\"aborted: {why}\")"),
    "reset: of a fault": (GATE, "        if self.state is not State.fault:\n            raise Refused(f\"there is no fault to clear", "        if False:\n            raise Refused(f\"there is no fault to clear"),
    "reset: under way": (GATE, "the gate is {self.state}\")\n        self._idle()\n        faults", "the gate is {self.state}\")\n        faults"),
    "reset: safe state": (GATE, "        faults = self.faults\n        self._make_safe(self.cause)\n", "        faults = self.faults\n"),
    "reset: another fault": (GATE, "        if self.faults != faults:", "        if not self.safe:"),
    "reset: safe state not confirmed": (GATE, "        if self.faults != faults:", "        if False:"),
    "reset: not written down": (GATE, "\"why\": self.why})\n        self._faultless()\n", "\"why\": self.why})\n"),
}  # fmt: skip


def mutated(name: str) -> tuple[Path, str]:
    """File and text of a mutant; raises SystemExit where its place is not there exactly once."""
    path, old, new = MUTANTS[name]
    text = (ROOT / path).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"mutant {name!r}: its text occurs {text.count(old)} times in {path}: bring the list up to date")
    return path, text.replace(old, new)


def copied(scratch: Path) -> None:
    """A package of its own in a folder: the bridge copied, the rest linked."""
    (scratch / "probegym").mkdir()
    for entry in (ROOT / "probegym").iterdir():
        if entry.name not in ("hardware_bridge", "__pycache__"):
            os.symlink(entry, scratch / "probegym" / entry.name)
    shutil.copytree(ROOT / BRIDGE, scratch / BRIDGE, ignore=shutil.ignore_patterns("__pycache__", "twins", "page", "programs", "deployment"))
    (scratch / "tests").mkdir()
    for name in ("tests/__init__.py", "tests/helpers.py", "tests/guard_helpers.py", "pyproject.toml", *TESTS):
        shutil.copy(ROOT / name, scratch / name)


def failing(scratch: Path, tests: list[str], fresh: bool = True) -> str:
    """The first test that fails on the package in a folder; empty when none does. ``fresh``: nothing is compiled for the next one."""
    told = scratch / "told.txt"
    child = os.fork()
    if not child:
        with open(told, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os.chdir(scratch)
        sys.path.insert(0, str(scratch))
        os.environ["PYTHONPATH"] = str(scratch)
        sys.dont_write_bytecode = fresh
        signal.alarm(MOST_SECONDS)
        code = 3
        try:
            code = int(pytest.main(["-x", "-q", "--noconftest", "--tb=line", "-W", "ignore", *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "took too long" if os.WTERMSIG(status) == signal.SIGALRM else f"died of signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status) == 0:
        return ""
    text = told.read_text(errors="replace")
    found = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", text, re.MULTILINE)
    return found[1] if found else " ".join(text.split())[-200:]


def main() -> int:
    """Print the table; 1 when a mutant survives."""
    chosen = [name for name in MUTANTS if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    mutants = {name: mutated(name) for name in chosen}
    survivors, start = [], time.monotonic()
    for name in IMPORTED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        copied(scratch)
        if first := failing(scratch, TESTS, fresh=False):
            raise SystemExit(f"the tests fail without any mutant: {first}")
        print(f"| {'taken out':50} | killed by |\n|{'-' * 52}|---|", flush=True)
        for name, (path, text) in mutants.items():
            (scratch / path).write_text(text, encoding="utf-8")
            killer = failing(scratch, sorted(TESTS, key=lambda test: FIRST[path] not in test))
            shutil.copy2(ROOT / path, scratch / path)
            survivors += [name] * (not killer)
            print(f"| {name:50} | {killer or 'NOTHING: IT SURVIVES'} |", flush=True)
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} mutants killed in {time.monotonic() - start:.0f} s")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
