"""One reply: its text, its sentences, its audio, and how much of it has been heard."""

from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from voicechat.session import events as ev
from voicechat.session.effects import Effect, FinishSpeech, Send, Speak
from voicechat.session.filler import LINE_END
from voicechat.session.latency_breakdown import LatencyBreakdown
from voicechat.session.notices import (
    ReplyAudio,
    ReplyAudioFinished,
    ReplySources,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
    ReplyToolsUsed,
    SentenceBegun,
)
from voicechat.session.playback import PlaybackClock
from voicechat.session.snapshot import PieceSnapshot, ReplySnapshot
from voicechat.session.tool_calls import NOT_TOLD, ReplyTools
from voicechat.session.turn_times import ReplyTimes, TurnTimes
from voicechat.session.types import ToolCall, ToolExchange, Usage
from voicechat.text.pieces import Piece, SpeechPieces
from voicechat.text.words import cut_at_word, speaking_ms

ReplyMade: TypeAlias = (
    ev.ReplyTextArrived
    | ev.ToolCalled
    | ev.ToolsUsed
    | ev.ReplyCited
    | ev.ReplyTextEnded
    | ev.SpeechSynthesized
    | ev.SentenceSynthesized
    | ev.SpeechEnded
)
"""The events with results for a reply, failures excluded."""
TOOL_CALLS = "tool_calls"
"""The reason of a model that waits for the client's tools, whatever its server calls
it.
"""
RUN_OUT_MARGIN_MS = 500
"""An unfinished sentence is spoken this long before the listener would hear silence:
the time to synthesise it.
"""


@dataclass(slots=True)
class _Piece:
    """A part of the reply's text that is spoken as a whole, or not at all (then
    ``spoken`` is empty).
    """

    text: str
    spoken: str
    begin_ms: int = 0
    end_ms: int = 0
    done: bool = False


class Reply:
    """The reply with number ``number``. Its methods return effects."""

    def __init__(
        self,
        number: int,
        begun_ms: int,
        lead_ms: int | None,
        *,
        answers_tools: bool = False,
        voiced: bool = True,
        marks: Set[str] = frozenset(),
    ) -> None:
        """``answers_tools``: the client answers the model's calls, and the reply waits
        for the answers.

        ``voiced`` false: the reply is text only. ``marks``: see
        ``VoiceSettings.marks``.
        """
        self.number = number
        self.begun_ms = begun_ms
        self.voiced = voiced
        self._marks = marks
        self.text = ""
        """The text sent to the client."""
        self.clock = PlaybackClock()
        self.tools = ReplyTools(number)
        self.times = ReplyTimes()
        self.turn_times: TurnTimes | None = None
        """The times of the turn that it answers: from when that is certain until the
        reply's first audio was sent.
        """
        self.usage: Usage | None = None
        """The sum of what the model has reported so far."""
        self._lead_ms = lead_ms
        self._answers_tools = answers_tools
        self._speech: SpeechPieces | None = None
        """Splits the text into sentences; None when no text follows, because it takes 3
        KiB and the last replies stay in memory.
        """
        self._pieces: list[_Piece] = []
        self._sentences: list[_Piece] = []
        self._unfinished = 0
        """The number of sentences whose audio is not complete."""
        self._waiting_since_ms: int | None = None
        self._text_finished = False
        self._made_ms = 0
        self._left_ms = 0
        self._sentences_begun = 0
        self._paced: deque[ev.SpeechSynthesized] = deque()
        self._all_made = False
        self._playback_stopped = False
        self.is_fallback = False
        """Whether its audio is only an apology: the model failed before any sentence
        was spoken.
        """

    def snapshot(self, now_ms: int) -> ReplySnapshot:
        """Return the reply as it is now, without its audio."""
        return ReplySnapshot(
            number=self.number,
            begun_ms=self.begun_ms,
            text=self.text,
            text_finished=self._text_finished,
            voiced=self.voiced,
            is_fallback=self.is_fallback,
            spoken=self.spoken,
            pieces=tuple(
                PieceSnapshot(
                    text=piece.text,
                    spoken=piece.spoken,
                    begin_ms=piece.begin_ms,
                    end_ms=piece.end_ms,
                    done=piece.done,
                )
                for piece in self._pieces
            ),
            made_ms=self._made_ms,
            sent_ms=self.clock.sent_ms,
            heard_ms=self.clock.position_ms(now_ms),
            playback_stopped=self._playback_stopped,
            exchanges=self.tools.snapshot(),
            rounds=self.tools.rounds,
            awaits_tools=bool(self.tools.awaited),
            usage=self.usage,
        )

    @classmethod
    def restored(cls, kept: ReplySnapshot, now_ms: int) -> "Reply":
        """Return the reply of a snapshot. It can be cut or heard to its end; nothing
        more is made for it.
        """
        reply = cls(kept.number, kept.begun_ms, None, voiced=kept.voiced)
        reply.text, reply._text_finished = kept.text, kept.text_finished
        reply.is_fallback, reply._all_made = kept.is_fallback, kept.spoken
        reply._pieces = _estimated(kept.pieces)
        reply._sentences = [piece for piece in reply._pieces if piece.spoken]
        reply._made_ms = reply._left_ms = kept.made_ms
        reply.clock.restore(kept.sent_ms, kept.heard_ms, now_ms)
        reply._playback_stopped = kept.playback_stopped
        reply.tools.restore(kept.exchanges, kept.rounds)
        reply.tools.asked_ms = now_ms if kept.awaits_tools else None
        reply.usage = kept.usage
        return reply

    @property
    def text_finished(self) -> bool:
        """Whether the model has finished."""
        return self._text_finished

    def handle_event(self, event: ReplyMade, now_ms: int) -> list[Effect]:
        """Handle a result of the model or the synthesiser."""
        match event:
            case ev.ReplyTextArrived():
                return self.add_text(event.text, now_ms)
            case ev.SpeechSynthesized():
                return self.add_audio(event, now_ms)
            case ev.SentenceSynthesized():
                self.finish_sentence(event.sentence)
                return []
            case ev.ReplyTextEnded():
                self.add_usage(event.usage)
                return self.pause_text(event.finish_reason, now_ms)
            case ev.SpeechEnded():
                return self.finish_audio(now_ms)
            case ev.ToolCalled():
                return self.call_tool(event.call, now_ms)
            case ev.ToolsUsed():
                return self.use_tools(event.exchange, now_ms)
            case ev.ReplyCited():
                return [Send(ReplySources(self.number, event.sources))]
            case _:
                assert_never(event)

    # --- text -------------------------------------------------------------------------

    def add_text(self, text: str, now_ms: int) -> list[Effect]:
        """Add ``text`` of the model."""
        if self.times.first_text_ms is None:
            self.times.first_text_ms = now_ms
        self.text += text
        told: list[Effect] = [Send(ReplyText(self.number, text))]
        if not self.voiced:
            return told
        if self._speech is None:
            self._speech = SpeechPieces(self._marks)
        spoken = self._speak(self._speech.push_text(text), now_ms)
        if self._waiting_since_ms is None:
            self._waiting_since_ms = now_ms
        return told + spoken

    def call_tool(self, call: ToolCall, now_ms: int) -> list[Effect]:
        """Add a piece of a tool call."""
        piece = self.tools.add_piece(call)
        if piece is None:
            return []
        if self.times.first_text_ms is None:
            self.times.first_text_ms = now_ms
        return [Send(ReplyToolCall(self.number, piece))]

    def use_tools(self, exchange: ToolExchange, now_ms: int) -> list[Effect]:
        """Record tool calls that the server carried out for the model, which
        continues.
        """
        self.tools.record_exchange(exchange, len(self.text))
        return [Send(ReplyToolsUsed(self.number, exchange)), *self._speak_rest(now_ms)]

    def pause_text(self, reason: str, now_ms: int) -> list[Effect]:
        """End an answer of the model. If it called tools and the client answers them,
        the model must be asked again.
        """
        if not self.tools.finish_answer(reason, len(self.text)):
            return self.finish_text("stop" if reason == TOOL_CALLS else reason, now_ms)
        if not self._answers_tools:
            self.tools.abandon_calls(NOT_TOLD)
            return self.finish_text(TOOL_CALLS, now_ms)
        self.tools.await_answers(now_ms)
        told = Send(ReplyTextFinished(self.number, TOOL_CALLS))
        return [told, *self._speak_rest(now_ms)]

    def finish_text(self, reason: str, now_ms: int) -> list[Effect]:
        """End the text of the reply."""
        self._text_finished = True
        told = Send(ReplyTextFinished(self.number, reason))
        if not self.voiced:
            self._all_made = True
        return [told, *self._speak_rest(now_ms), FinishSpeech(self.number)]

    def say_filler(self, text: str, now_ms: int) -> list[Effect]:
        """Speak ``text`` while the client carries out tools. In the history it stands
        before the calls.
        """
        told = self.add_text(text + LINE_END, now_ms)
        self.tools.move_calls(len(self.text))
        return [*told, *self._speak_rest(now_ms)]

    def cut_unfinished(self, now_ms: int) -> list[Effect]:
        """Speak the text that has waited too long for the end of its sentence, as far
        as it can be spoken.
        """
        effects = self._speak(self._speech.force_cut(), now_ms) if self._speech else []
        self._waiting_since_ms = now_ms
        return effects

    def cut_unfinished_at_ms(self, wait_ms: int) -> int | None:
        """Return when to call ``cut_unfinished``: text has waited for ``wait_ms``, and
        the audio before it is about to run out. None: never.
        """
        if self._waiting_since_ms is None or self._text_finished or self._unfinished:
            return None
        runs_out_ms = self.clock.reaches_ms(self._made_ms)
        return max(self._waiting_since_ms + wait_ms, runs_out_ms - RUN_OUT_MARGIN_MS)

    def add_usage(self, usage: Usage | None) -> None:
        """Add the usage that the model reported for one of its answers."""
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    def _speak_rest(self, now_ms: int) -> list[Effect]:
        """Speak the rest of a complete answer of the model. A code block that it left
        open ends here.
        """
        speech, self._speech = self._speech, None
        return self._speak(speech.finish_text(), now_ms) if speech is not None else []

    @property
    def may_fall_back(self) -> bool:
        """Whether the model still owes an answer, and no sentence has been given to the
        synthesiser.
        """
        return self.voiced and not self._sentences and not self._text_finished

    def start_fallback(self, apology: str) -> list[Effect]:
        """Speak ``apology`` and end. It is no part of the reply's text: neither the
        client nor the history gets it as text.
        """
        self.is_fallback = self._text_finished = True
        self.turn_times = None
        self._give_to_voice(_Piece("", apology))
        return [Speak(self.number, 0, apology), FinishSpeech(self.number)]

    def _speak(self, pieces: list[Piece], now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for text, spoken in pieces:
            piece = _Piece(text, spoken)
            self._pieces.append(piece)
            self._waiting_since_ms = None
            if piece.spoken:
                if self.times.first_sentence_ms is None:
                    self.times.first_sentence_ms = now_ms
                effects.append(Speak(self.number, len(self._sentences), piece.spoken))
                self._give_to_voice(piece)
        return effects

    def _give_to_voice(self, piece: _Piece) -> None:
        self._sentences.append(piece)
        self._unfinished += 1

    # --- audio ------------------------------------------------------------------------

    def add_audio(self, audio: ev.SpeechSynthesized, now_ms: int) -> list[Effect]:
        """Add the next piece of audio."""
        if audio.sentence < len(self._sentences):
            piece = self._sentences[audio.sentence]
            if piece.end_ms == 0:
                piece.begin_ms = self._made_ms
            piece.end_ms = audio.end_ms
        self._made_ms = audio.end_ms
        if audio.packets and self.times.first_audio_ms is None:
            self.times.first_audio_ms = now_ms
        self._paced.append(audio)
        return self.release_audio(now_ms)

    def audio_sent(self, end_ms: int, now_ms: int) -> LatencyBreakdown | None:
        """Audio up to ``end_ms`` was handed to the socket. For the first audio return
        where the time went.
        """
        self.clock.note_sent(end_ms, now_ms)
        times, self.turn_times = self.turn_times, None
        return times.answered(self.times, now_ms) if times is not None else None

    def finish_sentence(self, sentence: int) -> None:
        """All audio of ``sentence`` was synthesised."""
        if sentence < len(self._sentences):
            piece = self._sentences[sentence]
            if piece.end_ms == 0:
                piece.begin_ms = piece.end_ms = self._made_ms
            self._unfinished -= not piece.done
            piece.done = True

    def finish_audio(self, now_ms: int) -> list[Effect]:
        """All audio of the reply was synthesised."""
        self._all_made = True
        return self.release_audio(now_ms)

    def release_audio(self, now_ms: int) -> list[Effect]:
        """Release the audio that may be sent now, and after the last of it
        ``ReplyAudioFinished``.
        """
        effects: list[Effect] = []
        while self._paced and self._may_leave(self._paced[0], now_ms):
            audio = self._paced.popleft()
            self._left_ms = audio.end_ms
            effects += self._begin_sentence(audio.sentence)
            if audio.packets:
                effects.append(
                    Send(ReplyAudio(self.number, audio.packets, audio.end_ms, audio.sentence))
                )
        if self.spoken:
            spoken = tuple(piece.spoken for piece in self._sentences)
            effects.append(Send(ReplyAudioFinished(self.number, spoken)))
        return effects

    def discard_held_audio(self) -> None:
        """Discard the audio that was not released, because the reply was stopped. The
        last replies stay in memory, and each would keep up to 10 s of audio.
        """
        self._paced.clear()
        self._all_made = False
        self._speech = None

    def _begin_sentence(self, sentence: int) -> list[Effect]:
        """Return ``SentenceBegun`` before the first audio of ``sentence``, once per
        sentence.
        """
        if not self._sentences_begun <= sentence < len(self._sentences):
            return []
        self._sentences_begun = sentence + 1
        return [Send(SentenceBegun(self.number, sentence, self._sentences[sentence].spoken))]

    def release_at_ms(self) -> int | None:
        """Return when the next piece of audio may be sent. None: never, or not before
        the socket has accepted more.
        """
        if not self._paced or self._lead_ms is None:
            return None
        due_ms = min(self._paced[0].end_ms - self._lead_ms, self._left_ms)
        return self.clock.reaches_ms(due_ms) if due_ms <= self.clock.sent_ms else None

    @property
    def spoken(self) -> bool:
        """Whether all audio has been synthesised and released."""
        return self._all_made and not self._paced

    @property
    def held_ms(self) -> int:
        """How much audio pacing holds back, in milliseconds."""
        return self._paced[-1].end_ms - self._paced[0].end_ms if self._paced else 0

    def _may_leave(self, audio: ev.SpeechSynthesized, now_ms: int) -> bool:
        if self._lead_ms is None or self._left_ms == 0:
            return True
        position_ms = self.clock.position_ms(now_ms)
        return audio.end_ms <= position_ms + self._lead_ms or position_ms >= self._left_ms

    # --- what was heard ---------------------------------------------------------------

    def heard_text(self, now_ms: int) -> str:
        """Return the text whose audio has been played by ``now_ms``, cut at a word; all
        text for a reply without audio.
        """
        if not self.voiced:
            return self.text
        return self.heard_text_until(self.clock.position_ms(now_ms))

    def stop_playback(self) -> None:
        """The listener has stopped playing: nothing more is heard, whatever the clock
        says.
        """
        self._playback_stopped = True

    def heard_text_until(self, position_ms: int) -> str:
        """Return the text of the audio up to ``position_ms``, cut at a word."""
        heard, unsure = "", ""
        for piece in self._pieces:
            if not piece.spoken:
                unsure += piece.text
                continue
            share = self._share(piece, position_ms)
            part = cut_at_word(piece.text, share)
            if part:
                heard += unsure + part
                unsure = ""
            if share < 1:
                return heard.rstrip()
        everything = self.spoken and position_ms >= self._made_ms > 0
        return (heard + unsure if everything else heard).rstrip()

    @property
    def made_ms(self) -> int:
        """How much audio has been synthesised, in milliseconds."""
        return self._made_ms

    def audible(self, now_ms: int) -> bool:
        """Whether the listener still has audio to hear."""
        return not self._playback_stopped and self.clock.position_ms(now_ms) < self._made_ms

    @property
    def silent_at_ms(self) -> int | None:
        """When the listener will have heard all audio so far; None: not all of it has
        been sent.
        """
        return self.clock.reaches_ms(self._made_ms) if self.clock.sent_ms >= self._made_ms else None

    def _share(self, piece: _Piece, position_ms: int) -> float:
        """Return the part of the piece that has been played. For a piece that is not
        complete, its length is estimated.
        """
        begin_ms = piece.begin_ms if piece.end_ms or piece.done else self._made_ms
        made_ms = max(0, piece.end_ms - begin_ms)
        length_ms = made_ms if piece.done else max(made_ms, speaking_ms(piece.spoken))
        if position_ms >= begin_ms + length_ms and piece.done:
            return 1.0
        return max(0.0, min(0.999, (position_ms - begin_ms) / max(1, length_ms)))


def _estimated(kept: Sequence[PieceSnapshot]) -> list[_Piece]:
    """Return the pieces of a snapshot. Those whose audio was not complete get an
    estimated length, because the listener may have heard more since.
    """
    pieces: list[_Piece] = []
    end_ms = 0
    for piece in kept:
        begin_ms, spoken_ms = max(piece.begin_ms, end_ms), piece.end_ms
        if piece.spoken and not piece.done:
            spoken_ms = max(spoken_ms, begin_ms + speaking_ms(piece.spoken))
        if piece.spoken:
            end_ms = spoken_ms
        pieces.append(_Piece(piece.text, piece.spoken, begin_ms, spoken_ms, done=True))
    return pieces
