"""A flash crowd: ``python tools/flash_crowd.py --sessions N``.

So many sessions connect and stay silent; then all of them begin to speak within a
second, each for one turn, and hear the answer. Say twice as many as the machine holds
(``voicechat bench --ramp`` tells). It is done twice: with a server that judges
everybody's voice alike, and with one as it is, which lets silent sessions wait for
turns under way. Services are scripted, sockets and time are real.

A turn is *under way* when the server has told that it hears speech. Its added latency
is the time from then, or from the end of what the user said if that is later, to the
answer's first audio, less what the script and the silence that ends a turn take anyway.
What was not noticed at once is the *wait*: from the first sound to ``speech_started``.
"""

import argparse
import asyncio
import json
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from voicechat.bench import child
from voicechat.bench.recognising import synthesised
from voicechat.bench.script import DELAYS
from voicechat.bench.server import SCRIPTED, TIMESTAMPS_FOLDER, running_on, separate_cores
from voicechat.client import (
    ClientConversation,
    ReplyAudioMessage,
    SpeechStartedMessage,
    TurnCompletedMessage,
    chat_settings,
    connect,
)
from voicechat.errors import VoiceChatError
from voicechat.voice import detector

MODES = ("alike", "as it is")
ADDRESS = re.compile(r"(https?://\S+)/#key=(\S+)")
SILENT_S = 4.0
SPREAD_S = 1.0
TURN_S = 60.0
SILENCE_MS = 500
"""That ends a turn."""
FRAME_MS = 20
SPEECH = "How many conversations can this machine hold when everybody speaks at once?"
OUTPUT = "PCM_16000HZ_MONO_16BIT"


@dataclass(slots=True)
class Turn:
    """What one session saw; times are seconds of the loop's clock."""

    began_s: float = 0.0
    said_s: float = 0.0
    noticed_s: float | None = None
    answered_s: float | None = None
    completed: bool = False


class Visitor:
    """One session: silence, one turn, its answer."""

    def __init__(
        self, turn: Turn, number: int, speech: Sequence[bytes], start: asyncio.Event
    ) -> None:
        self._turn = turn
        self._number = number
        self._speech = speech
        self._start = start
        self._loop = asyncio.get_running_loop()

    async def visit(self, url: str, key: str) -> None:
        """Hold the session; what is lost leaves the turn incomplete."""
        settings = chat_settings(
            input_format="pcm", output_format=OUTPUT, turn_detection={}, binary_audio=True
        )
        try:
            async with connect(url, key=key) as conversation:
                await conversation.update(settings)
                speaking = asyncio.create_task(self._speak(conversation))
                try:
                    async with asyncio.timeout(SILENT_S + TURN_S + 60):
                        await self._hear(conversation)
                finally:
                    speaking.cancel()
        except (VoiceChatError, TimeoutError):
            return

    async def _speak(self, conversation: ClientConversation) -> None:
        turn, silence = self._turn, bytes(len(self._speech[0]))
        due_s = self._loop.time() + self._number % FRAME_MS / 1000
        waiting: deque[bytes] = deque()
        while True:
            if self._start.is_set() and not turn.began_s:
                delay_s = SPREAD_S * (self._number % 100) / 100
                turn.began_s = self._loop.time() + delay_s
                turn.said_s = turn.began_s + len(self._speech) * FRAME_MS / 1000
                waiting.extend([silence] * int(delay_s * 1000 / FRAME_MS))
                waiting.extend(self._speech)
            await conversation.send_audio(waiting.popleft() if waiting else silence)
            due_s += FRAME_MS / 1000
            await asyncio.sleep(due_s - self._loop.time())

    async def _hear(self, conversation: ClientConversation) -> None:
        turn = self._turn
        while not turn.completed:
            message = await conversation.receive()
            now_s = self._loop.time()
            if isinstance(message, SpeechStartedMessage) and turn.noticed_s is None:
                turn.noticed_s = now_s
            elif isinstance(message, ReplyAudioMessage) and turn.answered_s is None:
                turn.answered_s = now_s
            elif isinstance(message, TurnCompletedMessage):
                # A turn that was interrupted, or cut short, has no answer of its own.
                turn.completed = turn.answered_s is not None


@asynccontextmanager
async def serving(mode: str, core: int | None) -> AsyncIterator[tuple[str, str]]:
    """Run the bench's server in a process of its own; give its address and a key."""
    with tempfile.TemporaryDirectory(prefix="flash-crowd-") as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(SCRIPTED.replace(TIMESTAMPS_FOLDER, folder))
        options = [str(config), str(Path(folder) / "data")]
        options += [] if core is None else [f"--core={core}"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "serve", mode, *options, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                address = ADDRESS.search(line.decode())
                if line.startswith(child.READY.encode()) and address is not None:
                    yield address[1], address[2]
                    break
        finally:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


def serve(mode: str, options: Sequence[str]) -> None:
    """Be the server of one mode."""
    if mode == MODES[0]:
        detector.LATE_MS = 1_000_000_000
    sys.argv = [sys.argv[0], *options]
    child.main()


async def run_crowd(mode: str, sessions: int) -> dict[str, object]:
    """Run the crowd once; give the figures."""
    pcm = await synthesised(SPEECH)
    size = FRAME_MS * 32
    speech = [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]
    turns, start, cores = [Turn() for _ in range(sessions)], asyncio.Event(), separate_cores()
    async with serving(mode, cores.server) as (url, key):
        with running_on(cores.client):
            async with asyncio.TaskGroup() as visits:
                for number, turn in enumerate(turns):
                    visits.create_task(Visitor(turn, number, speech, start).visit(url, key))
                    await asyncio.sleep(0.005)
                await asyncio.sleep(SILENT_S)
                start.set()
    usual_s = (DELAYS.first_audio_ms + SILENCE_MS) / 1000
    under_way, waits, total = [], [], []
    for turn in turns:
        if turn.completed and turn.answered_s is not None and turn.noticed_s is not None:
            under_way.append(turn.answered_s - max(turn.noticed_s, turn.said_s) - usual_s)
            waits.append(turn.noticed_s - turn.began_s)
            total.append(turn.answered_s - turn.said_s - usual_s)
    return {
        "voices": mode,
        "sessions": sessions,
        "lost": sessions - len(total),
        "under_way_added_ms": spread(under_way),
        "wait_ms": spread(waits),
        "added_since_the_end_of_speech_ms": spread(total),
    }


def spread(values_s: Sequence[float]) -> dict[str, int]:
    """Median, p99 and worst, in milliseconds."""
    ordered = sorted(values_s)
    if not ordered:
        return {}
    places = {"p50": len(ordered) // 2, "p99": int(len(ordered) * 0.99), "worst": len(ordered) - 1}
    return {name: round(ordered[place] * 1000) for name, place in places.items()}


def main() -> None:
    """Run the crowd in both modes, and print a line of JSON for each."""
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description="a flash crowd")
    parser.add_argument("--sessions", type=int, default=600)
    options = parser.parse_args()
    for mode in MODES:
        print(json.dumps(asyncio.run(run_crowd(mode, options.sessions))), flush=True)


if __name__ == "__main__":
    main()
