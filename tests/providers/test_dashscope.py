import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from websockets.asyncio.server import ServerConnection

from tests.providers.dashscope_service import (
    DashScope,
    audio_of,
    dashscope,
    fail,
    send_event,
    send_sentence,
)
from tests.providers.loopback import a_full_backlog, raw_service
from tests.unused_port import unused_port
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers import dashscope as provider
from voicechat.providers import dashscope_tasks
from voicechat.providers.dashscope import DashScopeRecognizer, DashScopeSynthesizer
from voicechat.providers.interfaces import AudioChunk, RecognitionOptions, VoiceOptions
from voicechat.session.types import Transcript, Word
from voicechat.testing.conformance import (
    check_fails,
    check_probe_fails,
    check_recognizer,
    check_synthesizer,
    leaving_nothing,
)

pytestmark = pytest.mark.real_time

SPEECH = b"\x01\x00" * 16 * 300  # 300 ms: three words
SILENCE = bytes(32 * 400)
DEADLINE_S = 30


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[DashScope, DashScopeRecognizer, DashScopeSynthesizer]]:
    async with leaving_nothing(), asyncio.timeout(DEADLINE_S), dashscope() as service:
        recognizer = provider.open_recognizer(
            api_key="secret", base_url=service.url, read_timeout_ms=60_000
        )
        synthesizer = provider.open_synthesizer(
            api_key="secret", base_url=service.url, read_timeout_ms=60_000
        )
        try:
            yield service, recognizer, synthesizer
        finally:
            await recognizer.aclose()
            await synthesizer.aclose()


async def audio(*pieces: bytes | float) -> AsyncIterator[bytes]:
    """Pieces of audio, and seconds to wait."""
    for piece in pieces:
        if isinstance(piece, float):
            await asyncio.sleep(piece)
        else:
            yield piece


def recognising(
    recognizer: DashScopeRecognizer, *pieces: bytes | float
) -> AsyncIterator[Transcript]:
    return recognizer.recognize(audio(*pieces), RecognitionOptions())


async def recognise(recognizer: DashScopeRecognizer, *pieces: bytes | float) -> list[Transcript]:
    return [transcript async for transcript in recognising(recognizer, *pieces)]


def speaking(synthesizer: DashScopeSynthesizer, text: str = "你好") -> AsyncIterator[AudioChunk]:
    return synthesizer.synthesize(text, VoiceOptions())


async def speak(
    synthesizer: DashScopeSynthesizer, text: str, voice: VoiceOptions | None = None
) -> bytes:
    chunks = [chunk async for chunk in synthesizer.synthesize(text, voice or VoiceOptions())]
    assert {chunk.rate_hz for chunk in chunks} <= {24000}
    assert all(len(chunk.pcm) % 2 == 0 for chunk in chunks)
    return b"".join(chunk.pcm for chunk in chunks)


async def test_sentences_with_their_words_and_the_request() -> None:
    async with serving() as (service, recognizer, _):
        transcripts = await recognise(recognizer, SPEECH, SILENCE, SPEECH)
        assert [transcript.text for transcript in transcripts if not transcript.final] == [
            "w1",
            "w1 w2",
            "w1 w2 w3",
        ] * 2
        first, second = (transcript for transcript in transcripts if transcript.final)
        assert first == Transcript(
            "w1 w2 w3.",
            0,
            300,
            (
                Word("w1", 0, 100, fixed=True),
                Word("w2", 100, 200, fixed=True),
                Word("w3", 200, 300, ".", fixed=True),
            ),
        )
        assert (second.begin_ms, second.end_ms) == (700, 1000)
        assert service.authorization == ["bearer secret"]
        assert service.asked[0].audio == SPEECH + SILENCE + SPEECH
        assert service.asked[0].payload == {
            "model": "paraformer-realtime-v2",
            "task_group": "audio",
            "task": "asr",
            "function": "recognition",
            "input": {},
            "parameters": {"format": "pcm", "sample_rate": 16000, "heartbeat": True},
        }


async def test_settings_reach_the_service() -> None:
    async with serving() as (service, _, _synthesizer):
        recognizer = provider.open_recognizer(
            api_key="k",
            base_url=service.url,
            model="m",
            language_hints=("zh", "en"),
            parameters={"vocabulary_id": "v", "format": "opus"},
        )
        synthesizer = provider.open_synthesizer(
            api_key="k",
            base_url=service.url,
            voices=("a", "b"),
            sample_rate_hz=16000,
            parameters={"seed": 7, "volume": 60},
        )
        await recognise(recognizer, SPEECH)
        chunks = [chunk async for chunk in synthesizer.synthesize("x", VoiceOptions(voice="b"))]
        assert {chunk.rate_hz for chunk in chunks} == {16000}
        heard, said = (asked.payload["parameters"] for asked in service.asked)
        assert heard == {
            "heartbeat": True,
            "vocabulary_id": "v",
            "format": "pcm",  # what the engine gives is no setting
            "sample_rate": 16000,
            "language_hints": ["zh", "en"],
        }
        assert said == {
            "volume": 60,
            "seed": 7,
            "text_type": "PlainText",
            "format": "pcm",
            "sample_rate": 16000,
            "voice": "b",
            "rate": 1.0,
            "pitch": 1.0,
        }
        await recognizer.aclose()
        await synthesizer.aclose()


async def test_results_come_while_audio_is_still_being_given() -> None:
    async with serving() as (_, recognizer, _synthesizer):
        heard = asyncio.Event()

        async def microphone() -> AsyncIterator[bytes]:
            yield SPEECH
            await heard.wait()
            yield SILENCE

        transcripts = recognizer.recognize(microphone(), RecognitionOptions())
        assert (await anext(transcripts)).text == "w1"
        heard.set()
        assert [transcript async for transcript in transcripts][-1].final


async def test_while_audio_comes_the_service_may_be_silent() -> None:
    async with serving() as (service, _, _synthesizer):
        recognizer = provider.open_recognizer(
            api_key="k", base_url=service.url, read_timeout_ms=1_000
        )
        transcripts = await recognise(recognizer, SILENCE, 1.3, SPEECH)
        assert transcripts[-1].text == "w1 w2 w3."
        await recognizer.aclose()


async def test_nothing_connects_to_nothing() -> None:
    async with serving() as (service, recognizer, synthesizer):
        assert await recognise(recognizer) == []
        assert await recognise(recognizer, b"", b"") == []
        assert await speak(synthesizer, " …!") == b""
        assert service.authorization == []


async def test_a_sentence_is_spoken_and_cut_at_whole_samples() -> None:
    async with serving() as (service, _, synthesizer):
        assert await speak(synthesizer, "你好 there") == audio_of("你好 there")
        assert service.asked[0].texts == ["你好 there"]
        assert synthesizer.voices == ("longxiaochun_v2",)


async def test_a_long_text_is_sent_in_parts() -> None:
    async with serving() as (service, _, synthesizer):
        assert await speak(synthesizer, "字" * 12_000) == audio_of("字" * 12_000)
        assert [len(text) for text in service.asked[0].texts] == [5_000, 5_000, 2_000]


async def test_prosody_is_the_services_own() -> None:
    async with serving() as (service, _, synthesizer):
        assert synthesizer.shapes_prosody(0.5, 2.0)
        assert not synthesizer.shapes_prosody(0.4, 1.0)
        assert not synthesizer.shapes_prosody(1.0, 2.1)
        await speak(synthesizer, "x", VoiceOptions(speech_rate=1.5, pitch_rate=0.8))
        parameters = service.asked[0].payload["parameters"]
        assert isinstance(parameters, dict)
        assert (parameters["rate"], parameters["pitch"]) == (1.5, 0.8)


# --- connections ----------------------------------------------------------------------


async def test_a_connection_serves_one_task_after_the_other() -> None:
    async with serving() as (service, recognizer, synthesizer):
        for _ in range(3):
            await recognise(recognizer, SPEECH)
            await speak(synthesizer, "一二三")
        assert service.connections == 2
        assert len({asked.task_id for asked in service.asked}) == 6


async def test_tasks_at_the_same_time_have_connections_of_their_own() -> None:
    async with serving() as (service, _, synthesizer):
        texts = ["一", "二二", "三三三"]
        spoken = await asyncio.gather(*(speak(synthesizer, text) for text in texts))
        assert spoken == [audio_of(text) for text in texts]
        assert service.connections == 3


async def test_a_connection_that_was_closed_while_it_was_idle_is_replaced() -> None:
    async with serving() as (service, _, synthesizer):
        await speak(synthesizer, "一")
        # The worst moment: the service closes while the next task is on its way.
        service.disturb["run"] = lambda socket, _: socket.close()
        with pytest.raises(ProviderError) as caught:
            await speak(synthesizer, "二")
        assert caught.value.kind is FailureKind.CONNECTIVITY
        assert (
            service.connections == 2
        )  # the idle one was given up quietly, the new one's failure was told
        service.disturb.clear()
        assert await speak(synthesizer, "三") == audio_of("三")


async def test_idle_connections_are_few_and_do_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope_tasks, "IDLE_S", 0.05)
    monkeypatch.setattr(dashscope_tasks, "MAX_IDLE", 2)
    async with serving() as (service, _, synthesizer):
        await asyncio.gather(*(speak(synthesizer, "一") for _ in range(4)))
        while service.open:
            service.gone.clear()
            await service.gone.wait()
        await speak(synthesizer, "二")
        assert service.connections == 5


async def test_a_task_that_failed_takes_its_connection_with_it() -> None:
    async with serving() as (service, _, synthesizer):
        service.disturb["finish"] = partial(fail, code="InvalidParameter")
        await check_fails(speaking(synthesizer), FailureKind.REJECTED)
        service.disturb.clear()
        await speak(synthesizer, "一")
        assert service.connections == 2


async def test_what_an_earlier_task_still_says_is_not_heard() -> None:
    async with serving() as (service, recognizer, _):
        late = {"begin_time": 0, "end_time": 9, "text": "late", "sentence_end": True}

        async def run(socket: ServerConnection, task_id: str) -> None:
            await send_sentence(socket, "an earlier task", late)
            await send_event(socket, "task-finished", "an earlier task")
            await send_event(socket, "task-started", task_id)
            await send_sentence(socket, "an earlier task", late)
            while isinstance(await socket.recv(), bytes):
                pass
            await send_event(socket, "task-finished", task_id)

        service.disturb["run"] = run
        assert await recognise(recognizer, SPEECH) == []


# --- gaps -----------------------------------------------------------------------------


async def test_a_long_gap_in_the_audio_begins_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "GAP_S", 0.05)
    async with serving() as (service, recognizer, _):
        transcripts = await recognise(recognizer, SPEECH, 0.3, SPEECH, 0.3)
        finals = [transcript for transcript in transcripts if transcript.final]
        assert [(final.begin_ms, final.end_ms) for final in finals] == [(0, 300), (300, 600)]
        assert [word.begin_ms for word in finals[1].words] == [300, 400, 500]
        assert [asked.audio for asked in service.asked] == [SPEECH, SPEECH]
        assert service.connections == 1


async def test_heartbeats_say_nothing_and_an_open_sentence_is_closed() -> None:
    async with serving() as (service, recognizer, _):

        async def heard(socket: ServerConnection, task_id: str) -> None:
            await send_sentence(
                socket, task_id, {"text": "alive", "heartbeat": True, "begin_time": None}
            )
            await send_sentence(
                socket, task_id, {"text": "you", "begin_time": 10, "end_time": None, "words": []}
            )
            await send_sentence(
                socket, task_id, {"text": "you", "begin_time": 10, "end_time": None, "words": []}
            )
            while isinstance(await socket.recv(), bytes):
                pass
            await send_event(socket, "task-finished", task_id)

        service.disturb["input"] = heard
        assert await recognise(recognizer, SPEECH) == [
            Transcript("you", 10),
            Transcript("you", 10, 300),
        ]


# --- failures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("InvalidParameter", "", FailureKind.REJECTED),
        ("ModelNotFound", "", FailureKind.REJECTED),
        ("CLIENT_ERROR", "request timeout after 23 seconds.", FailureKind.TIMEOUT),
        ("CLIENT_ERROR", "", FailureKind.REJECTED),
        ("RequestTimeOut", "", FailureKind.TIMEOUT),
        ("Throttling.RateQuota", "", FailureKind.RATE_LIMIT),
        ("Throttling", "", FailureKind.RATE_LIMIT),
        ("InternalError", "", FailureKind.CONNECTIVITY),
        ("InternalError.Timeout", "", FailureKind.TIMEOUT),
        ("SystemError", "", FailureKind.CONNECTIVITY),
        ("ModelUnavailable", "", FailureKind.CONNECTIVITY),
    ],
)
@pytest.mark.parametrize("point", ["run", "finish"])
async def test_failed_tasks(point: str, code: str, message: str, kind: FailureKind) -> None:
    async with serving() as (service, recognizer, synthesizer):
        service.disturb[point] = partial(fail, code=code, message=message or "secret words")
        for items in (recognising(recognizer, SPEECH), speaking(synthesizer)):
            error = await check_fails(items, kind)
            assert code in str(error)
            assert "secret words" not in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, FailureKind.REJECTED),
        (429, FailureKind.RATE_LIMIT),
        (503, FailureKind.CONNECTIVITY),
        (200, FailureKind.BROKEN),
        (302, FailureKind.BROKEN),
    ],
)
async def test_refused_handshakes(status: int, kind: FailureKind) -> None:
    async with serving() as (service, recognizer, synthesizer):
        service.refusal = status
        await check_fails(recognising(recognizer, SPEECH), kind)
        error = await check_fails(speaking(synthesizer), kind)
        assert "secret" not in str(error)
        assert (
            len(service.authorization) == 2
        )  # a redirect is not followed: it could take the key elsewhere


async def hang(socket: ServerConnection, _task_id: str) -> None:
    await socket.wait_closed()


async def reset(socket: ServerConnection, _task_id: str) -> None:
    socket.transport.abort()


def sends(message: str | bytes) -> Callable[[ServerConnection, str], Awaitable[None]]:
    async def send(socket: ServerConnection, task_id: str) -> None:
        await socket.send(
            message if isinstance(message, bytes) else message.replace("TASK", task_id)
        )
        await hang(socket, task_id)

    return send


async def cut_off(socket: ServerConnection, _task_id: str) -> None:
    socket.transport.write(b"\x81\x7e\x01\x00{")  # the beginning of a text message of 256 bytes
    await asyncio.sleep(0.05)
    socket.transport.abort()


async def no_utf8(socket: ServerConnection, task_id: str) -> None:
    await socket.send(b"\xff\xfe", text=True)
    await hang(socket, task_id)


HALF = (
    '{"header": {"event": "result-generated", "task_id": "TASK"}, "payload": {"output": '
    '{"sentence": {"text": 5}}}}'
)
FINISHED = '{"header": {"event": "task-finished", "task_id": "TASK"}, "payload": {}}'


@pytest.mark.parametrize("point", ["run", "input", "finish"])
@pytest.mark.parametrize(
    ("disturbance", "kind"),
    [
        (hang, FailureKind.TIMEOUT),
        (reset, FailureKind.CONNECTIVITY),
        (cut_off, FailureKind.CONNECTIVITY),
        (no_utf8, FailureKind.BROKEN),
        (sends("no JSON"), FailureKind.BROKEN),
        (sends("[]"), FailureKind.BROKEN),
        (sends('{"header": {}}'), FailureKind.BROKEN),
        (sends(HALF), FailureKind.BROKEN),
        (sends(b"\x00\x01"), FailureKind.BROKEN),
        (sends("x" * 5_000_000), FailureKind.BROKEN),
    ],
)
async def test_what_can_go_wrong_at_any_point(
    point: str, disturbance: Callable[[ServerConnection, str], Awaitable[None]], kind: FailureKind
) -> None:
    async with serving() as (service, _, _synthesizer):
        read_timeout_ms = 100 if kind is FailureKind.TIMEOUT else 60_000
        recognizer = provider.open_recognizer(
            api_key="k", base_url=service.url, read_timeout_ms=read_timeout_ms
        )
        service.disturb[point] = disturbance
        await check_fails(recognising(recognizer, SPEECH), kind)
        await recognizer.aclose()


@pytest.mark.parametrize("disturbance", [sends("no JSON"), reset])
async def test_a_synthesis_that_breaks_off(
    disturbance: Callable[[ServerConnection, str], Awaitable[None]],
) -> None:
    async with serving() as (service, _, synthesizer):

        async def after_some_audio(socket: ServerConnection, task_id: str) -> None:
            await socket.send(audio_of("x"))
            await disturbance(socket, task_id)

        service.disturb["finish"] = after_some_audio
        chunks = speaking(synthesizer)
        assert (await anext(chunks)).pcm == audio_of("x")
        await check_fails(chunks)


@pytest.mark.parametrize("point", ["run", "input"])
async def test_a_task_that_is_finished_too_early(point: str) -> None:
    async with serving() as (service, recognizer, _):
        service.disturb[point] = sends(FINISHED)
        kind = FailureKind.BROKEN if point == "run" else FailureKind.CONNECTIVITY
        await check_fails(recognising(recognizer, SPEECH, 5.0), kind)


async def test_a_service_that_takes_no_audio() -> None:
    async with serving() as (service, _, _synthesizer):
        recognizer = provider.open_recognizer(
            api_key="k", base_url=service.url, read_timeout_ms=100
        )
        service.disturb["input"] = hang
        await check_fails(recognising(recognizer, *[bytes(1_000_000)] * 20), FailureKind.TIMEOUT)
        await recognizer.aclose()


async def test_nobody_listens() -> None:
    recognizer = provider.open_recognizer(api_key="k", base_url=f"ws://127.0.0.1:{unused_port()}")
    await check_fails(recognising(recognizer, SPEECH), FailureKind.CONNECTIVITY)


async def test_a_server_that_does_not_accept_is_a_timeout() -> None:
    with a_full_backlog() as port:
        synthesizer = provider.open_synthesizer(
            api_key="k", base_url=f"ws://127.0.0.1:{port}", connect_ms=100
        )
        await check_fails(speaking(synthesizer), FailureKind.TIMEOUT)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(b"", FailureKind.CONNECTIVITY), (b"SSH-2.0-x\r\n\r\n", FailureKind.BROKEN)],
)
async def test_what_is_no_web_server(answer: bytes, kind: FailureKind) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with leaving_nothing(), raw_service(say) as port:
        synthesizer = provider.open_synthesizer(api_key="k", base_url=f"ws://127.0.0.1:{port}")
        await check_fails(speaking(synthesizer), kind)


async def test_what_the_audio_raises_passes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield SPEECH
        raise ZeroDivisionError

    async with serving() as (service, recognizer, _):
        with pytest.raises(ZeroDivisionError):
            [
                transcript
                async for transcript in recognizer.recognize(broken(), RecognitionOptions())
            ]
        await service.gone.wait()


async def test_cancelling_closes_the_connection_at_once() -> None:
    async with serving() as (service, recognizer, synthesizer):
        transcripts = recognising(recognizer, SPEECH, 60.0)
        await anext(transcripts)
        await transcripts.aclose()  # type: ignore[attr-defined]
        await service.gone.wait()
        service.gone.clear()
        chunks = speaking(synthesizer, "字" * 5_000)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        await service.gone.wait()
        assert not service.asked[0].finished


async def test_cancelling_while_a_task_is_being_started_closes_its_connection() -> None:
    async with serving() as (service, recognizer, synthesizer):
        asked = asyncio.Event()

        async def start_nothing(socket: ServerConnection, _task_id: str) -> None:
            asked.set()
            await socket.wait_closed()

        async def use(items: AsyncIterator[object]) -> None:
            await anext(items)

        service.disturb["run"] = start_nothing
        for items in (recognising(recognizer, SPEECH), speaking(synthesizer)):
            using = asyncio.get_running_loop().create_task(use(items))
            await asked.wait()
            using.cancel()
            await asyncio.wait([using])
            await service.gone.wait()
            asked.clear()
            service.gone.clear()


async def test_closing_fails_what_is_in_progress_and_what_comes() -> None:
    async with serving() as (_, recognizer, _synthesizer):
        transcripts = recognising(recognizer, SPEECH, 60.0)
        await anext(transcripts)
        await recognizer.aclose()
        await check_fails(transcripts, FailureKind.CONNECTIVITY)
        await check_fails(recognising(recognizer, SPEECH), FailureKind.CONNECTIVITY)


async def test_an_unknown_voice_is_rejected() -> None:
    async with serving() as (service, _, synthesizer):
        await check_fails(
            synthesizer.synthesize("x", VoiceOptions(voice="nobody")), FailureKind.REJECTED
        )
        await check_fails(speaking(synthesizer, "half \ud83d"), FailureKind.REJECTED)
        assert not any(asked.finished for asked in service.asked)


async def test_a_probe_shows_the_key_and_runs_no_task() -> None:
    async with serving() as (service, recognizer, synthesizer):
        for provided in (recognizer, synthesizer):
            service.refusal = None
            await provided.probe()
            await service.gone.wait()
            service.gone.clear()
            service.refusal = 401
            await check_probe_fails(provided, FailureKind.REJECTED)
        assert service.authorization == ["bearer secret"] * 4
        assert not service.asked
        await recognizer.aclose()
        await check_probe_fails(recognizer, FailureKind.CONNECTIVITY)
    url = f"ws://127.0.0.1:{unused_port()}"
    await check_probe_fails(
        provider.open_recognizer(api_key="secret", base_url=url), FailureKind.CONNECTIVITY
    )


async def test_they_keep_the_contract() -> None:
    async with serving() as (_, recognizer, synthesizer):
        await check_recognizer(recognizer, SPEECH + SILENCE + SPEECH)
        await check_synthesizer(synthesizer)
        gc.collect()


@pytest.mark.parametrize("url", ["http://x", "ws://", "ws://host:99999", "wss://[::1", "host:1"])
def test_an_unusable_address_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"base_url: .* is not of the form ws://host:port/path"):
        provider.open_recognizer(api_key="k", base_url=url)
