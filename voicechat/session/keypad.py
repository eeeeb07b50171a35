"""Digits that the user enters on a keypad: collected until they are complete, and then
a turn of the user. Pure; time is an argument.
"""

from voicechat.session.agent import Keypad
from voicechat.session.commands import Respond
from voicechat.session.types import ReplyOverrides

KEYS = frozenset("0123456789*#ABCD")
"""The keys of a telephone (ITU-T Q.23)."""
PREFIX = "DTMF: "
"""What the model reads before the digits, so that it does not take them for speech. It
is the form that other engines use.
"""


class KeypadEntry:
    """What the user has entered since the last complete entry."""

    def __init__(self, keypad: Keypad) -> None:
        self._keypad = keypad
        self._keys = ""
        self._complete_at_ms = 0

    def press(self, key: str, now_ms: int) -> bool:
        """Add a key; False: there is no such key, and nothing has changed."""
        if key not in KEYS:
            return False
        if len(self._keys) < self._keypad.most:
            self._keys += key
        ends = key == self._keypad.terminator or len(self._keys) >= self._keypad.most
        self._complete_at_ms = now_ms if ends else now_ms + self._keypad.timeout_ms
        return True

    def deadline_ms(self) -> int | None:
        """When the entry is complete if no key follows; None: nothing is entered."""
        return self._complete_at_ms if self._keys else None

    def take(self, now_ms: int) -> str:
        """Take the complete entry as the user's words, without its terminator; empty:
        there is none.
        """
        if not self._keys or now_ms < self._complete_at_ms:
            return ""
        keys, self._keys = self._keys, ""
        return PREFIX + (keys.removesuffix(self._keypad.terminator) or keys)

    @property
    def respond(self) -> Respond:
        """How an entry is answered: by the agent's tool first, if it has one for it."""
        if not self._keypad.tool:
            return Respond()
        choice = {"type": "function", "function": {"name": self._keypad.tool}}
        return Respond(ReplyOverrides(options={"tool_choice": choice}))
