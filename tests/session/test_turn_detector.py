"""Hands-free mode in the kernel: turns that end by themselves, interruptions by voice,
replies begun early.
"""

from dataclasses import dataclass, field

import pytest

from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.states import State
from voicechat.session.types import ChatSettings, Message, Settings, Transcript, TurnDetection

AUDIO = ev.AudioStarted()


@dataclass
class Talk:
    """A hands-free session with the world around it reduced to a few words. Audio time
    is session time.
    """

    detection: TurnDetection = field(default_factory=TurnDetection)
    now_ms: int = 0
    limits: SessionLimits = field(default_factory=SessionLimits)
    chat: ChatSettings = field(default_factory=ChatSettings)
    by_voice: bool = True
    prepares: bool = False

    def __post_init__(self) -> None:
        self.session = Session(
            limits=self.limits, interrupt_by_voice=self.by_voice, prepares_replies=self.prepares
        )
        self.effects: list[ef.Effect] = []
        self.stream = 0
        self.post(cmd.Configure(Settings(turn_detection=self.detection, chat=self.chat)))
        self.post(AUDIO)

    def is_in(self, *states: State) -> bool:
        return self.session.state in states

    def post(self, event: ev.Event) -> list[ef.Effect]:
        new = self.session.receive(event, self.now_ms)
        self.effects += new
        for effect in new:
            if isinstance(effect, ef.OpenRecognition):
                self.stream = effect.stream
        return new

    def wait(self, wait_ms: int) -> None:
        until_ms = self.now_ms + wait_ms
        while (due_ms := self.session.deadline_ms()) is not None and due_ms <= until_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.post(ev.Ticked())
            again_ms = self.session.deadline_ms()
            assert again_ms is None or again_ms > self.now_ms, "a tick moves the deadline on"
        self.now_ms = until_ms

    def starts(self) -> None:
        self.post(ev.SpeechStarted(self.now_ms, 64))

    def stops(self) -> None:
        self.post(ev.SpeechStopped(self.now_ms - 96, 96))

    def hears(self, text: str, *, final: bool = False) -> None:
        self.post(ev.Transcribed(self.stream, Transcript(text, 0, self.now_ms if final else None)))

    def guesses(self, hypothesis: str, *, settled: bool, shown: str = "") -> list[ef.Effect]:
        """A recogniser of whole utterances: less is shown than it has recognised."""
        transcript = Transcript(shown, 0, hypothesis=hypothesis, settled=settled)
        return self.post(ev.Transcribed(self.stream, transcript))

    def says(self, text: str, length_ms: int = 800) -> None:
        """Speak, be understood, fall silent."""
        self.starts()
        self.wait(length_ms // 2)
        self.hears(text)
        self.wait(length_ms // 2)
        self.stops()

    def finishes(self, text: str) -> None:
        """The recogniser gives its last result."""
        self.hears(text, final=True)
        self.post(ev.RecognitionEnded(self.stream))

    def replies(
        self,
        number: int,
        text: str = "One two three four five six seven eight. ",
        length_ms: int = 4_000,
    ) -> None:
        self.post(ev.ReplyTextArrived(number, text))
        self.post(ev.ReplyTextEnded(number))
        for end_ms in range(100, length_ms + 1, 100):
            self.post(ev.SpeechSynthesized(number, 0, (b"x",), end_ms))
        self.post(ev.SentenceSynthesized(number, 0))
        self.post(ev.SpeechEnded(number))

    def plays(self, wait_ms: int, number: int = 1) -> None:
        """Let time pass while the socket takes what may leave."""
        until_ms = self.now_ms + wait_ms
        while self.now_ms < until_ms:
            for message in self.take(nt.ReplyAudio):
                self.post(ev.AudioSent(number, message.end_ms))
            self.wait(20)

    def take(self, kind: type[nt.ReplyAudio]) -> list[nt.ReplyAudio]:
        taken = [
            e.notice for e in self.effects if isinstance(e, ef.Send) and isinstance(e.notice, kind)
        ]
        self.effects = [
            e for e in self.effects if not (isinstance(e, ef.Send) and isinstance(e.notice, kind))
        ]
        return taken

    @property
    def commits(self) -> list[nt.TurnCommitted]:
        """The ends of the user's turns."""
        return [notice for notice in self.told if isinstance(notice, nt.TurnCommitted)]

    @property
    def interruptions(self) -> list[nt.Interrupted]:
        """How often the user's voice stopped a reply."""
        return [notice for notice in self.told if isinstance(notice, nt.Interrupted)]

    @property
    def told(self) -> list[nt.Notice]:
        return [effect.notice for effect in self.effects if isinstance(effect, ef.Send)]

    @property
    def asked(self) -> list[tuple[Message, ...]]:
        return [effect.messages for effect in self.effects if isinstance(effect, ef.StartReply)]


def a_reply_is_playing(detection: TurnDetection | None = None, *, by_voice: bool = True) -> Talk:
    talk = Talk(detection or TurnDetection(), by_voice=by_voice)
    talk.says("tell me a story please")
    talk.wait(600)
    talk.finishes("tell me a story please")
    talk.replies(1)
    talk.plays(1_000)
    assert talk.is_in(State.REPLYING)
    return talk


def test_a_pause_ends_the_turn_as_if_complete_had_been_sent() -> None:
    talk = Talk()
    talk.says("what time is it")
    assert talk.commits == []
    talk.wait(800)
    assert talk.commits == [nt.TurnCommitted(None, detected=True, item_id="item_1")]
    assert talk.is_in(State.TRANSCRIBING)
    talk.finishes("what time is it")
    assert talk.is_in(State.REPLYING)


def test_the_client_is_told_when_speech_starts_and_stops() -> None:
    talk = Talk()
    talk.says("hello")
    noticed = [message for message in talk.told if isinstance(message, nt.SpeechNoticed)]
    assert [message.started for message in noticed] == [True, False]


def test_recognition_begins_before_the_speech_that_was_noticed() -> None:
    talk = Talk()
    talk.wait(5_000)
    assert not any(isinstance(effect, ef.OpenRecognition) for effect in talk.effects), (
        "silence needs no recogniser"
    )
    talk.post(ev.SpeechStarted(4_600, 100))
    opened = [effect for effect in talk.effects if isinstance(effect, ef.OpenRecognition)]
    assert [effect.from_ms for effect in opened] == [4_600]


def test_speech_after_a_short_pause_belongs_to_the_same_turn() -> None:
    talk = Talk()
    talk.says("I want to go to")
    talk.wait(600)
    talk.starts()
    talk.wait(400)
    talk.hears("I want to go to Paris")
    talk.stops()
    talk.wait(3_000)
    talk.finishes("I want to go to Paris")
    assert [asked[-1]["content"] for asked in talk.asked] == ["I want to go to Paris"]
    assert len(talk.commits) == 1


def test_speech_during_the_reply_interrupts_it() -> None:
    talk = a_reply_is_playing()
    talk.starts()
    talk.wait(100)
    assert talk.interruptions == [], "too short to know"
    talk.wait(100)
    assert talk.interruptions == [nt.Interrupted()]
    assert isinstance(talk.told[-1], nt.TurnCompleted)
    assert talk.is_in(State.LISTENING)


def test_the_decision_takes_the_configured_time_from_the_onset() -> None:
    talk = a_reply_is_playing(TurnDetection(min_interruption_ms=300))
    onset_ms = talk.now_ms - 64
    talk.starts()
    while not talk.interruptions:
        talk.wait(1)
    assert talk.now_ms - onset_ms <= 300 + 1


def test_a_cough_does_not_interrupt_and_is_forgotten() -> None:
    talk = a_reply_is_playing()
    talk.starts()
    talk.wait(80)
    talk.stops()
    talk.plays(2_000)
    assert talk.interruptions == []
    assert any(isinstance(effect, ef.DropRecognition) for effect in talk.effects)
    assert talk.is_in(State.REPLYING, State.LISTENING)


def test_a_backchannel_does_not_interrupt_where_words_are_asked_for() -> None:
    talk = a_reply_is_playing(TurnDetection(min_interruption_words=1))
    talk.starts()
    talk.wait(200)
    talk.hears("mm hmm")
    talk.wait(150)
    talk.stops()
    talk.plays(1_000)
    assert talk.interruptions == []
    assert not any(
        isinstance(message, nt.Recognised) and "mm" in message.transcript.text
        for message in talk.told
    )


def test_words_interrupt_and_become_the_next_turn() -> None:
    talk = a_reply_is_playing(TurnDetection(min_interruption_words=1))
    talk.starts()
    talk.wait(250)
    talk.hears("no the other one")
    assert talk.interruptions
    talk.wait(200)
    talk.stops()
    talk.wait(2_000)
    talk.finishes("no the other one")
    asked = talk.asked[-1]
    assert asked[-1]["content"] == "no the other one"
    assert str(asked[-2]["content"]).startswith("One two"), "of the reply, what was heard"
    assert "eight" not in str(asked[-2]["content"])


def test_an_interruption_is_possible_until_the_audio_has_been_heard() -> None:
    talk = Talk()
    talk.says("hello there friend")
    talk.wait(800)
    talk.finishes("hello there friend")
    talk.replies(1, length_ms=1_400)  # all of it leaves at once: the lead is 1500 ms
    talk.plays(300)
    assert talk.is_in(State.LISTENING)
    talk.starts()
    talk.wait(300)
    assert talk.interruptions == [nt.Interrupted()]
    assert sum(isinstance(message, nt.TurnCompleted) for message in talk.told) == 1


def test_a_reply_that_the_socket_does_not_take_asks_for_no_time_and_is_still_to_be_heard() -> None:
    """Found by the promises: its end by the clock lay in the past, and the session
    asked for that time for ever.
    """
    talk = Talk()
    talk.says("hello there friend")
    talk.wait(800)
    talk.finishes("hello there friend")
    talk.replies(1, length_ms=1_400)
    assert talk.is_in(State.LISTENING)
    talk.wait(3_000)
    talk.plays(100)
    talk.starts()
    talk.wait(300)
    assert talk.interruptions == [nt.Interrupted()]


def test_with_interruptions_off_the_reply_is_heard_to_its_end_and_the_speech_is_the_next_turn() -> (
    None
):
    talk = a_reply_is_playing(TurnDetection(interrupt_response=False))
    talk.says("and then what happened")
    talk.plays(6_000)
    assert talk.interruptions == []
    talk.finishes("and then what happened")
    assert talk.asked[-1][-1]["content"] == "and then what happened"


@pytest.mark.parametrize("command", [cmd.Respond(), cmd.CommitTurn("typed")])
def test_words_during_which_the_client_asks_for_a_reply_are_the_next_turn(
    command: cmd.AnyCommand,
) -> None:
    talk = Talk()
    talk.starts()
    talk.wait(300)
    talk.hears("and then")
    talk.post(command)
    earlier = len(talk.commits)
    assert talk.is_in(State.REPLYING)
    talk.wait(300)
    talk.stops()
    talk.wait(3_000)
    assert len(talk.commits) == earlier
    talk.replies(1, length_ms=400)
    talk.plays(2_000)
    assert len(talk.commits) == earlier + 1
    talk.finishes("and then go home")
    assert talk.asked[-1][-1]["content"] == "and then go home"


def test_a_turn_without_an_answer_is_only_told() -> None:
    talk = Talk(TurnDetection(create_response=False))
    talk.says("just write this down")
    talk.wait(2_000)
    talk.finishes("just write this down")
    assert talk.asked == []
    assert sum(isinstance(message, nt.TurnCompleted) for message in talk.told) == 1
    assert talk.session.messages[-1]["content"] == "just write this down", "it is remembered"


def test_a_recording_that_is_sent_at_once_was_not_spoken_before_the_connection() -> None:
    talk = Talk()
    talk.now_ms = 100
    talk.post(ev.SpeechStarted(0, 3_000))
    talk.post(ev.SpeechStopped(2_000, 1_000))
    assert talk.session.deadline_ms() == 500


def test_a_turn_that_sounds_finished_ends_sooner_and_one_that_does_not_later() -> None:
    waited_ms = []
    for probability in (1.0, None, 0.0):
        talk = Talk()
        talk.says("go forward")
        if probability is not None:
            talk.post(ev.TurnJudged(probability))
        talk.hears("go forward ten meters")  # a late word changes nothing about the sound
        began_ms = talk.now_ms
        while not talk.commits:
            talk.wait(10)
        waited_ms.append(talk.now_ms - began_ms)
    finished, unknown, unfinished = waited_ms
    assert finished <= unknown - 150
    assert unfinished >= unknown + 500


def test_what_is_judged_while_the_reply_is_heard_says_nothing_about_a_turn() -> None:
    talk = a_reply_is_playing()
    talk.starts()
    talk.post(ev.TurnJudged(1.0))
    assert talk.is_in(State.REPLYING)


def test_a_reply_begun_early_is_told_only_when_the_turn_has_ended() -> None:
    talk = Talk()
    talk.says("what time is it")
    talk.wait(260)
    assert len(talk.asked) == 1, "begun within the silence"
    talk.post(ev.ReplyTextArrived(1, "It is noon. "))
    assert not any(isinstance(message, nt.ReplyText) for message in talk.told)
    talk.wait(600)
    talk.finishes("What time is it?")
    assert len(talk.asked) == 1, "the same words: the reply that was begun is used"
    texts = [message.text for message in talk.told if isinstance(message, nt.ReplyText)]
    assert texts == ["It is noon. "]
    facts = [effect.metric for effect in talk.effects if isinstance(effect, ef.RecordMetric)]
    assert [fact.used for fact in facts if isinstance(fact, ef.PreemptiveReplyEnded)] == [True]


def test_a_reply_begun_early_leaves_no_trace_when_the_user_goes_on() -> None:
    talk = Talk()
    talk.says("what time is it")
    talk.wait(260)
    talk.post(ev.ReplyTextArrived(1, "It is noon. "))
    talk.starts()
    assert any(isinstance(effect, ef.StopReply) for effect in talk.effects)
    talk.wait(300)
    talk.hears("what time is it in Paris")
    talk.stops()
    talk.wait(2_000)
    talk.finishes("what time is it in Paris")
    assert [asked[-1]["content"] for asked in talk.asked if len(asked) == 1][
        -1
    ] == "what time is it in Paris"
    assert all(len(asked) == 1 for asked in talk.asked), "nothing is remembered of what was dropped"
    assert not any(isinstance(message, nt.ReplyText) for message in talk.told)


def test_clearing_what_was_said_stops_the_reply_that_was_begun_early_to_it() -> None:
    talk = Talk()
    talk.says("tell me a story please")
    talk.wait(200)
    assert len(talk.asked) == 1
    assert ef.StopReply(1) in talk.post(cmd.ClearInput())


def outcomes_of_early_replies(talk: Talk) -> list[bool]:
    """Whether each reply that was begun early was used."""
    return [
        effect.metric.used
        for effect in talk.effects
        if isinstance(effect, ef.RecordMetric)
        and isinstance(effect.metric, ef.PreemptiveReplyEnded)
    ]


def test_no_reply_is_begun_on_words_that_were_recognised_during_speech() -> None:
    talk = Talk()
    talk.starts()
    talk.wait(800)
    talk.guesses("What is the capital of?", settled=False, shown="What is the capital")
    talk.stops()
    talk.wait(160)
    assert talk.asked == []
    talk.guesses("What is the capital of France?", settled=True, shown="What is the capital")
    assert [asked[-1]["content"] for asked in talk.asked] == ["What is the capital of France?"]
    talk.wait(800)
    talk.finishes("what is the capital of france")
    assert len(talk.asked) == 1
    assert outcomes_of_early_replies(talk) == [True]


def test_the_client_is_not_told_what_only_the_session_needs() -> None:
    talk = Talk()
    talk.starts()
    talk.guesses("What is?", settled=False)
    talk.guesses("What is the", settled=False, shown="What is")
    talk.guesses("What is the capital?", settled=True, shown="What is")
    told = [notice.transcript.text for notice in talk.told if isinstance(notice, nt.Recognised)]
    assert told == ["What is"]


def test_a_reply_that_was_begun_to_other_words_is_dropped_at_once_and_begun_again() -> None:
    talk = Talk()
    talk.says("turn on the light")
    talk.wait(260)
    assert len(talk.asked) == 1
    talk.hears("turn on the lights")
    assert outcomes_of_early_replies(talk) == [False]
    assert [asked[-1]["content"] for asked in talk.asked] == [
        "turn on the light",
        "turn on the lights",
    ]
    talk.post(ev.ReplyTextArrived(2, "They are on. "))
    talk.wait(800)
    talk.finishes("Turn on the lights.")
    assert outcomes_of_early_replies(talk) == [False, True]
    assert len(talk.asked) == 2


def prepared(effects: list[ef.Effect]) -> list[object]:
    """The last words of each prompt that the model is to process."""
    return [e.messages[-1]["content"] for e in effects if isinstance(e, ef.PrepareReply)]


def test_while_the_user_speaks_the_model_processes_what_is_known_of_the_prompt() -> None:
    talk = Talk(prepares=True)
    talk.starts()
    assert prepared(talk.guesses("What is?", settled=False)) == ["What is?"]
    assert prepared(talk.guesses("What is?", settled=False)) == [], "known already"
    assert prepared(talk.guesses("What is the", settled=False, shown="What is")) == ["What is the"]
    talk.post(ev.PressureChanged(True))
    assert prepared(talk.guesses("What is the capital", settled=False)) == []
    talk.post(ev.PressureChanged(False))
    talk.wait(800)
    talk.stops()
    assert prepared(talk.guesses("What is the capital", settled=False)) == [], "it is silent"
    talk.wait(200)
    begun = talk.guesses("What is the capital?", settled=True)
    assert [type(effect) for effect in begun] == [ef.StartReply], "the reply itself has begun"
    talk.wait(800)
    talk.finishes("What is the capital?")
    assert prepared(talk.effects) == ["What is?", "What is the"]


def test_a_prompt_is_prepared_when_the_client_ends_the_turns_too() -> None:
    session = Session(prepares_replies=True)
    (opened,) = [e for e in session.receive(AUDIO, 0) if isinstance(e, ef.OpenRecognition)]
    effects = session.receive(ev.Transcribed(opened.stream, Transcript("what is it", 0)), 600)
    assert prepared(effects) == ["what is it"]


def test_early_replies_stop_when_too_many_are_wasted() -> None:
    talk = Talk()
    for number in range(20):
        talk.starts()
        talk.wait(200)
        talk.hears("something else " * number + "entirely")
        talk.stops()
        talk.wait(280)
    wasted = [
        e
        for e in talk.effects
        if isinstance(e, ef.RecordMetric) and isinstance(e.metric, ef.PreemptiveReplyEnded)
    ]
    assert 1 <= len(wasted) <= 6


@pytest.mark.parametrize(("wasted", "begun"), [(0, 0), (1, 1)])
def test_whether_replies_are_begun_early_at_all_is_a_matter_of_configuration(
    wasted: int, begun: int
) -> None:
    talk = Talk(limits=SessionLimits(early_replies_wasted=wasted))
    talk.says("tell me a story please")
    talk.wait(200)
    assert len(talk.asked) == begun
    talk.wait(800)
    talk.finishes("tell me a story please")
    assert len(talk.asked) == 1, "when the turn is surely over"


def test_a_server_short_of_time_begins_no_reply_early_and_goes_on_with_those_begun() -> None:
    early = outcomes_of_early_replies
    talk = Talk()
    talk.says("tell me a story please")
    talk.wait(200)
    assert len(talk.asked) == 1
    talk.post(ev.PressureChanged(True))
    talk.wait(600)
    talk.finishes("tell me a story please")
    assert early(talk) == [True]
    pressed = Talk()
    pressed.post(ev.PressureChanged(True))
    pressed.says("tell me a story please")
    pressed.wait(200)
    assert pressed.asked == []
    pressed.wait(600)
    pressed.finishes("tell me a story please")
    assert len(pressed.asked) == 1, "the turn is answered at its end"
    assert early(pressed) == []
    eased = Talk()
    eased.post(ev.PressureChanged(True))
    eased.post(ev.PressureChanged(False))
    eased.says("tell me a story please")
    eased.wait(200)
    assert len(eased.asked) == 1


def test_what_was_said_before_a_turn_ended_too_early_is_not_lost() -> None:
    talk = Talk()
    talk.says("book a table for two")
    talk.wait(800)
    assert talk.is_in(State.TRANSCRIBING)
    talk.starts()
    talk.wait(250)
    talk.hears("at eight")
    assert talk.is_in(State.LISTENING)
    talk.stops()
    talk.wait(2_000)
    talk.finishes("at eight")
    assert talk.asked[-1][-1]["content"] == "book a table for two at eight"


def test_push_to_talk_still_works_hands_free() -> None:
    talk = Talk()
    talk.says("hello")
    talk.post(cmd.CommitTurn())
    talk.finishes("hello")
    assert talk.is_in(State.REPLYING)
    assert talk.commits == [nt.TurnCommitted(None, item_id="item_1")]


def test_a_user_who_interrupts_soon_is_not_taken_for_one_who_pauses_long() -> None:
    talk = Talk(TurnDetection(silence_duration_ms=200))
    talk.says("tell me")
    talk.wait(200)
    talk.finishes("tell me")
    talk.replies(1)
    talk.plays(1_000)
    talk.starts()
    talk.wait(800)
    assert any(isinstance(effect, ef.StopReply) for effect in talk.effects)
    talk.stops()
    talk.hears("stop that")
    talk.effects.clear()
    talk.wait(200)
    assert any(isinstance(effect, ef.FinishRecognition) for effect in talk.effects), (
        "the silence asked for is enough"
    )


@pytest.mark.parametrize("words_ms", [200, 1_000])
@pytest.mark.parametrize("sound", ["mm-hm", "嗯", ""])
def test_where_words_are_waited_for_a_sign_of_listening_or_a_cough_lets_the_reply_go_on(
    sound: str, words_ms: int
) -> None:
    talk = a_reply_is_playing(by_voice=False)
    talk.starts()
    talk.plays(min(words_ms, 700))
    if words_ms > 700:
        talk.stops()
        talk.plays(words_ms - 700)
    if sound:
        talk.hears(sound)
    if words_ms <= 700:
        talk.plays(200)
        talk.stops()
    talk.plays(6_000)
    assert talk.interruptions == []
    assert len(talk.asked) == 1, "and it is no turn of its own"


def test_where_words_are_waited_for_words_interrupt_at_once_and_a_long_sound_after_a_second() -> (
    None
):
    talk = a_reply_is_playing(by_voice=False)
    talk.starts()
    talk.wait(300)
    talk.hears("and tomorrow")
    assert talk.interruptions
    talk = a_reply_is_playing(by_voice=False)
    talk.starts()
    talk.wait(900)
    assert not talk.interruptions
    talk.wait(100)
    assert talk.interruptions


def test_a_user_who_was_cut_off_goes_on_without_a_word_being_needed() -> None:
    talk = Talk(TurnDetection(min_interruption_words=3), by_voice=False)
    talk.says("the problem is the lamp")
    talk.wait(600)
    talk.finishes("the problem is the lamp")
    assert talk.is_in(State.REPLYING)
    # Nothing of the answer has been heard: speech alone withdraws it.
    talk.starts()
    talk.wait(300)
    assert talk.interruptions
    talk.hears("in the kitchen please")
    talk.stops()
    talk.wait(600)
    talk.finishes("in the kitchen please")
    said = [message["content"] for message in talk.asked[-1] if message["role"] == "user"]
    assert said == ["the problem is the lamp", "in the kitchen please"]
    assert not any(message["role"] == "assistant" for message in talk.asked[-1])


def test_later_than_that_or_once_the_answer_is_heard_words_are_needed_again() -> None:
    detection = TurnDetection(min_interruption_words=3)
    late = Talk(detection, by_voice=False)
    late.says("tell me a story please")
    late.wait(600)
    late.finishes("tell me a story please")
    late.wait(2_500)
    heard = a_reply_is_playing(detection, by_voice=False)
    for talk in (late, heard):
        talk.starts()
        talk.wait(700)
        assert not talk.interruptions


def test_where_a_word_is_needed_a_sound_without_one_is_part_of_no_interruption() -> None:
    talk = a_reply_is_playing(TurnDetection(min_interruption_words=1))
    talk.starts()
    talk.plays(700)
    talk.stops()
    talk.plays(300)
    talk.hears("mm-hm")
    talk.plays(1_000)
    assert talk.interruptions == []


def a_turn_that_ended_in_a_sound(detection: TurnDetection) -> Talk:
    talk = Talk(detection)
    talk.starts()
    talk.wait(500)
    talk.hears("what time is it")
    talk.wait(6_000)
    assert talk.commits == [nt.TurnCommitted(None, detected=True, item_id="item_1")]
    talk.post(ev.Transcribed(1, Transcript("what time is it", 0, talk.now_ms)))
    talk.post(ev.RecognitionEnded(1))
    talk.replies(1)
    return talk


def test_a_turn_ends_although_its_sound_goes_on_and_only_words_interrupt_the_answer() -> None:
    talk = a_turn_that_ended_in_a_sound(TurnDetection())
    talk.plays(1_500)
    assert talk.interruptions == [], "the television goes on"
    talk.hears("stop it please")
    assert talk.interruptions, "and the user is heard over it"
    talk.stops()
    talk.wait(1_000)
    talk.finishes("stop it please")
    assert talk.asked[-1][-1]["content"] == "stop it please"


def test_a_sound_that_goes_on_interrupts_nothing_where_nothing_may_interrupt() -> None:
    talk = a_turn_that_ended_in_a_sound(TurnDetection(interrupt_response=False))
    talk.hears("stop it please")
    talk.stops()
    talk.plays(5_000)
    assert talk.interruptions == []
    talk.finishes("stop it please")
    assert talk.asked[-1][-1]["content"] == "stop it please"


def test_the_user_need_not_speak_while_a_long_answer_is_heard() -> None:
    talk = Talk()
    talk.says("tell me a story please")
    talk.wait(600)
    talk.finishes("tell me a story please")
    talk.replies(1, length_ms=90_000)
    for _ in range(90):
        talk.plays(1_000)
        talk.post(cmd.Alive())
    assert talk.is_in(State.LISTENING), "all of it has left, and the last of it is still heard"
    spoken_ms = talk.now_ms
    while not talk.is_in(State.CLOSED):
        talk.wait(100)
        talk.post(cmd.Alive())
    assert 60_000 <= talk.now_ms - spoken_ms <= 62_000


def test_the_user_has_a_minute_after_an_answer_that_leaves_faster_than_it_is_heard() -> None:
    """Without pacing a turn is completed long before its answer has been heard."""
    talk = Talk(None)  # type: ignore[arg-type]
    talk.post(AUDIO)
    talk.hears("tell me a story please")
    talk.post(cmd.CommitTurn())
    talk.post(ev.Transcribed(1, Transcript("tell me a story please", 0, 100)))
    talk.post(ev.RecognitionEnded(1))
    talk.replies(1, length_ms=100_000)
    for message in talk.take(nt.ReplyAudio):
        talk.post(ev.AudioSent(1, message.end_ms))
    assert talk.is_in(State.LISTENING)
    for _ in range(159):
        talk.wait(1_000)
        talk.post(cmd.Alive())
    assert talk.is_in(State.LISTENING)
    talk.wait(1_000)
    assert talk.is_in(State.CLOSED)


def test_the_minute_begins_when_an_answer_is_silenced() -> None:
    talk = Talk(None)  # type: ignore[arg-type]
    talk.post(cmd.CommitTurn("a story"))
    talk.replies(1, length_ms=100_000)
    for message in talk.take(nt.ReplyAudio):
        talk.post(ev.AudioSent(1, message.end_ms))
    for _ in range(70):
        talk.wait(1_000)
        talk.post(cmd.Alive())
    talk.post(cmd.Cancel())
    for _ in range(59):
        talk.wait(1_000)
        talk.post(cmd.Alive())
    assert talk.is_in(State.LISTENING)
    talk.wait(1_000)
    assert talk.is_in(State.CLOSED)


def test_a_turn_waits_for_the_audio_that_is_not_judged_yet() -> None:
    """A detector that is behind tells late that the user went on."""
    talk = Talk(detection=TurnDetection(silence_duration_ms=500))
    talk.starts()
    talk.hears("go on please")
    talk.wait(800)
    talk.post(ev.DetectionDelayed(700))
    talk.post(ev.SpeechStopped(talk.now_ms - 800, 800))
    talk.wait(150)
    assert not talk.commits, "700 ms of the 950 since the stop are not judged"
    talk.post(ev.SpeechStarted(talk.now_ms - 700, 700))
    talk.post(ev.DetectionDelayed(0))
    talk.hears("go on please and then")
    talk.wait(2_000)
    assert not talk.commits
    talk.hears("go on please and then stop")
    talk.stops()
    talk.wait(1_000)
    assert len(talk.commits) == 1


def test_a_turn_ends_as_soon_as_enough_silence_is_judged() -> None:
    talk = Talk(detection=TurnDetection(silence_duration_ms=500))
    talk.says("go on please")
    talk.post(ev.DetectionDelayed(10_000))
    talk.wait(3_000)
    assert not talk.commits
    talk.post(ev.DetectionDelayed(0))
    assert len(talk.commits) == 1
