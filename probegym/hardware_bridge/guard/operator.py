"""What an operator can do, over a connection to a guard; the command line and the operator page both use it."""

from __future__ import annotations

from probegym.hardware_bridge.channel import Channel, Disconnected, connect
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.world import Refused


class Operator:
    """Raises Refused with the guard's reason, Disconnected when the guard has gone."""

    def __init__(self, channel: Channel, seconds: float = 10.0):
        self.channel, self.seconds, self.count = channel, seconds, 0

    @classmethod
    def connect(cls, reached: Json, seconds: float = 10.0) -> Operator:
        """An operator more; ``reached``: port and secret."""
        channel = connect(reached["port"], reached["secret"])
        channel.receive(seconds)
        return cls(channel, seconds)

    def _ask(self, what: str, **more: object) -> tuple[Json, Arrays]:
        self.count += 1
        answer, arrays = self.channel.ask({"do": what, "id": self.count, **more}, seconds=self.seconds)
        if answer.get("id") != self.count:  # of a question that was broken off
            self.channel.close()
            raise Disconnected("the guard answered another question: the connection is closed")
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        return answer, arrays

    def status(self) -> Json:
        """State, reason, lease, budgets, what waits for an answer."""
        return self._ask("status")[0]

    def latest(self) -> tuple[Json, Arrays]:
        """Verb and number of the last readings, and their arrays."""
        return self._ask("latest")

    def ask(self, request: Json) -> Json:
        """Ask for arming; returns the request, the nonce, the sample's budget and what is spent of it."""
        return self._ask("ask", request=request)[0]

    def arm(self, nonce: str) -> None:
        """Repeat the nonce."""
        self._ask("arm", nonce=nonce)

    def present(self) -> None:
        """Renew the lease."""
        self._ask("present")

    def hold(self, why: str = "") -> None:
        """Let nothing pass until ``resume``."""
        self._ask("hold", why=why)

    def resume(self) -> None:
        """Go on after a hold."""
        self._ask("resume")

    def disarm(self, why: str = "") -> None:
        """Safe state, and the end of the lease."""
        self._ask("disarm", why=why)

    def abort(self, why: str = "") -> None:
        """Safe state at once, latched."""
        self._ask("abort", why=why)

    def reset(self) -> None:
        """Clear a fault."""
        self._ask("reset")

    def decide(self, number: int, agreed: bool) -> None:
        """Answer what waits; raises Refused when it does not wait any more."""
        self._ask("decide", number=number, agreed=agreed)

    def quit(self) -> None:
        """End the guard, by way of the safe state."""
        self._ask("quit")
