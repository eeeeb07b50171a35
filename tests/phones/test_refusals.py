"""A caller whose call cannot be taken hears the apology and is hung up on."""

import asyncio
import base64
import json
import re
import uuid
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.phones.service import CONFIG, KEY, phone_server
from tests.phones.test_media_stream_wires import LINES, STARTS, TWILIO_CONNECTED, UP
from voicechat.audio import g711
from voicechat.audio.formats import Container
from voicechat.audio.speech_level import SpeechLevel
from voicechat.dialects.audiosocket import AudioSocketEndpoint
from voicechat.dialects.base import Connection, Frame, Refused
from voicechat.dialects.media_streams.endpoint import VENDORS, MediaStreamsEndpoint
from voicechat.errors import FailureKind, Status
from voicechat.providers.espeak import open_synthesizer
from voicechat.server.refusal_speech import MOST_SPOKEN, RefusalSpeech
from voicechat.session.agent import Agent, Keypad
from voicechat.session.fallback_message import FallbackMessage
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.queued_fakes import SilentDetector
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket

APOLOGY = FallbackMessage()


def tone(rate_hz: int) -> bytes:
    """One second that is not silent."""
    return b"\x00\x10" * rate_hz


def audio_of(vendor: str, frame: Frame) -> bytes:
    if isinstance(frame, bytes):
        return frame
    return base64.b64decode(json.loads(frame)["media"]["payload"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_line_carries_the_apology_in_its_own_coding(vendor: str) -> None:
    endpoint, line = MediaStreamsEndpoint(vendor), LINES[vendor]
    frames = [json.dumps(TWILIO_CONNECTED), json.dumps(STARTS[vendor])]
    refused = endpoint.speak_refusal(frames, tone)
    assert refused is not None
    coded = b"".join(audio_of(vendor, each) for group in refused.spoken for each in group)
    law = {Container.MU_LAW: g711.MU_LAW, Container.A_LAW: g711.A_LAW}.get(line.container)
    pcm = np.frombuffer(coded, "<i2") if law is None else law[np.frombuffer(coded, np.uint8)]
    heard = np.abs(pcm.astype(int)) > 1_000
    assert np.count_nonzero(heard) == np.count_nonzero(heard[: line.rate_hz]) == line.rate_hz
    # Each group but the first, which is ahead, takes as long as it plays.
    assert len(refused.spoken[1]) >= 1
    second = sum(len(audio_of(vendor, each)) for each in refused.spoken[1])
    assert second * 20 / line.frame_bytes == refused.pause_ms
    assert endpoint.speak_refusal(["{}"], tone) is None


def test_asterisk_gets_it_frame_by_frame_and_is_hung_up_on() -> None:
    refused = AudioSocketEndpoint(rate_hz=16_000).speak_refusal([], tone)
    assert refused is not None
    frames = [frame for group in refused.spoken for frame in group]
    assert len(frames) == len(refused.spoken) == 1_000 / refused.pause_ms
    assert all(isinstance(each, bytes) and each[0] == 0x10 for each in frames)
    assert {len(each) for each in frames} == {1 + 640}
    assert refused.frames == (b"\x00",)


@pytest.mark.parametrize("line", ["twilio", "vonage", "asterisk", "audiosocket"])
@pytest.mark.parametrize("down", ["nobody", "model", "synthesizer"])
async def test_a_turn_that_fails_without_a_sound_is_apologised_for(line: str, down: str) -> None:
    connection = Connection(apology=tone)
    endpoint = AudioSocketEndpoint() if line == "audiosocket" else MediaStreamsEndpoint(line)
    opening = endpoint.open(connection)
    failure = Failure(calls=2)
    harness = ScriptedHarness(
        dialect=opening.dialect,
        settings=opening.settings,
        agent=Agent(keypad=Keypad(most=1)),
        detector=SilentDetector(),
        model=ScriptedModel(failure=failure if down == "model" else Failure(calls=0)),
        synthesizer=ScriptedSynthesizer(
            failure=failure if down == "synthesizer" else Failure(calls=0)
        ),
        apology=APOLOGY,
    )
    async with harness:
        if line == "audiosocket":
            harness.send_frame(b"\x10" + bytes(320))
            harness.send_frame(b"\x035")
        else:
            harness.send_frame(json.dumps(STARTS[line]))
            harness.send_frame(json.dumps(UP[line]["key"]))
        await asyncio.sleep(12)
    sent = [each.frame for each in harness.socket.sent]
    heard = b"".join(sound_of(line, frame) for frame in sent)
    # The apology of the test is one second of a constant.
    rate_hz = 8_000 if line in ("twilio", "audiosocket") else 16_000
    longest = max((len(run) for run in re.findall(rb"(?:\x00\x10)+", heard)), default=0)
    assert (longest == 2 * rate_hz) is (down == "synthesizer"), longest


def sound_of(line: str, frame: Frame) -> bytes:
    """The samples in a frame."""
    if line == "audiosocket":
        return frame[1:] if isinstance(frame, bytes) and frame[0] == 0x10 else b""
    if isinstance(frame, bytes):
        return frame
    message = json.loads(frame)
    if message.get("event") != "media":
        return b""
    law = np.frombuffer(base64.b64decode(message["media"]["payload"]), np.uint8)
    # Mu-law is coarse: what it makes of the constant is the constant again.
    pcm = g711.MU_LAW[law]
    return (
        np.where(pcm == g711.MU_LAW[g711.MU_LAW_CODES[0x1000]], 0x1000, 0).astype("<i2").tobytes()
    )


@pytest.mark.real_time
async def test_the_apology_is_ready_in_both_languages_at_the_level_of_a_line() -> None:
    speech = RefusalSpeech(APOLOGY)
    assert speech.speech(Status.AT_CAPACITY, "en") is None, "before it is prepared"
    async with aclosing(open_synthesizer()) as synthesizer:
        await speech.prepare(synthesizer)
    spoken = {language: speech.speech(Status.NOT_FOUND, language) for language in ("", "zh-CN")}
    said = []
    for give in spoken.values():
        assert give is not None
        pcm = give(8_000)
        assert give(8_000) is pcm, "computed once"
        assert len(give(16_000)) == pytest.approx(2 * len(pcm), rel=0.01)
        level = SpeechLevel()
        level.add_audio(np.frombuffer(pcm, "<i2") / 32767, 8_000)
        assert level.dbov == pytest.approx(-26, abs=1.5)
        said.append(pcm)
    assert said[0] != said[1]
    for status in (Status.NOT_AUTHORISED, Status.MALFORMED, Status.TIMEOUT):
        assert speech.speech(status, "en") is None
    broken = RefusalSpeech(APOLOGY)
    await broken.prepare(ScriptedSynthesizer(failure=Failure(0, FailureKind.BROKEN)))
    assert broken.speech(Status.AT_CAPACITY, "en") is None
    silent = RefusalSpeech(None)
    await silent.prepare(ScriptedSynthesizer())
    assert silent.speech(Status.AT_CAPACITY, "en") is None


async def test_it_is_sent_at_its_pace_until_the_server_stops() -> None:
    speech = RefusalSpeech(APOLOGY)
    await speech.prepare(ScriptedSynthesizer())
    refused = Refused(spoken=tuple((str(n),) for n in range(50)), pause_ms=20)
    loop, socket = asyncio.get_running_loop(), MemorySocket()
    begun_s = loop.time()
    await speech.speak(socket, refused)
    assert [each.frame for each in socket.sent] == [str(n) for n in range(50)]
    assert loop.time() - begun_s == pytest.approx(1.0)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(MOST_SPOKEN):
            tasks.create_task(speech.speak(MemorySocket(), refused))
        await asyncio.sleep(0.1)
        assert speech.speech(Status.AT_CAPACITY, "en") is None, "no more at once"
        speech.stop()
        begun_s = loop.time()
    assert loop.time() == begun_s
    assert speech.speech(Status.AT_CAPACITY, "en") is not None


def start(key: str = KEY) -> str:
    return json.dumps(STARTS["twilio"]).replace("vct_1", key)


async def heard_on(address: str, first: str) -> tuple[float, int | None]:
    """How many seconds of a voice a refused caller hears, and the close code."""
    pcm = bytearray()
    async with connect(address) as socket:
        await socket.send(first)
        try:
            while True:
                message = json.loads(await socket.recv())
                line = np.frombuffer(base64.b64decode(message["media"]["payload"]), np.uint8)
                pcm += g711.MU_LAW[line].astype("<i2").tobytes()
        except ConnectionClosed:
            pass
    loud = np.abs(np.frombuffer(bytes(pcm), "<i2").astype(int)) > 300
    return np.count_nonzero(loud) / 8_000, socket.close_code


@pytest.mark.real_time
@pytest.mark.long
async def test_callers_hear_why_nobody_answers_and_strangers_hear_nothing(tmp_path: Path) -> None:
    toml = f"""
    [server]
    max_sessions = 1
    [dialects.asterisk]
    dialect = "voicechat.dialects.audiosocket:open_endpoint"
    port = 0
    {CONFIG}
    """
    async with phone_server(tmp_path, toml=toml) as server, asyncio.timeout(120):
        address = f"{server.url.replace('http', 'ws')}/phone/twilio/stream"
        seconds, code = await heard_on(f"{address}/nobody", start())
        assert (seconds > 0.5, code) == (True, 1000), "there is no such agent"
        assert await heard_on(f"{address}/hotel", start(key="vt_wrong")) == (0.0, 1008)
        async with connect(f"{address}/hotel") as taken:
            await taken.send(start())
            await taken.recv()
            seconds, code = await heard_on(f"{address}/hotel", start())
            assert (seconds > 0.5, code) == (True, 1000), "there is no place"

            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports["asterisk"])
            writer.write(b"\x01\x00\x10" + uuid.uuid4().bytes)
            stream = await reader.read()
            writer.close()
            samples = np.frombuffer(stream[3:323], "<i2")
            assert len(stream) > 100 * 323
            assert stream[0] == 0x10
            assert len(samples) == 160
            assert stream.endswith(b"\x00\x00\x00"), "hung up in form"
            # A caller who hangs up in the middle of the apology leaves nothing behind.
            async with connect(f"{address}/hotel") as impatient:
                await impatient.send(start())
                await impatient.recv()
                impatient.transport.abort()
            taken.transport.abort()
        while server.admission.sessions:  # noqa: ASYNC110 - bounded by the timeout
            await asyncio.sleep(0.05)
