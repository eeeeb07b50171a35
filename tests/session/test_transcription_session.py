from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.limits import SessionLimits
from voicechat.session.transcription_session import TranscriptionSession
from voicechat.session.types import InputSettings, Transcript

AUDIO = ev.AudioStarted()


def routed(route: ef.Route, stream: int = 0) -> ef.RouteAudio:
    return ef.RouteAudio(route, InputSettings(), stream)


FINAL = Transcript("hello", 0, 100)


def closed(effects: list[ef.Effect]) -> list[nt.Ending]:
    return [effect.ended.ending for effect in effects if isinstance(effect, ef.Close)]


def test_finishing_brings_the_last_result_and_then_the_end() -> None:
    dictation = TranscriptionSession()
    dictation.receive(ev.Opened(), 0)
    dictation.receive(AUDIO, 0)
    assert dictation.receive(cmd.Finish(), 10) == [ef.FinishRecognition(1), routed(ef.Route.DROP)]
    assert dictation.receive(AUDIO, 11) == [], "audio after the end is too late"
    assert dictation.receive(ev.Transcribed(1, FINAL), 20) == [ef.Send(nt.Recognised(FINAL))]
    assert closed(dictation.receive(ev.RecognitionEnded(1), 21)) == [nt.Ending.FINISHED]
    assert dictation.deadline_ms() is None
    assert dictation.receive(AUDIO, 22) == []


def test_finishing_without_audio_closes_at_once() -> None:
    assert closed(TranscriptionSession().receive(cmd.Finish(), 0)) == [nt.Ending.FINISHED]


def test_a_recogniser_that_never_finishes_is_not_waited_for() -> None:
    dictation = TranscriptionSession()
    dictation.receive(AUDIO, 0)
    dictation.receive(cmd.Finish(), 0)
    due_ms = dictation.deadline_ms()
    assert due_ms == SessionLimits().transcript_ms
    dictation.receive(ev.RecognitionDelayed(1, 5_000), 0)
    assert dictation.deadline_ms() == due_ms + 5_000
    dictation.receive(ev.RecognitionDelayed(2, 9_000), 0)
    assert dictation.deadline_ms() == due_ms + 5_000, "of another stream"
    due_ms += 5_000
    assert closed(dictation.receive(ev.Ticked(), due_ms)) == [nt.Ending.FAULT]


def test_silence_ends_it_unless_it_is_allowed() -> None:
    for allowed in (False, True):
        dictation = TranscriptionSession(InputSettings(silence_allowed=allowed))
        dictation.receive(ev.Opened(), 0)
        now_ms = 0
        endings: list[nt.Ending] = []
        while now_ms < 120_000 and not endings:
            now_ms += 100
            endings += closed(dictation.receive(AUDIO, now_ms))
            due_ms = dictation.deadline_ms()
            if due_ms is not None and now_ms >= due_ms:
                endings += closed(dictation.receive(ev.Ticked(), now_ms))
        assert endings == ([] if allowed else [nt.Ending.ABSENT])


def test_a_failed_recogniser_is_replaced_and_told_to_finish_when_the_client_has() -> None:
    dictation = TranscriptionSession()
    dictation.receive(AUDIO, 0)
    again = dictation.receive(ev.RecognitionFailed(1, Fault.ASR_FAILED, "it failed", True), 1)
    assert again == [ef.OpenRecognition(2, InputSettings(), 1), routed(ef.Route.RECOGNISE, 2)]
    dictation.receive(cmd.Finish(), 2)
    again = dictation.receive(ev.RecognitionFailed(2, Fault.ASR_FAILED, "it failed", True), 3)
    assert again == [ef.OpenRecognition(3, InputSettings(), 2), ef.FinishRecognition(3)]
    failed = ev.RecognitionFailed(3, Fault.ASR_FAILED, "it failed", True)
    assert closed(dictation.receive(failed, 4)) == [nt.Ending.FAULT]


def test_undecodable_audio_is_the_clients_fault() -> None:
    dictation = TranscriptionSession()
    dictation.receive(AUDIO, 0)
    effects = dictation.receive(
        ev.RecognitionFailed(1, Fault.UNDECODABLE_AUDIO, "wav: no audio"), 1
    )
    assert closed(effects) == [nt.Ending.AUDIO]


def test_late_results_are_dropped_and_counted() -> None:
    dictation = TranscriptionSession()
    dictation.receive(AUDIO, 0)
    assert dictation.receive(ev.Transcribed(9, FINAL), 0) == [
        ef.RecordMetric(ef.StaleDropped(ef.StaleKind.STREAM))
    ]


def test_pressure_ends_nothing_and_is_no_message_of_the_client() -> None:
    dictation = TranscriptionSession(InputSettings(silence_allowed=True))
    dictation.receive(AUDIO, 0)
    deadline_ms = dictation.deadline_ms()
    assert dictation.receive(ev.PressureChanged(True), 5_000) == []
    assert dictation.deadline_ms() == deadline_ms


def test_an_announced_drain_is_reported_and_ends_nothing() -> None:
    dictation = TranscriptionSession()
    dictation.receive(AUDIO, 0)
    assert dictation.receive(ev.DrainAnnounced(30_000), 1) == [ef.Send(nt.GoingAway(30_000))]
    assert dictation.receive(ev.DrainRequested(30_000), 1) != []
    assert dictation.receive(ev.DrainAnnounced(1), 2) == []


def test_everything_that_ends_it_drops_its_stream() -> None:
    ends: list[tuple[ev.Event, list[nt.Ending]]] = [
        (ev.WriteStalled("slow"), [nt.Ending.NOT_READING]),
        (ev.AccessEnded(Fault.NOT_AUTHORISED, "token: revoked"), [nt.Ending.ACCESS]),
        (ev.Faulted(), [nt.Ending.FAULT]),
        (ev.DrainRequested(5_000), [nt.Ending.RESTART]),
        (ev.Disconnected(), []),
    ]
    for event, ending in ends:
        dictation = TranscriptionSession()
        dictation.receive(AUDIO, 0)
        effects = dictation.receive(event, 1)
        assert ef.DropRecognition(1) in effects
        assert closed(effects) == ending
