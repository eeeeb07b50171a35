import pytest

from voicechat.errors import Fault
from voicechat.session.effects import FinishRecognition, OpenRecognition
from voicechat.session.events import RecognitionFailed
from voicechat.session.transcription_state import MAX_REPLACEMENTS, TranscriptionState
from voicechat.session.types import InputSettings, Transcript

SETTINGS = InputSettings()


def awaiting() -> TranscriptionState:
    """A turn has ended; the last result of stream 1 is awaited."""
    transcription = TranscriptionState()
    transcription.open_stream(SETTINGS, 0)
    transcription.add_result(1, Transcript("go", 0, 500), hold=False)
    transcription.add_result(1, Transcript("for", 500), hold=False)
    transcription.finish_utterance()
    return transcription


def replaced(
    transcription: TranscriptionState, *, retryable: bool = True, others_left: bool
) -> int:
    """Let whatever is awaited fail until it is not replaced any more; give how often it
    was.
    """
    for count in range(100):
        stream = count + 1
        failure = RecognitionFailed(stream, Fault.ASR_FAILED, "it failed", retryable, others_left)
        effects = transcription.replace_awaited(failure, SETTINGS)
        if not effects:
            return count
        assert effects == [
            OpenRecognition(stream + 1, SETTINGS, stream),
            FinishRecognition(stream + 1),
        ]
    raise AssertionError("it has no bound")


@pytest.mark.parametrize(
    ("retryable", "others_left", "times"),
    [(True, False, 1), (True, True, MAX_REPLACEMENTS), (False, False, 0), (False, True, 0)],
)
def test_an_awaited_stream_is_replaced_once_and_again_while_others_are_left(
    retryable: bool, others_left: bool, times: int
) -> None:
    assert replaced(awaiting(), retryable=retryable, others_left=others_left) == times


def test_the_last_one_that_is_left_is_not_asked_twice() -> None:
    transcription = awaiting()
    left, none_left = (
        RecognitionFailed(1, Fault.ASR_FAILED, "it failed", True, left) for left in (True, False)
    )
    assert transcription.replace_awaited(left, SETTINGS)
    assert not transcription.replace_awaited(none_left, SETTINGS)


def test_a_replacement_says_again_what_was_not_final() -> None:
    transcription = awaiting()
    transcription.replace_awaited(
        RecognitionFailed(1, Fault.ASR_FAILED, "it failed", True), SETTINGS
    )
    assert transcription.awaited is not None
    assert transcription.awaited.text == "go"


def test_each_turn_has_its_own_replacements() -> None:
    transcription = awaiting()
    assert replaced(transcription, others_left=False) == 1
    transcription.take_awaited_text()
    transcription.open_stream(SETTINGS, 0)
    transcription.finish_utterance()
    assert transcription.replace_awaited(
        RecognitionFailed(3, Fault.ASR_FAILED, "it failed", True), SETTINGS
    )
