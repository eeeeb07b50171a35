"""The messages of FunASR's runtime in its two-pass mode: JSON both ways, audio in
binary messages. No I/O.

As in github.com/modelscope/FunASR, in its folder ``runtime``:
``docs/websocket_protocol.md``, and what the servers do:
``websocket/bin/websocket-server-2pass.cpp`` (the C++ one of the Docker images) and
``python/websocket/funasr_wss_server.py``. They differ: the C++ server marks its last
message with ``is_final``, and its times count from the beginning of the audio; the
Python server marks every sentence so (until 2026 it marked them the other way round),
since July 2026 answers ``is_end`` with ``is_end``, and its times count from the
beginning of a sentence, which it does not tell.
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
from voicechat.session.vocabulary import Transcript, Word
from voicechat.text.words import join, speaking_ms

PROVIDER = "funasr"

FRAME_MS = 60
CHUNK_FRAMES = 10
"""The Python server counts messages: ten of 60 ms are a chunk of the first pass, and it
measures silence by them.
"""
FIRST_TEXT_MS = 600
"""A sentence's first text comes a chunk after its beginning, at the earliest."""

Stamps = list[tuple[int, int]]


def begin_message(hotwords: str, itn: bool) -> str:
    """Open a stream."""
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
"""There is no more audio."""


def _stamps(value: object) -> object:
    """Read times that came as text; what is none (the C++ server also puts the time of
    day there) is left out.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value if isinstance(value, list) else None


class StampedClause(BaseModel):
    """A part of a sentence up to a punctuation mark; ``text_seg``: its words, with
    spaces between them.
    """

    text_seg: str = ""
    start: int = 0
    end: int = 0
    ts_list: Stamps = []

    def pieces(self) -> list[TimedText]:
        """Its words with their times, or, if their numbers differ, the whole."""
        words = self.text_seg.split()
        if len(words) != len(self.ts_list):
            return [TimedText(self.text_seg, self.start, self.end)]
        return [TimedText(word, *times) for word, times in zip(words, self.ts_list, strict=True)]


class Message(BaseModel):
    """Whatever a server says."""

    mode: str = ""
    text: str = ""
    is_final: bool = False
    is_end: bool = False
    error: str | None = None
    timestamp: Annotated[Stamps | None, BeforeValidator(_stamps)] = None
    stamp_sents: Annotated[list[StampedClause] | None, BeforeValidator(_stamps)] = None
    from_cpp: bool = False
    """Whether the C++ server says it, as far as that shows: it writes times as text, or
    the time of day.
    """

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
    """Read a message. Raises `ProviderError`: BROKEN for what is none, CONNECTIVITY
    when the server says it failed.
    """
    try:
        message = Message.model_validate_json(text)
    except ValidationError:
        raise ProviderError(PROVIDER, FailureKind.BROKEN, "no message of FunASR's") from None
    if message.error is not None:
        raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "the server reported a failure")
    return message


class StreamProgress(Enum):
    """What a message that comes after the end of the audio says about more of them."""

    OVER = "over"
    """It was the last."""
    PERHAPS = "perhaps"
    """It closed a sentence, but an older server does not say whether it was the last.
    """
    OPEN = "open"
    """More must come."""


def ending(message: Message) -> StreamProgress:
    """Judge a message that comes after the end of the audio."""
    if message.is_end:
        return StreamProgress.OVER
    if message.is_final and (message.from_cpp or not message.mode):
        return StreamProgress.OVER  # the C++ server's
    return StreamProgress.PERHAPS if message.closes_sentence else StreamProgress.OPEN


class FunASRTranscripts:
    """The messages of one stream → transcripts."""

    def __init__(self) -> None:
        self._shown: Transcript | None = None
        self._last_end_ms = 0

    @property
    def in_sentence(self) -> bool:
        """Whether something was shown that is not closed yet."""
        return self._shown is not None

    def read_message(self, message: Message, heard_ms: int) -> Transcript | None:
        """Give the transcript of a message, if any; ``heard_ms``: how much audio the
        server was given.
        """
        if message.closes_sentence:
            return self._close(message, heard_ms)
        # Each message of the first pass holds what is new in it.
        if not message.text.strip():
            return None
        shown = self._shown
        begin_ms = (
            max(self._last_end_ms, heard_ms - FIRST_TEXT_MS) if shown is None else shown.begin_ms
        )
        self._shown = Transcript(join([shown.text if shown else "", message.text]), begin_ms)
        return self._shown

    def finish_sentence(self, heard_ms: int) -> Transcript | None:
        """Close the sentence that is still open."""
        return self._close(Message(), heard_ms)

    def _close(self, message: Message, heard_ms: int) -> Transcript | None:
        shown, self._shown = self._shown, None
        text = message.text.strip()
        if not text:
            # A sentence that was shown is also closed, even if the second pass
            # understands nothing any more.
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
        """Say from when to when a sentence was spoken: as told, else as near as it can
        be known.
        """
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
    """Match a sentence's times with its words; empty when there are none."""
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
