"""Where the time of an answer went: the arithmetic, and what the session tells of real
turns.
"""

from hypothesis import given
from hypothesis import strategies as st

from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.latency_breakdown import LatencyBreakdown, Stage, break_down_latency
from voicechat.session.session import Session
from voicechat.session.types import Settings, Transcript, TurnDetection

TIMES = st.none() | st.integers(0, 10_000)


@given(began_ms=st.integers(0, 10_000), ends_ms=st.dictionaries(st.sampled_from(Stage), TIMES))
def test_the_stages_add_up_to_the_whole_whatever_their_order(
    began_ms: int, ends_ms: dict[Stage, int | None]
) -> None:
    known_ms = [end_ms for end_ms in ends_ms.values() if end_ms is not None]
    made = break_down_latency(began_ms, ends_ms)
    assert list(made.stages_ms) == list(Stage)
    assert all(length_ms >= 0 for length_ms in made.stages_ms.values())
    assert made.total_ms == max([began_ms, *known_ms]) - began_ms


def timed(effects: list[ef.Effect]) -> list[LatencyBreakdown]:
    facts = [effect.metric for effect in effects if isinstance(effect, ef.RecordMetric)]
    return [fact.breakdown for fact in facts if isinstance(fact, ef.TurnTimed)]


class Talk:
    def __init__(self, settings: Settings) -> None:
        self.session = Session()
        self.effects: list[ef.Effect] = []
        self.post(0, cmd.Configure(settings), ev.AudioStarted())

    def post(self, at_ms: int, *events: ev.Event) -> None:
        for event in events:
            self.effects += self.session.receive(event, at_ms)

    def replies(self, number: int, at_ms: int) -> None:
        """Text after 100 ms, its sentence whole after 150, audio after 200, sent after
        203.
        """
        self.post(at_ms + 100, ev.ReplyTextArrived(number, "Good"))
        self.post(at_ms + 150, ev.ReplyTextArrived(number, " morning. "))
        self.post(at_ms + 200, ev.SpeechSynthesized(number, 0, (b"x",), 100))
        self.post(at_ms + 203, ev.AudioSent(number, 100))
        self.post(
            at_ms + 210, ev.SpeechSynthesized(number, 0, (b"x",), 200), ev.AudioSent(number, 200)
        )


def a_spoken_turn(settings: Settings) -> Talk:
    talk = Talk(settings)
    talk.post(1_000, cmd.CommitTurn())
    talk.post(1_040, ev.Transcribed(1, Transcript("hello", 0, 900)), ev.RecognitionEnded(1))
    talk.replies(1, 1_040)
    return talk


def test_a_turn_that_the_client_ended_begins_with_its_complete() -> None:
    assert [list(made.stages_ms.values()) for made in timed(a_spoken_turn(Settings()).effects)] == [
        [0, 40, 100, 50, 50, 3]
    ]


def test_the_latency_of_a_reply_is_told_with_its_first_audio() -> None:
    effects = a_spoken_turn(Settings()).effects
    told = [effect.notice for effect in effects if isinstance(effect, ef.Send)]
    latencies = [notice for notice in told if isinstance(notice, nt.LatencyMeasured)]
    assert [(notice.reply, notice.breakdown.total_ms) for notice in latencies] == [(1, 243)]


def test_hands_free_the_wait_begins_where_the_speech_ended() -> None:
    talk = Talk(Settings(turn_detection=TurnDetection(silence_duration_ms=500)))
    talk.post(500, ev.SpeechStarted(400, 64))
    talk.post(1_500, ev.Transcribed(1, Transcript("hello there", 0, None)))
    talk.post(1_600, ev.SpeechStopped(1_500, 100))
    decided_ms = None
    while decided_ms is None:
        due_ms = talk.session.deadline_ms()
        assert due_ms is not None
        talk.post(due_ms, ev.Ticked())
        if any(isinstance(effect, ef.FinishRecognition) for effect in talk.effects):
            decided_ms = due_ms
    started = [effect for effect in talk.effects if isinstance(effect, ef.StartReply)]
    talk.post(
        decided_ms + 20,
        ev.Transcribed(1, Transcript("hello there", 0, 900)),
        ev.RecognitionEnded(1),
    )
    if not started:
        talk.replies(1, decided_ms + 20)
    else:  # begun early: its text was there before the turn was over
        talk.post(decided_ms + 30, ev.ReplyTextArrived(1, "Good morning. "))
        talk.post(decided_ms + 40, ev.SpeechSynthesized(1, 0, (b"x",), 100), ev.AudioSent(1, 100))
    (made,) = timed(talk.effects)
    assert made.stages_ms[Stage.DECISION] == decided_ms - 1_500
    assert made.stages_ms[Stage.TRANSCRIPT] == 20


def test_a_typed_turn_waits_for_nobody_to_fall_silent() -> None:
    talk = Talk(Settings(turn_detection=TurnDetection()))
    talk.post(500, ev.SpeechStarted(400, 64))
    talk.post(900, ev.SpeechStopped(800, 100), cmd.ClearInput())
    talk.post(60_000, cmd.CommitTurn("hello"))
    talk.replies(1, 60_000)
    assert [made.total_ms for made in timed(talk.effects)] == [203]


def test_a_reply_that_was_stopped_before_it_was_heard_has_no_latency() -> None:
    talk = Talk(Settings())
    talk.post(100, cmd.CommitTurn("hello"))
    talk.post(200, ev.ReplyTextArrived(1, "Good morning. "), cmd.Cancel(), ev.AudioSent(1, 100))
    assert timed(talk.effects) == []
