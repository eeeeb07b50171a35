"""What OpenAI's Realtime protocol costs beside speech-chat, in CPU time of the server:
``python -m tools.realtime_cost --sessions 120``.

The conversations are those of ``tools.device_capacity``: microphones are open all the
time, and voice detection is real. Realtime sends base64 of 24 kHz both ways,
speech-chat samples of 16 kHz up, in frames of 60 ms. Each has a server of its own, on
one core, and the users are on another one; *bench* says how late they were (p99).

The last line is how many times as much CPU time Realtime took: 1.5 is promised.
"""

import argparse
import base64
import json
import sys
from collections.abc import Sequence

import aiohttp
import numpy as np
import uvloop

from tools.device_capacity import (
    CONFIG,
    FRAME_MS,
    HEADER,
    Manner,
    Protocol,
    Row,
    SpeechChat,
    hold,
)
from voicechat.bench.recognising import synthesised
from voicechat.bench.server import bench_server, running_on, separate_cores

SPEECH = "Hello there, can you tell me how the weather will be tomorrow morning?"
RATE_HZ = 24_000
FRAME_BYTES = FRAME_MS * RATE_HZ * 2 // 1000
MOST = 1.5


class Realtime(Protocol):
    """A client of OpenAI's Realtime protocol that ends no turn itself."""

    def __init__(self, pcm: bytes, key: str) -> None:
        """``pcm`` is what the user says, 16 kHz s16le."""
        given = np.frombuffer(pcm, "<i2").astype(float)
        length = len(given) * RATE_HZ // 16_000
        samples = np.interp(np.arange(length) * 16_000 / RATE_HZ, np.arange(len(given)), given)
        said = samples.astype("<i2").tobytes()
        said += bytes(-len(said) % FRAME_BYTES)
        starts = range(0, len(said), FRAME_BYTES)
        self.speech = [appended(said[start : start + FRAME_BYTES]) for start in starts]
        self.silence = appended(bytes(FRAME_BYTES))
        self.path = "/v1/realtime?model=default"
        self.headers = {"Authorization": f"Bearer {key}"}

    def hello(self) -> Sequence[str]:
        detection = {"type": "server_vad", "silence_duration_ms": 500}
        heard = {"turn_detection": detection, "transcription": {"model": "default"}}
        session = {"type": "realtime", "audio": {"input": heard}}
        return [json.dumps({"type": "session.update", "session": session})]

    def is_audio(self, message: aiohttp.WSMessage) -> bool:
        text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
        return text.startswith('{"type":"response.output_audio.delta"')

    def is_end(self, message: aiohttp.WSMessage) -> bool:
        text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
        return text.startswith('{"type":"response.done"')


def appended(pcm: bytes) -> str:
    """Write one frame of the microphone."""
    audio = base64.b64encode(pcm).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


async def measure(sessions: int, seconds: float) -> float:
    """Measure both protocols and print a table; return how many times as much CPU time
    Realtime took.
    """
    pcm = await synthesised(SPEECH)
    cores = separate_cores()
    print(f"{sessions} sessions, {seconds:g} s; {cores}")
    print(HEADER)
    rows: list[Row] = []
    for kind in (SpeechChat, Realtime):
        async with bench_server(CONFIG, cores.server) as server:
            with running_on(cores.client):
                protocol = kind(pcm, server.key)
                row = await hold(protocol, server.url, sessions, seconds, server.pid, Manner())
        rows.append(row)
        print(row, flush=True)
    return rows[1].cpu_s_per_minute / rows[0].cpu_s_per_minute


def main() -> int:
    """Measure and print; fail when it is more than promised."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    times = uvloop.run(measure(options.sessions, options.seconds))
    print(f"Realtime took {times:.2f} times the CPU time of speech-chat; at most {MOST}")
    return int(not times <= MOST)


if __name__ == "__main__":
    sys.exit(main())
