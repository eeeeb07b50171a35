from collections.abc import AsyncIterator

import pytest

from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.timed_words import timed_words
from voicechat.runtime.annotation_filter import AnnotationFilter
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.recognition import RecognitionChain
from voicechat.session.types import Transcript, Word
from voicechat.text.words import join


def heard(text: str, *, final: bool = True) -> Transcript:
    words = timed_words(text, (), 1_000)
    return Transcript(text, 0, 1_000 if final else None, words or (Word(text, 0, 1_000),))


def texts(transcript: Transcript | None) -> tuple[str, str]:
    """The text, and the same put together from the words."""
    if transcript is None:
        return "", ""
    return transcript.text, join(word.text + word.punctuation for word in transcript.words)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[BLANK_AUDIO]",
            "(coughing)",
            "[Music]",
            " [ Silence ] ",
            "♪♪",
            "- [Music]",
            "*coughs*",
            "**sighs**",
        ),
        *(
            "♪ la la la ♪",
            "<|nospeech|><|zh|>",
            "<noise>",
            "[noise] [laughter].",
            "（音乐）",
            "【掌声】",
            "++UM++",
        ),
        *(
            "((unintelligible))",
            "{breath}",
            "[MUSIC PLAYING] (door slams, a dog barks somewhere)",
            "[Music",
        ),
        "< silence >",
        *("(speaking in a foreign language)", ".", "...", "", "。", "？"),
    ],
)
@pytest.mark.parametrize("final", [True, False])
def test_a_text_without_a_word_that_was_said_is_nothing(text: str, final: bool) -> None:
    assert AnnotationFilter().filter_transcript(heard(text, final=final)) is None


@pytest.mark.parametrize(
    "text",
    [
        "Subtitles by the Amara.org community",
        " Untertitel der Amara.org-Community",
        "Sous-titrage ST' 501",
        "Субтитры сделал DimaTorzok",
        "字幕志愿者 李宗盛",
        "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
    ],
)
def test_the_credits_of_films_are_nothing(text: str) -> None:
    assert AnnotationFilter().filter_transcript(heard(text)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Music] Hello there.", "Hello there."),
        ("Hello (coughing) there.", "Hello there."),
        ("Hello there (laughs).", "Hello there."),
        ("- [door slams] Yes.", "Yes."),
        ("好的（笑声）谢谢", "好的谢谢"),
        ("<|zh|><|NEUTRAL|><|Speech|>你好。", "你好。"),
        ("Go forward. ♪♪", "Go forward."),
        ("*coughs* Go on", "Go on"),
        ("Go on [inaudible", "Go on"),
    ],
)
def test_words_beside_an_annotation_stay_without_it(text: str, said: str) -> None:
    assert texts(AnnotationFilter().filter_transcript(heard(text))) == (said, said)


@pytest.mark.parametrize(
    "text",
    [
        "Call (555) 123-4567.",
        "f(x) is 2*3*4",
        "He said (and I was there with him too) yes",
        "a < b",
        "Hello, world!",
        "你好（请问您是不是张先生本人）吗",
    ],
)
def test_what_may_have_been_said_stays(text: str) -> None:
    transcript = heard(text)
    assert AnnotationFilter().filter_transcript(transcript) == transcript


def test_the_first_word_says_when_the_sentence_began() -> None:
    words = (Word("[Music", 0, 400, "]"), Word("Hello", 500, 900, "."))
    said = AnnotationFilter().filter_transcript(Transcript("[Music] Hello.", 0, 900, words))
    assert said == Transcript("Hello.", 500, 900, (Word("Hello", 500, 900, "."),))


def test_a_sentence_that_was_shown_is_closed_although_only_a_note_is_left_of_it() -> None:
    unannotated = AnnotationFilter()
    assert unannotated.filter_transcript(heard("(cough", final=False)) is None
    assert texts(unannotated.filter_transcript(heard("Hello", final=False))) == ("Hello", "Hello")
    final = unannotated.filter_transcript(heard("[Music]"))
    assert final is not None
    assert (final.text, final.end_ms, final.words[0].fixed) == ("Hello", 1_000, True)
    assert unannotated.filter_transcript(heard("[Music]")) is None


class Writing:
    """A recogniser that writes these texts whatever it hears."""

    def __init__(self, *written: str) -> None:
        self.written = written

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        async for _ in audio:
            pass
        for text in self.written:
            yield heard(text)


async def test_every_recogniser_is_heard_without_its_notes() -> None:
    async def audio() -> AsyncIterator[bytes]:
        yield bytes(3200)

    chain = RecognitionChain(
        [ChainLink("asr.default", Writing("[BLANK_AUDIO]", "(coughs) Hello", "."))], 8.0
    )
    results = [result.text async for result in chain.recognize(audio(), RecognitionOptions())]
    assert results == ["Hello"]
