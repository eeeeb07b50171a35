"""``voicechat bench``: measure what this machine holds."""

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from voicechat.audio.formats import parse_output_format
from voicechat.bench.conversations import ConversationFigures, bench_conversations
from voicechat.bench.recognising import RecognisingFigures, bench_recognising
from voicechat.bench.script import DELAYS
from voicechat.bench.talker import LATE_MS
from voicechat.cli.command import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Command, CommandError
from voicechat.cli.progress import ProgressBar
from voicechat.cli.recordings import read_recording
from voicechat.errors import RemoteProtocolError
from voicechat.session.vocabulary import VoiceSettings

MAX_SESSIONS = 10_000
MAX_SECONDS = 3_600
MAX_STREAMS = 64
MAX_WORKERS = 256
NOT_KNOWN = "not available on this system"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, default=10, metavar="N", help="conversations at once (default: 10)")
    parser.add_argument("--seconds", type=float, default=30, metavar="S", help="how long (default: 30)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that serve (default: 1)")
    parser.add_argument("--output", default=VoiceSettings().format, metavar="FORMAT", help="of the answers")
    parser.add_argument(
        "--recognising", type=int, metavar="N", help="instead: how long do pings take while N streams are recognised?"
    )
    parser.add_argument("--recording", metavar="WAV", help="what those streams say (default: synthesised speech)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    bar = ProgressBar("measuring", round(arguments.seconds), sys.stderr)
    try:
        figures = asyncio.run(_measure(arguments, bar))
    finally:
        bar.clear()
    if arguments.json:
        print(orjson.dumps(dataclasses.asdict(figures)).decode())
    else:
        lines = _recognising_lines(figures) if isinstance(figures, RecognisingFigures) else _lines(figures)
        print("\n".join(lines))
    return EXIT_OK if figures.sound else EXIT_FAILED


async def _measure(arguments: argparse.Namespace, bar: ProgressBar) -> ConversationFigures | RecognisingFigures:
    def on_second() -> None:
        bar.advance(1)

    if arguments.recognising is None:
        sessions, seconds, workers = arguments.sessions, arguments.seconds, arguments.workers
        return await bench_conversations(sessions, seconds, arguments.output, on_second, workers)
    pcm = read_recording(str(Path(arguments.recording))) if arguments.recording else None
    return await bench_recognising(arguments.recognising, arguments.seconds, pcm, on_second)


def _check(arguments: argparse.Namespace) -> None:
    bounds = {"sessions": (1, MAX_SESSIONS), "seconds": (1, MAX_SECONDS), "recognising": (1, MAX_STREAMS)}
    bounds["workers"] = (1, MAX_WORKERS)
    for name, (low, high) in bounds.items():
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise CommandError(f"--{name}: {value:g} is not between {low} and {high}", EXIT_USAGE)
    if arguments.recording and arguments.recognising is None:
        raise CommandError("--recording is for --recognising", EXIT_USAGE)
    try:
        parse_output_format(arguments.output)
    except RemoteProtocolError as error:
        raise CommandError(f"--output: {error}", EXIT_USAGE) from error


def _lines(figures: ConversationFigures) -> Iterator[str]:
    yield f"{figures.sessions} sessions, {figures.seconds:g} s, {figures.output}; {figures.cores}"
    yield ""
    yield _row("engine overhead", f"{figures.overhead or 'no turn was answered'}")
    yield _row("", f"complete to first audio, {figures.turns} turns, less {DELAYS.first_audio_ms} ms of the script")
    if figures.script_late_ms is not None:
        yield _row("", f"of it late timers of the script, on average: {figures.script_late_ms:.1f} ms")
    yield _row("interruption", f"{figures.interruption or 'no reply was interrupted'}")
    yield _row("", "cancel to canceled")
    yield _row("stale messages", f"{figures.stale} after canceled")
    yield _row("turns lost, late", f"{figures.lost}, {figures.late} (overhead over {LATE_MS} ms)")
    yield _row("server CPU", _cpu(figures.cpu_s_per_session_minute))
    yield _row("server memory", _memory(figures.mib_per_session, figures.idle_mib))
    if figures.collector_pauses is not None:
        yield _row("garbage collector", f"{figures.collector_pauses} pauses, longest {figures.longest_pause_ms} ms")
    if figures.others_cores is not None:
        yield _row("everything else", f"{figures.others_cores:.2f} cores, the bench's own clients included")


def _cpu(cpu_s_per_session_minute: float | None) -> str:
    if cpu_s_per_session_minute is None:
        return NOT_KNOWN
    per_core = f"; a core has 60: {60 / cpu_s_per_session_minute:.0f} sessions" if cpu_s_per_session_minute else ""
    return f"{cpu_s_per_session_minute:.2f} s per session-minute{per_core}"


def _memory(mib_per_session: float | None, idle_mib: float | None) -> str:
    if mib_per_session is None:
        return NOT_KNOWN
    return f"{mib_per_session:.2f} MiB per session, {idle_mib:.0f} MiB without any"


def _recognising_lines(figures: RecognisingFigures) -> Iterator[str]:
    yield f"{figures.streams} streams recognised at once, {figures.seconds:g} s; a conversation pings meanwhile"
    yield ""
    yield _row("ping to pong", f"{figures.ping or 'no ping was answered'}")
    yield _row("pings unanswered", f"{figures.unanswered} of {figures.pings}")
    yield _row("sentences", f"{figures.sentences} recognised")
    yield _row("server CPU", NOT_KNOWN if figures.server_cores is None else f"{figures.server_cores:.2f} cores")


def _row(name: str, value: str) -> str:
    return f"{name:<20}{value}"


COMMAND = Command(
    summary="measure how many conversations this machine holds, and how quick the engine is",
    example="  voicechat bench --sessions 50\n  voicechat bench --recognising 2",
    add_arguments=_add_arguments,
    run=_run,
)
