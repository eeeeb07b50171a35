"""Plays the client, the recogniser, the model, the synthesiser, the outbox and the
clock around one session.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.session.promises.promise import Promise
from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.filler import Filler
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.states import TURN, State
from voicechat.session.transcription_state import MAX_REPLACEMENTS
from voicechat.session.types import (
    ChatSettings,
    InputSettings,
    Message,
    ReplyOverrides,
    Settings,
    ToolAnswer,
    ToolCall,
    ToolExchange,
    ToolOutcome,
    Transcript,
    TurnDetection,
    Usage,
)

APOLOGY = FallbackMessage()
FILLER = Filler(en="One moment.", zh="请稍等。")
LIMITS = SessionLimits(tool_rounds=2)
LISTENER = TurnDetection(create_response=False)
DETECTIONS = (None, TurnDetection(), TurnDetection(min_interruption_words=2), LISTENER)
SIDES = st.sampled_from(["turn", "turn", "turn", "out of band"])
"""Of which reply something happens: the one of the turn, or one that is no part of the
conversation.
"""
ENDS: Mapping[str, ev.Event] = {
    "disconnect": ev.Disconnected(),
    "stall": ev.WriteStalled("the client does not read"),
    "drain": ev.DrainRequested(0),
    "fault": ev.Faulted(),
    "revoked": ev.AccessEnded(Fault.NOT_AUTHORISED, "token: revoked"),
}
TEXTS = (
    *("Hello there. ", "How are you? ", "你好。", "今天天气怎么样?", "well, "),
    *("one two three four five ", "```x```", "🙂", "3.14 "),
)
ASKED: Message = {"role": "user", "content": "Only this."}
WISHES = (
    ReplyOverrides(),
    ReplyOverrides(spoken=False),
    ReplyOverrides(instructions="Be brief.", options={"temperature": 0}),
    ReplyOverrides(input=(ASKED,), answers_tools=False),
)


@dataclass
class MadeReply:
    """What the world knows of one reply."""

    number: int
    asked: ef.StartReply
    out_of_band: bool
    preemptive: bool
    text: str = ""
    text_told: str = ""
    begun: bool = False
    told: bool = False
    """Something of it was told after its beginning."""
    over: bool = False
    """It has been told that it ended."""
    stopped: bool = False
    finished: bool = False
    """It has been told that all its audio was told."""
    text_ended: bool = False
    used: Usage | None = None
    paused: bool = False
    """The model waits for the client's tools."""
    calls: list[str] = field(default_factory=list)
    """Ids that the client has been told since the model was asked last."""
    awaited: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    asked_ms: int = 0
    rounds: int = 0
    filler_ms: int | None = None
    """When a filler was said."""
    sentences: list[str] = field(default_factory=list)
    sentences_complete: bool = False
    sentences_begun: int = 0
    next_sentence: int = 0
    open_sentence: bool = False
    made_ms: int = 0
    left_ms: int = 0
    ended: bool = False
    """The synthesiser has made everything."""

    @property
    def live(self) -> bool:
        """Whether it is in progress."""
        return not (self.stopped or self.finished or self.over)


class Driver(RuleBasedStateMachine):
    """The world around one session."""

    promises: ClassVar[Sequence[type[Promise]]] = ()
    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.session = Session(limits=LIMITS)
        self.settings = Settings()
        self.streams: dict[int, str] = {}
        self.replies: dict[int, MadeReply] = {}
        self.outbox: list[nt.Notice] = []
        self.turns_begun = 0
        self.turns_completed = 0
        self.over = False
        """Nothing more happens: the session has closed, or its client has gone."""
        self.keyed = False
        """Keys of a keypad have been pressed."""
        self.gone = False
        self.routed = ef.RouteAudio(ef.Route.AWAIT, InputSettings())
        self.told_ids: list[str] = []
        """Ids of all tool calls that the client was told."""
        self.calls_made = 0
        self.item_ids: list[str] = []
        """Of all items that were ever told or added."""
        self._causes = 0
        self._out_of_band = False
        self._watching = [promise(self) for promise in self.promises]

    @initialize(
        half_duplex=st.booleans(),
        silence_allowed=st.booleans(),
        lead_ms=st.sampled_from([None, 500]),
        detection=st.sampled_from(DETECTIONS),
        fallback_message=st.sampled_from([None, APOLOGY]),
        answers_tools=st.sampled_from([True, True, False]),
        filler=st.sampled_from([None, FILLER]),
    )
    def connect(
        self,
        half_duplex: bool,
        silence_allowed: bool,
        lead_ms: int | None,
        detection: TurnDetection | None,
        fallback_message: FallbackMessage | None,
        answers_tools: bool,
        filler: Filler | None,
    ) -> None:
        self.session = Session(limits=LIMITS, fallback_message=fallback_message)
        self.feed(ev.Opened())
        self.configure_to(
            Settings(
                half_duplex=half_duplex,
                lead_ms=lead_ms,
                input=InputSettings(silence_allowed=silence_allowed),
                turn_detection=detection,
                chat=ChatSettings(
                    answers_tools=answers_tools, instructions="Speak.", filler=filler
                ),
            )
        )

    def reach(self, corner: str, reached: object = True) -> None:
        """Count that something worth watching has happened."""
        self.reached[corner] += bool(reached)

    @property
    def hands_free(self) -> bool:
        return self.settings.turn_detection is not None

    def newest(self, side: str = "turn") -> MadeReply | None:
        """The last reply of that side, whatever has become of it."""
        wanted = side == "out of band"
        return next(
            (made for made in reversed(self.replies.values()) if made.out_of_band == wanted), None
        )

    # --- the session does something ---------------------------------------------------

    def feed(self, event: ev.Event) -> list[ef.Effect]:
        before = self.session.state
        effects = self.session.receive(event, self.now)
        if self.over:
            assert effects == [], "a closed session does nothing"
            return effects
        for promise in self._watching:
            promise.event(event, before, effects)
        for effect in effects:
            if isinstance(event, ev.Ticked) and isinstance(effect, ef.Send):
                self._note_filler(effect.notice)
            for promise in self._watching:
                promise.effect(effect)
                if isinstance(effect, ef.Send):
                    promise.notice(effect.notice)
            self._obey(effect)
        if isinstance(event, ev.Disconnected):
            self.over = self.gone = True
        self.reach(f"state {self.session.state.name}")
        self.reach(f"{type(event).__name__} in {before.name}")
        return effects

    def _note_filler(self, notice: nt.Notice) -> None:
        """Text that nobody has said but the clock: a filler."""
        if isinstance(notice, nt.ReplyText):
            self.replies[notice.reply].text += notice.text
            self.replies[notice.reply].filler_ms = self.now

    def _obey(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Send(notice):
                self.outbox.append(notice)
                self._note(notice)
            case ef.OpenRecognition(stream):
                self.streams[stream] = "open"
                if effect.replay_of is not None:
                    self.streams[effect.replay_of] = "gone"
            case ef.RouteAudio():
                self.routed = effect
            case ef.FinishRecognition(stream):
                self.streams[stream] = "finished"
            case ef.DropRecognition(stream):
                self.streams[stream] = "gone"
            case ef.StartReply(reply):
                self.replies[reply] = MadeReply(reply, effect, self._out_of_band, effect.preemptive)
                self.replies[reply].text_ended = effect.scripted
            case ef.AdoptReply(reply):
                self.replies[reply].preemptive = False
            case ef.ContinueReply(reply):
                made = self.replies[reply]
                made.paused, made.calls = False, []
                made.awaited.clear()
            case ef.Speak(reply, _, text):
                self.replies[reply].sentences.append(text)
            case ef.FinishSpeech(reply):
                self.replies[reply].sentences_complete = True
            case ef.StopReply(reply):
                self.replies[reply].stopped = True
                self.outbox = [
                    n
                    for n in self.outbox
                    if not (isinstance(n, nt.ReplyNotice) and n.reply == reply)
                ]
            case ef.Close():
                self.over = True
            case _:
                pass

    def _note(self, notice: nt.Notice) -> None:
        if isinstance(notice, nt.ReplyNotice):
            self.replies[notice.reply].told = self.replies[notice.reply].begun
        match notice:
            case nt.TurnCommitted():
                busy = (
                    self.session.state is State.REPLYING and self.turns_begun > self.turns_completed
                )
                self.turns_begun += not busy
            case nt.TurnCompleted():
                self.turns_completed += 1
            case nt.ReplyBegun(reply):
                self.replies[reply].begun = True
            case nt.ReplyText(reply, text):
                self.replies[reply].text_told += text
            case nt.ReplyToolCall(reply, call) if call.id is not None:
                self.replies[reply].calls.append(call.id)
            case nt.ReplyTextFinished(reply, reason):
                self._calls_are_made(self.replies[reply], reason)
            case nt.SentenceBegun(reply, sentence):
                self.replies[reply].sentences_begun = sentence + 1
            case nt.ReplyAudio(reply, _, end_ms):
                self.replies[reply].left_ms = end_ms
            case nt.ReplyAudioFinished(reply):
                self.replies[reply].finished = True
            case nt.ReplyEnded(reply, _, items):
                self.replies[reply].over = True
                self.item_ids += [item.id for item in items]
            case nt.UserSaid(item):
                self.item_ids.append(item.id)
            case _:
                pass

    def _calls_are_made(self, made: MadeReply, reason: str) -> None:
        if reason == "length":
            made.calls = []
        if not made.calls:
            return
        made.rounds += 1
        self.told_ids += made.calls
        if made.asked.chat.answers_tools:
            made.awaited = set(made.calls)
            made.asked_ms = self.now
            self.calls_made += len(made.calls)

    # --- the client -------------------------------------------------------------------

    def cause(self) -> int:
        self._causes += 1
        return self._causes

    def configure_to(self, settings: Settings) -> None:
        self.settings = settings if not self.over else self.settings
        self.feed(cmd.Configure(settings, cause=self.cause()))

    @rule()
    def audio(self) -> None:
        if self.routed.route is ef.Route.AWAIT:
            self.feed(ev.AudioStarted())
        else:
            self.feed(ev.AudioArrived(self.now))
        self.reach(
            "refresh skips audio", self.routed.route is ef.Route.SKIP and self.settings.half_duplex
        )

    @rule()
    def complete(self) -> None:
        self.feed(cmd.CommitTurn(cause=self.cause()))

    @rule()
    def commit_without_an_answer(self) -> None:
        self.feed(cmd.CommitTurn(respond=False, cause=self.cause()))

    @rule()
    def type_message(self) -> None:
        self.feed(cmd.CommitTurn("typed", cause=self.cause()))

    @rule(overrides=st.sampled_from(WISHES))
    def ask_for_a_reply(self, overrides: ReplyOverrides) -> None:
        self.feed(cmd.Respond(overrides, cause=self.cause()))

    @rule(overrides=st.sampled_from(WISHES))
    def ask_for_an_out_of_band_reply(self, overrides: ReplyOverrides) -> None:
        self._out_of_band = True
        self.feed(cmd.Respond(replace(overrides, out_of_band=True), cause=self.cause()))
        self._out_of_band = False

    @rule()
    def clear(self) -> None:
        self.feed(cmd.ClearInput(cause=self.cause()))

    @rule()
    def forget(self) -> None:
        self.reach("forget while tools are awaited", self.awaited())
        self.feed(cmd.ClearHistory(cause=self.cause()))

    @rule()
    def cancel(self) -> None:
        self.feed(cmd.Cancel(cause=self.cause()))

    @precondition(lambda self: self.replies)
    @rule(back=st.integers(0, 2))
    def cancel_one_reply(self, back: int) -> None:
        self.feed(cmd.Cancel(max(1, len(self.replies) - back), cause=self.cause()))

    @rule()
    def alive(self) -> None:
        self.feed(cmd.Alive())

    @rule()
    def configure(self) -> None:
        self.configure_to(self.settings)

    @rule(
        detection=st.sampled_from(DETECTIONS),
        spoken=st.sampled_from([True, True, False]),
        answers_tools=st.booleans(),
        instructions=st.sampled_from(["", "Speak.", "Whisper."]),
    )
    def configure_anew(
        self, detection: TurnDetection | None, spoken: bool, answers_tools: bool, instructions: str
    ) -> None:
        chat = ChatSettings(answers_tools=answers_tools, instructions=instructions)
        self.configure_to(
            replace(self.settings, turn_detection=detection, spoken=spoken, chat=chat)
        )
        self.reach("configured in a turn", self.session.state in TURN)

    @rule(
        role=st.sampled_from(["user", "assistant"]),
        after=st.sampled_from([None, "", "some", "none such"]),
        taken=st.sampled_from([False, False, False, True]),
    )
    def add_item(self, role: str, after: str | None, taken: bool) -> None:
        item_id = self.item_ids[-1] if taken and self.item_ids else f"mine_{self.cause()}"
        behind = (
            self.item_ids[len(self.item_ids) // 2] if after == "some" and self.item_ids else after
        )
        self.feed(
            cmd.AddItem({"role": role, "content": item_id}, item_id, behind, cause=self.cause())
        )
        self.item_ids.append(item_id)

    @precondition(lambda self: self.item_ids)
    @rule(which=st.integers(0, 100))
    def delete_item(self, which: int) -> None:
        self.feed(cmd.DeleteItem(self.item_ids[which % len(self.item_ids)], cause=self.cause()))

    @precondition(lambda self: self.replies)
    @rule(back=st.integers(0, 3), heard_ms=st.sampled_from([0, 100, 400, 5_000]))
    def truncate_reply(self, back: int, heard_ms: int) -> None:
        self.feed(cmd.TruncateReply(max(1, len(self.replies) - back), heard_ms, cause=self.cause()))

    def awaited(self, side: str = "turn") -> list[str]:
        """The ids of the calls that the client may answer."""
        made = self.newest(side)
        if made is None or self.over or made.stopped:
            return []
        return [call for call in made.calls if call in made.awaited]

    @precondition(lambda self: self.replies)
    @rule(side=SIDES, which=st.integers(0, 3), content=st.sampled_from(["20", ""]))
    def client_answers_a_call(self, side: str, which: int, content: str) -> None:
        made, awaited = self.newest(side), self.awaited(side)
        if made is None or not awaited:
            return
        call_id = awaited[which % len(awaited)]
        made.awaited.discard(call_id)
        made.answers[call_id] = content
        effects = self.feed(cmd.AnswerTool(call_id, content))
        asked_again = any(isinstance(effect, ef.ContinueReply) for effect in effects)
        assert asked_again == (len(awaited) == 1), (
            "the last answer is the one that lets the model go on"
        )

    @rule(back=st.integers(0, 3))
    def client_answers_what_nobody_asked(self, back: int) -> None:
        """A late answer, the same one twice, or an id out of the air."""
        awaited = {
            call for made in self.replies.values() if not made.stopped for call in made.awaited
        }
        past = [call_id for call_id in self.told_ids if call_id not in awaited]
        call_id = past[-1 - back] if back < len(past) else "call_nobody"
        effects = self.feed(cmd.AnswerTool(call_id, "late"))
        if not self.over:
            told = [e.notice for e in effects if isinstance(e, ef.Send)]
            [refusal] = [notice for notice in told if isinstance(notice, nt.Rejected)]
            assert refusal.why is (nt.Why.OTHER_CALL if awaited else nt.Why.NO_CALL)
            assert call_id in refusal.message
            self.reach(f"late tool answer {refusal.why.name}", call_id in past)

    @rule(which=st.integers(0, 3), played_ms=st.integers(-10, 5000))
    def played(self, which: int, played_ms: int) -> None:
        self.feed(cmd.Played(max(0, len(self.replies) - which), played_ms))

    # --- the recogniser, also late and out of turn ------------------------------------

    @precondition(lambda self: self.streams)
    @rule(
        back=st.integers(0, 2), text=st.sampled_from(["go", "go forward", ""]), final=st.booleans()
    )
    def recognise(self, back: int, text: str, final: bool) -> None:
        stream = max(1, len(self.streams) - back)
        self.feed(ev.Transcribed(stream, Transcript(text, 0, 900 if final else None)))

    @precondition(lambda self: self.streams)
    @rule(back=st.integers(0, 2))
    def recognition_ends(self, back: int) -> None:
        stream = max(1, len(self.streams) - back)
        if self.streams[stream] != "open":
            self.streams[stream] = "gone"
            self.feed(ev.RecognitionEnded(stream))

    @precondition(lambda self: self.streams)
    @rule(back=st.integers(0, 2), retryable=st.booleans(), others_left=st.booleans())
    def recognition_fails(self, back: int, retryable: bool, others_left: bool) -> None:
        stream = max(1, len(self.streams) - back)
        self.feed(
            ev.RecognitionFailed(stream, Fault.ASR_FAILED, "it failed", retryable, others_left)
        )

    # --- the voice detector -----------------------------------------------------------

    @rule(ago_ms=st.integers(0, 300))
    def speech_starts(self, ago_ms: int) -> None:
        self.feed(ev.SpeechStarted(self.now, ago_ms))

    @rule(ago_ms=st.integers(0, 300))
    def speech_stops(self, ago_ms: int) -> None:
        self.feed(ev.SpeechStopped(self.now, ago_ms))

    @rule(probability=st.floats(0, 1))
    def turn_is_judged(self, probability: float) -> None:
        self.feed(ev.DetectionDelayed(700 if probability > 0.75 else 0))
        self.feed(ev.TurnJudged(probability))

    @precondition(lambda self: self.hands_free and self.session.state is not State.OPENED)
    @rule(
        pause_ms=st.sampled_from([50, 200, 260, 2_000]),
        text=st.sampled_from(["go on please", "wait", "mm hmm", "no"]),
    )
    def user_speaks_up(self, pause_ms: int, text: str) -> None:
        self.speech_starts(64)
        self.time_passes(150)
        opened = self.streams_that_are("open")
        if opened:
            self.feed(ev.Transcribed(opened[-1], Transcript(text, 0)))
        self.time_passes(150)
        self.speech_stops(96)
        self.time_passes(pause_ms)
        finished = self.streams_that_are("finished")
        if finished and pause_ms > 1_000:
            self.feed(ev.Transcribed(finished[-1], Transcript(text, 0, 900)))
            self.streams[finished[-1]] = "gone"
            self.feed(ev.RecognitionEnded(finished[-1]))

    def streams_that_are(self, how: str) -> list[int]:
        return [stream for stream, state in self.streams.items() if state == how]

    # --- the model and the synthesiser ------------------------------------------------

    @precondition(lambda self: self.replies)
    @rule(side=SIDES, text=st.sampled_from(TEXTS))
    def model_says(self, side: str, text: str) -> None:
        made = self.newest(side)
        if made is None or made.text_ended or made.paused:
            return
        if not made.stopped:
            made.text += text
        self.feed(ev.ReplyTextArrived(made.number, text))

    @precondition(lambda self: self.replies)
    @rule(side=SIDES, used=st.booleans())
    def model_ends(self, side: str, used: bool) -> None:
        made = self.newest(side)
        if made is not None and not made.text_ended and not made.paused:
            made.text_ended = True
            self.end_text(made, "stop", used)

    def end_text(self, made: MadeReply, reason: str, used: bool) -> None:
        usage = Usage(3, 1) if used else None
        if usage is not None and made.live:
            made.used = usage if made.used is None else made.used + usage
        self.feed(ev.ReplyTextEnded(made.number, reason, usage))

    @precondition(lambda self: self.replies)
    @rule(
        side=SIDES,
        count=st.integers(1, 3),
        named=st.booleans(),
        index=st.sampled_from(["own", "always 0"]),
        reason=st.sampled_from(["tool_calls", "tool_calls", "stop", "length"]),
    )
    def model_calls_tools(
        self, side: str, count: int, named: bool, index: str, reason: str
    ) -> None:
        made = self.newest(side)
        if made is None or made.text_ended or made.paused:
            return
        for number in range(count):
            place = number if index == "own" or not named else 0
            own_id = (
                f"call_{made.number}_{len(self.told_ids)}_{self.now}_{number}" if named else None
            )
            self.feed(ev.ToolCalled(made.number, ToolCall(place, own_id, "weather", "")))
            self.feed(ev.ToolCalled(made.number, ToolCall(place, None, None, '{"city": "Paris"}')))
        if made.rounds >= LIMITS.tool_rounds:
            self.reach("tools over the limit")
        elif reason != "length":
            made.paused = not made.stopped and made.asked.chat.answers_tools
        made.text_ended = not made.paused
        self.reach("tools of a preemptive reply", made.preemptive and not made.stopped)
        self.end_text(made, reason, used=True)

    @precondition(lambda self: self.replies)
    @rule(side=SIDES)
    def server_uses_a_tool(self, side: str) -> None:
        made = self.newest(side)
        if made is None or made.text_ended or made.paused or made.preemptive:
            return
        live = made.live and not self.over
        own_id = f"own_{self.cause()}"
        exchange = ToolExchange(
            (ToolCall(0, own_id, "clock", "{}"),),
            (ToolAnswer("noon", ToolOutcome.ANSWERED, 20, "clock"),),
        )
        self.calls_made += live
        self.feed(ev.ToolsUsed(made.number, exchange))
        self.reach("server tools", live)

    @precondition(lambda self: len(self.replies) > 1)
    @rule(kind=st.integers(0, 6))
    def something_of_an_old_reply(self, kind: int) -> None:
        old = next((number for number, made in self.replies.items() if not made.live), None)
        if old is None:
            return
        late: list[ev.Event] = [
            ev.ReplyTextArrived(old, "stale"),
            ev.ReplyCited(old, ()),
            ev.ReplyTextEnded(old),
            ev.SpeechSynthesized(old, 0, (b"stale",), 100),
            ev.SentenceSynthesized(old, 0),
            ev.SpeechEnded(old),
            ev.ReplyFailed(old, Fault.LLM_FAILED, "stale"),
        ]
        effects = self.feed(late[kind])
        assert all(isinstance(effect, ef.RecordMetric) for effect in effects)

    @rule(audio=st.booleans())
    def playback_of_a_reply_that_never_was(self, audio: bool) -> None:
        number = len(self.replies) + 1
        effects = self.feed(ev.AudioSent(number, 100) if audio else cmd.Played(number, 100))
        if self.session.state is not State.CLOSED:
            assert effects == [ef.RecordMetric(ef.StaleDropped(ef.StaleKind.REPLY))]
        self.reach("playback of no reply", self.session.state is State.REPLYING)

    @precondition(lambda self: self.replies)
    @rule(side=SIDES, length_ms=st.sampled_from([20, 100, 400]))
    def synthesiser_makes(self, side: str, length_ms: int) -> None:
        made = self.newest(side)
        if made is None or made.ended or made.next_sentence >= len(made.sentences):
            return
        made.open_sentence = True
        made.made_ms += length_ms
        payload = made.made_ms.to_bytes(4, "big")
        self.feed(
            ev.SpeechSynthesized(made.number, made.next_sentence, (payload, b""), made.made_ms)
        )

    @precondition(lambda self: self.replies)
    @rule(side=SIDES)
    def sentence_is_made(self, side: str) -> None:
        made = self.newest(side)
        if made is not None and made.next_sentence < len(made.sentences) and made.open_sentence:
            made.open_sentence = False
            made.next_sentence += 1
            self.feed(ev.SentenceSynthesized(made.number, made.next_sentence - 1))

    @precondition(lambda self: self.replies)
    @rule(side=SIDES)
    def speech_ends(self, side: str) -> None:
        made = self.newest(side)
        if made is None or made.ended or not made.sentences_complete or not made.asked.voiced:
            return
        if made.next_sentence == len(made.sentences):
            made.ended = True
            self.feed(ev.SpeechEnded(made.number))

    @precondition(lambda self: self.replies)
    @rule(side=SIDES, fault=st.sampled_from([Fault.LLM_FAILED, Fault.TTS_FAILED]))
    def reply_fails(self, side: str, fault: Fault) -> None:
        made = self.newest(side)
        if made is not None and not made.ended:
            made.text_ended |= fault is Fault.LLM_FAILED
            self.feed(ev.ReplyFailed(made.number, fault, "it failed"))

    # --- compound steps: single ones rarely get past the first turn -------------------

    @rule()
    def user_says(self) -> None:
        self.audio()
        if self.over:
            return
        opened = self.streams_that_are("open")
        if opened:
            self.feed(ev.Transcribed(opened[-1], Transcript("please go on", 0, 900)))
        self.complete()
        if opened and self.streams[opened[-1]] == "finished":
            self.streams[opened[-1]] = "gone"
            self.feed(ev.RecognitionEnded(opened[-1]))

    @precondition(lambda self: self.session.state is State.REPLYING and not self.over)
    @rule()
    def user_says_something_aside(self) -> None:
        opened = self.streams_that_are("open")
        if opened:
            self.feed(ev.Transcribed(opened[-1], Transcript("by the way", 0, 900)))
        self.commit_without_an_answer()
        finished = self.streams_that_are("finished")
        if finished:
            self.streams[finished[-1]] = "gone"
            self.feed(ev.RecognitionEnded(finished[-1]))

    @rule()
    def every_recogniser_dies_at_the_end(self) -> None:
        self.audio()
        self.complete()
        for _ in range(MAX_REPLACEMENTS + 1):
            finished = self.streams_that_are("finished")
            if finished:
                self.feed(
                    ev.RecognitionFailed(finished[-1], Fault.ASR_FAILED, "it failed", True, True)
                )

    @precondition(lambda self: self.session.state is State.REPLYING and not self.over)
    @rule()
    def model_fails_and_an_apology_is_spoken(self) -> None:
        self.reply_fails("turn", Fault.LLM_FAILED)
        self.reply_completes("turn", 99)

    @rule(side=SIDES)
    def reply_speaks(self, side: str) -> None:
        self.model_says(side, "Hello there. ")
        self.model_says(side, "How are you? ")
        self.synthesiser_makes(side, 400)
        self.outbox_writes(20)

    @precondition(lambda self: self.session.state is State.REPLYING and not self.over)
    @rule(side=SIDES, count=st.integers(1, 3))
    def model_waits_for_tools(self, side: str, count: int) -> None:
        self.model_says(side, "Let me look. ")
        self.model_calls_tools(side, count, named=True, index="own", reason="tool_calls")

    @precondition(lambda self: not self.over)
    @rule(side=SIDES)
    def client_takes_long_over_a_tool(self, side: str) -> None:
        if side == "turn":
            self.ask_for_a_reply(WISHES[0])
        else:
            self.ask_for_an_out_of_band_reply(WISHES[0])
        self.model_calls_tools(side, 1, named=True, index="own", reason="tool_calls")
        self.time_passes(1_100)

    @precondition(lambda self: self.replies)
    @rule(side=SIDES)
    def client_answers_every_call(self, side: str) -> None:
        while self.awaited(side):
            self.client_answers_a_call(side, -1, "20")

    @precondition(lambda self: not self.over)
    @rule()
    def an_out_of_band_reply_uses_tools_and_is_spoken(self) -> None:
        if not self.settings.chat.answers_tools:
            return
        self.ask_for_an_out_of_band_reply(WISHES[0])
        self.model_calls_tools("out of band", 1, named=True, index="own", reason="tool_calls")
        self.client_answers_every_call("out of band")
        self.reply_completes("out of band", 99)

    @precondition(lambda self: self.session.state is State.REPLYING and not self.over)
    @rule(side=SIDES)
    def model_calls_again_and_again(self, side: str) -> None:
        for _ in range(LIMITS.tool_rounds + 1):
            self.model_calls_tools(side, 1, named=True, index="own", reason="tool_calls")
            self.client_answers_every_call(side)

    @precondition(lambda self: self.session.state is State.REPLYING and not self.over)
    @rule()
    def client_answers_a_call_twice(self) -> None:
        self.model_waits_for_tools("turn", 2)
        if len(self.awaited()) > 1:
            self.client_answers_a_call("turn", 0, "20")
            self.client_answers_what_nobody_asked(0)

    @precondition(lambda self: not self.over)
    @rule()
    def an_out_of_band_reply_is_stopped_while_it_waits_for_tools(self) -> None:
        self.ask_for_an_out_of_band_reply(WISHES[0])
        self.model_calls_tools("out of band", 1, named=True, index="own", reason="tool_calls")
        self.reach("out-of-band reply stopped while tools are awaited", self.awaited("out of band"))
        self.cancel_one_reply(0)

    @precondition(lambda self: any(made.preemptive and made.live for made in self.replies.values()))
    @rule()
    def client_cancels_a_reply_that_it_cannot_know(self) -> None:
        self.cancel_one_reply(0)
        self.reach("a preemptive reply canceled by number")

    @precondition(lambda self: any(made.preemptive and made.live for made in self.replies.values()))
    @rule()
    def model_calls_tools_early(self) -> None:
        self.model_calls_tools("turn", 1, named=True, index="own", reason="tool_calls")

    @precondition(lambda self: self.awaited())
    @rule()
    def client_forgets_while_tools_are_awaited(self) -> None:
        self.forget()

    @precondition(lambda self: self.awaited() or self.awaited("out of band"))
    @rule()
    def client_is_too_late(self) -> None:
        self.time_passes(31_000)

    @rule(side=SIDES, written=st.sampled_from([0, 1, 99]))
    def reply_completes(self, side: str, written: int) -> None:
        made = self.newest(side)
        if made is None or made.paused:
            return
        self.model_says(side, "All is well. ")
        self.model_ends(side, used=True)
        while (
            made is self.newest(side)
            and made.next_sentence < len(made.sentences)
            and not made.ended
        ):
            self.synthesiser_makes(side, 400)
            self.sentence_is_made(side)
        self.speech_ends(side)
        self.outbox_writes(written)

    @precondition(lambda self: self.session.state is State.REPLYING and not self.over)
    @rule(heard_ms=st.sampled_from([100, 400, 5_000]))
    def client_says_how_much_was_heard(self, heard_ms: int) -> None:
        self.reply_completes("turn", 99)
        made = self.newest()
        if made is not None:
            self.feed(cmd.TruncateReply(made.number, heard_ms, cause=self.cause()))

    @precondition(lambda self: not self.over)
    @rule()
    def an_out_of_band_reply_beside_another(self) -> None:
        self.ask_for_an_out_of_band_reply(WISHES[0])
        self.reply_speaks("out of band")
        self.reply_speaks("turn")

    # --- the outbox, the clock, the server --------------------------------------------

    @rule(count=st.integers(1, 20))
    def outbox_writes(self, count: int) -> None:
        for _ in range(count):
            if not self.outbox or self.gone:
                return
            notice = self.outbox.pop(0)
            if isinstance(notice, nt.ReplyAudio):
                assert not self.replies[notice.reply].stopped, "nothing of a stopped reply leaves"
                self.feed(ev.AudioSent(notice.reply, notice.end_ms))

    @rule(wait_ms=st.sampled_from([1, 50, 400, 2_000, 11_000, 31_000]))
    def time_passes(self, wait_ms: int) -> None:
        until = self.now + wait_ms
        for _ in range(200):
            deadline = self.session.deadline_ms()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.feed(ev.Ticked())
            after = self.session.deadline_ms()
            assert after is None or after > self.now, "a tick moves the deadline on"
        self.now = until

    @precondition(lambda self: self.turns_begun >= 2)
    @rule(end=st.sampled_from([*ENDS, *["nothing"] * 8]))
    def something_final(self, end: str) -> None:
        self.happen(end)

    @precondition(lambda self: self.turns_begun >= 2 and self.session.state in TURN)
    @rule(end=st.sampled_from([*ENDS, "nothing"]))
    def something_final_in_a_turn(self, end: str) -> None:
        self.happen(end)

    @rule()
    def user_finishes(self) -> None:
        self.audio()
        self.complete()

    @precondition(lambda self: self.session.state in TURN)
    @rule(order=st.permutations(["configure", "complete", "clear", "forget", "alive"]))
    def every_request_in_a_turn(self, order: list[str]) -> None:
        for request in order:
            getattr(self, request)()

    @precondition(lambda self: self.session.state is State.TRANSCRIBING)
    @rule(request=st.sampled_from(["cancel", "delete", "truncate", "add"]))
    def something_before_the_reply(self, request: str) -> None:
        match request:
            case "delete" if self.item_ids:
                self.delete_item(0)
            case "truncate":
                self.truncate_reply(0, 100)
            case "add":
                self.add_item("user", None, taken=False)
            case _:
                self.cancel()

    @precondition(lambda self: self.hands_free and self.session.state in TURN)
    @rule()
    def user_speaks_over(self) -> None:
        self.speech_starts(64)

    @precondition(lambda self: self.hands_free)
    @rule(short=st.booleans())
    def pressure(self, short: bool) -> None:
        self.feed(ev.PressureChanged(short))

    def happen(self, end: str) -> None:
        if end == "drain":
            self.feed(ev.DrainRequested(self.now + 5_000))
        elif end in ENDS:
            self.feed(ENDS[end])

    @invariant()
    def every_promise_holds(self) -> None:
        for promise in self._watching:
            promise.always()
