"""Asterisk's AudioSocket: frames, pacing, who may call."""

import asyncio
import uuid
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.phones.service import phone_server
from voicechat.audio.resample import Resampler
from voicechat.dialects.audiosocket import AudioSocketEndpoint, open_endpoint
from voicechat.dialects.audiosocket.call import CAUGHT_UP_MS, AudioSocketCall
from voicechat.dialects.audiosocket.frames import RATES_HZ, AudioSocketFraming
from voicechat.dialects.base import Connection, Handshake, Tell
from voicechat.errors import ConfigError, RemoteProtocolError
from voicechat.providers.registry import load_factory
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.agent import Agent, Keypad
from voicechat.session.events import AudioReceived
from voicechat.session.types import ToolCall
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.queued_fakes import SilentDetector
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer

CALL_ID = "40325ec2-5efd-4bd3-805f-53576e581d13"
FIRST = b"\x01" + uuid.UUID(CALL_ID).bytes
SILENCE = bytes(320)


def wire(kind: int, payload: bytes = b"") -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


def call(**options: int) -> AudioSocketCall:
    dialect = AudioSocketEndpoint(**options).open(Connection()).dialect  # type: ignore[arg-type]
    assert isinstance(dialect, AudioSocketCall)
    dialect.open(0)
    return dialect


def stage(agent: Agent | None = None) -> ScriptedHarness:
    agent = agent or Agent(keypad=Keypad(most=1))
    opening = AudioSocketEndpoint().open(Connection(agent=agent))
    return ScriptedHarness(
        dialect=opening.dialect,
        settings=opening.settings,
        agent=agent,
        detector=SilentDetector(),
        model=ScriptedModel((("One two three four five six seven. ", "Eight nine ten."),)),
        synthesizer=ScriptedSynthesizer(),
    )


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1_000])
def test_frames_are_read_wherever_the_stream_is_cut(cut: int) -> None:
    frames = [FIRST, b"\x10" + SILENCE, b"\x03#", b"\x00", b"\x77" + bytes(65_535), b"\xff\x01"]
    stream = b"".join(wire(frame[0], frame[1:]) for frame in frames)
    framing = AudioSocketFraming()
    read = [f for at in range(0, len(stream), cut) for f in framing.push(stream[at : at + cut])]
    assert read == frames
    assert [framing.write(frame) for frame in frames] == [wire(f[0], f[1:]) for f in frames]
    assert not framing._rest


@pytest.mark.parametrize("kind", RATES_HZ)
def test_every_rate_is_heard_and_answered_in(kind: int) -> None:
    dialect = call()
    reactions = list(dialect.receive(bytes((kind,)) + b"\1\0" * 10, 5))
    assert reactions[-2:] == [cmd.Begin(), AudioReceived(b"\1\0" * 10)]
    configured = [r.settings for r in reactions if isinstance(r, cmd.Configure)]
    assert len(configured) == (kind != 0x10)
    for settings in configured:
        assert settings.input.sample_rate_hz == RATES_HZ[kind]
        assert settings.voice.format == f"PCM_{RATES_HZ[kind]}HZ_20MS"
    (frame,) = [r.frame for r in dialect.wake(0) if isinstance(r, Tell)]
    assert frame == bytes((kind,)) + bytes(RATES_HZ[kind] // 50 * 2)


def test_old_asterisks_send_any_rate_as_the_first_kind() -> None:
    dialect = call(rate_hz=16_000)
    assert list(dialect.receive(b"\x10ab", 0))[-2:] == [cmd.Begin(), AudioReceived(b"ab")]
    assert dialect._settings.input.sample_rate_hz == 16_000
    assert len(dialect._next_frame()) == 640


def test_keys_hang_ups_errors_and_kinds_of_the_future() -> None:
    dialect = call()
    list(dialect.receive(b"\x10ab", 0))
    assert list(dialect.receive(b"\x035", 0))[1:] == [cmd.PressKey("5")]
    for nothing in (b"\x02xyz", b"\x20", b"\x10", b"", FIRST):
        assert list(dialect.receive(nothing, 0)) == [cmd.Alive()]
    for end in (b"\x00", b"\xff\x02"):
        ending = call()
        assert list(ending.receive(end, 0))[1:] == [cmd.HangUp()]
        assert list(ending.receive(b"\x10ab", 0)) == [cmd.Alive()]
        assert ending.deadline_ms() is None


def test_a_call_that_is_over_is_hung_up() -> None:
    dialect = call()
    assert list(dialect.notify(nt.Ended(nt.Ending.GOODBYE), 0)) == [Tell(b"\0")]


def test_a_channel_without_audio_is_greeted_all_the_same() -> None:
    dialect = call()
    assert not any(isinstance(r, cmd.Begin) for r in dialect.wake(180))
    assert any(isinstance(r, cmd.Begin) for r in dialect.wake(200))
    assert not any(isinstance(r, cmd.Begin) for r in dialect.wake(220))


@pytest.mark.parametrize("minutes", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_frames_leave_every_20_ms_without_drift(minutes: int) -> None:
    call_of_minutes = stage(Agent(greeting="Hello. " * 60))
    async with call_of_minutes:
        for _ in range(2 * minutes):
            call_of_minutes.send_frame(b"\x10")  # the caller is there
            await asyncio.sleep(30)
        times_s = [sent.at_s for sent in call_of_minutes.socket.sent]
    assert len(times_s) == pytest.approx(60 * minutes * 50, abs=1)
    late_s = np.array(times_s) - times_s[0] - 0.02 * np.arange(len(times_s))
    assert np.abs(late_s).max() < 0.002


async def test_a_reply_is_sent_whole_and_silence_around_it() -> None:
    greeting = "A greeting of some length, in which nothing may be missing."
    talk = stage(Agent(greeting=greeting))
    async with talk:
        await asyncio.sleep(10)
        frames = [bytes(sent.frame)[1:] for sent in talk.socket.sent]  # type: ignore[arg-type]
    assert {len(frame) for frame in frames} == {320}
    sounding = [frame != SILENCE for frame in frames]
    first, last = sounding.index(True), len(sounding) - sounding[::-1].index(True)
    assert (last - first) * 20 == pytest.approx(len(greeting) * 50, abs=60)
    assert all(sounding[first:last]), "no gaps"
    assert 200 <= first * 20 <= 320


async def test_nothing_of_a_reply_is_sent_after_it_was_cut() -> None:
    talk = stage(Agent(greeting="A greeting of some length. " * 4, keypad=Keypad(most=9)))
    async with talk:
        await asyncio.sleep(2)
        talk.send_frame(b"\x031")
        await asyncio.sleep(0.001)
        sent = len(talk.socket.sent)
        await asyncio.sleep(1)
        after = [bytes(each.frame)[1:] for each in talk.socket.sent[sent:]]  # type: ignore[arg-type]
    assert len(after) >= 49
    assert set(after) == {SILENCE}


def test_after_a_long_stall_the_clock_begins_anew() -> None:
    dialect = call()
    assert len(list(dialect.wake(0))) == 1
    assert len(list(dialect.wake(100))) == 5 - 0, "late frames leave together"
    late = 100 + CAUGHT_UP_MS + 500
    frames = [r for r in dialect.wake(late) if isinstance(r, Tell)]
    assert len(frames) == 1
    assert dialect.deadline_ms() == late + 20


def expected(call_id: str) -> Mapping[str, object] | None:
    if call_id == CALL_ID:
        return {"agent": "hotel", "caller": "+4940", "called": "+4930", "guest": "Ann", "room": 7}
    if call_id.startswith("0"):
        raise OSError("the list is on another machine")
    return None


def test_who_may_call_is_a_list_or_a_function() -> None:
    anybody, listed = AudioSocketEndpoint(), AudioSocketEndpoint(ids=[CALL_ID.upper()])
    other = b"\x01" + uuid.UUID(int=1 << 127).bytes
    for endpoint in (anybody, listed):
        caller = endpoint.identify(Handshake(), [FIRST])
        assert caller is not None
        assert caller.arrival.variables == {"uuid": CALL_ID}
    assert anybody.identify(Handshake(), [other]) is not None
    with pytest.raises(RemoteProtocolError, match="no call 80000000-"):
        listed.identify(Handshake(), [other])

    asked = load_factory("voicechat.dialects.audiosocket:open_endpoint", "dialect")(
        look_up="tests.phones.test_audiosocket:expected"
    )
    assert isinstance(asked, AudioSocketEndpoint)
    caller = asked.identify(Handshake(), [FIRST])
    assert caller is not None
    arrival = caller.arrival
    assert (arrival.agent, arrival.caller, arrival.called) == ("hotel", "+4940", "+4930")
    assert arrival.variables["room"] == "7"
    with pytest.raises(RemoteProtocolError, match="is expected"):
        asked.identify(Handshake(), [other])
    with pytest.raises(RemoteProtocolError, match="look_up: raised OSError"):
        asked.identify(Handshake(), [b"\x01" + bytes(16)])


@pytest.mark.parametrize("first", [b"\x10" + SILENCE, b"\x01short", b"", b"\x00", "text"])
def test_a_call_must_begin_with_its_id(first: bytes | str) -> None:
    with pytest.raises(RemoteProtocolError, match="of kind 1"):
        AudioSocketEndpoint().identify(Handshake(), [first])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="ids: 'seven' is no UUID"):
        open_endpoint(ids=["seven"])
    with pytest.raises(ConfigError, match="rate_hz: 11025 is not one of 8000"):
        open_endpoint(rate_hz=11_025)
    with pytest.raises(ConfigError, match="not with both"):
        open_endpoint(ids=[], look_up=expected)
    with pytest.raises(ConfigError, match="look_up"):
        load_factory("voicechat.dialects.audiosocket:open_endpoint", "dialect")(look_up="no.where")


class Line:
    """Asterisk's side of a call, over TCP and in real time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.heard = bytearray()

    async def talk(self, pcm: bytes) -> None:
        """Send 8 kHz samples in real time, then silence."""
        while True:
            block, pcm = pcm[:320].ljust(320, b"\0"), pcm[320:]
            self._writer.write(wire(0x10, block))
            await asyncio.sleep(0.02)

    async def listen(self) -> int:
        """Hear all until the server hangs up; return the kind of its last frame."""
        kind = -1
        while head := await self._reader.read(1):
            kind = head[0]
            size = int.from_bytes(await self._reader.readexactly(2), "big")
            payload = await self._reader.readexactly(size)
            self.heard += payload
        return kind


@pytest.mark.real_time
@pytest.mark.long
async def test_a_caller_is_understood_and_the_agent_hangs_up(
    tmp_path: Path, recordings: Path
) -> None:
    toml = f"""
    [dialects.asterisk]
    dialect = "voicechat.dialects.audiosocket:open_endpoint"
    port = 0
    ids = ["{CALL_ID}"]
    agent = "hotel"
    [agents.hotel]
    end_conversation = true
    goodbye = "Goodbye."
    """
    end = ToolCall(0, "call-1", "end_conversation", "{}")
    model = ScriptedModel(((end,), ("It was nice to hear you.",)))
    with wave.open(str(recordings / "something.wav")) as file:
        down = Resampler(16_000, 8_000)
        pcm = down.push_audio(file.readframes(file.getnframes())) + down.finish_stream()
    async with (
        phone_server(tmp_path, toml=toml, model=model) as server,
        asyncio.timeout(120),
        asyncio.TaskGroup() as tasks,
    ):
        port = server.ports["asterisk"]
        for first in (b"\x01\x00\x10" + bytes(16), wire(0x03, b"5")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            assert await reader.read() in (wire(0x00), b""), "nobody is expected"
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = Line(reader, writer)
        writer.write(wire(0x01, uuid.UUID(CALL_ID).bytes))
        talking = tasks.create_task(line.talk(pcm))
        assert await line.listen() == 0x00, "hung up in form"
        talking.cancel()
        writer.close()
        while server.admission.sessions:  # noqa: ASYNC110 - bounded by the timeout
            await asyncio.sleep(0.05)
    assert model.requests[0].messages[-1]["content"] == "go somewhere"
    heard = np.frombuffer(line.heard, "<i2")
    said_s = (len("It was nice to hear you.") + len("Goodbye.")) * 0.05
    assert np.count_nonzero(heard) / 8_000 == pytest.approx(said_s, abs=0.3)
