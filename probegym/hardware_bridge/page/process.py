"""Starting the operator's page in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

from probegym.hardware_bridge.channel import Started, launch
from probegym.hardware_bridge.codec import Json


@dataclass
class PageProcess(Started):
    """A running page. url_with_code: opens it in a browser, once."""

    url_with_code: str

    def new_url(self) -> str:
        """Another address that opens the page once, for a second browser or after the first was closed. Raises Disconnected."""
        answer, _ = self.channel.ask({"do": "url"})
        return str(answer["url"])


def start_page(reached_operator: Json, port: int = 0, request: Json | None = None, descriptor: Json | None = None, mode: str = "") -> PageProcess:
    """Start the page on the loopback interface; raises ProbeGymError when it cannot start, with its reason.

    reached_operator: port and secret of the guard's operators (``GuardProcess.reached["operator"]``). port: of the page; 0 for any that
    is free. request: what the page asks for when its operator arms (fields of ``guard.gate.Request``); None where arming is asked for
    elsewhere. descriptor: of the instrument, whose limits are shown before arming. mode: shown as it is: replay, twin, shadow, supervised
    or autonomous.
    """
    told = {"reached": reached_operator, "port": port, "request": request, "descriptor": descriptor, "mode": mode}
    process, channel, answer = launch("probegym.hardware_bridge.page", told)
    return PageProcess(process, channel, str(answer["url"]))
