"""``voicechat serve``: run the server."""

import argparse
import logging

from voicechat.cli.command import EXIT_OK, CliCommand, add_config_argument
from voicechat.config import load_config
from voicechat.config.local_models import start_hint
from voicechat.server.serve import run


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="port to listen on (default: 8000; 0: any free one)"
    )
    workers = "processes that serve (default: one for each core; see docs/deploying.md)"
    parser.add_argument("--workers", type=int, metavar="N", help=workers)
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    options = ("host", "port", "workers")
    given = {
        name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None
    }
    config = load_config(arguments.config, overrides={"server": given})
    if not arguments.debug:
        logging.getLogger("voicechat").setLevel(logging.INFO)
    if config.file is None:
        defaults = {
            kind: getattr(config, kind)["default"].provider for kind in ("asr", "llm", "tts")
        }
        hint = start_hint(defaults, config.local_models)
        if hint:
            _announce(hint)
    run(config, announce=_announce)
    return EXIT_OK


def _announce(line: str) -> None:
    # Flushed, because a parent process may wait for the line with the address.
    print(f"voicechat: {line}", flush=True)


COMMAND = CliCommand(
    summary="run the server: conversation and recognition sockets, web demo, health and metrics "
    "on one port",
    example="  voicechat serve --port 8000 --workers 4\n"
    "  voicechat serve --host 0.0.0.0 --config voicechat.toml",
    add_arguments=_add_arguments,
    run=_run,
)
