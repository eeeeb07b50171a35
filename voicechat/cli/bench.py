"""``voicechat bench``: measure the capacity of this machine."""

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import orjson

from voicechat.audio.formats import parse_output_format
from voicechat.bench.conversations import ConversationFigures, Workload, bench_conversations
from voicechat.bench.memory import MemoryFigures, bench_memory
from voicechat.bench.ramp import bench_ramp
from voicechat.bench.ramp_page import COLUMNS, page_of, row_of
from voicechat.bench.recognising import RecognisingFigures, bench_recognising
from voicechat.bench.script import DELAYS
from voicechat.bench.talker import LATE_MS
from voicechat.cli.command import EXIT_FAILED, EXIT_OK, EXIT_USAGE, CliCommand, CommandError
from voicechat.cli.progress import ProgressBar
from voicechat.cli.recordings import read_recording
from voicechat.errors import RemoteProtocolError
from voicechat.schema.document import DOCUMENT_VOICE

MAX_SESSIONS = 10_000
DEFAULT_SESSIONS = 10
MAX_SECONDS = 3_600
MAX_STREAMS = 64
MEMORY_STEPS = 4
STAGES = {
    "hear": "to the recogniser",
    "ask": "to the model",
    "say": "to the synthesiser",
    "send": "to the client",
}
MAX_WORKERS = 256
NOT_KNOWN = "not available on this system"


Figures: TypeAlias = ConversationFigures | RecognisingFigures | MemoryFigures


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sessions",
        type=int,
        metavar="N",
        help="concurrent conversations (default: 10); with --ramp, the maximum",
    )
    parser.add_argument(
        "--seconds", type=float, default=30, metavar="S", help="how long (default: 30)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="server processes (default: 1)"
    )
    parser.add_argument(
        "--output", default=DOCUMENT_VOICE.format, metavar="FORMAT", help="of the answers"
    )
    parser.add_argument(
        "--hands-free",
        action="store_true",
        help="microphones are always open; turns end by themselves",
    )
    parser.add_argument(
        "--recognising",
        type=int,
        metavar="N",
        help="instead: measure the latency of pings while N streams are recognised",
    )
    parser.add_argument(
        "--memory", action="store_true", help="instead: measure the memory of a session by step"
    )
    parser.add_argument(
        "--ramp",
        metavar="HTML",
        help="instead: add sessions until a limit is exceeded; writes plots to the file HTML",
    )
    parser.add_argument(
        "--recording", metavar="WAV", help="the audio of those streams (default: synthesised)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    if arguments.ramp is not None:
        return _run_ramp(arguments)
    bar = ProgressBar(
        "measuring", MEMORY_STEPS if arguments.memory else round(arguments.seconds), sys.stderr
    )
    try:
        figures = asyncio.run(_measure(arguments, bar))
    finally:
        bar.clear()
    if arguments.json:
        print(orjson.dumps(dataclasses.asdict(figures)).decode())
    else:
        print("\n".join(_lines_of(figures)))
    return EXIT_OK if figures.sound else EXIT_FAILED


def _run_ramp(arguments: argparse.Namespace) -> int:
    work = _workload(arguments, arguments.sessions or MAX_SESSIONS)
    print(_aligned(COLUMNS), flush=True)

    async def measure(size: Workload) -> ConversationFigures:
        return await bench_conversations(size, lambda: None)

    ramp = asyncio.run(
        bench_ramp(work, measure, lambda step: print(_aligned(row_of(step)), flush=True))
    )
    print(f"\n{ramp.holds} sessions held; {ramp.ended}")
    Path(arguments.ramp).write_text(page_of(ramp), encoding="utf-8")
    return EXIT_OK if ramp.sound else EXIT_FAILED


async def _measure(arguments: argparse.Namespace, bar: ProgressBar) -> Figures:
    def on_second() -> None:
        bar.advance(1)

    if arguments.recognising is not None:
        pcm = read_recording(str(Path(arguments.recording))).pcm if arguments.recording else None
        return await bench_recognising(arguments.recognising, arguments.seconds, pcm, on_second)
    work = _workload(arguments, arguments.sessions or DEFAULT_SESSIONS)
    return await (bench_memory if arguments.memory else bench_conversations)(work, on_second)


def _workload(arguments: argparse.Namespace, sessions: int) -> Workload:
    return Workload(
        sessions=sessions,
        seconds=arguments.seconds,
        output=arguments.output,
        hands_free=arguments.hands_free,
        workers=arguments.workers,
    )


def _check(arguments: argparse.Namespace) -> None:
    instead = [
        name
        for name in ("recognising", "memory", "ramp")
        if getattr(arguments, name) not in (None, False)
    ]
    if len(instead) > 1:
        raise CommandError(f"--{instead[0]} and --{instead[1]} exclude each other", EXIT_USAGE)
    if arguments.memory and arguments.hands_free:
        raise CommandError("--memory measures push to talk: leave --hands-free out", EXIT_USAGE)
    if arguments.workers > 1 and (arguments.memory or arguments.recognising is not None):
        raise CommandError(
            "--workers is for conversations: --memory and --recognising measure one process",
            EXIT_USAGE,
        )
    if arguments.ramp is not None and not Path(arguments.ramp).absolute().parent.is_dir():
        raise CommandError(f"--ramp: there is no folder for {arguments.ramp}", EXIT_USAGE)
    bounds = {
        "sessions": (1, MAX_SESSIONS),
        "seconds": (1, MAX_SECONDS),
        "recognising": (1, MAX_STREAMS),
    }
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


def _lines_of(figures: Figures) -> Iterator[str]:
    match figures:
        case RecognisingFigures():
            return _recognising_lines(figures)
        case MemoryFigures():
            return _memory_lines(figures)
        case _:
            return _lines(figures)


def _memory_lines(figures: MemoryFigures) -> Iterator[str]:
    yield f"{figures.workload.sessions} sessions in step, {figures.workload.output}"
    yield ""
    yield _row(
        "server alone", NOT_KNOWN if figures.base_mib is None else f"{figures.base_mib:.0f} MiB"
    )
    stages = {"connected": figures.connected_mib, "listening": figures.listening_mib}
    stages |= {"replying": figures.replying_mib, "turn over": figures.over_mib}
    for name, mib in stages.items():
        yield _row(name, NOT_KNOWN if mib is None else f"{mib:.2f} MiB per session")
    yield _row("turns lost", f"{figures.lost}")


def _lines(figures: ConversationFigures) -> Iterator[str]:
    work = figures.workload
    how = "hands-free, " if work.hands_free else ""
    yield f"{work.sessions} sessions, {how}{work.seconds:g} s, {work.output}; {figures.cores}"
    yield ""
    yield from _hands_free_lines(figures) if work.hands_free else _turn_lines(figures)
    yield _row("audio late", f"{figures.late_audio or '-'}")
    yield _row("", "the longest that a player without a buffer waited, of each reply")
    yield _row("stale messages", f"{figures.stale} after canceled")
    yield _row("turns lost, late", f"{figures.lost}, {figures.late} (overhead over {LATE_MS} ms)")
    yield _row("server CPU", _cpu(figures.cpu_s_per_session_minute))
    yield _row("server memory", _memory(figures.mib_per_session, figures.idle_mib))
    if figures.collector_pauses is not None:
        yield _row(
            "garbage collector",
            f"{figures.collector_pauses} pauses, longest {figures.longest_pause_ms} ms",
        )
    yield _row("the clients' own lag", f"{figures.client_lag or '-'}")
    if figures.client_lagged:
        yield _row(
            "", "too much: the figures above say more about the clients than about the server"
        )
    if figures.others_cores is not None:
        yield _row(
            "everything else", f"{figures.others_cores:.2f} cores, the bench's own clients included"
        )


def _hands_free_lines(figures: ConversationFigures) -> Iterator[str]:
    yield _row("answer", f"{figures.wait or 'no turn was answered'}")
    yield _row(
        "", f"end of the voice to first audio, {figures.turns} turns: silence, script and all"
    )


def _turn_lines(figures: ConversationFigures) -> Iterator[str]:
    yield _row("engine overhead", f"{figures.overhead or 'no turn was answered'}")
    yield _row("", f"complete to first audio, {figures.turns} turns, without the scripted services")
    for name, added in figures.stages.items():
        yield _row(f"  {STAGES[name]}", f"{added or '-'}")
    yield _row("timers of the script", f"{figures.script_late or '-'}")
    yield _row("", "how late they woke: no engine adds this")
    yield _row("both", f"{figures.first_audio or '-'}")
    yield _row(
        "",
        "complete to first audio as the client saw it, "
        f"less {DELAYS.first_audio_ms} ms of the script",
    )
    yield _row("interruption", f"{figures.interruption or 'no reply was interrupted'}")
    yield _row("", "cancel to canceled")


def _cpu(cpu_s_per_session_minute: float | None) -> str:
    if cpu_s_per_session_minute is None:
        return NOT_KNOWN
    per_core = (
        f"; a core has 60: {60 / cpu_s_per_session_minute:.0f} sessions"
        if cpu_s_per_session_minute
        else ""
    )
    return f"{cpu_s_per_session_minute:.2f} s per session-minute{per_core}"


def _memory(mib_per_session: float | None, idle_mib: float | None) -> str:
    if mib_per_session is None:
        return NOT_KNOWN
    return f"{mib_per_session:.2f} MiB per session, {idle_mib:.0f} MiB without any"


def _recognising_lines(figures: RecognisingFigures) -> Iterator[str]:
    yield (
        f"{figures.streams} streams recognised at once, {figures.seconds:g} s; "
        "a conversation pings meanwhile"
    )
    yield ""
    yield _row("ping to pong", f"{figures.ping or 'no ping was answered'}")
    yield _row("pings unanswered", f"{figures.unanswered} of {figures.pings}")
    yield _row("sentences", f"{figures.sentences} recognised")
    yield _row(
        "server CPU",
        NOT_KNOWN if figures.server_cores is None else f"{figures.server_cores:.2f} cores",
    )


def _aligned(cells: Sequence[str]) -> str:
    *figures, verdict = cells
    return "  ".join(
        [f"{cell:>{max(len(name), 6)}}" for cell, name in zip(figures, COLUMNS, strict=False)]
        + [verdict]
    )


def _row(name: str, value: str) -> str:
    return f"{name:<22}{value}"


COMMAND = CliCommand(
    summary="measure how many conversations this machine holds, and how quick the engine is",
    example="  voicechat bench --sessions 50\n"
    "  voicechat bench --recognising 2\n"
    "  voicechat bench --ramp ramp.html",
    add_arguments=_add_arguments,
    run=_run,
)
