"""``voicechat replay``: repeats a record of a conversation with the kernel of this
version.
"""

import argparse
import re
from pathlib import Path

from voicechat.cli.command import (
    EXIT_FAILED,
    EXIT_OK,
    CliCommand,
    CommandError,
    add_config_argument,
)
from voicechat.cli.records import record_path
from voicechat.records.folder import EVENTS, whole_lines
from voicechat.records.replay import UnreplayableError, replay

_TEST = '''\
"""A conversation as it was recorded: the kernel still does the same."""

from pathlib import Path

from voicechat.records.replay import replay

RECORD = Path(__file__).with_name("{record}")


def test_{name}() -> None:
    told = replay(RECORD.read_bytes().splitlines(keepends=True), until_ms={until})
    assert told.difference is None, str(told.difference)
    assert told.events == {events}
'''


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "record",
        help="the id of a record of this machine, its folder, or a file of its events",
    )
    parser.add_argument("--until", type=int, metavar="MS", help="stop at this time of the session")
    parser.add_argument(
        "--as-test",
        type=Path,
        metavar="FILE",
        help="write a test for pytest, test_NAME.py, and beside it the events, NAME.jsonl",
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    path = record_path(arguments.record, arguments.config)
    if path.is_dir():
        path = path / EVENTS
    try:
        with path.open("rb") as file:
            lines = list(whole_lines(file))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    try:
        told = replay(lines, until_ms=arguments.until)
    except UnreplayableError as error:
        raise CommandError(f"{path}: {error}") from error
    if told.difference is not None:
        print(f"{told.events} events had the same effects; then:")
        print(told.difference)
        return EXIT_FAILED
    print(f"{told.events} events up to {told.until_ms} ms had the same effects")
    if told.stopped:
        print(f"stopped at {told.stopped}")
    if arguments.as_test is not None:
        _write_test(arguments.as_test, lines, arguments.until, told.events)
    return EXIT_OK


def _write_test(path: Path, lines: list[bytes], until_ms: int | None, events: int) -> None:
    name = path.stem.removeprefix("test_")
    if path.suffix != ".py" or not re.fullmatch(r"[A-Za-z]\w*", name):
        raise CommandError("--as-test: a file such as test_late_answer.py")
    record = path.with_name(f"{name}.jsonl")
    record.write_bytes(b"".join(lines))
    path.write_text(_TEST.format(record=record.name, name=name, until=until_ms, events=events))
    print(f"{path} and {record}: they hold what was said in the conversation")


COMMAND = CliCommand(
    "repeat a recorded conversation and compare",
    "  voicechat replay rec_5v8Jm3nQf0aXb2Kc7dLr1A",
    _add_arguments,
    _run,
)
