"""Collects the keys that the user presses until the entry is complete, and makes a turn
of the user of them. Pure; time is an argument.
"""

from voicechat.session.agent import Keypad
from voicechat.session.commands import Respond
from voicechat.session.types import ReplyOverrides

KEYS = frozenset("0123456789*#ABCD")
"""The keys of a telephone (ITU-T Q.23)."""
PREFIX = "DTMF: "
"""The text before the digits, which shows the model that they are not speech. Other
engines use the same form.
"""


class KeypadEntry:
    """The keys since the last complete entry."""

    def __init__(self, keypad: Keypad) -> None:
        self._keypad = keypad
        self._keys = ""
        self._complete_at_ms = 0

    @property
    def kept(self) -> tuple[str, int]:
        """The keys of the incomplete entry, and when it is complete."""
        return self._keys, self._complete_at_ms

    def restore(self, keys: str, complete_at_ms: int) -> None:
        """Continue with an incomplete entry; see ``kept``."""
        self._keys, self._complete_at_ms = keys, complete_at_ms

    def press(self, key: str, now_ms: int) -> bool:
        """Add a key; return False, and change nothing, if the key does not exist."""
        if key not in KEYS:
            return False
        if len(self._keys) < self._keypad.most:
            self._keys += key
        ends = key == self._keypad.terminator or len(self._keys) >= self._keypad.most
        self._complete_at_ms = now_ms if ends else now_ms + self._keypad.timeout_ms
        return True

    def deadline_ms(self) -> int | None:
        """When the entry is complete if no key follows; None: no key has been
        pressed.
        """
        return self._complete_at_ms if self._keys else None

    def take(self, now_ms: int) -> str:
        """Return a complete entry as the user's words, without its terminator, and
        remove it; empty: there is none.
        """
        if not self._keys or now_ms < self._complete_at_ms:
            return ""
        keys, self._keys = self._keys, ""
        return PREFIX + (keys.removesuffix(self._keypad.terminator) or keys)

    @property
    def respond(self) -> Respond:
        """How to answer an entry: with a call of the keypad's tool, if there is one."""
        if not self._keypad.tool:
            return Respond()
        choice = {"type": "function", "function": {"name": self._keypad.tool}}
        return Respond(ReplyOverrides(options={"tool_choice": choice}))
