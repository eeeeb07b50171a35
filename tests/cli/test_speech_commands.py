import io
import json
from pathlib import Path

import av
import pytest

from voicechat.cli import main

pytestmark = pytest.mark.real_time


def seconds_of(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def test_transcribe_prints_text(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(directory / "hello.wav")]) == 0
    assert capsys.readouterr().out == "go forward ten meters\n"


def test_transcribe_prints_json_with_word_times(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", "--json", "hello.wav", "hello.wav"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert first["file"] == "hello.wav"
    assert first["text"] == "go forward ten meters"
    assert first["sentences"][0]["end_ms"] == 1000
    assert first["sentences"][0]["words"][1] == {"begin_ms": 100, "end_ms": 200, "text": "forward"}
    assert directory.exists()


@pytest.mark.usefixtures("directory")
def test_transcribe_prints_subtitles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--srt", "hello.wav"]) == 0
    assert capsys.readouterr().out == "1\n00:00:00,000 --> 00:00:01,000\ngo forward ten meters\n\n"


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (
            ["transcribe", "voicechat.toml"],
            1,
            "voicechat.toml: file: it is no recording of a known format",
        ),
        (["transcribe", "nowhere.wav"], 1, "nowhere.wav"),
        (
            ["transcribe", "--service", "mine", "hello.wav"],
            2,
            "there is no [asr.mine]; configured: default",
        ),
        (["say", "Hello", "-o", "a.txt"], 2, "the suffix is none of .mp3, .wav, .pcm"),
        (["say", "Hello", "--format", "MP3_7HZ_MONO_1KBPS"], 2, "--format: "),
        (["say", "Hello", "--voice", "nobody"], 2, "--voice: the service has scripted"),
        (["say", "..."], 1, "nothing in it that can be spoken"),
        (["talk", "hello.wav", "-o", "a.txt"], 2, "the suffix is none of"),
        (
            ["talk", "hello.wav", "--url", "http://127.0.0.1:9", "--key", "k"],
            1,
            "cannot connect to 127.0.0.1:9",
        ),
        (["talk", "-o", "a.mp3"], 2, "-o needs a FILE"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == status
    errors = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("voicechat: ")
    ]
    assert len(errors) == 1
    assert told in errors[0]


@pytest.mark.usefixtures("directory")
def test_talk_says_when_another_model_answers_than_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["talk", "hello.wav", "--model", "other"]) == 0
    assert (
        'model: "other" is not configured here; default serves instead' in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["out.mp3", "out.wav"])
def test_say_writes_a_file_that_any_decoder_plays(
    directory: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", "Hello there.", "-o", name]) == 0
    assert seconds_of(directory / name) == pytest.approx(len("Hello there.") * 0.05, abs=0.1)
    assert name in capsys.readouterr().out


def test_wav_files_have_their_true_sizes_in_the_header(directory: Path) -> None:
    assert main(["say", "Hello there.", "-o", "out.wav"]) == 0
    assert main(["talk", "hello.wav", "-o", "answer.wav"]) == 0
    for content in ((directory / "out.wav").read_bytes(), (directory / "answer.wav").read_bytes()):
        assert int.from_bytes(content[4:8], "little") == len(content) - 8
        assert int.from_bytes(content[40:44], "little") == len(content) - 44


def test_talk_starts_an_engine_sends_the_recording_and_saves_the_answer(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["talk", "hello.wav"]) == 0
    captured = capsys.readouterr()
    assert "you:    go forward ten meters\nanswer: Ten meters it is.\n" in captured.out
    assert "the answer is in reply.mp3" in captured.out
    assert seconds_of(directory / "reply.mp3") == pytest.approx(
        len("Ten meters it is.") * 0.05, abs=0.2
    )
    assert not (directory / "data").exists()


def test_talk_reads_a_recording_from_stdin(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = (directory / "hello.wav").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(recording)))
    assert main(["talk", "-", "-o", "answer.wav"]) == 0
    assert seconds_of(directory / "answer.wav") == pytest.approx(
        len("Ten meters it is.") * 0.05, abs=0.1
    )


def test_talk_says_when_nothing_was_understood(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = (directory / "voicechat.toml").read_text().replace("go forward ten meters", "")
    (directory / "voicechat.toml").write_text(silent)
    assert main(["talk", "hello.wav"]) == 1
    assert "nothing was recognised" in capsys.readouterr().err
    assert not (directory / "reply.mp3").exists()


def test_each_language_is_said_by_its_own_voice(directory: Path) -> None:
    path = directory / "voicechat.toml"
    path.write_text(
        path.read_text()
        + 'by_language = { zh = { service = "short" } }\n'
        + '[tts.short]\nprovider = "scripted_services:open_slow_synthesizer"\n'
    )
    wav = ["--format", "WAV_16000HZ_MONO_16BIT", "-o"]
    assert main(["say", "你好。", *wav, "zh.wav"]) == 0
    assert main(["say", "Good morning.", *wav, "en.wav"]) == 0
    short = (directory / "zh.wav").stat().st_size
    assert short == 44 + 320
    assert (directory / "en.wav").stat().st_size > short
