"""The script of the bench's services, and the latency of a reply without any overhead
of the engine.
"""

import re
import struct
from dataclasses import dataclass

from voicechat.providers.interfaces import PCM_RATE_HZ

SPEECH_MS = 1_000
"""The length of a user's speech in one turn."""
FRAME_MS = 100
"""The length of one audio frame, typical of clients."""
FRAME = bytes(PCM_RATE_HZ * 2 * FRAME_MS // 1000)

_MARK = struct.Struct("<4sI")
_MAGIC = b"turn"
_NUMBER = re.compile(r"\d+")

WORD_MS = 300
"""The length of each word of the user."""

FIRST_DELTAS = 3
"""Deltas of the model's first sentence. The last one ends with a space, which completes
the sentence without waiting for another delta.
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
    """The delays of the scripted services. Synthesis is five times faster than real
    time.
    """

    asr_final_ms: int = 100
    first_token_ms: int = 200
    delta_ms: int = 20
    tts_first_ms: int = 100
    tts_chunk_ms: int = 20

    @property
    def sentence_ms(self) -> int:
        """From the request to the model to the end of its first sentence."""
        return self.first_token_ms + self.delta_ms * (FIRST_DELTAS - 1)

    @property
    def first_audio_ms(self) -> int:
        """From the user's ``complete`` to the first audio, without any overhead of the
        engine.
        """
        return self.asr_final_ms + self.sentence_ms + self.tts_first_ms


DELAYS = Delays()


def first_frame(turn: int) -> bytes:
    """Return the first frame of a turn, with the turn's number in its first samples."""
    return _MARK.pack(_MAGIC, turn) + FRAME[_MARK.size :]


def turn_of(pcm: bytes) -> int:
    """Return the number of the turn that ``pcm`` begins; 0 if it is not marked."""
    if len(pcm) < _MARK.size:
        return 0
    magic, turn = _MARK.unpack_from(pcm)
    return int(turn) if magic == _MAGIC else 0


def words_of(turn: int) -> str:
    """Return the transcript of a turn."""
    return f"turn number {turn}"


def reply_to(turn: int) -> tuple[str, ...]:
    """Return the model's deltas. The first sentence contains the turn's number for the
    synthesiser.
    """
    return ("Let us ", "look at ", f"turn {turn} now. ", *LATER_SENTENCES)


def turn_named_in(text: str) -> int | None:
    """Return the turn's number in a transcript or a reply's first sentence; None for a
    later sentence.
    """
    number = _NUMBER.search(text)
    return int(number[0]) if number else None


REPLY_AUDIO_MS = len("".join(reply_to(1_000))) * MS_PER_CHARACTER
"""The approximate length of the whole reply."""
