"""The messages of FunASR's runtime in its two-pass mode: JSON both ways, audio in
binary messages. No I/O.

As in github.com/modelscope/FunASR, folder ``runtime``: ``docs/websocket_protocol.md``,
and the behaviour of the servers: ``websocket/bin/websocket-server-2pass.cpp`` (the C++
server of the Docker images) and ``python/websocket/funasr_wss_server.py``. They differ:
the C++ server marks its last message with ``is_final``, and its times count from the
beginning of the audio; the Python server marks every sentence with it (until 2026, with
the opposite value), since July 2026 answers ``is_end`` with ``is_end``, and
its times count from the beginning of a sentence, whose position it does not send.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Annotated

import orjson
from pydantic import BaseModel, BeforeValidator, ValidationError, model_validator

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.providers.timed_words import TimedText, timed_words
from voicechat.session.types import Transcript, Word
from voicechat.text.words import join, speaking_ms

PROVIDER = "funasr"

FRAME_MS = 60
CHUNK_FRAMES = 10
"""The Python server counts messages: ten of 60 ms are a chunk of the first pass, and it
measures silence in chunks.
"""
FIRST_TEXT_MS = 600
"""The first text of a sentence comes at least one chunk after its beginning."""

Stamps = list[tuple[int, int]]


def begin_message(hotwords: str, itn: bool) -> str:
    """Return the message that opens a stream."""
    return orjson.dumps(
        {
            "mode": "2pass",
            "chunk_size": [5, CHUNK_FRAMES, 5],
            "chunk_interval": CHUNK_FRAMES,
            "encoder_chunk_look_back": 4,
            "decoder_chunk_look_back": 0,
            "wav_name": "voicechat",
            "wav_format": "pcm",
            "audio_fs": PCM_RATE_HZ,
            "is_speaking": True,
            "hotwords": hotwords,
            "itn": itn,
        }
    ).decode()


END_MESSAGE = orjson.dumps({"is_speaking": False, "is_end": True}).decode()
"""The message that ends the audio."""


def _stamps(value: object) -> object:
    """Parse timestamps sent as text. Other values (the C++ server also sends the time
    of day) become None.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value if isinstance(value, list) else None


class StampedClause(BaseModel):
    """A part of a sentence up to a punctuation mark. ``text_seg`` has its words,
    separated by spaces.
    """

    text_seg: str = ""
    start: int = 0
    end: int = 0
    ts_list: Stamps = []

    def pieces(self) -> list[TimedText]:
        """Return its words with their times, or the whole clause if their numbers
        differ.
        """
        words = self.text_seg.split()
        if len(words) != len(self.ts_list):
            return [TimedText(self.text_seg, self.start, self.end)]
        return [TimedText(word, *times) for word, times in zip(words, self.ts_list, strict=True)]


class Message(BaseModel):
    """Any message of a server."""

    mode: str = ""
    text: str = ""
    is_final: bool = False
    is_end: bool = False
    error: str | None = None
    timestamp: Annotated[Stamps | None, BeforeValidator(_stamps)] = None
    stamp_sents: Annotated[list[StampedClause] | None, BeforeValidator(_stamps)] = None
    from_cpp: bool = False
    """Whether the C++ server sent it, which sends times as text, or the time of day."""

    @model_validator(mode="before")
    @classmethod
    def _note_origin(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return given | {
            "from_cpp": "stamp_sents" in given or isinstance(given.get("timestamp"), str | int)
        }

    @property
    def closes_sentence(self) -> bool:
        """Whether it is the second pass over a sentence."""
        return self.mode.endswith("offline")


def read_message(text: str) -> Message:
    """Parse a message. Raises `ProviderError`: BROKEN for an invalid one, CONNECTIVITY
    when the server reports a failure.
    """
    try:
        message = Message.model_validate_json(text)
    except ValidationError:
        raise ProviderError(PROVIDER, FailureKind.BROKEN, "no message of FunASR's") from None
    if message.error is not None:
        raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "the server reported a failure")
    return message


class StreamProgress(Enum):
    """Whether more messages follow one that comes after the end of the audio."""

    OVER = "over"
    """It was the last message."""
    PERHAPS = "perhaps"
    """It closed a sentence. An older server does not say whether it was the last one.
    """
    OPEN = "open"
    """More messages follow."""


def ending(message: Message) -> StreamProgress:
    """Classify a message that comes after the end of the audio."""
    if message.is_end:
        return StreamProgress.OVER
    if message.is_final and (message.from_cpp or not message.mode):
        return StreamProgress.OVER  # of the C++ server
    return StreamProgress.PERHAPS if message.closes_sentence else StreamProgress.OPEN


class FunASRTranscripts:
    """Converts the messages of one stream to transcripts."""

    def __init__(self) -> None:
        self._shown: Transcript | None = None
        self._last_end_ms = 0

    @property
    def in_sentence(self) -> bool:
        """Whether a partial result was returned that is not final yet."""
        return self._shown is not None

    def read_message(self, message: Message, heard_ms: int) -> Transcript | None:
        """Return the transcript of a message, if any. ``heard_ms``: how much audio was
        sent to the server.
        """
        if message.closes_sentence:
            return self._close(message, heard_ms)
        # Each message of the first pass contains only new text.
        if not message.text.strip():
            return None
        shown = self._shown
        begin_ms = (
            max(self._last_end_ms, heard_ms - FIRST_TEXT_MS) if shown is None else shown.begin_ms
        )
        self._shown = Transcript(join([shown.text if shown else "", message.text]), begin_ms)
        return self._shown

    def finish_sentence(self, heard_ms: int) -> Transcript | None:
        """Make the open sentence final."""
        return self._close(Message(), heard_ms)

    def _close(self, message: Message, heard_ms: int) -> Transcript | None:
        shown, self._shown = self._shown, None
        text = message.text.strip()
        if not text:
            # A sentence that was shown is closed even if the second pass finds no
            # words.
            if shown is None:
                return None
            self._last_end_ms = max(heard_ms, shown.begin_ms)
            return replace(shown, end_ms=self._last_end_ms)
        pieces = _pieces(text, message)
        begin_ms, end_ms = self._span(pieces, message, shown, heard_ms)
        zero_ms = pieces[0].begin_ms if pieces else 0
        placed = [
            TimedText(piece.text, piece.begin_ms - zero_ms, piece.end_ms - zero_ms)
            for piece in pieces
        ]
        words = tuple(
            _moved(word, begin_ms) for word in timed_words(text, placed, end_ms - begin_ms)
        )
        self._last_end_ms = end_ms
        return Transcript(text, begin_ms, end_ms, words)

    def _span(
        self, pieces: Sequence[TimedText], message: Message, shown: Transcript | None, heard_ms: int
    ) -> tuple[int, int]:
        """Return the start and end of a sentence: as sent, or else an estimate."""
        latest_ms = max(heard_ms, self._last_end_ms)
        if not pieces:
            begin_ms = (
                shown.begin_ms
                if shown
                else max(self._last_end_ms, latest_ms - speaking_ms(message.text))
            )
            return begin_ms, latest_ms
        first_ms, length_ms = (
            round(pieces[0].begin_ms),
            round(pieces[-1].end_ms - pieces[0].begin_ms),
        )
        if not message.from_cpp:
            first_ms = shown.begin_ms if shown else heard_ms - length_ms
        begin_ms = min(
            max(first_ms, self._last_end_ms), max(latest_ms - length_ms, self._last_end_ms)
        )
        return begin_ms, min(begin_ms + max(length_ms, 0), latest_ms)


def _pieces(text: str, message: Message) -> list[TimedText]:
    """Return the words of a sentence with their times; empty if there are no times."""
    if pieces := [piece for clause in message.stamp_sents or () for piece in clause.pieces()]:
        return pieces
    stamps = message.timestamp
    if not stamps:
        return []
    words = timed_words(text, [], 1)
    if len(words) != len(stamps):
        return [TimedText(text, stamps[0][0], stamps[-1][1])]
    return [TimedText(word.text, *times) for word, times in zip(words, stamps, strict=True)]


def _moved(word: Word, by_ms: int) -> Word:
    return replace(word, begin_ms=word.begin_ms + by_ms, end_ms=word.end_ms + by_ms, fixed=True)
