"""The user's turns: the audio that was sent, the item that it becomes, and the
transcript of that item.

An item has its id as soon as speech is detected, joins the conversation when it is
committed, and gets its transcript when the words are known.
"""

from dataclasses import dataclass, field

from voicechat.dialects.base import Tell
from voicechat.dialects.openai_realtime.audio_settings import BYTES_PER_MS
from voicechat.dialects.openai_realtime.events import EventError, EventWriter
from voicechat.dialects.openai_realtime.items import (
    RealtimeConversation,
    RealtimeItem,
    user_audio,
)
from voicechat.dialects.openai_realtime.transcript import GrowingTranscript
from voicechat.session.notices import NothingSaid, SpeechNoticed, TurnCommitted, UserSaid
from voicechat.session.types import Transcript

LEAST_COMMIT_MS = 100
"""The shortest audio that can be committed."""
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass(slots=True)
class _Committed:
    """A turn whose words are not known yet."""

    item: RealtimeItem
    growing: GrowingTranscript
    audio_ms: int


@dataclass(slots=True)
class UserTurns:
    """The turns of one connection. Its methods return the events for the client."""

    writer: EventWriter
    conversation: RealtimeConversation
    input_format: str = "audio/pcm"
    """The format of the audio that arrives now."""
    transcribed: bool = False
    """Whether the client asked for transcripts."""
    detected: bool = True
    """Whether the server detects the ends of turns."""
    total_ms: float = 0.0
    """The length of all audio so far."""
    _buffered_ms: float = 0.0
    _speech_ms: int | None = None
    """Where the speech of the turn began, counted from the start of all audio; None: no
    speech was detected.
    """
    _speaking_id: str = ""
    """The id of the item that the user is speaking; empty: there is none yet."""
    _growing: GrowingTranscript = field(default_factory=GrowingTranscript)
    _committed: _Committed | None = None

    def append(self, audio: bytes) -> None:
        """Add the length of ``audio`` to the buffer."""
        length_ms = len(audio) / BYTES_PER_MS[self.input_format]
        self._buffered_ms += length_ms
        self.total_ms += length_ms

    def check_commit(self) -> None:
        """Raise ``EventError`` when the buffer holds too little audio for a turn."""
        if self._buffered_ms < LEAST_COMMIT_MS:
            message = (
                f"the input audio buffer holds {int(self._buffered_ms)} ms of audio; at "
                f"least {LEAST_COMMIT_MS} ms are needed"
            )
            raise EventError("input_audio_buffer_commit_empty", message)

    def clear(self) -> None:
        """Drop the audio that was not committed."""
        self._buffered_ms = 0.0
        self._speech_ms = None
        self._speaking_id = ""
        self._growing = GrowingTranscript()

    def notice_speech(self, noticed: SpeechNoticed) -> list[Tell]:
        """Return the event for a beginning or an end of speech."""
        item_id = self._item_id()
        name = "input_audio_buffer.speech_started"
        if noticed.started:
            if self._speech_ms is None:
                self._speech_ms = noticed.at_ms
            return [self._tell(name, item_id=item_id, audio_start_ms=noticed.at_ms)]
        name = "input_audio_buffer.speech_stopped"
        return [self._tell(name, item_id=item_id, audio_end_ms=noticed.at_ms)]

    def recognise(self, transcript: Transcript) -> list[Tell]:
        """Take a result: of the committed turn while its words are awaited, else of the
        next turn.
        """
        committed = self._committed
        if committed is not None:
            return self._tell_delta(committed.item.id, committed.growing.add(transcript))
        if self.detected:
            return self._tell_delta(self._item_id(), self._growing.add(transcript))
        self._growing.hold(transcript)  # the client does not know the item yet
        return []

    def commit(self, turn: TurnCommitted) -> list[Tell]:
        """End a turn and add its item to the conversation."""
        item = user_audio(self._item_id(), turn.item_id)
        growing, audio_ms = self._growing, int(self._buffered_ms)
        if turn.detected and self._speech_ms is not None:
            audio_ms = max(0, int(self.total_ms) - self._speech_ms)
        self.clear()
        self._committed = _Committed(item, growing, audio_ms)
        return [*self._add(item), *self._tell_delta(item.id, growing.release())]

    def check_empty(self) -> None:
        """Raise ``EventError`` when the buffer holds audio that was not committed."""
        if self._buffered_ms and not self.detected:
            message = "item: commit or clear the input audio buffer before audio in an item"
            raise EventError("input_audio_buffer_not_empty", message, "item")

    def commit_item(self, turn: TurnCommitted, item: RealtimeItem) -> list[Tell]:
        """End a turn whose audio the client sent as an item."""
        audio_ms = int(len(item.audio) / BYTES_PER_MS[self.input_format])
        item.history, item.audio = (turn.item_id,), b""
        self._growing = GrowingTranscript()
        self._committed = _Committed(item, GrowingTranscript(), audio_ms)
        self.conversation.insert(item, None)
        place = {"previous_item_id": self.conversation.previous_id(item)}
        return [
            self._tell("conversation.item.added", **place, item=item.written()),
            self._tell("conversation.item.done", **place, item=item.written()),
        ]

    def commit_silence(self, timeout_ms: int) -> list[Tell]:
        """Commit an empty item, because the user has said nothing for
        ``timeout_ms``.
        """
        item = user_audio(self._item_id())
        item.content["content"] = [{"type": "input_audio", "transcript": ""}]
        self.clear()
        end_ms = int(self.total_ms)
        triggered = self._tell(
            "input_audio_buffer.timeout_triggered",
            item_id=item.id,
            audio_start_ms=max(0, end_ms - timeout_ms),
            audio_end_ms=end_ms,
        )
        return [triggered, *self._add(item)]

    def note_words(self, said: UserSaid) -> list[Tell]:
        """Complete the item of a turn whose words are known now."""
        committed = self._take(said.item.id)
        if committed is None:
            return []
        committed.item.messages = (said.item.message,)
        return self._tell_transcript(committed, str(said.item.message["content"]))

    def note_nothing(self, nothing: NothingSaid) -> list[Tell]:
        """Complete the item of a turn that has no words."""
        committed = self._take(nothing.item_id)
        if committed is None:
            return []
        committed.item.history = ()
        if not nothing.message:
            return self._tell_transcript(committed, "")
        if not self.transcribed:
            return []
        error = {
            "type": "server_error",
            "code": "transcription_failed",
            "message": nothing.message,
            "param": None,
        }
        place = {"item_id": committed.item.id, "content_index": 0}
        return [self._tell(f"{_TRANSCRIPTION}.failed", **place, error=error)]

    def _item_id(self) -> str:
        self._speaking_id = self._speaking_id or self.writer.new_id("item")
        return self._speaking_id

    def _add(self, item: RealtimeItem) -> list[Tell]:
        self.conversation.insert(item, None)
        previous = self.conversation.previous_id(item)
        place = {"previous_item_id": previous}
        return [
            self._tell("input_audio_buffer.committed", item_id=item.id, **place),
            self._tell("conversation.item.added", **place, item=item.written()),
            self._tell("conversation.item.done", **place, item=item.written()),
        ]

    def _take(self, history_id: str) -> _Committed | None:
        committed = self._committed
        if committed is None or committed.item.history != (history_id,):
            return None
        self._committed = None
        return committed

    def _tell_transcript(self, committed: _Committed, transcript: str) -> list[Tell]:
        if not self.transcribed:
            return []
        item = committed.item
        item.content["content"] = [{"type": "input_audio", "transcript": transcript}]
        completed = self._tell(
            f"{_TRANSCRIPTION}.completed",
            item_id=item.id,
            content_index=0,
            transcript=transcript,
            usage={"type": "duration", "seconds": committed.audio_ms / 1000},
        )
        return [*self._tell_delta(item.id, committed.growing.finish(transcript)), completed]

    def _tell_delta(self, item_id: str, delta: str) -> list[Tell]:
        if not delta or not self.transcribed:
            return []
        name = f"{_TRANSCRIPTION}.delta"
        return [self._tell(name, item_id=item_id, content_index=0, delta=delta)]

    def _tell(self, event_type: str, **fields: object) -> Tell:
        return Tell(self.writer.write(event_type, **fields))
