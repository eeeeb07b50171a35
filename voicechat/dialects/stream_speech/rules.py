"""The recognition socket: binary audio up, results down, ``BYE`` to finish.

The server sends nothing but results and the ready message. A failure closes the
connection.
"""

from collections.abc import Iterable, Mapping

from typing_extensions import override

from voicechat.dialects.base import CLOSE_CODES as SESSION_CODES
from voicechat.dialects.base import Dialect, Frame, Reaction, Tell
from voicechat.dialects.recognition import result_text
from voicechat.dialects.stream_speech.options import StreamOptions
from voicechat.schema.json_text import write_json
from voicechat.session.commands import Alive, Finish
from voicechat.session.events import AudioReceived
from voicechat.session.notices import Ended, Ending, Notice, Recognised

CLOSE_CODES: Mapping[Ending, int] = {**SESSION_CODES, Ending.AUDIO: 1003}
"""Audio that cannot be recognised is data that the server cannot accept."""


class StreamSpeech(Dialect):
    """One connection; see ``Dialect``.

    In a resumable session results are numbered, and a greeting replaces the ready
    message on each connection.
    """

    bare_audio = True

    def __init__(self, options: StreamOptions) -> None:
        self._word_objects = options.word_objects
        self._resumable = bool(options.session)
        self._said_something = False
        self._results = 0

    @override
    def open(self, now_ms: int) -> Iterable[Reaction]:
        return [] if self._resumable else [Tell(write_json({"status": "ok"}))]

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        self._said_something = True
        if isinstance(frame, bytes):
            return [AudioReceived(frame)] if frame else [Alive()]
        return [Alive(), Finish()] if frame.strip() == "BYE" else [Alive()]

    @override
    def note_audio(self) -> None:
        self._said_something = True

    @override
    def pong(self, now_ms: int) -> Iterable[Reaction]:
        # The transport answers pings even when the client's program no longer runs.
        return [Alive()] if self._said_something else []

    @override
    def notify(self, notice: Notice, now_ms: int) -> Iterable[Reaction]:
        if not isinstance(notice, Recognised):
            return []
        self._results += 1
        text = result_text(
            notice.transcript,
            words_as_objects=self._word_objects,
            number=self._results if self._resumable else None,
        )
        return [Tell(text)]

    @override
    def close_code(self, ended: Ended) -> int:
        return CLOSE_CODES[ended.ending]
