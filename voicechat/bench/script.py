"""What the scripted services of a bench do, and so how long a reply takes that an engine adds nothing to."""

from dataclasses import dataclass

from voicechat.providers.interfaces import PCM_RATE_HZ

SPEECH_MS = 1_000
"""What a user says in one turn."""
FRAME_MS = 100
"""One frame of it, as most clients send it."""
FRAME = bytes(PCM_RATE_HZ * 2 * FRAME_MS // 1000)

WORDS = "how many conversations"
"""What is understood of it."""
WORD_MS = 300

FIRST_SENTENCE = ("Let us ", "look at ", "that now. ")
"""The deltas of the model, in which the first sentence is complete: it ends with a space, so no more is waited for."""
LATER_SENTENCES = ("As many ", "as this machine ", "can carry. ", "Ask again ", "when you ", "have more of them.")

MS_PER_CHARACTER = 50
CHUNK_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """How long the scripted services take; the delay of a chunk makes speech five times faster than it is heard."""

    asr_final_ms: int = 100
    first_token_ms: int = 200
    delta_ms: int = 20
    tts_first_ms: int = 100
    tts_chunk_ms: int = 20

    @property
    def first_deltas_ms(self) -> tuple[int, ...]:
        """The model's delays up to the end of its first sentence."""
        return (self.first_token_ms, *[self.delta_ms] * (len(FIRST_SENTENCE) - 1))

    @property
    def first_audio_ms(self) -> int:
        """From the user's ``complete`` to the first audio, were the engine infinitely fast."""
        return self.asr_final_ms + sum(self.first_deltas_ms) + self.tts_first_ms


DELAYS = Delays()

REPLY_AUDIO_MS = len("".join((*FIRST_SENTENCE, *LATER_SENTENCES))) * MS_PER_CHARACTER
"""About how long a listener hears the whole reply."""
