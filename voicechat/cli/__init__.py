"""The command line: ``voicechat COMMAND``, with one module for each command."""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence

import voicechat
from voicechat.cli import (
    bench,
    call,
    devices,
    doctor,
    keys,
    knowledge,
    models,
    phone,
    records,
    replay,
    say,
    serve,
    talk,
    transcribe,
    usage,
)
from voicechat.cli.command import EXIT_FAILED, EXIT_USAGE, CliCommand, CommandError
from voicechat.errors import VoiceChatError

COMMANDS: Mapping[str, CliCommand] = {
    "serve": serve.COMMAND,
    "talk": talk.COMMAND,
    "transcribe": transcribe.COMMAND,
    "say": say.COMMAND,
    "doctor": doctor.COMMAND,
    "bench": bench.COMMAND,
    "keys": keys.COMMAND,
    "devices": devices.COMMAND,
    "knowledge": knowledge.COMMAND,
    "records": records.COMMAND,
    "replay": replay.COMMAND,
    "usage": usage.COMMAND,
    "models": models.COMMAND,
    "phone": phone.COMMAND,
    "call": call.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exited:  # argparse leaves this way, after --help too.
        return exited.code if isinstance(exited.code, int) else EXIT_USAGE
    logging.basicConfig(
        level=logging.DEBUG if arguments.debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return COMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt:
        return EXIT_FAILED
    except BrokenPipeError:
        # The reader of stdout exited, as in "voicechat transcribe ... | head".
        sys.stdout = None  # Prevents another error from the flush at exit.
        return EXIT_FAILED
    except Exception as error:
        if arguments.debug:
            raise
        failures = list(_failures(error))
        for failure in failures:
            for line in _explanation(failure).splitlines():
                print(f"voicechat: {line}", file=sys.stderr)
        return max(
            failure.exit_status if isinstance(failure, CommandError) else EXIT_FAILED
            for failure in failures
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voicechat", description=voicechat.__doc__)
    parser.add_argument("--version", action="version", version=f"voicechat {voicechat.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            epilog=f"example:\n{command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.add_argument(
            "--debug", action="store_true", help="log everything; show a traceback for an error"
        )
    return parser


def _failures(error: Exception) -> Iterator[Exception]:
    """Flatten exception groups, which task groups raise."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _failures(inner)
    else:
        yield error


def _explanation(failure: Exception) -> str:
    if isinstance(failure, VoiceChatError):
        return str(failure)
    if isinstance(failure, OSError) and failure.filename is not None:
        return f"{failure.filename}: {failure.strerror}"
    first_line = str(failure).partition("\n")[0]
    return f"internal error: {type(failure).__name__}: {first_line} (--debug shows where)"
