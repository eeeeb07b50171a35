"""What the scripted services of a bench do, and so how long a reply takes that an
engine adds nothing to.
"""

import re
import struct
from dataclasses import dataclass

from voicechat.providers.interfaces import PCM_RATE_HZ

SPEECH_MS = 1_000
"""What a user says in one turn."""
FRAME_MS = 100
"""One frame of it, as most clients send it."""
FRAME = bytes(PCM_RATE_HZ * 2 * FRAME_MS // 1000)

_MARK = struct.Struct("<4sI")
_MAGIC = b"turn"
_NUMBER = re.compile(r"\d+")

WORD_MS = 300
"""Each word of the user."""

FIRST_DELTAS = 3
"""Of the model; in the last of them the first sentence is complete: it ends with a
space, so no more is waited for.
"""
LATER_SENTENCES = (
    "As many ",
    "as this machine ",
    "can carry. ",
    "Ask again ",
    "when you ",
    "have more of them.",
)

MS_PER_CHARACTER = 50
CHUNK_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """How long the scripted services take; the delay of a chunk makes speech five times
    faster than it is heard.
    """

    asr_final_ms: int = 100
    first_token_ms: int = 200
    delta_ms: int = 20
    tts_first_ms: int = 100
    tts_chunk_ms: int = 20

    @property
    def sentence_ms(self) -> int:
        """From the model's being asked to the end of its first sentence."""
        return self.first_token_ms + self.delta_ms * (FIRST_DELTAS - 1)

    @property
    def first_audio_ms(self) -> int:
        """From the user's ``complete`` to the first audio, were the engine infinitely
        fast.
        """
        return self.asr_final_ms + self.sentence_ms + self.tts_first_ms


DELAYS = Delays()


def first_frame(turn: int) -> bytes:
    """The frame that begins turn ``turn``: its number lies in the first samples."""
    return _MARK.pack(_MAGIC, turn) + FRAME[_MARK.size :]


def turn_of(pcm: bytes) -> int:
    """Which turn audio begins; 0: it is not marked."""
    if len(pcm) < _MARK.size:
        return 0
    magic, turn = _MARK.unpack_from(pcm)
    return int(turn) if magic == _MAGIC else 0


def words_of(turn: int) -> str:
    """What the recogniser understands."""
    return f"turn number {turn}"


def reply_to(turn: int) -> tuple[str, ...]:
    """The model's deltas. The first sentence names the turn, so that the synthesiser
    knows it too.
    """
    return ("Let us ", "look at ", f"turn {turn} now. ", *LATER_SENTENCES)


def turn_named_in(text: str) -> int | None:
    """The number that the user's words and the reply's first sentence hold; None: it is
    a later sentence.
    """
    number = _NUMBER.search(text)
    return int(number[0]) if number else None


REPLY_AUDIO_MS = len("".join(reply_to(1_000))) * MS_PER_CHARACTER
"""About how long a listener hears the whole reply."""
