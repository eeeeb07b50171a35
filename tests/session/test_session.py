"""Single promises of the kernel that are easier to read as an example than as a
property.
"""

import sys

from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.states import State
from voicechat.session.types import InputSettings, Message, Settings, Transcript

AUDIO = ev.AudioStarted()


def told(effects: list[ef.Effect]) -> list[nt.Notice]:
    return [effect.notice for effect in effects if isinstance(effect, ef.Send)]


def replying(
    number: int = 1, session: Session | None = None, at_ms: int = 0, lead_ms: int | None = None
) -> Session:
    """A session whose reply ``number`` has just been asked for."""
    session = session or Session(Settings(lead_ms=lead_ms))
    session.receive(AUDIO, at_ms)
    session.receive(ev.Transcribed(number, Transcript("go on", 0, 100)), at_ms)
    session.receive(cmd.CommitTurn(), at_ms)
    session.receive(ev.RecognitionEnded(number), at_ms)
    assert session.state is State.REPLYING
    return session


def audio(number: int, end_ms: int, sentence: int = 0) -> ev.SpeechSynthesized:
    return ev.SpeechSynthesized(number, sentence, (b"x",), end_ms)


def finish(session: Session, number: int, at_ms: int, sentences: int = 1) -> None:
    session.receive(ev.ReplyTextEnded(number), at_ms)
    for sentence in range(sentences):
        session.receive(ev.SentenceSynthesized(number, sentence), at_ms)
    session.receive(ev.SpeechEnded(number), at_ms)
    assert session.state is State.LISTENING


def test_a_stale_playback_report_does_not_touch_the_running_reply() -> None:
    session = replying(1)
    session.receive(ev.ReplyTextArrived(1, "Well then. "), 0)
    session.receive(audio(1, 1_000), 0)
    finish(session, 1, 10)
    replying(2, session, at_ms=20)
    session.receive(
        ev.ReplyTextArrived(2, "One two three four five six seven eight nine ten. "), 20
    )
    session.receive(audio(2, 5_000), 20)
    session.receive(ev.AudioSent(2, 5_000), 20)
    session.receive(cmd.Played(1, 1_000), 4_020)
    session.receive(ev.AudioSent(1, 1_000), 4_020)
    session.receive(cmd.Cancel(), 4_020)
    asked = replying_messages(session, 3, 5_000)
    assert str(asked[3]["content"]).startswith("One two three four five six"), (
        "4 of 5 seconds were heard"
    )


def replying_messages(session: Session, stream: int, at_ms: int) -> tuple[Message, ...]:
    session.receive(AUDIO, at_ms)
    session.receive(ev.Transcribed(stream, Transcript("next", 0, 100)), at_ms)
    session.receive(cmd.CommitTurn(), at_ms)
    effects = session.receive(ev.RecognitionEnded(stream), at_ms)
    return next(effect.messages for effect in effects if isinstance(effect, ef.StartReply))


def test_text_that_waits_too_long_is_spoken_as_it_stands() -> None:
    session = replying()
    assert not spoken(
        session.receive(ev.ReplyTextArrived(1, "Well let me think about this for"), 100)
    )
    due_ms = session.deadline_ms()
    assert due_ms == 100 + SessionLimits().speakable_wait_ms
    assert spoken(session.receive(ev.Ticked(), due_ms))
    assert session.deadline_ms() != due_ms


def test_text_does_not_hurry_while_speech_is_still_playing() -> None:
    session = replying()
    session.receive(ev.ReplyTextArrived(1, "A first sentence. And then"), 0)
    session.receive(audio(1, 4_000), 0)
    session.receive(ev.AudioSent(1, 4_000), 0)
    session.receive(ev.SentenceSynthesized(1, 0), 0)
    due_ms = session.deadline_ms()
    assert due_ms is not None
    assert 3_000 <= due_ms < 4_000, "shortly before the listener falls into silence"


def spoken(effects: list[ef.Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, ef.Speak)]


def test_paced_audio_is_let_go_by_the_clock_and_by_reports() -> None:
    session = replying(lead_ms=500)
    session.receive(ev.ReplyTextArrived(1, "A first sentence. "), 0)
    left: list[int] = []
    for end_ms in range(100, 2_001, 100):
        left += ends(session.receive(audio(1, end_ms), 0))
    assert left == [100, 200, 300, 400, 500]
    session.receive(ev.AudioSent(1, 500), 0)
    assert session.deadline_ms() == 100
    assert ends(session.receive(ev.Ticked(), 100)) == [600]
    session.receive(ev.AudioSent(1, 600), 100)
    assert ends(session.receive(cmd.Played(1, 400), 100)) == [700, 800, 900]
    assert session.held_ms > 0


def test_a_stopped_reply_keeps_no_audio() -> None:
    session, packet = replying(lead_ms=200), bytes(3_200)
    kept = sys.getrefcount(packet)
    session.receive(ev.ReplyTextArrived(1, "A first sentence. "), 0)
    for end_ms in range(100, 5_001, 100):
        session.receive(ev.SpeechSynthesized(1, 0, (packet,), end_ms), 0)
    assert sys.getrefcount(packet) > kept
    session.receive(ev.AudioSent(1, 200), 0)
    session.receive(cmd.Cancel(), 100)
    assert sys.getrefcount(packet) == kept


def ends(effects: list[ef.Effect]) -> list[int]:
    return [message.end_ms for message in told(effects) if isinstance(message, nt.ReplyAudio)]


def test_a_paced_reply_is_completed_only_when_its_last_audio_has_left() -> None:
    session = replying(lead_ms=200)
    session.receive(ev.ReplyTextArrived(1, "A first sentence. "), 0)
    for end_ms in (200, 400):
        session.receive(audio(1, end_ms), 0)
    session.receive(ev.AudioSent(1, 200), 0)
    session.receive(ev.ReplyTextEnded(1), 0)
    session.receive(ev.SentenceSynthesized(1, 0), 0)
    session.receive(ev.SpeechEnded(1), 0)
    assert session.state is State.REPLYING
    assert session.deadline_ms() == 200
    last = told(session.receive(ev.Ticked(), 200))
    assert [type(message) for message in last] == [
        nt.ReplyAudio,
        nt.ReplyAudioFinished,
        nt.ReplyEnded,
        nt.TurnCompleted,
    ]


def test_clearing_the_conversation_while_the_turn_is_transcribed_forgets_that_turn_too() -> None:
    session = Session()
    session.receive(AUDIO, 0)
    session.receive(ev.Transcribed(1, Transcript("secret", 0, 100)), 0)
    session.receive(cmd.CommitTurn(), 0)
    session.receive(cmd.ClearHistory(), 0)
    session.receive(ev.RecognitionEnded(1), 0)
    session.receive(ev.ReplyTextArrived(1, "Noted. "), 0)
    session.receive(audio(1, 100), 0)
    finish(session, 1, 10)
    assert [message["content"] for message in replying_messages(session, 2, 20)] == ["next"]


def test_a_recogniser_that_fails_again_and_again_is_left_alone_for_a_while() -> None:
    session = Session()
    opened: list[int] = []
    for at_ms in range(0, 3_000, 100):
        effects = session.receive(AUDIO, at_ms)
        while (
            stream := next((e.stream for e in effects if isinstance(e, ef.OpenRecognition)), None)
        ) is not None:
            opened.append(at_ms)
            effects = session.receive(
                ev.RecognitionFailed(stream, Fault.ASR_FAILED, "it failed", True), at_ms
            )
    assert opened == [0, 0, 0, 1_000, 2_000]


def test_audio_at_fault_is_not_fed_again() -> None:
    session = Session()
    session.receive(AUDIO, 0)
    effects = session.receive(ev.RecognitionFailed(1, Fault.UNDECODABLE_AUDIO, "no audio"), 0)
    assert not any(isinstance(effect, ef.OpenRecognition) for effect in effects)


def test_events_of_a_reply_that_is_over_change_nothing() -> None:
    session = replying()
    session.receive(ev.ReplyTextArrived(1, "A first sentence. "), 0)
    session.receive(cmd.Cancel(), 10)
    replying(2, session, at_ms=20)
    dropped = [ef.RecordMetric(ef.StaleDropped(ef.StaleKind.REPLY))]
    for late in (
        ev.ReplyTextArrived(1, "More. "),
        audio(1, 100),
        ev.SentenceSynthesized(1, 0),
        ev.ReplyTextEnded(1),
        ev.SpeechEnded(1),
        ev.ReplyFailed(1, Fault.LLM_FAILED, "it failed"),
    ):
        assert session.receive(late, 30) == dropped
    assert session.state is State.REPLYING


def test_results_of_a_stream_that_is_over_change_nothing() -> None:
    session = Session()
    session.receive(AUDIO, 0)
    session.receive(cmd.ClearInput(), 10)
    session.receive(AUDIO, 20)
    session.receive(ev.Transcribed(2, Transcript("new", 0, 100)), 30)
    dropped = [ef.RecordMetric(ef.StaleDropped(ef.StaleKind.STREAM))]
    for late in (
        ev.Transcribed(1, Transcript("old", 0, 100)),
        ev.RecognitionFailed(1, Fault.ASR_FAILED, "it failed"),
        ev.RecognitionEnded(1),
    ):
        assert session.receive(late, 40) == dropped
    session.receive(cmd.CommitTurn(), 50)
    said = [
        n for n in told(session.receive(ev.RecognitionEnded(2), 60)) if isinstance(n, nt.UserSaid)
    ]
    assert [notice.item.message["content"] for notice in said] == ["new"]


def test_what_a_client_has_stopped_playing_is_neither_heard_later_nor_cut_again() -> None:
    session = replying()
    session.receive(ev.ReplyTextArrived(1, "One two three four five six seven eight. "), 0)
    session.receive(audio(1, 4_000), 0)
    session.receive(ev.AudioSent(1, 4_000), 0)
    finish(session, 1, 10)
    [cut, _] = told(session.receive(cmd.TruncateReply(1, 1_000), 1_200))
    assert isinstance(cut, nt.ReplyCut)
    asked = replying_messages(session, 2, 3_500)
    assert asked[1] == {"role": "assistant", "content": cut.heard}
    assert cut.heard.startswith("One two")
    assert "eight" not in cut.heard


def test_a_clock_that_goes_back_counts_as_standing_still() -> None:
    session = replying()
    session.receive(ev.ReplyTextArrived(1, "One two three four five six seven eight. "), 1_000)
    session.receive(audio(1, 4_000), 1_000)
    session.receive(ev.AudioSent(1, 4_000), 1_000)
    session.receive(ev.Ticked(), 3_000)
    [cut] = [n for n in told(session.receive(cmd.Cancel(), 1_000)) if isinstance(n, nt.ReplyCut)]
    assert cut.heard.startswith("One two three"), "2 of 4 seconds were heard"


def test_a_client_that_sends_nothing_is_absent() -> None:
    session = Session()
    session.receive(ev.Opened(), 0)
    due_ms = session.deadline_ms()
    assert due_ms == SessionLimits().idle_ms
    assert told(session.receive(ev.Ticked(), due_ms - 1)) == []
    [ended] = told(session.receive(ev.Ticked(), due_ms))
    assert isinstance(ended, nt.Ended)
    assert ended.ending is nt.Ending.ABSENT
    assert session.state is State.CLOSED


def test_audio_counts_as_a_sign_of_life_unless_the_dialect_says_otherwise() -> None:
    settings = Settings(input=InputSettings(silence_allowed=True))
    for counts, due_ms in ((True, 90_000), (False, 60_000)):
        session = Session(settings, audio_shows_life=counts)
        session.receive(ev.Opened(), 0)
        session.receive(AUDIO, 30_000)
        assert session.deadline_ms() == due_ms
        session.receive(cmd.Alive(), 55_000)
        assert session.deadline_ms() == 115_000


def test_a_dialect_that_gives_its_client_up_ends_the_turn_and_the_session() -> None:
    session = replying()
    effects = session.receive(cmd.Leave("no sense in it", cause="mine"), 10)
    ended = nt.Ended(nt.Ending.VIOLATION, "no sense in it", cause="mine")
    assert told(effects)[-2:] == [nt.TurnCompleted(nt.Outcome.FAILED), ended]
    assert ef.Close(ended) in effects
    assert session.state is State.CLOSED
    assert session.receive(cmd.Alive(), 11) == []


def test_audio_that_is_skipped_before_any_was_recognised_says_how_it_was_declared() -> None:
    """The turn began with a typed message; the decoder that is opened now serves the
    whole connection.
    """
    settings = Settings(input=InputSettings(format="mp3"), half_duplex=True)
    session = Session(settings)
    effects = session.receive(cmd.CommitTurn("hello"), 0)
    routes = [effect for effect in effects if isinstance(effect, ef.RouteAudio)]
    assert routes == [ef.RouteAudio(ef.Route.SKIP, settings.input)]


def test_an_announced_drain_is_reported_at_any_moment_and_changes_nothing() -> None:
    opened, listening, busy, over = Session(), Session(), replying(), Session()
    listening.receive(AUDIO, 0)
    over.receive(ev.Disconnected(), 0)
    for session in (opened, listening, busy):
        before = (session.state, session.deadline_ms())
        effects = session.receive(ev.DrainAnnounced(30_000), 0)
        assert effects == [ef.Send(nt.GoingAway(30_000))]
        assert (session.state, session.deadline_ms()) == before
    assert over.receive(ev.DrainAnnounced(30_000), 0) == []
