"""When to connect again, and when no more."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.client.connection import ConnectionLostError
from voicechat.errors import AdmissionError, Status, VoiceChatError

_LARGEST_EXPONENT = 16
FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009})
"""Close codes that the same client would earn again (RFC 6455, 7.4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between attempts: twice as long each time, cut at random so that many
    clients do not come at once.
    """

    first_s: float = 0.2
    longest_s: float = 5.0
    give_up_s: float = 60.0
    """So long after the connection was lost no new attempt is begun."""

    def wait_s(self, failures: int) -> float:
        """How long to wait after so many attempts that failed."""
        whole_s = min(self.longest_s, self.first_s * 2.0 ** min(failures, _LARGEST_EXPONENT))
        return random.uniform(0.5, 1.0) * whole_s


class ReconnectAttempts:
    """Counts attempts to connect. The first one is not repeated: an address or a key
    may be wrong.
    """

    def __init__(self, backoff: Backoff, is_final: Callable[[VoiceChatError], bool]) -> None:
        """``is_final`` says of which errors trying again cannot help."""
        self._backoff = backoff
        self._is_final = is_final
        self._failures = 0
        self._lost_s: float | None = None
        self.connected_before = False

    def note_success(self) -> None:
        """Note that a connection stands."""
        self._failures, self._lost_s, self.connected_before = 0, None, True

    async def wait_for_retry(self, error: VoiceChatError) -> None:
        """Wait until the next attempt is due. Raises ``error``, which ended the last
        one, when there is to be none.
        """
        now_s = asyncio.get_running_loop().time()
        if self._lost_s is None:
            self._lost_s = now_s
        wait_s = self._backoff.wait_s(self._failures)
        late = now_s + wait_s > self._lost_s + self._backoff.give_up_s
        if late or not self.connected_before or self._is_final(error):
            raise error
        self._failures += 1
        await asyncio.sleep(wait_s)


def is_final(error: VoiceChatError) -> bool:
    """Whether a conversation that ended so, or was refused so, would end so again."""
    match error:
        case AdmissionError():
            return error.status not in (Status.AT_CAPACITY, Status.QUOTA)
        case ConnectionLostError():
            return error.code in FINAL_CODES
        case _:
            return True
