import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve

from tests.providers.funasr_service import (
    CppServer,
    Disturbance,
    FunASR,
    PythonServer,
    funasr,
    send,
)
from tests.providers.loopback import a_full_backlog
from tests.unused_port import unused_port
from voicechat.errors import ConfigError, FailureKind
from voicechat.providers import funasr as provider
from voicechat.providers.funasr import FunASRRecognizer
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.session.types import Transcript
from voicechat.testing.conformance import (
    check_fails,
    check_probe_fails,
    check_recognizer,
    leaving_nothing,
)

pytestmark = pytest.mark.real_time

SPEECH = b"\x01\x00" * 16 * 1200  # six characters
SILENCE = bytes(32 * 1200)
SERVERS: dict[str, Callable[[], FunASR]] = {
    "cpp": CppServer,
    "python": PythonServer,
    "old python": lambda: PythonServer(old=True),
}


@asynccontextmanager
async def serving(server: FunASR, read_timeout_ms: int = 2_000) -> AsyncIterator[FunASRRecognizer]:
    async with leaving_nothing(), asyncio.timeout(120), funasr(server):
        recognizer = provider.open_recognizer(
            url=server.url, hotwords="阿里", read_timeout_ms=read_timeout_ms
        )
        try:
            yield recognizer
        finally:
            await recognizer.aclose()


async def audio(*pieces: bytes | float) -> AsyncIterator[bytes]:
    """Pieces of audio, and seconds to wait."""
    for piece in pieces:
        if isinstance(piece, float):
            await asyncio.sleep(piece)
        else:
            yield piece


def recognising(recognizer: FunASRRecognizer, *pieces: bytes | float) -> AsyncIterator[Transcript]:
    return recognizer.recognize(audio(*pieces), RecognitionOptions())


async def recognise(recognizer: FunASRRecognizer, *pieces: bytes | float) -> list[Transcript]:
    return [transcript async for transcript in recognising(recognizer, *pieces)]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> FunASR:
    return SERVERS[str(request.param)]()


async def test_two_sentences(server: FunASR) -> None:
    async with serving(server) as recognizer:
        transcripts = await recognise(recognizer, SPEECH, SILENCE, SPEECH)
        assert [transcript.text for transcript in transcripts if transcript.final] == [
            "天地玄黄宇宙。",
            "洪荒日月盈昃。",
        ]
        assert "天地玄" in [transcript.text for transcript in transcripts if not transcript.final]
        assert server.begun[0]["hotwords"] == "阿里"
        # Frames of 60 ms, whatever the pieces were: the Python server counts them.
        assert set(server.frames) == {1920}


async def test_times_of_the_cpp_server_are_exact() -> None:
    async with serving(CppServer()) as recognizer:
        finals = [
            transcript
            for transcript in await recognise(recognizer, SPEECH, SILENCE, SPEECH)
            if transcript.final
        ]
        assert [(final.begin_ms, final.end_ms) for final in finals] == [(0, 1200), (2400, 3600)]
        assert [(word.text, word.begin_ms) for word in finals[1].words][:2] == [
            ("洪", 2400),
            ("荒", 2600),
        ]


async def test_times_of_the_python_server_are_near() -> None:
    """The server does not say where a sentence began, and hears the audio as it
    comes.
    """
    server = PythonServer()

    async def microphone() -> AsyncIterator[bytes]:
        speech = SPEECH + SILENCE + SPEECH
        for start in range(0, len(speech), 1920):
            while start - sum(server.frames) > 3 * 1920:  # noqa: ASYNC110 - the service tells nobody
                await asyncio.sleep(0.001)
            yield speech[start : start + 1920]

    async with serving(server) as recognizer:
        transcripts = recognizer.recognize(microphone(), RecognitionOptions())
        finals = [transcript async for transcript in transcripts if transcript.final]
        for final, (begin_ms, end_ms) in zip(finals, [(0, 1200), (2400, 3600)], strict=True):
            assert abs(final.begin_ms - begin_ms) <= 1_000
            assert final.end_ms is not None
            assert abs(final.end_ms - end_ms) <= 1_000


async def test_partials_come_while_audio_is_still_being_given(server: FunASR) -> None:
    async with serving(server) as recognizer:
        heard = asyncio.Event()

        async def microphone() -> AsyncIterator[bytes]:
            yield SPEECH
            await heard.wait()

        transcripts = recognizer.recognize(microphone(), RecognitionOptions())
        assert not (await anext(transcripts)).final
        heard.set()
        assert [transcript async for transcript in transcripts][-1].final


async def test_a_stream_ends_as_soon_as_the_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "LINGER_S", 3_600)
    for server in (CppServer(), PythonServer()):
        async with serving(server, read_timeout_ms=3_600_000) as recognizer:
            assert await recognise(recognizer, SILENCE) == []
            assert (await recognise(recognizer, SPEECH))[-1].final


async def test_an_old_server_may_have_one_more_sentence_after_the_end() -> None:
    async def two_more(socket: ServerConnection) -> None:
        await send(socket, mode="2pass-offline", text="一。", is_final=False)
        await asyncio.sleep(0.1)
        await send(socket, mode="2pass-offline", text="二。", is_final=False)
        await socket.wait_closed()

    server = PythonServer(old=True)
    server.disturb["end"] = two_more
    async with serving(server) as recognizer:
        assert [transcript.text for transcript in await recognise(recognizer, SILENCE)] == [
            "一。",
            "二。",
        ]


async def test_a_server_that_is_alive_and_says_nothing_heard_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider, "PING_S", 20)
    server = PythonServer()
    server.disturb["end"] = hang
    async with serving(server, read_timeout_ms=100) as recognizer:
        assert await recognise(recognizer, SILENCE) == []


async def test_what_was_begun_must_be_ended() -> None:
    server = PythonServer()
    server.disturb["end"] = hang
    async with serving(server, read_timeout_ms=1_000) as recognizer:
        transcripts = recognising(recognizer, SPEECH)
        assert not (await anext(transcripts)).final
        await check_fails(transcripts, FailureKind.TIMEOUT)


async def test_a_server_that_does_not_even_answer_a_ping_is_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider, "PING_S", 0.1)

    async def stop_reading(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await asyncio.sleep(1)

    server = PythonServer()
    server.disturb["end"] = stop_reading
    async with serving(server, read_timeout_ms=100) as recognizer:
        await check_fails(recognising(recognizer, SILENCE), FailureKind.TIMEOUT)


async def test_all_audio_is_given_in_frames_whatever_the_pieces_are() -> None:
    async with serving(server := CppServer()) as recognizer:
        await recognise(recognizer, bytes(1000), bytes(5000), bytes(2))
        assert server.frames == [1920, 1920, 1920, 242]


async def test_nothing_connects_to_nothing() -> None:
    async with serving(server := CppServer()) as recognizer:
        assert await recognise(recognizer) == []
        assert await recognise(recognizer, b"", b"") == []
        assert server.begun == []


# --- failures -------------------------------------------------------------------------


async def hang(socket: ServerConnection) -> None:
    await socket.wait_closed()


async def reset(socket: ServerConnection) -> None:
    socket.transport.abort()


def sends(message: str | bytes) -> Disturbance:
    async def disturb(socket: ServerConnection) -> None:
        await socket.send(message)
        await socket.wait_closed()

    return disturb


@pytest.mark.parametrize("point", ["begin", "audio", "end"])
@pytest.mark.parametrize(
    ("disturbance", "kind"),
    [
        (reset, FailureKind.CONNECTIVITY),
        (sends("no JSON"), FailureKind.BROKEN),
        (sends('{"mode": "2pass-offline", "text": null}'), FailureKind.BROKEN),
        (sends(b"\x00"), FailureKind.BROKEN),
        (sends('{"is_end": true, "error": "offline inference failed"}'), FailureKind.CONNECTIVITY),
    ],
)
async def test_what_can_go_wrong_at_any_point(
    point: str, disturbance: Disturbance, kind: FailureKind
) -> None:
    server = PythonServer()
    server.disturb[point] = disturbance
    async with serving(server) as recognizer:
        await check_fails(recognising(recognizer, SPEECH), kind)


async def test_a_server_that_takes_no_audio() -> None:
    server = CppServer()
    server.disturb["audio"] = hang
    async with serving(server, read_timeout_ms=100) as recognizer:
        await check_fails(recognising(recognizer, *[bytes(1_000_000)] * 20), FailureKind.TIMEOUT)


async def test_nobody_listens_or_nobody_accepts() -> None:
    recognizer = provider.open_recognizer(url=f"ws://127.0.0.1:{unused_port()}")
    await check_fails(recognising(recognizer, SPEECH), FailureKind.CONNECTIVITY)
    with a_full_backlog() as port:
        recognizer = provider.open_recognizer(url=f"ws://127.0.0.1:{port}", connect_ms=100)
        await check_fails(recognising(recognizer, SPEECH), FailureKind.TIMEOUT)


async def test_what_the_audio_raises_passes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield SPEECH
        raise ZeroDivisionError

    async with serving(server := CppServer()) as recognizer:
        with pytest.raises(ZeroDivisionError):
            [
                transcript
                async for transcript in recognizer.recognize(broken(), RecognitionOptions())
            ]
        await server.gone.wait()


async def test_closing_fails_what_is_in_progress_and_what_comes() -> None:
    async with serving(CppServer()) as recognizer:
        transcripts = recognising(recognizer, SPEECH, 60.0)
        await anext(transcripts)
        await recognizer.aclose()
        await check_fails(transcripts, FailureKind.CONNECTIVITY)
        await check_fails(recognising(recognizer, SPEECH), FailureKind.CONNECTIVITY)


async def test_a_probe_connects_and_asks_for_nothing() -> None:
    async with serving(server := CppServer()) as recognizer:
        await recognizer.probe()
        await server.gone.wait()
        await recognizer.aclose()
        await check_probe_fails(recognizer, FailureKind.CONNECTIVITY)
    await check_probe_fails(
        provider.open_recognizer(url=f"ws://127.0.0.1:{unused_port()}"), FailureKind.CONNECTIVITY
    )
    with a_full_backlog() as port:
        recognizer = provider.open_recognizer(url=f"ws://127.0.0.1:{port}", connect_ms=100)
        await check_probe_fails(recognizer, FailureKind.TIMEOUT)


async def test_they_keep_the_contract(server: FunASR, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "LINGER_S", 0.1)
    async with serving(server) as recognizer:
        await check_recognizer(recognizer, SPEECH + SILENCE + SPEECH)


@pytest.fixture
def certified() -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody knows, as FunASR's images
    have it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


async def test_a_certificate_that_nobody_signed(certified: ssl.SSLContext) -> None:
    handle = CppServer().handle
    async with (
        leaving_nothing(),
        asyncio.timeout(120),
        serve(handle, "127.0.0.1", 0, ssl=certified, close_timeout=0.1) as listening,
    ):
        url = f"wss://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"
        await check_fails(
            recognising(provider.open_recognizer(url=url), SPEECH), FailureKind.REJECTED
        )
        assert (await recognise(provider.open_recognizer(url=url, verify_tls=False), SPEECH))[
            -1
        ].final


def test_an_unusable_address_stops_the_start() -> None:
    with pytest.raises(
        ConfigError, match=r"url: '127\.0\.0\.1:10095' is not of the form ws://host:port/path"
    ):
        provider.open_recognizer(url="127.0.0.1:10095")
