"""An operator's questions to a guard; the page and the command line ask the same ones."""

from __future__ import annotations

from typing import Any

from probegym.hardware_bridge.channel import Channel, Disconnected, connect
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.world import Refused

ANSWER_SECONDS = 5.0
SELF_TEST_SECONDS = 15.0
WELCOME_SECONDS = 2.0


class Operator:
    """One operator's connection. Every method raises Refused, or Disconnected when the guard does not answer. Not for two threads at once.

    ``reached`` (port and secret) allows a lost connection to be made anew before the next question; a question is never asked twice,
    except ``abort``.
    """

    def __init__(self, channel: Channel, reached: Json | None = None):
        self.channel, self.reached, self.count = channel, reached, 0

    @classmethod
    def connected(cls, reached: Json) -> Operator:
        """Connect to a guard as one of its operators."""
        return cls(_welcomed(reached), reached)

    def status(self) -> Json:
        """State, lease, spending, and what waits for an answer; see ``guard.process.Guard.status``."""
        return self._ask("status")[0]

    def describe(self) -> Json:
        """The instrument's descriptor."""
        return dict(self._ask("describe")[0]["descriptor"])

    def latest(self) -> tuple[Json, Arrays]:
        """Verb and number of the last command that was carried out, and its readings."""
        return self._ask("latest")

    def ask(self, request: Json) -> Json:
        """Ask for arming: the guard tries the safe state and tells request, nonce, budget and what is spent of it."""
        return self._ask("ask", SELF_TEST_SECONDS, request=request)[0]

    def arm(self, nonce: str) -> None:
        """Repeat the nonce: the lease begins."""
        self._ask("arm", nonce=nonce)

    def present(self) -> None:
        """Be there: the lease begins anew."""
        self._ask("present")

    def hold(self, why: str = "an operator holds") -> None:
        """Let nothing pass until ``resume``."""
        self._ask("hold", why=why)

    def resume(self) -> None:
        """Go on after a hold."""
        self._ask("resume")

    def disarm(self, why: str = "an operator disarmed") -> None:
        """End the run: safe state, then disarmed."""
        self._ask("disarm", why=why)

    def abort(self, why: str = "by an operator") -> None:
        """Safe state at once; asked again over a new connection when the first does not answer."""
        try:
            self._ask("abort", why=why)
        except Disconnected:
            if not self.reached:
                raise
            self._ask("abort", why=why)

    def reset(self) -> None:
        """Clear a fault; refused while the safe state is not read back."""
        self._ask("reset")

    def decide(self, number: int, agreed: bool) -> None:
        """Agree to the command that waits under ``number``, or not; refused when another waits by now."""
        self._ask("decide", number=number, agreed=agreed)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def _ask(self, what: str, seconds: float = ANSWER_SECONDS, **more: Any) -> tuple[Json, Arrays]:
        if self.channel.fileno() < 0 and self.reached:
            self.channel = _welcomed(self.reached)
        self.count += 1
        answer, arrays = self.channel.ask({"do": what, "id": self.count, **more}, seconds=seconds)
        if answer.get("id") != self.count:
            self.channel.close()
            raise Disconnected("the guard answered another question: the connection is closed")
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        return answer, arrays


def _welcomed(reached: Json) -> Channel:
    channel = connect(reached["port"], reached["secret"], WELCOME_SECONDS)
    try:
        answer, _ = channel.receive(WELCOME_SECONDS)
    except Exception:
        channel.close()
        raise
    if "welcome" not in answer:
        channel.close()
        raise Refused(str(answer.get("refused", "the guard lets no operator in")))
    return channel
