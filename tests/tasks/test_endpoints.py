"""Transcription over HTTP, as clients see it."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.tasks.recording_host import recording_host
from tests.tasks.transcription_server import (
    NON_STREAM,
    TASKS,
    Rules,
    Server,
    form,
    transcription_server,
    wav,
)
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.rest import forms
from voicechat.server.rest.uploads import DiskLimits
from voicechat.session.types import Transcript

pytestmark = pytest.mark.real_time

DATA = {"easyllm_id": "YOUR_SERVICE_ID"}
OPENAI = "/v1/audio/transcriptions"


@pytest.fixture
async def server(tasks_folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with transcription_server(tasks_folder, getattr(request, "param", Rules())) as running:
        yield running


@pytest.mark.parametrize("order", ["data first", "file first"])
async def test_an_upload_becomes_a_task_with_one_speaker_per_channel(
    order: str, server: Server
) -> None:
    fields = {"data": DATA, "audio_file": wav(2.0, channels=2)}
    sent = dict(reversed(fields.items())) if order == "file first" else fields
    status, made = await server.ask("POST", TASKS, data=form(**sent))
    assert status == 200
    assert set(made) == {"taskId", "task_id", "created"}
    assert made["task_id"] == made["taskId"]
    assert abs(made["created"] - unix_s()) < 5
    done = await server.finished(made["taskId"])
    assert done["result"] == "[0:0.000,0:2.000,0] hello there\n[0:0.000,0:2.000,1] and you\n"
    assert (done["status"], done["errorMsg"], done["progress"], done["attempt"]) == (
        "success",
        None,
        1.0,
        1,
    )
    assert len(server.on_disk()) == 1


async def test_a_task_is_seen_by_its_key_and_project_alone(server: Server) -> None:
    _, made = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=wav()))
    path = f"{TASKS}/{made['taskId']}"
    others = [("bob", path), ("alice", path.replace("/p/", "/q/")), ("alice", f"{TASKS}/unknown")]
    answers = [
        await server.ask(method, where, key=key)
        for key, where in others
        for method in ("GET", "DELETE")
    ]
    assert {status for status, _ in answers} == {404}
    assert len({(answer["status"], answer["message"]) for _, answer in answers}) == 1
    assert (await server.ask("GET", TASKS, key="bob"))[1] == {"tasks": []}
    (listed,) = (await server.ask("GET", TASKS))[1]["tasks"]
    assert listed["taskId"] == made["taskId"]
    assert "result" not in listed


async def test_deleting_a_task_deletes_its_recording(server: Server) -> None:
    _, made = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=wav()))
    await server.finished(made["taskId"])
    assert server.on_disk()
    status, answer = await server.ask("DELETE", f"{TASKS}/{made['taskId']}")
    assert (status, answer) == (
        200,
        {"taskId": made["taskId"], "task_id": made["taskId"], "deleted": True},
    )
    assert server.on_disk() == []
    assert (await server.ask("GET", f"{TASKS}/{made['taskId']}"))[0] == 404


@pytest.mark.parametrize("server", [Rules(keep_s=-10.0)], indirect=True)
async def test_what_has_been_kept_long_enough_goes_with_its_recording(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=wav()))
    await server.finished(made["taskId"])
    # Not before: the sweep that begins with the server would take the upload for abandoned.
    monkeypatch.setattr("voicechat.server.rest.uploads.ABANDONED_S", -10.0)
    await server.transcriber.sweep()
    assert (await server.ask("GET", f"{TASKS}/{made['taskId']}"))[0] == 404
    assert server.on_disk() == []


async def test_a_sweep_spares_what_a_task_needs(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=wav()))
    await server.finished(made["taskId"])
    (server.folder / "recordings" / "left-by-the-dead").write_bytes(b"x")
    await server.transcriber.sweep()
    assert "left-by-the-dead" in server.on_disk()
    monkeypatch.setattr("voicechat.server.rest.uploads.ABANDONED_S", -10.0)
    await server.transcriber.sweep()
    assert len(server.on_disk()) == 1
    assert "left-by-the-dead" not in server.on_disk()


async def test_a_repeated_request_gives_the_same_task_and_leaves_one_recording(
    server: Server,
) -> None:
    async def submit(content: bytes, key: str = "alice") -> tuple[int, Any]:
        headers = {"Idempotency-Key": "k-1"}
        return await server.ask(
            "POST", TASKS, key=key, headers=headers, data=form(data=DATA, audio_file=content)
        )

    answers = await asyncio.gather(*(submit(wav()) for _ in range(4)))
    assert {status for status, _ in answers} == {200}
    assert len({answer["taskId"] for _, answer in answers}) == 1
    assert len(server.on_disk()) == 1
    status, conflict = await submit(wav(2.0))
    assert (status, conflict["status"]) == (409, 40901)
    assert len(server.on_disk()) == 1
    assert (await submit(wav(2.0), key="bob"))[0] == 200
    for wrong in ("", "é", "x" * 256):
        headers = {"Idempotency-Key": wrong}
        status, _ = await server.ask("POST", TASKS, headers=headers, json=DATA)
        assert status == 400
    status, refused = await server.ask("POST", TASKS, headers={"Idempotency-Key": "a b"}, json=DATA)
    assert (status, refused["status"]) == (400, 40003)


async def test_a_recording_that_cannot_be_decoded_fails_its_task_and_says_so(
    server: Server,
) -> None:
    _, made = await server.ask(
        "POST", TASKS, data=form(data=DATA, audio_file=b"RIFF" + bytes(1000))
    )
    done = await server.finished(made["taskId"])
    assert (done["status"], done["result"]) == ("failed", None)
    assert done["errorMsg"].startswith("41502: ")
    assert str(server.folder) not in done["errorMsg"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"data": DATA, "audio_file": b"<html>no recording</html>"}, 41501, "no known kind"),
        ({"data": DATA, "audio_file": b"#EXTM3U\nfile:///etc/passwd"}, 41501, "no known kind"),
        ({"data": DATA, "audio_file": b""}, 40003, "empty"),
        ({"audio_file": wav()}, 40003, "data: must be present"),
        ({"data": "{", "audio_file": wav()}, 40001, "JSON"),
        (
            {"data": {"easyllm_id": "nobody"}, "audio_file": wav()},
            40401,
            'easyllm_id: "nobody" is not one of',
        ),
        ({"data": {}, "audio_file": wav()}, 40003, "easyllm_id: must be present"),
        ({"data": DATA}, 40003, "audio_url: must be present"),
        (
            {"data": DATA | {"audio_url": "http://a.example/"}, "audio_file": wav()},
            40003,
            "not together",
        ),
        ({"data": DATA, "audio_file": wav(), "file": wav()}, 40003, "more than one file"),
        ({"data": "x" * 70_000, "audio_file": wav()}, 41301, "a field is limited"),
        ({f"field{number}": "x" for number in range(30)}, 40001, "more than 24 fields"),
    ],
)
async def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(
    body: dict[str, object], status: int, told: str, server: Server
) -> None:
    http_status, answer = await server.ask("POST", TASKS, data=form(**body))
    assert (http_status, answer["status"]) == (status // 100, status)
    assert told in answer["message"]
    assert server.on_disk() == []


@pytest.mark.parametrize("server", [Rules(disk=DiskLimits(file_bytes=100_000))], indirect=True)
async def test_a_recording_over_the_limit_is_refused_before_it_is_read_or_while(
    server: Server,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield wav()[:44]
        while True:
            yield bytes(65_536)

    async def refused(**request: Any) -> int:
        status, answer = await server.ask("POST", NON_STREAM + "?easyllm_id=default", **request)
        assert answer["status"] == 41301
        return status

    octets = {"Content-Type": "application/octet-stream"}
    assert await refused(data=wav(10.0), headers=octets) == 413
    assert await refused(data=io.BytesIO(bytes(2_000_000)), headers=octets) == 413
    assert await refused(data=endless(), headers=octets) == 413
    assert server.on_disk() == []


async def raw(server: Server, head: str, *pieces: bytes, close: bool = False) -> bytes:
    """Speak HTTP by hand; the answer's first line."""
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = f"POST {TASKS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n{head}\r\n\r\n"
    writer.write(lines.encode())
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    if close:
        writer.write_eof()
    try:
        async with asyncio.timeout(120):
            return await reader.readline()
    finally:
        writer.close()


FILE_PART = (
    b'--b\r\nContent-Disposition: form-data; name="audio_file"; filename="a"\r\n\r\n' + wav()
)
DATA_PART = (
    b'\r\n--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"easyllm_id":"default"}'
)


@pytest.mark.parametrize(
    ("length", "content", "expected"),
    [
        (len(FILE_PART) + 100_000, FILE_PART, b"408"),  # promises more than it sends, and stalls
        (len(FILE_PART) - 100, FILE_PART, b"400"),  # sends more than it promised: the form is cut
        (len(FILE_PART + DATA_PART), FILE_PART + DATA_PART, b"400"),  # no closing boundary
        (5, b"hello", b"400"),
        (10**12, b"", b"413"),
    ],
)
async def test_a_length_that_lies_is_met(
    length: int, content: bytes, expected: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "IDLE_S", 0.3)
    head = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}"
    assert expected in await raw(server, head, content)
    assert server.on_disk() == []


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 80}"]
)
async def test_a_form_without_a_usable_boundary_is_refused(
    content_type: str, server: Server
) -> None:
    head = f"Content-Type: {content_type}\r\nContent-Length: 5"
    assert b"400" in await raw(server, head, b"hello")


async def test_a_client_that_goes_leaves_nothing(server: Server) -> None:
    head = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000"
    _ = await raw(server, head, FILE_PART + bytes(1_000_000), close=True)
    async with asyncio.timeout(120):
        while server.on_disk():  # noqa: ASYNC110 - what a server does about a lost client has no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "server", [Rules(disk=DiskLimits(owner_bytes=30_000, total_bytes=50_000))], indirect=True
)
async def test_the_disks_share_of_a_key_and_of_all_is_kept(server: Server) -> None:
    async def submit(key: str) -> int:
        return (await server.ask("POST", TASKS, key=key, data=form(data=DATA, audio_file=wav())))[0]

    assert [await submit("alice"), await submit("alice"), await submit("bob"), await submit("bob")] == [
        200, 429, 200, 200,
    ] or len(server.on_disk()) <= 3  # fmt: skip
    status, answer = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=wav()))
    assert (status, answer["status"]) == (429, 42901)


@pytest.fixture
async def files() -> AsyncIterator[int]:
    async with recording_host() as port:
        yield port


async def test_a_url_is_fetched_when_its_task_is_done(files: int, tasks_folder: Path) -> None:
    async with transcription_server(tasks_folder, Rules(ports=frozenset({files}))) as server:
        url = f"http://127.0.0.3:{files}/a.wav"
        _, made = await server.ask("POST", TASKS, json=DATA | {"audio_url": url})
        assert (await server.finished(made["taskId"]))[
            "result"
        ] == "[0:0.000,0:2.000,0] hello there\n"
        status, answer = await server.ask("POST", NON_STREAM, json=DATA | {"audio_url": url})
        assert (status, answer) == (200, {"result": "and you", "audio_duration": 2.0})
        for path, told in (
            (f"127.0.0.3:{files}/b.wav", "status 404"),
            (f"127.0.0.1:{files}/", "not allowed"),
        ):
            _, made = await server.ask("POST", TASKS, json=DATA | {"audio_url": f"http://{path}"})
            failed = await server.finished(made["taskId"])
            assert failed["errorMsg"].startswith("40003: audio_url: ")
            assert told in failed["errorMsg"]
            status, answer = await server.ask(
                "POST", NON_STREAM, json=DATA | {"audio_url": f"http://{path}"}
            )
            assert (status, told in answer["message"]) == (400, True)
        status, answer = await server.ask(
            "POST", TASKS, json=DATA | {"audio_url": "file:///etc/passwd"}
        )
        assert (status, answer["status"]) == (400, 40003)
        assert server.on_disk() == []


@pytest.mark.parametrize("server", [Rules(max_synchronous_ms=60_000)], indirect=True)
async def test_non_stream_answers_at_once_and_keeps_nothing(server: Server) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    answers = [
        await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=wav(2.5))),
        await server.ask("POST", NON_STREAM + "?easyllm_id=default", data=wav(2.5), headers=octets),
    ]
    assert [status for status, _ in answers] == [200, 200]
    assert [answer["result"] for _, answer in answers] == ["hello there", "and you"]
    assert {answer["audio_duration"] for _, answer in answers} == {2.5}
    status, answer = await server.ask(
        "POST", NON_STREAM, data=form(data=DATA, audio_file=wav(61.0))
    )
    assert (status, answer["status"]) == (413, 41301)
    wrong = DATA | {
        "audio_url": "http://a.example/",
        "speech_recognition_param": {"sample_rate": 1},
    }
    status, answer = await server.ask("POST", NON_STREAM, json=wrong)
    assert (status, answer["message"].partition(":")[0]) == (
        400,
        "speech_recognition_param.sample_rate",
    )
    assert server.on_disk() == []


async def test_a_wrong_key_uploads_nothing(server: Server) -> None:
    for path in (TASKS, NON_STREAM, OPENAI):
        assert (await server.ask("POST", path, key="eve", data=form(data=DATA, audio_file=wav())))[
            0
        ] == 401
    assert not (server.folder / "recordings").exists()


@pytest.fixture
async def sdk(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="alice", max_retries=0
    ) as client:
        yield client


@pytest.mark.parametrize("server", [Rules(texts=("hello there",))], indirect=True)
async def test_openais_sdk_transcribes(sdk: openai.AsyncOpenAI, server: Server) -> None:
    file = ("a.wav", wav(1.0))
    assert (
        await sdk.audio.transcriptions.create(model="whisper-1", file=file)
    ).text == "hello there"
    text: Any = await sdk.audio.transcriptions.create(
        model="whisper-1", file=file, response_format="text"
    )
    assert text == "hello there\n"
    srt: Any = await sdk.audio.transcriptions.create(
        model="default", file=file, response_format="srt"
    )
    assert srt == "1\n00:00:00,000 --> 00:00:01,000\nhello there\n"
    vtt: Any = await sdk.audio.transcriptions.create(
        model="default", file=file, response_format="vtt"
    )
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")
    verbose = await sdk.audio.transcriptions.create(
        model="default",
        file=file,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (float(verbose.duration), verbose.text) == (1.0, "hello there")
    assert verbose.segments is not None
    assert [(segment.start, segment.end, segment.text) for segment in verbose.segments] == [
        (0.0, 1.0, "hello there")
    ]
    assert verbose.words is not None
    assert [(word.word, word.start, word.end) for word in verbose.words] == [
        ("hello", 0.0, 0.3),
        ("there", 0.3, 0.6),
    ]
    assert server.on_disk() == []


async def test_openais_sdk_raises_its_own_errors(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model"):
        await sdk.audio.transcriptions.create(model="nobody", file=("a.wav", wav()))
    with pytest.raises(openai.APIStatusError) as refused:
        await sdk.audio.transcriptions.create(model="default", file=("a.wav", b"<html>"))
    assert refused.value.status_code == 415
    with pytest.raises(openai.BadRequestError, match="response_format"):
        await sdk.audio.transcriptions.create(
            model="default", file=("a", wav()), response_format="xml"
        )  # type: ignore[call-overload]
    with pytest.raises(openai.AuthenticationError):
        await sdk.with_options(api_key="eve").audio.transcriptions.create(
            model="default", file=("a.wav", wav())
        )


@pytest.mark.parametrize("server", [Rules(texts=("hello there",))], indirect=True)
async def test_verbose_json_has_every_field_of_openais_schema(server: Server) -> None:
    sent = {"model": "whisper-1", "response_format": "verbose_json"}
    status, answer = await server.ask("POST", OPENAI, data=form(**sent, file=wav()))
    assert status == 200
    assert set(answer) == {"task", "language", "duration", "text", "segments", "usage"}
    assert (answer["language"], answer["usage"]) == (
        "unknown",
        {"type": "duration", "seconds": 1.0},
    )
    (segment,) = answer["segments"]
    assert set(segment) == {
        *("id", "seek", "start", "end", "text", "tokens"),
        *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
    }
    assert segment["tokens"] == []
    _, answer = await server.ask("POST", OPENAI, data=form(**sent, language="zh", file=wav()))
    assert answer["language"] == "chinese"


async def test_a_transcription_is_streamed_as_openai_does(server: Server) -> None:
    sent = {"model": "default", "stream": "true", "file": wav()}
    headers = {"Authorization": "Bearer alice"}
    async with server.session.post(
        server.url + OPENAI, data=form(**sent), headers=headers
    ) as response:
        assert response.content_type == "text/event-stream"
        lines = [line for line in (await response.text()).splitlines() if line]
    events = [json.loads(line.removeprefix("data:")) for line in lines]
    assert [event["type"] for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert [event.get("delta", event.get("text")) for event in events] == [
        "hello there",
        "hello there",
    ]


async def test_openais_sdk_streams_a_transcription(sdk: openai.AsyncOpenAI) -> None:
    file = ("a.wav", wav())
    stream = await sdk.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=file, stream=True
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "hello there"


async def test_a_form_that_has_no_events_is_answered_as_a_whole(server: Server) -> None:
    sent = {"model": "default", "stream": "true", "response_format": "srt", "file": wav()}
    status, answer = await server.ask("POST", OPENAI, data=form(**sent))
    assert (status, answer.splitlines()[0]) == (200, "1")


async def test_what_cannot_be_streamed_is_an_http_status(server: Server) -> None:
    sent = {"model": "default", "stream": "true", "file": b"RIFF" + bytes(1000)}
    status, answer = await server.ask("POST", OPENAI, data=form(**sent))
    assert (status, answer["error"]["code"]) == (415, "undecodable_audio")


@dataclass
class Listener:
    """A recogniser that tells the rate it was told, and how long the audio is."""

    texts: tuple[str, ...] = ()
    open: int = 0

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        length_ms = sum([len(pcm) async for pcm in audio]) // 32
        yield Transcript(f"{options.source_rate_hz} Hz", 0, length_ms)


LISTENING = Rules(recognizer=Listener())
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize("server", [LISTENING], indirect=True)
async def test_a_recognisers_rate_is_the_files_own_whatever_the_endpoint(server: Server) -> None:
    recording = wav(1.0, rate_hz=8000)
    declared = DATA | {"speech_recognition_param": {"sample_rate": 48000, "format": "pcm"}}
    _, made = await server.ask("POST", TASKS, data=form(data=declared, audio_file=recording))
    assert (await server.finished(made["taskId"]))["result"] == "[0:0.000,0:1.000,0] 8000 Hz\n"
    _, answer = await server.ask("POST", NON_STREAM, data=form(data=declared, audio_file=recording))
    assert answer == {"result": "8000 Hz", "audio_duration": 1.0}
    _, answer = await server.ask("POST", OPENAI, data=form(model="default", file=recording))
    assert answer["text"] == "8000 Hz"


@pytest.mark.parametrize("server", [LISTENING], indirect=True)
async def test_samples_without_a_header_are_read_at_the_declared_rate(server: Server) -> None:
    declared = DATA | {"speech_recognition_param": {"sample_rate": 8000, "format": "pcm"}}
    samples = bytes(32_000)
    _, made = await server.ask("POST", TASKS, data=form(data=declared, audio_file=samples))
    assert (await server.finished(made["taskId"]))["result"] == "[0:0.000,0:2.000,0] 8000 Hz\n"
    _, answer = await server.ask("POST", NON_STREAM, data=form(data=declared, audio_file=samples))
    assert answer == {"result": "8000 Hz", "audio_duration": 2.0}
    query = "?easyllm_id=default&format=mulaw&sample_rate=8000"
    _, answer = await server.ask("POST", NON_STREAM + query, data=samples, headers=OCTETS)
    assert answer == {"result": "8000 Hz", "audio_duration": 4.0}
    status, answer = await server.ask(
        "POST", NON_STREAM + query + "x", data=samples, headers=OCTETS
    )
    assert (status, answer["status"]) == (400, 40003)
    undeclared = form(data=DATA, audio_file=samples)
    assert (await server.ask("POST", NON_STREAM, data=undeclared))[0] == 415


def twice(pcm: np.ndarray[tuple[int], np.dtype[np.int16]], level: float) -> bytes:
    both = np.stack([pcm, (pcm * level).astype("<i2")], axis=1)
    return wav(len(pcm) / 16000, channels=2, rate_hz=16000)[:44] + both.tobytes()


@pytest.mark.parametrize("server", [LISTENING], indirect=True)
@pytest.mark.parametrize("level", [1.0, 0.5, -1.0])
async def test_a_sound_on_both_channels_is_told_once(level: float, server: Server) -> None:
    chance = np.random.default_rng(1)
    syllables = np.repeat(chance.uniform(0, 1, 15), 3200)
    sound = (syllables * chance.normal(0, 3000, 48_000)).astype("<i2")
    recording = twice(sound, level)
    _, made = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=recording))
    assert (await server.finished(made["taskId"]))["result"] == "[0:0.000,0:3.000,0] 16000 Hz\n"
    _, answer = await server.ask("POST", OPENAI, data=form(model="default", file=recording))
    assert answer["text"] == "16000 Hz"


async def test_openais_form_has_one_text_for_two_speakers(server: Server) -> None:
    recording = wav(1.0, channels=2)  # silence is no sound that both channels share
    _, answer = await server.ask("POST", OPENAI, data=form(model="default", file=recording))
    assert answer["text"] == "hello there"
    _, answer = await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=recording))
    assert answer["result"] == "and you hello there"


async def test_a_recording_that_is_too_large_where_it_lies_is_told_as_such(
    files: int, tasks_folder: Path
) -> None:
    disk = DiskLimits(file_bytes=10_000)
    async with transcription_server(
        tasks_folder, Rules(ports=frozenset({files}), disk=disk)
    ) as server:
        asked = DATA | {"audio_url": f"http://127.0.0.3:{files}/a.wav"}
        _, made = await server.ask("POST", TASKS, json=asked)
        assert (await server.finished(made["taskId"]))["errorMsg"].startswith("41301: audio_url: ")
        status, answer = await server.ask("POST", NON_STREAM, json=asked)
        assert (status, answer["status"]) == (413, 41301)
        assert "audio_url: " in answer["message"]
