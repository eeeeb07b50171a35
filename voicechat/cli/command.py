"""The interface of a command of the command line."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voicechat.errors import VoiceChatError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class CliCommand:
    """One command: its help texts, its arguments and its function."""

    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Returns the exit status. Raises VoiceChatError for a failure with a one-line
    explanation.
    """


class CommandError(VoiceChatError):
    """A command failed. The message is one line for the user."""

    def __init__(self, message: str, exit_status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--config``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: ./voicechat.toml, if any)",
    )
