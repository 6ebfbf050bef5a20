"""The pages for those who connect an instrument: their code runs, and prints what they say."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from probegym.hardware_bridge.instruments import contract
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def page() -> tuple[dict, str, str]:
    """Names that the page's code leaves, what it printed, and what the page says that it prints."""
    text, held, printed = (ROOT / "docs/write_a_driver.md").read_text(encoding="utf-8"), {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(code, "docs/write_a_driver.md", "exec"), held)
    said = re.search(r"\n    (\['describes_itself.*\])\n", text)
    return held, printed.getvalue().strip(), said[1]


def test_the_small_driver_keeps_the_contract_as_the_page_says(page):
    _, printed, said = page
    assert printed == said == str([check.__name__ for check in contract.CHECKS])


@pytest.mark.parametrize(
    ("name", "why"),
    [("check", "refuses_what_is_outside"), ("stop", "stops_at_once"), ("is_safe", "safe state is not read back")],
)
def test_what_the_page_says_to_take_out_is_noticed(page, name, why):
    held = page[0]

    class Careless(held["BiasSource"]):
        def __init__(self, asker):
            super().__init__(asker)
            if name == "check":
                self.descriptor = self.descriptor.model_copy()
                object.__setattr__(self.descriptor, "check", lambda command: None)

        def safe(self, seconds):
            if name != "stop":
                super().safe(seconds)
            else:
                with self.turn:
                    self.on, self.volts = False, 0.0

        def is_safe(self):
            return False if name == "is_safe" else super().is_safe()

    subject = held["subject"]
    broken = contract.Subject(opened=Careless, commands=subject.commands, long=subject.long)
    with pytest.raises(contract.ContractBroken, match=why):
        contract.kept(broken)
