import json

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.funasr_protocol import (
    END_MESSAGE,
    FunASRTranscripts,
    StreamProgress,
    begin_message,
    ending,
    read_message,
)
from voicechat.session.types import Transcript


def message(**given: object) -> str:
    return json.dumps(given, ensure_ascii=False)


def read(reader: FunASRTranscripts, heard_ms: int, **given: object) -> Transcript | None:
    return reader.read_message(read_message(message(**given)), heard_ms)


def times(transcript: Transcript | None) -> list[tuple[str, int, int]]:
    assert transcript is not None
    return [(word.text, word.begin_ms, word.end_ms) for word in transcript.words]


def test_the_first_and_the_last_message() -> None:
    assert json.loads(begin_message('{"阿里巴巴": 20}', True)) == {
        "mode": "2pass",
        "chunk_size": [5, 10, 5],
        "chunk_interval": 10,
        "encoder_chunk_look_back": 4,
        "decoder_chunk_look_back": 0,
        "wav_name": "voicechat",
        "wav_format": "pcm",
        "audio_fs": 16000,
        "is_speaking": True,
        "hotwords": '{"阿里巴巴": 20}',
        "itn": True,
    }
    assert json.loads(END_MESSAGE) == {"is_speaking": False, "is_end": True}


def test_the_first_pass_adds_and_the_second_replaces() -> None:
    reader = FunASRTranscripts()
    assert read(reader, 900, mode="2pass-online", text="正是") == Transcript("正是", 300)
    assert read(reader, 1500, mode="2pass-online", text="因位 hello") == Transcript(
        "正是因位 hello", 300
    )
    assert read(reader, 2100, mode="2pass-online", text="world") == Transcript(
        "正是因位 hello world", 300
    )
    final = read(
        reader,
        3000,
        mode="2pass-offline",
        text="正是因为。",
        timestamp="[[430,670],[670,810],[810,1030],[1030,1130]]",
    )
    assert final is not None
    assert (final.text, final.begin_ms, final.end_ms) == ("正是因为。", 430, 1130)
    assert times(final) == [
        ("正", 430, 670),
        ("是", 670, 810),
        ("因", 810, 1030),
        ("为", 1030, 1130),
    ]
    assert final.words[-1].punctuation == "。"
    assert all(word.fixed for word in final.words)


def test_clauses_match_words_and_times_by_themselves() -> None:
    clauses = [
        {
            "text_seg": "正 是",
            "punc": ",",
            "start": 100,
            "end": 300,
            "ts_list": [[100, 200], [200, 300]],
        },
        {"text_seg": "", "punc": "，", "start": 0, "end": 0, "ts_list": []},
        {
            "text_seg": "speech lab",
            "punc": "。",
            "start": 300,
            "end": 900,
            "ts_list": [[300, 500], [500, 900]],
        },
    ]
    final = read(
        FunASRTranscripts(),
        2000,
        mode="2pass-offline",
        text="正是，speech lab。",
        timestamp="[]",
        stamp_sents=clauses,
    )
    assert times(final) == [
        ("正", 100, 200),
        ("是", 200, 300),
        ("speech", 300, 500),
        ("lab", 500, 900),
    ]


def test_times_that_do_not_match_the_words_are_shared_out() -> None:
    final = read(
        FunASRTranscripts(),
        2000,
        mode="2pass-offline",
        text="一九四九",
        timestamp="[[100,500],[500,900]]",
    )
    assert final is not None
    assert (final.begin_ms, final.end_ms) == (100, 900)
    assert [word.begin_ms for word in final.words] == [100, 300, 500, 700]
    broken = read(
        FunASRTranscripts(), 2000, mode="2pass-offline", text="一二", timestamp="[[1,2]][[3,4]]"
    )
    assert broken is not None
    assert (broken.begin_ms, broken.end_ms) == (
        1580,
        2000,
    )  # two syllables that have just been said


def test_the_python_servers_times_begin_at_the_sentence() -> None:
    reader = FunASRTranscripts()
    stamps = [[50, 250], [250, 450]]
    read(reader, 1200, mode="2pass-online", text="你好")
    assert times(read(reader, 2400, mode="2pass-offline", text="你好。", timestamp=stamps)) == [
        ("你", 600, 800),
        ("好", 800, 1000),
    ]
    # Nothing was shown: it has just ended, as far as can be known.
    assert times(read(reader, 3000, mode="2pass-offline", text="再见", timestamp=stamps)) == [
        ("再", 2600, 2800),
        ("见", 2800, 3000),
    ]


def test_times_never_leave_the_audio_nor_go_back() -> None:
    reader = FunASRTranscripts()
    first = read(reader, 1000, mode="2pass-offline", text="一", timestamp="[[0,5000]]")
    assert first is not None
    assert (first.begin_ms, first.end_ms) == (0, 1000)
    second = read(reader, 1500, mode="2pass-offline", text="二", timestamp="[[200,600]]")
    assert second is not None
    assert (second.begin_ms, second.end_ms) == (1000, 1400)


def test_a_shown_sentence_is_closed_even_if_the_second_pass_hears_nothing() -> None:
    reader = FunASRTranscripts()
    assert read(reader, 1000, mode="2pass-offline", text="") is None
    read(reader, 1000, mode="2pass-online", text="嗯")
    assert reader.in_sentence
    assert read(reader, 2000, mode="2pass-offline", text="") == Transcript("嗯", 400, 2000)
    assert not reader.in_sentence
    read(reader, 3000, mode="2pass-online", text="啊")
    assert reader.finish_sentence(3500) == Transcript("啊", 2400, 3500)
    assert reader.finish_sentence(3500) is None
    assert read(reader, 4000, text="", is_final=True) is None


@pytest.mark.parametrize(
    ("given", "outlook"),
    [
        ({"mode": "2pass", "is_end": True, "is_final": True}, StreamProgress.OVER),
        ({"text": "", "timestamp": 1792000000000, "is_final": True}, StreamProgress.OVER),
        ({"text": "", "is_final": True}, StreamProgress.OVER),  # the C++ server before 2026
        (
            {"mode": "2pass-offline", "text": "好", "timestamp": "[[1,2]]", "is_final": True},
            StreamProgress.OVER,
        ),
        (
            {"mode": "2pass-offline", "text": "好", "timestamp": "[[1,2]]", "is_final": False},
            StreamProgress.PERHAPS,
        ),
        ({"mode": "2pass-offline", "text": "好", "is_final": True}, StreamProgress.PERHAPS),
        ({"mode": "2pass-offline", "text": "", "is_final": False}, StreamProgress.PERHAPS),
        ({"mode": "2pass-online", "text": "好", "is_final": True}, StreamProgress.OPEN),
    ],
)
def test_what_says_that_nothing_more_comes(
    given: dict[str, object], outlook: StreamProgress
) -> None:
    assert ending(read_message(message(**given))) is outlook


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", FailureKind.BROKEN),
        ("[]", FailureKind.BROKEN),
        ('{"text": 5}', FailureKind.BROKEN),
        ('{"text": "x", "timestamp": [["a"]]}', FailureKind.BROKEN),
        (
            '{"is_end": true, "is_final": false, "error": "offline inference failed: secret"}',
            FailureKind.CONNECTIVITY,
        ),
    ],
)
def test_what_is_no_result(text: str, kind: FailureKind) -> None:
    with pytest.raises(ProviderError) as caught:
        read_message(text)
    assert caught.value.kind is kind
    assert "secret" not in str(caught.value)
