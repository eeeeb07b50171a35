"""Counts the Python calls for each microphone frame: ``python -m
tools.count_calls``.

A whole server with its embedded services runs in this thread, and one hands-free client
in another sends frames of 20 ms in real time, first silence and then speech. The
interpreter's profile hook counts every call (and every resumption of a coroutine) of a
function of this package; calls of the standard library and of aiohttp are counted
apart. A call belongs to the *root* below which it was made: the outermost function of
the package on the stack, which is where the event loop, or a library, entered it. What
is no frame's doing (timers, the voice model's round every 32 ms) has roots of its own,
so the way of a frame can be told from it.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import voicechat
from voicechat.bench.recognising import synthesised
from voicechat.client import ClientConversation, chat_settings, connect
from voicechat.config import build_services, load_config
from voicechat.server.credentials import credentials
from voicechat.server.serve import loop_factory, serving

FRAME_MS = 20
FRAME_BYTES = FRAME_MS * 32
WARM_UP_FRAMES = 50
COUNTED_FRAMES = 200
SPEECH = (
    "How many conversations can a single machine hold at the same time, I wonder, and then what?"
)
PACKAGE = str(Path(voicechat.__file__).parent)
WAY = ("server/frames.py", "runtime/socket_reader.py")
"""Whose functions are the roots of a frame's way from the socket to whoever hears it.
"""
TO_RECOGNISER = "providers/pocketsphinx.py"
"""Whose functions take it from there to the recogniser's process."""
CONFIG = """
[server]
workers = 1
port = 0
"""


class CallCounter:
    """The profile hook, and what it counted since it was switched on."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        """By the root and the function, as ``file:line name``."""
        self.others = 0
        self._names: dict[CodeType, str] = {}
        self._stack: list[str] = []

    def hook(self, frame: FrameType, event: str, _: Any) -> None:
        """See ``sys.setprofile``."""
        if event == "call":
            name = self._name(frame.f_code)
            if not name:
                self.others += 1
                return
            self._stack.append(name)
            self.calls[self._stack[0], name] += 1
        elif event == "return" and self._stack and self._name(frame.f_code):
            self._stack.pop()

    def _name(self, code: CodeType) -> str:
        name = self._names.get(code)
        if name is None:
            path = code.co_filename
            inside = path.startswith(PACKAGE) and "/client/" not in path and "/testing/" not in path
            place = f"{path[len(PACKAGE) + 1 :]}:{code.co_firstlineno}"
            name = self._names[code] = f"{place} {code.co_qualname}" if inside else ""
        return name


async def _talk(url: str, key: str, frames: list[bytes], begun: threading.Event) -> None:
    async with connect(url, key=key) as conversation:
        detection = {"silence_duration_ms": 5000}
        settings = chat_settings(
            input_format="pcm", output_format="PCM_16000HZ_MONO_16BIT", turn_detection=detection
        )
        await conversation.update(settings)
        reading = asyncio.create_task(_read(conversation))
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for number, frame in enumerate(frames):
            if number == WARM_UP_FRAMES:
                begun.set()
            await conversation.send_audio(frame)
            due_s += FRAME_MS / 1000
            await asyncio.sleep(due_s - loop.time())
        reading.cancel()


async def _read(conversation: ClientConversation) -> None:
    while True:
        await conversation.receive()


async def _count(frames: list[bytes]) -> CallCounter:
    counter = CallCounter()
    with tempfile.TemporaryDirectory(prefix="count-calls-") as folder:
        path = Path(folder) / "voicechat.toml"
        path.write_text(CONFIG)
        config = load_config(path, {"VOICECHAT_DATA_DIR": folder})
        services = build_services(config)
        async with serving(config, services, credentials(config), lambda _: None) as server:
            begun = threading.Event()
            talking = asyncio.get_running_loop().run_in_executor(
                None, lambda: asyncio.run(_talk(server.url, server.key or "", frames, begun))
            )
            while not begun.is_set():  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.001)
            sys.setprofile(counter.hook)
            await asyncio.sleep(COUNTED_FRAMES * FRAME_MS / 1000)
            sys.setprofile(None)
            await talking
    return counter


def _report(title: str, counter: CallCounter, *, verbose: bool) -> None:
    print(f"{title}: Python calls per frame of {FRAME_MS} ms")
    roots: Counter[str] = Counter()
    for (root, _), count in counter.calls.items():
        roots[root] += count
    for root, count in roots.most_common():
        per_frame = count / COUNTED_FRAMES
        if per_frame < 0.05:
            continue
        print(f"  {per_frame:6.2f}  below {root}")
        if verbose:
            inner = [(n, c) for (r, n), c in counter.calls.items() if r == root]
            for name, calls in sorted(inner, key=lambda entry: -entry[1]):
                print(f"          {calls / COUNTED_FRAMES:6.2f}  {name}")
    way = sum(count for root, count in roots.items() if root.startswith((*WAY, TO_RECOGNISER)))
    print(f"  {way / COUNTED_FRAMES:6.2f}  from the socket to the recogniser's process")
    print(f"  {sum(roots.values()) / COUNTED_FRAMES:6.2f}  in all")
    print(f"  {counter.others / COUNTED_FRAMES:6.2f}  of libraries")


def main() -> None:
    """Count, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verbose", action="store_true", help="show every function")
    options = parser.parse_args()
    speech = asyncio.run(synthesised(SPEECH))
    frames = WARM_UP_FRAMES + COUNTED_FRAMES + 20
    silence = [bytes(FRAME_BYTES)] * frames
    spoken = (speech * 3)[: frames * FRAME_BYTES]
    speaking = [spoken[at : at + FRAME_BYTES] for at in range(0, len(spoken), FRAME_BYTES)]
    for title, sent in (("silence", silence), ("speech", speaking)):
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            _report(title, runner.run(_count(sent)), verbose=options.verbose)


if __name__ == "__main__":
    main()
