"""The session's view of speech recognition: which streams are valid, what they
returned, and which results are held back.

An ``Utterance`` collects the words of one turn of the user. It may need several
recogniser streams, one after another, when a recogniser fails. Two utterances can exist
at once: the one whose last result a turn awaits, and the one of the next turn.
"""

from dataclasses import dataclass, field, replace

from voicechat.errors import Fault
from voicechat.session.effects import (
    DropRecognition,
    Effect,
    FinishRecognition,
    OpenRecognition,
    Route,
    Send,
)
from voicechat.session.events import RecognitionFailed
from voicechat.session.notices import Recognised
from voicechat.session.types import InputSettings, Transcript
from voicechat.text.words import join

FAILURES_IN_A_ROW = 3
"""After this many failures in a row no stream is opened for ``RETRY_AFTER_MS``."""
RETRY_AFTER_MS = 1_000
MAX_REPLACEMENTS = 3
"""The most retries of an awaited last result on recognisers that have not received its
audio. ``transcript_ms`` counts from the end of the audio, so a further retry would
hardly finish in time.
"""


@dataclass(slots=True)
class Utterance:
    """The transcript of one turn of the user, so far."""

    stream: int | None = None
    """The recogniser stream that works on it now."""
    finals: list[str] = field(default_factory=list)
    partial: str = ""
    hypothesis: str = ""
    """The newest ``Transcript.hypothesis``; empty: ``partial`` is everything."""
    settled: bool = True
    """``Transcript.settled`` of the newest result."""
    replacements: int = 0
    """How often its stream failed and was replaced while its last result was
    awaited.
    """
    grace_ms: int = 0
    """The extra time for its last result, because the recogniser may have to load its
    model.
    """

    @property
    def text(self) -> str:
        """The whole text so far."""
        return join([*self.finals, self.partial])

    @property
    def likely_text(self) -> str:
        """The whole text so far, including words that may still change."""
        return join([*self.finals, self.hypothesis or self.partial])

    def add_result(self, transcript: Transcript) -> bool:
        """Add one result of the recogniser. Returns whether the client may see it: not
        if only the hypothesis differs.
        """
        self.hypothesis, self.settled = transcript.hypothesis, transcript.settled
        if transcript.final:
            if transcript.text.strip():
                self.finals.append(transcript.text)
            self.partial = self.hypothesis = ""
            return True
        before, self.partial = self.partial, transcript.text
        return transcript.text != before or not transcript.hypothesis


class TranscriptionState:
    """Numbers the recogniser streams and assigns their results to turns."""

    def __init__(self) -> None:
        self.gathering = Utterance()
        """The utterance of the next turn, which the user is speaking now."""
        self.awaited: Utterance | None = None
        """The utterance of the committed turn, whose last result is awaited."""
        self._streams = 0
        self._held: list[Transcript] = []
        self._failures = 0
        self._retry_at_ms = 0

    @property
    def streams(self) -> int:
        """How many streams have been opened."""
        return self._streams

    def restore(self, words: str, awaited: str | None, streams: int) -> None:
        """Continue after ``streams`` streams, none of which exists any more: with the
        words of the next turn, and those of the committed turn if there is one.
        """
        self._streams = streams
        self.gathering = Utterance(finals=[words] if words else [])
        if awaited is not None:
            self.awaited = Utterance(finals=[awaited] if awaited else [])

    def is_current(self, stream: int) -> bool:
        """Whether results of ``stream`` are still used."""
        return stream == self.gathering.stream or (
            self.awaited is not None and stream == self.awaited.stream
        )

    def is_awaited(self, stream: int) -> bool:
        """Whether ``stream`` is the one whose last result the turn waits for."""
        return self.awaited is not None and stream == self.awaited.stream

    @property
    def alive(self) -> bool:
        """Whether any recogniser stream is open."""
        return self.gathering.stream is not None or (
            self.awaited is not None and self.awaited.stream is not None
        )

    def route_audio(self, now_ms: int) -> tuple[Route, int]:
        """Return where the user's audio goes, and to which stream.

        A stream is opened when there is audio for it; during the pause after repeated
        failures, audio is skipped.
        """
        if self.gathering.stream is not None:
            return Route.RECOGNISE, self.gathering.stream
        return (Route.SKIP if now_ms < self._retry_at_ms else Route.AWAIT), 0

    def deadline_ms(self, now_ms: int) -> int | None:
        """Return when ``route_audio`` changes without an event; None: it does not."""
        pausing = self.gathering.stream is None and now_ms < self._retry_at_ms
        return self._retry_at_ms if pausing else None

    def open_stream(self, settings: InputSettings, now_ms: int) -> list[Effect]:
        """Open a stream for arriving audio, unless one is open or recognition pauses
        after repeated failures.
        """
        if self.gathering.stream is not None or now_ms < self._retry_at_ms:
            return []
        return [self._open(self.gathering, settings, None)]

    def open_stream_from(self, settings: InputSettings, from_ms: int) -> list[Effect]:
        """Hands-free: recognise the connection's audio from ``from_ms`` on. A stream
        that is open continues instead.
        """
        if self.gathering.stream is not None:
            return []
        return [replace(self._open(self.gathering, settings, None), from_ms=from_ms)]

    def reclaim_awaited(self) -> list[Effect]:
        """Move the awaited utterance's words to the next turn, because the user's turn
        had not ended.
        """
        if self.awaited is None:
            return []
        before = [*self.awaited.finals, self.awaited.partial]
        self.gathering.finals = [text for text in before if text.strip()] + self.gathering.finals
        return self.drop_awaited()

    def add_result(self, stream: int, transcript: Transcript, *, hold: bool) -> list[Effect]:
        """Add a result. With ``hold``, results of the next turn are kept until the turn
        in progress is over. A result that changes only the hypothesis is not sent.
        """
        self._failures = 0
        if self.awaited is not None and self.is_awaited(stream):
            news = self.awaited.add_result(transcript)
            return [Send(Recognised(transcript))] if news else []
        if not self.gathering.add_result(transcript):
            return []
        if not hold:
            return [Send(Recognised(transcript))]
        if self._held and not self._held[-1].final:
            self._held.pop()
        self._held.append(transcript)
        return []

    def extend_deadline(self, stream: int, by_ms: int) -> None:
        """Set the extra time that the recogniser of ``stream`` may need for its last
        result.
        """
        for utterance in (self.gathering, self.awaited):
            if utterance is not None and utterance.stream == stream:
                utterance.grace_ms = by_ms

    @property
    def grace_ms(self) -> int:
        """The extra time for the awaited result."""
        return self.awaited.grace_ms if self.awaited is not None else 0

    def release_held(self) -> list[Effect]:
        """Send the held results, of each sentence the newest one: the turn is over."""
        effects: list[Effect] = [Send(Recognised(transcript)) for transcript in self._held]
        self._held.clear()
        return effects

    def finish_utterance(self) -> list[Effect]:
        """End the user's turn: await its last result. No effects: no stream is open, so
        the transcript is complete.
        """
        self.awaited, self.gathering = self.gathering, Utterance()
        if self.awaited.stream is None:
            return []
        return [FinishRecognition(self.awaited.stream)]

    def end_stream(self, stream: int) -> None:
        """``stream`` has given its last result."""
        for utterance in (self.gathering, self.awaited):
            if utterance is not None and utterance.stream == stream:
                utterance.stream = None

    def take_awaited_text(self) -> str:
        """Return the text of the completed utterance, which is no longer awaited."""
        text = self.awaited.text if self.awaited is not None else ""
        self.awaited = None
        return text

    def drop_gathering(self) -> list[Effect]:
        """Cancel recognition of the next turn and discard its results."""
        dropped, self.gathering = self.gathering, Utterance()
        self._held.clear()
        return [] if dropped.stream is None else [DropRecognition(dropped.stream)]

    def drop_awaited(self) -> list[Effect]:
        """Cancel recognition of the committed turn and discard its results."""
        dropped, self.awaited = self.awaited, None
        return (
            [] if dropped is None or dropped.stream is None else [DropRecognition(dropped.stream)]
        )

    def replace_gathering(
        self, failure: RecognitionFailed, settings: InputSettings, now_ms: int
    ) -> list[Effect]:
        """Replace the failed stream of the next turn by one that gets the same audio,
        unless the audio is at fault.

        After ``FAILURES_IN_A_ROW`` failures recognition pauses for ``RETRY_AFTER_MS``.
        """
        self._failures += 1
        self.gathering.stream = None
        self.gathering.partial = self.gathering.hypothesis = ""
        if failure.fault is Fault.ASR_FAILED and self._failures < FAILURES_IN_A_ROW:
            return [self._open(self.gathering, settings, failure.stream)]
        self._retry_at_ms = now_ms + RETRY_AFTER_MS
        return [DropRecognition(failure.stream)]

    def replace_awaited(self, failure: RecognitionFailed, settings: InputSettings) -> list[Effect]:
        """Replace the failed awaited stream by one that gets the same audio. No
        effects: there is no further retry.

        One retry if the failure is retryable; more only while a recogniser of the chain
        has not received the audio.
        """
        most = MAX_REPLACEMENTS if failure.others_left else 1
        if self.awaited is None or self.awaited.replacements >= most or not failure.retryable:
            return []
        self.awaited = replace(self.awaited, replacements=self.awaited.replacements + 1, partial="")
        opened = self._open(self.awaited, settings, failure.stream)
        return [opened, FinishRecognition(opened.stream)]

    def _open(
        self, utterance: Utterance, settings: InputSettings, replay_of: int | None
    ) -> OpenRecognition:
        self._streams += 1
        utterance.stream = self._streams
        return OpenRecognition(self._streams, settings, replay_of)
