"""Recognition without a conversation as a value machine: audio in, results out, until
the client has finished.
"""

from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import events as ev
from voicechat.session.effects import (
    Close,
    Effect,
    RecordMetric,
    Route,
    RouteAudio,
    Send,
    SessionClosed,
    StaleDropped,
    StaleKind,
)
from voicechat.session.idle_timeout import IdleTimeout
from voicechat.session.limits import SessionLimits, earliest_ms
from voicechat.session.notices import Ended, Ending, GoingAway
from voicechat.session.transcription_state import TranscriptionState
from voicechat.session.types import InputSettings

_CLIENTS_FAULT = frozenset({Fault.UNDECODABLE_AUDIO, Fault.UNSUPPORTED_FORMAT, Fault.TOO_LARGE})


class TranscriptionSession:
    """One recognition stream of a client: see ``Machine``.

    A recogniser that fails is replaced, as in a conversation; if no replacement works,
    the session ends. Of the commands only ``Alive``, ``Finish``, ``HangUp`` and
    ``Leave`` have an effect.
    """

    def __init__(
        self, settings: InputSettings | None = None, limits: SessionLimits | None = None
    ) -> None:
        """``settings`` do not change."""
        self._settings = settings or InputSettings()
        self._limits = limits or SessionLimits()
        self._transcription = TranscriptionState()
        self._closed = False
        self._finishing_since_ms: int | None = None
        self._idle_timeout = IdleTimeout(self._limits)
        self._now_ms = 0
        self._routed = (Route.AWAIT, self._settings, 0)

    @property
    def words_so_far(self) -> str:
        """See ``Machine.words_so_far``: always empty, because nothing is answered."""
        return ""

    @property
    def held_ms(self) -> int:
        """See ``Machine.held_ms``: always 0, because nothing is spoken."""
        return 0

    def receive(self, event: ev.Event, now_ms: int) -> list[Effect]:
        """See ``Machine.receive``."""
        if self._closed:
            return []
        self._now_ms = now_ms
        return [*self._take(event, now_ms), *self._settle_route(now_ms)]

    def _settle_route(self, now_ms: int) -> list[Effect]:
        over = self._closed or self._finishing_since_ms is not None
        route, stream = (Route.DROP, 0) if over else self._transcription.route_audio(now_ms)
        wanted = (route, self._settings, stream)
        if wanted == self._routed:
            return []
        self._routed = wanted
        return [RouteAudio(*wanted)]

    def _take(self, event: ev.Event, now_ms: int) -> list[Effect]:
        match event:
            case ev.AudioStarted():
                self._idle_timeout.note_message(now_ms)
                if self._finishing_since_ms is not None:
                    return []
                return self._transcription.open_stream(self._settings, now_ms)
            case ev.AudioArrived():
                self._idle_timeout.note_message(event.at_ms)
                return []
            case ev.Transcribed() | ev.RecognitionEnded() | ev.RecognitionFailed():
                if not self._transcription.is_current(event.stream):
                    return [RecordMetric(StaleDropped(StaleKind.STREAM))]
                return self._on_recognition(event, now_ms)
            case ev.RecognitionDelayed():
                self._transcription.extend_deadline(event.stream, event.by_ms)
                return []
            case ev.Opened():
                self._idle_timeout.note_message(now_ms)
                self._idle_timeout.note_speech(now_ms)
                return []
            case cmd.Alive():
                self._idle_timeout.note_message(now_ms)
                return []
            case cmd.HangUp():
                return self._end(Ended(Ending.FINISHED))
            case cmd.Finish():
                return self._finish(now_ms)
            case ev.Ticked():
                if event.audio_ms is not None:
                    self._idle_timeout.note_message(event.audio_ms)
                return self._on_tick(now_ms)
            case ev.Disconnected():
                self._closed = True
                return [*self._transcription.drop_awaited(), *self._transcription.drop_gathering()]
            case cmd.Leave():
                return self._end(Ended(Ending.VIOLATION, event.message, cause=event.cause))
            case ev.WriteStalled():
                return self._end(Ended(Ending.NOT_READING, event.message, Fault.TIMEOUT))
            case ev.AccessEnded():
                return self._end(Ended(Ending.ACCESS, event.message, event.fault))
            case ev.Faulted():
                return self._end(Ended(Ending.FAULT, "internal error", Fault.INTERNAL))
            case ev.DrainAnnounced():
                return [Send(GoingAway(event.left_ms))]
            case ev.DrainRequested():
                message = "the server restarts; connect again"
                return self._end(Ended(Ending.RESTART, message, Fault.AT_CAPACITY))
            case _:
                return []

    def deadline_ms(self) -> int | None:
        """See ``Machine.deadline_ms``."""
        if self._closed:
            return None
        deadline_ms = self._idle_timeout.deadline_ms(must_speak=self._must_speak)
        if self._finishing_since_ms is not None:
            return min(
                deadline_ms,
                self._finishing_since_ms
                + self._limits.transcript_ms
                + self._transcription.grace_ms,
            )
        return earliest_ms(deadline_ms, self._transcription.deadline_ms(self._now_ms))

    @property
    def _must_speak(self) -> bool:
        return self._finishing_since_ms is None and not self._settings.silence_allowed

    def _finish(self, now_ms: int) -> list[Effect]:
        if self._finishing_since_ms is not None:
            return []
        self._finishing_since_ms = now_ms
        return self._transcription.finish_utterance() or self._end(Ended(Ending.FINISHED))

    def _on_recognition(
        self, event: ev.Transcribed | ev.RecognitionEnded | ev.RecognitionFailed, now_ms: int
    ) -> list[Effect]:
        awaited = self._transcription.is_awaited(event.stream)
        if isinstance(event, ev.Transcribed):
            if event.transcript.text.strip():
                self._idle_timeout.note_speech(now_ms)
            return self._transcription.add_result(event.stream, event.transcript, hold=False)
        if isinstance(event, ev.RecognitionEnded):
            self._transcription.end_stream(event.stream)
            return self._end(Ended(Ending.FINISHED)) if awaited else []
        if awaited:
            again = self._transcription.replace_awaited(event, self._settings)
        elif event.retryable:
            again = self._transcription.replace_gathering(event, self._settings, now_ms)
        else:
            again = []
        if again and self._transcription.alive:
            return again
        ending = Ending.AUDIO if event.fault in _CLIENTS_FAULT else Ending.FAULT
        return [*again, *self._end(Ended(ending, event.message, event.fault))]

    def _on_tick(self, now_ms: int) -> list[Effect]:
        absent = self._idle_timeout.expired_reason(now_ms, must_speak=self._must_speak)
        if absent:
            return self._end(Ended(Ending.ABSENT, absent, Fault.TIMEOUT))
        finishing_ms = self._finishing_since_ms
        patience_ms = self._limits.transcript_ms + self._transcription.grace_ms
        if finishing_ms is not None and now_ms >= finishing_ms + patience_ms:
            message = "the recogniser did not answer in time"
            return self._end(Ended(Ending.FAULT, message, Fault.ASR_FAILED))
        return []

    def _end(self, ended: Ended) -> list[Effect]:
        self._closed = True
        dropped = [*self._transcription.drop_awaited(), *self._transcription.drop_gathering()]
        return [*dropped, Send(ended), Close(ended), RecordMetric(SessionClosed(ended.ending))]
