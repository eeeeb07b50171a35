"""Calls through a real Asterisk: ``python -m tools.asterisk_calls --asterisk
/usr/sbin/asterisk``.

Starts the server and Asterisk with configurations of their own, which listen on the
loopback only. Asterisk's ``Local`` channels are the telephones: one half plays a
recording as the caller, the other one is connected with the server as
``docs/phones.md`` says. What was said and what was heard is recorded side by side.

First each line is called twice, with the embedded recogniser and synthesiser: once the
caller is greeted, understood, interrupts the answer and hangs up; once the agent hangs
up, and the dialplan goes on. Then ``--calls`` calls at once, by all lines, with
scripted services. Exits with 1 unless all of it is so.

Asterisk needs ``app_audiosocket``, ``chan_audiosocket``, ``chan_websocket``,
``res_websocket_client``, ``app_mixmonitor``, ``app_playback``, ``app_dial``,
``pbx_config``, ``pbx_spool``, ``func_uuid`` and ``codec_ulaw``.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.phone_capacity import free_port
from voicechat.audio.resample import Resampler
from voicechat.bench.server import SCRIPTED, BenchServer, bench_server
from voicechat.cli.recordings import read_recording
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    ChatModel,
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    SpeechRecognizer,
    TextDelta,
)
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedRecognizer

ROOT = Path(__file__).resolve().parent.parent
RECORDING = ROOT / "tests" / "recordings" / "goforward.wav"
"""Says "go forward ten meters"."""
EXPECTED = {"go", "forward", "ten", "meters"}
RATE_HZ = 8_000
GREETED_S = 6.0
"""The caller speaks first after so long: the greeting has been said."""
ANSWER_S = 9.0
"""The caller speaks again so long after the first words: in the middle of the answer.
"""
INTERRUPTED_S = 2.5
"""The answer must be silent at most so long after the second words began."""
SILENT_S = 0.6
"""A pause between sentences is shorter."""
QUIET_S = 4.0
LEAVING_S = 40.0
"""How long a caller stays whom the agent is to hang up on."""
AUDIBLE = 200
"""The root mean square of 16-bit samples from which a frame of 20 ms is heard."""
START_S = 30.0
GREETING = "Hotel Anna, good day. How may I help you?"
ANSWER = (
    "You can reach the station on foot in ten minutes. Leave the hotel by the main door and turn "
    "left. Walk along the river until you see the old bridge. Cross it, and follow the tram. "
    "The station is the tall building of red brick behind the market square. Trains to the "
    "coast leave every half an hour, and the last one goes at eleven in the evening."
)
SERVER = """
[agents.default]
greeting = "{greeting}"
language = "en"
[agents.leaver]
greeting = "{greeting}"
language = "en"
goodbye = "Good bye."
end_conversation = true
[dialects.one]
dialect = "voicechat.dialects.audiosocket:open_endpoint"
port = {one}
[dialects.two]
dialect = "voicechat.dialects.audiosocket:open_endpoint"
port = {two}
agent = "leaver"
"""
EMBEDDED = """
[server]
workers = 1
port = 0
drain_s = 0.0
[admission]
unquestioned_sessions = 1000000
[llm.default]
provider = "tools.asterisk_calls:open_chat_model"
words = "{words}"
"""
_SCRIPTED = SCRIPTED.replace(
    '"voicechat.bench.services:open_recognizer"\ntimestamps = "@timestamps@"',
    '"tools.asterisk_calls:open_recognizer"',
).replace("voicechat.bench.services:open_chat_model", "tools.asterisk_calls:open_chat_model")
FILES = {
    "asterisk.conf": """
[directories]
astetcdir => {folder}
astmoddir => {modules}
astvarlibdir => {folder}
astdbdir => {folder}
astkeydir => {folder}
astdatadir => {data}
astagidir => {folder}
astspooldir => {folder}
astrundir => {folder}
astlogdir => {folder}
""",
    "logger.conf": "[logfiles]\nmessages.log => notice,warning,error,verbose(1)\n",
    "modules.conf": "[modules]\nautoload = yes\n",
    "websocket_client.conf": """
[voicechat]
type = websocket_client
connection_type = per_call_config
uri = ws://127.0.0.1:{port}/phone/asterisk/stream?token={key}
protocols = media
[leaver]
type = websocket_client
connection_type = per_call_config
uri = ws://127.0.0.1:{port}/phone/asterisk/stream/leaver?token={key}
protocols = media
""",
    "extensions.conf": """
[default]
exten => caller,1,Answer()
 same => n,MixMonitor({folder}/${{NAME}}.raw,D)
 same => n,Playback({folder}/${{SAYS}})
 same => n,Verbose(1,call ${{NAME}}: the caller hangs up)
 same => n,Hangup()

exten => audiosocket,1,Answer()
 same => n,Set(ID=${{UUID()}})
 same => n,AudioSocket(${{ID}},127.0.0.1:${{PORT}})
 same => n,Verbose(1,call ${{NAME}}: the dialplan goes on)
 same => n,Hangup()

exten => dialled,1,Dial(AudioSocket/127.0.0.1:${{PORT}}/${{UUID()}}/c(slin16),,g)
 same => n,Verbose(1,call ${{NAME}}: the dialplan goes on)
 same => n,Hangup()

exten => slin,1,Dial(WebSocket/${{WAY}}/c(slin)v(call=${{UNIQUEID}},called=${{EXTEN}}),,g)
 same => n,Verbose(1,call ${{NAME}}: the dialplan goes on)
 same => n,Hangup()

exten => slin16,1,Dial(WebSocket/${{WAY}}/c(slin16)f(json)v(call=${{UNIQUEID}}),,g)
 same => n,Verbose(1,call ${{NAME}}: the dialplan goes on)
 same => n,Hangup()

exten => ulaw,1,Dial(WebSocket/${{WAY}}/c(ulaw)f(json)v(call=${{UNIQUEID}}),,g)
 same => n,Verbose(1,call ${{NAME}}: the dialplan goes on)
 same => n,Hangup()
""",
}
UNUSED = ("acl.conf", "cdr.conf", "cel.conf", "chan_websocket.conf", "features.conf", "udptl.conf")
"""Files that Asterisk wants to see, with nothing in them."""
LINES = ("audiosocket", "dialled", "slin", "slin16", "ulaw")
"""The extensions: AudioSocket as an application and as a channel; ``chan_websocket``
with plain text at 8 kHz, with JSON at 16 kHz and with JSON in mu-law.
"""
WIDE = ("dialled", "slin16")
"""Those whose telephones have 16 kHz."""


class _Model:
    """Notes what the user has said, and answers at length; an agent that may hang up
    does so.
    """

    def __init__(self, words: str) -> None:
        self._words = Path(words) if words else None

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """See ``ChatModel``."""
        last = request.messages[-1]
        if last["role"] == "user" and self._words is not None:
            with self._words.open("a") as file:
                file.write(f"{last['content']}\n")
        if last["role"] == "user" and request.options.get("tools"):
            yield ToolCall(0, "1", "end_conversation", "{}")
        else:
            yield TextDelta(ANSWER if last["role"] == "user" else "Good bye then.")
        yield ReplyFinished("stop")


def open_chat_model(*, words: str = "") -> ChatModel:
    """Open the server's chat model. ``words`` is the file of what users say."""
    return _Model(words)


def open_recognizer() -> SpeechRecognizer:
    """Open the recogniser of the many calls at once."""
    return ScriptedRecognizer(("go forward ten meters",))


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is to be made."""

    name: str
    line: str
    leaves: bool = False
    """The agent hangs up, not the caller."""


class Asterisk:
    """An Asterisk that runs."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder

    async def command(self, text: str) -> str:
        """Run a command of its console."""
        process = await asyncio.create_subprocess_exec(
            *(str(self._binary), "-C", str(self._folder / "asterisk.conf"), "-rx", text),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        return printed.decode(errors="replace")

    def call(self, call: Call, ports: Sequence[int]) -> None:
        """Let a telephone call the server."""
        lines = {
            "Channel": f"Local/{call.line}@default/n",
            "Context": "default",
            "Extension": "caller",
            "Priority": "1",
            "Codecs": "slin16" if call.line in WIDE else "slin",
        }
        variables = {
            "NAME": call.name,
            "SAYS": "leaving" if call.leaves else "interrupting",
            "PORT": str(ports[call.leaves]),
            "WAY": "leaver" if call.leaves else "voicechat",
        }
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        text += "".join(f"Setvar: {name}={value}\n" for name, value in variables.items())
        waiting = self._folder / f"{call.name}.call"
        waiting.write_text(text)
        waiting.rename(self._folder / "outgoing" / waiting.name)

    def log(self) -> str:
        """Return what it has logged."""
        return (self._folder / "messages.log").read_text(errors="replace")

    async def until_over(self, names: Sequence[str], seconds: float) -> None:
        """Wait until all these calls are over. Raises ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            while any((self._folder / "outgoing" / f"{name}.call").exists() for name in names):  # noqa: ASYNC110 - another process removes them
                await asyncio.sleep(0.2)
            while "0 active calls" not in await self.command("core show channels count"):  # noqa: ASYNC110 - another process says it
                await asyncio.sleep(1.0)


@asynccontextmanager
async def asterisk(binary: Path, folder: Path, server: BenchServer) -> AsyncIterator[Asterisk]:
    """Run Asterisk with a configuration in ``folder`` while the context lasts."""
    prefix = binary.parent.parent
    modules = next(each for each in prefix.glob("lib*/**/modules") if "asterisk" in str(each))
    values = {
        "folder": folder,
        "modules": modules,
        "data": next((each for each in (prefix / "var/lib/asterisk",) if each.exists()), folder),
        "port": server.url.rpartition(":")[2],
        "key": server.key,
    }
    for name in UNUSED:
        (folder / name).touch()
    for name, text in FILES.items():
        (folder / name).write_text(text.format(**values))
    (folder / "outgoing").mkdir()
    process = await asyncio.create_subprocess_exec(
        *(str(binary), "-C", str(folder / "asterisk.conf"), "-f"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = Asterisk(binary, folder)
    try:
        async with asyncio.timeout(START_S):
            while "fully booted" not in await running.command("core waitfullybooted"):  # noqa: ASYNC110 - another process says it
                await asyncio.sleep(0.2)
        yield running
    finally:
        await running.command("core stop now")
        try:
            async with asyncio.timeout(START_S):
                await process.wait()
        except TimeoutError:
            process.kill()


def write_recordings(folder: Path) -> None:
    """Write what the callers say, at 8 and at 16 kHz."""
    speech = read_recording(str(RECORDING)).pcm
    first = _silence(GREETED_S) + speech
    both = first + _silence(ANSWER_S) + speech + _silence(QUIET_S)
    for name, pcm in (("interrupting", both), ("leaving", first + _silence(LEAVING_S))):
        (folder / f"{name}.sln16").write_bytes(pcm)
        down = Resampler(PCM_RATE_HZ, RATE_HZ)
        (folder / f"{name}.sln").write_bytes(down.push_audio(pcm) + down.finish_stream())


def _silence(seconds: float) -> bytes:
    return bytes(round(seconds * PCM_RATE_HZ) * 2)


def heard_in(path: Path, rate_hz: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each 20 ms of a recorded call whether something was heard, and
    whether something was said.
    """
    frame = rate_hz // 50
    samples = np.frombuffer(path.read_bytes(), "<i2")
    samples = samples[: len(samples) // (2 * frame) * 2 * frame]
    levels = np.sqrt(np.mean(samples.reshape(-1, frame, 2).astype(np.float64) ** 2, axis=1))
    audible = levels > AUDIBLE
    return audible[:, 0], audible[:, 1]


def judge(call: Call, folder: Path, log: str) -> list[str]:
    """Return what is wrong with a call."""
    wrong = []
    goes_on = f"call {call.name}: the dialplan goes on" in log
    hangs_up = f"call {call.name}: the caller hangs up" in log
    path = folder / f"{call.name}.raw"
    if not path.exists() or path.stat().st_size < RATE_HZ:
        return ["nothing was recorded"]
    heard, said = heard_in(path, PCM_RATE_HZ if call.line in WIDE else RATE_HZ)
    speech = np.flatnonzero(said)
    if not len(speech):
        return ["the caller said nothing"]
    begun = int(speech[0])
    wrong += [] if heard[:begun].any() else ["no greeting"]
    print(f"    {call.name:<22} greeted after {_first_s(heard):4.1f} s", end="")
    if call.leaves:
        wrong += [] if goes_on and not hangs_up else ["the agent did not hang up"]
        print(f"; the agent hung up {len(heard) / 50 - begun / 50:5.1f} s after the first words")
        return wrong
    gaps = np.flatnonzero(np.diff(speech) > round(ANSWER_S * 50 / 2))
    if not len(gaps):
        return [*wrong, "the caller did not speak twice"]
    ended, again = int(speech[gaps[0]]), int(speech[gaps[0] + 1])
    answer = np.flatnonzero(heard[ended:again])
    wrong += [] if len(answer) else ["no answer"]
    wrong += [] if heard[again - 25 : again + 10].any() else ["the answer was over before"]
    stopped_s = _until_silent_s(heard[again:])
    wrong += [] if stopped_s <= INTERRUPTED_S else ["not interrupted"]
    wrong += [] if hangs_up else ["the caller did not hang up"]
    wait_s = (int(answer[0]) if len(answer) else 0) / 50
    print(f"; answered after {wait_s:4.1f} s; silent {stopped_s:4.2f} s after an interruption")
    return wrong


def _until_silent_s(heard: NDArray[np.bool_]) -> float:
    """Return when ``SILENT_S`` of silence begin."""
    silent = np.convolve(~heard, np.ones(round(SILENT_S * 50)), "valid") > SILENT_S * 50 - 0.5
    return _first_s(silent)


def _first_s(heard: NDArray[np.bool_]) -> float:
    found = np.flatnonzero(heard)
    return int(found[0]) / 50 if len(found) else float("nan")


async def make(
    calls: Sequence[Call], binary: Path, config: str, ports: Sequence[int], words: Path
) -> int:
    """Make calls at once, print what became of them, return how many went wrong."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="asterisk-calls-") as name:
        folder = Path(name)
        write_recordings(folder)
        async with (
            bench_server(config.replace("{words}", str(words)), None) as server,
            asterisk(binary, folder, server) as running,
        ):
            for call in calls:
                running.call(call, ports)
            longest_s = GREETED_S + LEAVING_S + 60.0
            await running.until_over([call.name for call in calls], longest_s)
            log = running.log()
        for call in calls:
            wrong = judge(call, folder, log)
            failed += bool(wrong)
            if wrong:
                print(f"  {call.name}: {', '.join(wrong)}")
        errors = [line for line in log.splitlines() if "ERROR[" in line]
        print("".join(f"  Asterisk: {line}\n" for line in errors[:10]), end="")
    return failed


def understood(words: Path) -> list[str]:
    """Return what was understood of what the callers said."""
    return words.read_text().splitlines() if words.exists() else []


async def run(binary: Path, lines: Sequence[str], calls: int) -> int:
    """Run all of it; returns how many calls went wrong."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))
    )
    ports = free_port(), free_port()
    texts = {"greeting": GREETING, "one": ports[0], "two": ports[1]}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="asterisk-words-") as folder:
        words = Path(folder) / "words"
        config = EMBEDDED + SERVER.format(**texts)
        print("each line, with the embedded recogniser and synthesiser:")
        for line in lines:
            pair = [Call(line, line), Call(f"{line}-leaver", line, leaves=True)]
            failed += await make(pair, binary, config, ports, words)
            heard = understood(words)
            words.unlink(missing_ok=True)
            print(f"    understood: {heard}")
            if not any(len(EXPECTED & set(text.lower().split())) >= 3 for text in heard):
                print(f"  {line}: nobody was understood")
                failed += 1
        if calls:
            print(f"{calls} calls at once, with scripted services:")
            config = _SCRIPTED + SERVER.format(**texts)
            many = [
                Call(f"{n}-{LINES[n % len(LINES)]}", LINES[n % len(LINES)]) for n in range(calls)
            ]
            failed += await make(many, binary, config, ports, words)
    return failed


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--asterisk", type=Path, required=True, help="the program")
    parser.add_argument("--lines", nargs="*", choices=LINES, default=LINES)
    parser.add_argument("--calls", type=int, default=50)
    options = parser.parse_args()
    failed = asyncio.run(run(options.asterisk, options.lines, options.calls))
    print("all is well" if not failed else f"{failed} went wrong")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
