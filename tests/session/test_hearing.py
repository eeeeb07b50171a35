import pytest

from voicechat.errors import Fault
from voicechat.session.effects import FinishRecognition, OpenRecognition
from voicechat.session.events import RecognitionFailed
from voicechat.session.hearing import MAX_REPLACEMENTS, Hearing
from voicechat.session.vocabulary import InputSettings, Transcript

SETTINGS = InputSettings()


def awaiting() -> Hearing:
    """A turn has ended; the last result of stream 1 is awaited."""
    hearing = Hearing()
    hearing.open(SETTINGS, 0)
    hearing.take(1, Transcript("go", 0, 500), hold=False)
    hearing.take(1, Transcript("for", 500), hold=False)
    hearing.finish()
    return hearing


def replaced(hearing: Hearing, *, retryable: bool = True, others_left: bool) -> int:
    """Let whatever is awaited fail until it is not replaced any more; give how often it
    was.
    """
    for count in range(100):
        stream = count + 1
        failure = RecognitionFailed(stream, Fault.ASR_FAILED, "it failed", retryable, others_left)
        effects = hearing.replace_awaited(failure, SETTINGS)
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
    hearing = awaiting()
    left, none_left = (
        RecognitionFailed(1, Fault.ASR_FAILED, "it failed", True, left) for left in (True, False)
    )
    assert hearing.replace_awaited(left, SETTINGS)
    assert not hearing.replace_awaited(none_left, SETTINGS)


def test_a_replacement_says_again_what_was_not_final() -> None:
    hearing = awaiting()
    hearing.replace_awaited(RecognitionFailed(1, Fault.ASR_FAILED, "it failed", True), SETTINGS)
    assert hearing.awaited is not None
    assert hearing.awaited.text == "go"


def test_each_turn_has_its_own_replacements() -> None:
    hearing = awaiting()
    assert replaced(hearing, others_left=False) == 1
    hearing.settle()
    hearing.open(SETTINGS, 0)
    hearing.finish()
    assert hearing.replace_awaited(
        RecognitionFailed(3, Fault.ASR_FAILED, "it failed", True), SETTINGS
    )
