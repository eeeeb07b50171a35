"""pipecat's serializers against our wires: what one writes the other reads.

pipecat-ai weighs 500 MB with what it needs, so it is no dependency of the tests: they
run where it is installed.
"""

import base64
import json
from typing import Any

import numpy as np
import pytest

from tests.phones.test_media_stream_wires import LINES, STARTS, UP, call_of, told
from voicechat.audio import g711
from voicechat.audio.formats import Container
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived

pytest.importorskip("pipecat", reason="pip install pipecat-ai")

from pipecat.frames.frames import InputAudioRawFrame, InterruptionFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.serializers.vonage import VonageFrameSerializer

pytestmark = [pytest.mark.long, pytest.mark.real_time]

RATE_HZ = 8_000
PCM = (np.sin(np.arange(160) / 3) * 9_000).astype("<i2").tobytes()
"""20 ms at 8 kHz."""
CODES = {Container.MU_LAW: g711.MU_LAW_CODES, Container.A_LAW: g711.A_LAW_CODES}
SERIALIZERS: dict[str, Any] = {
    "twilio": lambda: TwilioFrameSerializer(
        "MZ1", params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    ),
    "telnyx": lambda: TelnyxFrameSerializer(
        "MZ1", "PCMA", "PCMA", params=TelnyxFrameSerializer.InputParams(auto_hang_up=False)
    ),
    "plivo": lambda: PlivoFrameSerializer(
        "MZ1", params=PlivoFrameSerializer.InputParams(auto_hang_up=False)
    ),
    "exotel": lambda: ExotelFrameSerializer("MZ1"),
    "vonage": lambda: VonageFrameSerializer(
        VonageFrameSerializer.InputParams(vonage_sample_rate=RATE_HZ)
    ),
}
every_vendor = pytest.mark.parametrize("vendor", SERIALIZERS)


async def theirs(vendor: str) -> Any:
    serializer = SERIALIZERS[vendor]()
    setup = FrameProcessorSetup(clock=None, task_manager=None, pipeline_worker=None)
    setup.audio_in_sample_rate = setup.audio_out_sample_rate = RATE_HZ
    await serializer.setup(setup)
    return serializer


def ours(vendor: str) -> Any:
    start = json.loads(json.dumps(STARTS[vendor]))
    if vendor == "plivo":  # pipecat knows mu-law only
        start["start"]["mediaFormat"] = {"encoding": "audio/x-mulaw", "sampleRate": RATE_HZ}
    if vendor == "vonage":
        start["content-type"] = f"audio/l16;rate={RATE_HZ}"
    dialect = call_of(vendor, started=False)
    list(dialect.receive(json.dumps(start), 0))
    return dialect


def on_the_line(vendor: str, pcm: bytes) -> bytes:
    container = Container.MU_LAW if vendor == "plivo" else LINES[vendor].container
    return g711.encoded(pcm, CODES[container]) if container in CODES else pcm


@every_vendor
async def test_both_write_the_same_audio_and_the_same_clear(vendor: str) -> None:
    serializer, dialect = await theirs(vendor), ours(vendor)
    frame = OutputAudioRawFrame(audio=PCM * 10, sample_rate=RATE_HZ, num_channels=1)
    written = await serializer.serialize(frame)
    packets = tuple([on_the_line(vendor, PCM)] * 10)
    probe, *media = told(dialect, nt.ReplyAudio(1, packets, 200, 0))
    assert probe is not None
    if vendor == "vonage":
        assert b"".join(media) == written
    else:
        (said,), meant = media, json.loads(written)
        payload, other = (base64.b64decode(m["media"].pop("payload")) for m in (said, meant))
        assert said == meant, "every other field"
        if vendor == "exotel":
            assert payload == other
        else:
            # They round ties of the codec differently: by one code at most.
            table = g711.A_LAW if vendor == "telnyx" else g711.MU_LAW
            decoded = [
                table[np.frombuffer(each, np.uint8)].astype(int) for each in (payload, other)
            ]
            assert np.abs(decoded[0] - decoded[1]).max() <= 512
    assert told(dialect, nt.ReplyCut(1, "")) == [
        json.loads(await serializer.serialize(InterruptionFrame()))
    ]


@every_vendor
async def test_both_read_the_same_audio_and_the_same_keys(vendor: str) -> None:
    serializer, dialect = await theirs(vendor), ours(vendor)
    line = on_the_line(vendor, PCM)
    if vendor == "vonage":
        message: Any = line
    else:
        media = json.loads(json.dumps(UP[vendor]["media"]))
        media["media"]["payload"] = base64.b64encode(line).decode()
        message = json.dumps(media)
    (heard,) = (r for r in dialect.receive(message, 0) if isinstance(r, AudioReceived))
    frame = await serializer.deserialize(message)
    assert isinstance(frame, InputAudioRawFrame)
    tables = {Container.MU_LAW: g711.MU_LAW, Container.A_LAW: g711.A_LAW}
    container = Container.MU_LAW if vendor == "plivo" else LINES[vendor].container
    mine = (
        tables[container][np.frombuffer(heard.payload, np.uint8)].astype("<i2").tobytes()
        if container in tables
        else heard.payload
    )
    assert mine == frame.audio
    key = json.dumps(UP[vendor]["key"])
    assert (await serializer.deserialize(key)).button.value == "1"
    assert cmd.PressKey("1") in list(dialect.receive(key, 0))
