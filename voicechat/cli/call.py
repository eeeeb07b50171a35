"""``voicechat call``: call a server as a telephone does, with a recording as the
caller.
"""

import argparse
import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from voicechat.audio.resample import Resampler
from voicechat.cli.command import EXIT_OK, EXIT_USAGE, CliCommand, CommandError, add_config_argument
from voicechat.cli.phone_lines import (
    FRAME_BYTES,
    FRAME_MS,
    RATE_HZ,
    PhoneLine,
    audiosocket_line,
    twilio_line,
)
from voicechat.cli.recordings import SpeechFile, output_format, read_recording
from voicechat.config import load_config
from voicechat.dialects.audiosocket.endpoint import PORT
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.session.keypad import KEYS
from voicechat.store.local_key import local_key

TWILIO_PATH = "/phone/twilio/stream"
KEY_EVERY_MS = 200
LONGEST_S = 3_600


class CallerAtPhone:
    """The caller: says a recording, presses keys, listens, and hangs up when nothing
    has been said for a while.
    """

    def __init__(
        self, pcm: bytes, *, after_ms: int = 0, keys: str = "", quiet_ms: int = 3_000
    ) -> None:
        """``pcm``: samples at 8 kHz, said after ``after_ms``; then ``keys`` are
        pressed. ``quiet_ms``: how long nothing is said before the caller hangs up.
        """
        self._frames = [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]
        self._after = after_ms // FRAME_MS
        self._keys = keys
        self._quiet = quiet_ms // FRAME_MS
        self.heard = bytearray()
        """What the caller has heard: samples at 8 kHz, since the call began.
        """
        self.first_ms: int | None = None
        """When something was heard first."""
        self.hung_up = False
        """The caller has hung up, not the server."""

    async def call(self, line: PhoneLine) -> None:
        """Hold the call. Frames of 20 ms are sent and played on one clock."""
        loop = asyncio.get_running_loop()
        begun_s, frame, silent = loop.time(), 0, 0
        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(line.receive())
            while not line.over and frame < LONGEST_S * 1000 // FRAME_MS:
                spoken = frame - self._after
                said = self._frames[spoken] if 0 <= spoken < len(self._frames) else b""
                await line.speak(said.ljust(FRAME_BYTES, b"\0"))
                key = self._key_at(spoken)
                if key:
                    await line.press(key)
                played = await line.play()
                self.heard += (played or b"").ljust(FRAME_BYTES, b"\0")
                audible = played is not None and any(played)
                if audible and self.first_ms is None:
                    self.first_ms = frame * FRAME_MS
                busy = audible or spoken < len(self._frames) + len(self._keys) * KEY_EVERY_MS // 20
                silent = 0 if busy else silent + 1
                if silent >= self._quiet:
                    self.hung_up = True
                    break
                frame += 1
                await asyncio.sleep(begun_s + frame * FRAME_MS / 1000 - loop.time())
            if not line.over:
                await line.hang_up()
            receiving.cancel()

    def _key_at(self, spoken: int) -> str:
        number, rest = divmod(spoken - len(self._frames), KEY_EVERY_MS // FRAME_MS)
        return self._keys[number] if rest == 0 and 0 <= number < len(self._keys) else ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a recording of the caller, - for stdin")
    line = parser.add_mutually_exclusive_group(required=True)
    line.add_argument(
        "--twilio",
        metavar="ADDRESS",
        help=f"call as Twilio does: ws://host:port, with {TWILIO_PATH} behind it unless a path "
        "is given",
    )
    line.add_argument(
        "--audiosocket", metavar="HOST:PORT", help=f"call as Asterisk does (port: {PORT})"
    )
    parser.add_argument(
        "--key", help="the server's API key (default: VOICECHAT_API_KEY, else this machine's own)"
    )
    parser.add_argument(
        "--id", type=uuid.UUID, metavar="UUID", help="with --audiosocket: the id of the call"
    )
    parser.add_argument("--called", default="", metavar="NUMBER", help="the number called")
    parser.add_argument("--caller", default="", metavar="NUMBER", help="the number that calls")
    parser.add_argument(
        "--after", type=float, default=0.0, metavar="S", help="seconds before FILE is said"
    )
    parser.add_argument("--keys", default="", metavar="KEYS", help="keys to press after FILE")
    parser.add_argument(
        "--quiet",
        type=float,
        default=3.0,
        metavar="S",
        help="hang up when nothing has been said for so many seconds (default: 3)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="ANSWER", help="where what was heard goes"
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    if not set(arguments.keys) <= KEYS:
        raise CommandError(f"--keys: {arguments.keys!r} is not of 0-9, *, # and A-D", EXIT_USAGE)
    file = SpeechFile(output_format(arguments.output, None)) if arguments.output else None
    down = Resampler(PCM_RATE_HZ, RATE_HZ)
    pcm = down.push_audio(read_recording(arguments.file).pcm) + down.finish_stream()
    caller = CallerAtPhone(
        pcm,
        after_ms=round(arguments.after * 1000),
        keys=arguments.keys,
        quiet_ms=round(arguments.quiet * 1000),
    )
    asyncio.run(_call(arguments, caller))
    if file is not None:
        file.add_audio(bytes(caller.heard), RATE_HZ)
        arguments.output.write_bytes(file.content())
        print(f"what was heard is in {arguments.output}")
    return EXIT_OK


async def _call(arguments: argparse.Namespace, caller: CallerAtPhone) -> None:
    async with _line(arguments) as line:
        await caller.call(line)
    first = "nothing was heard" if caller.first_ms is None else f"heard after {caller.first_ms} ms"
    cleared = f", interrupted {line.clears} times" if line.clears else ""
    ended = "the caller hung up" if caller.hung_up else "the server hung up"
    print(f"{len(caller.heard) / 2 / RATE_HZ:.1f} s: {first}{cleared}; {ended}")


@asynccontextmanager
async def _line(arguments: argparse.Namespace) -> AsyncIterator[PhoneLine]:
    if arguments.audiosocket:
        host, _, port = arguments.audiosocket.rpartition(":")
        if not port.isdecimal():
            host, port = arguments.audiosocket, str(PORT)
        async with audiosocket_line(host, int(port), arguments.id or uuid.uuid4()) as socket_line:
            yield socket_line
        return
    address = arguments.twilio
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        parts = parts._replace(scheme="ws" + parts.scheme.removeprefix("http"))
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise CommandError(f"--twilio: {address!r} is not of the form ws://host:port", EXIT_USAGE)
    if parts.path in ("", "/"):
        parts = parts._replace(path=TWILIO_PATH)
    config = load_config(arguments.config)
    parameters = {
        "token": arguments.key or config.api_key or local_key(config.data_dir),
        "called": arguments.called,
        "caller": arguments.caller,
    }
    async with twilio_line(parts.geturl(), parameters) as stream_line:
        yield stream_line


COMMAND = CliCommand(
    summary="call a server as a telephone does, with a recording as the caller",
    example="  voicechat call hello.wav --twilio ws://127.0.0.1:8000 -o answer.wav\n"
    "  voicechat call hello.wav --audiosocket 127.0.0.1:9092 --keys 12#",
    add_arguments=_add_arguments,
    run=_run,
)
