"""``voicechat talk``: hold a conversation, with the microphone or with a recording."""

import argparse
import asyncio
import dataclasses
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from voicechat.cli.command import EXIT_OK, EXIT_USAGE, CliCommand, CommandError, add_config_argument
from voicechat.cli.exchange import Exchange
from voicechat.cli.hands_free import HandsFreeConversation, RecordedPerson
from voicechat.cli.live import LIVE_FORMAT, LIVE_RATE_HZ, converse_live
from voicechat.cli.microphone import open_audio_devices
from voicechat.cli.recordings import SpeechFile, output_format, read_recording, with_wav_sizes
from voicechat.client import ClientConversation, chat_settings, connect
from voicechat.config import Config, build_services, load_config
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.server.serve import KEY_FILE, Credentials, serving
from voicechat.store.keys import KeyStore
from voicechat.store.local_key import local_key


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="a WAV recording, - for stdin (default: the microphone)",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--hands-free",
        action="store_true",
        help="send FILE in real time, like an open microphone, and print turn detection events "
        "(the default without FILE)",
    )
    mode.add_argument(
        "--push-to-talk",
        action="store_true",
        help="with the microphone: Enter to speak, Enter to send",
    )
    parser.add_argument(
        "--url", help="a running server (default: an engine is started for this conversation)"
    )
    parser.add_argument(
        "--key", help="the server's API key (default: VOICECHAT_API_KEY, else this machine's own)"
    )
    parser.add_argument(
        "--model", default="default", metavar="NAME", help="the chat model to ask for"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="REPLY",
        help="where the answer goes (default: reply.mp3)",
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(
        arguments.config, overrides={} if arguments.url else {"server": _EPHEMERAL}
    )
    if arguments.file is None:
        with suppress(KeyboardInterrupt):  # Ctrl-C ends a live conversation.
            asyncio.run(_talk_live(arguments, config))
    elif arguments.hands_free:
        asyncio.run(_talk_recorded_hands_free(arguments, config))
    else:
        asyncio.run(_talk_recorded(arguments, config))
    return EXIT_OK


async def _talk_recorded(arguments: argparse.Namespace, config: Config) -> None:
    pcm = read_recording(arguments.file).pcm
    path = arguments.output or Path("reply.mp3")
    settings = chat_settings(
        input_format="pcm", sample_rate_hz=PCM_RATE_HZ, output_format=output_format(path, None)
    )
    async with _conversation(arguments, config) as conversation:
        exchange = Exchange(conversation, sys.stdout)
        await exchange.configure(settings)
        await exchange.turn(pcm)
    if exchange.audio:
        path.write_bytes(with_wav_sizes(bytes(exchange.audio)))
        print(f"the answer is in {path} ({exchange.latency()})")


async def _talk_recorded_hands_free(arguments: argparse.Namespace, config: Config) -> None:
    person = RecordedPerson(read_recording(arguments.file).pcm, LIVE_RATE_HZ)
    file = (
        SpeechFile(output_format(arguments.output, None)) if arguments.output is not None else None
    )
    async with _conversation(arguments, config) as conversation:
        talk = HandsFreeConversation(conversation, person, _write, events=True)
        person.answered = lambda: not talk.busy
        await talk.run(_live_settings(hands_free=True))
    if file is not None and person.heard:
        file.add_audio(bytes(person.heard), LIVE_RATE_HZ)
        arguments.output.write_bytes(file.content())
        print(f"what was heard of the answers is in {arguments.output}")


async def _talk_live(arguments: argparse.Namespace, config: Config) -> None:
    if arguments.output is not None:
        raise CommandError("-o needs a FILE: a live answer is played", EXIT_USAGE)
    settings = _live_settings(hands_free=not arguments.push_to_talk)
    with open_audio_devices(PCM_RATE_HZ, LIVE_RATE_HZ) as devices:
        async with _conversation(arguments, config) as conversation:
            if arguments.push_to_talk:
                await converse_live(conversation, settings, devices, sys.stdin, sys.stdout)
            else:
                _write("speak; Ctrl-C to end\n")
                await HandsFreeConversation(conversation, devices, _write).run(settings)


def _live_settings(*, hands_free: bool) -> dict[str, object]:
    return chat_settings(
        input_format="pcm",
        sample_rate_hz=PCM_RATE_HZ,
        output_format=LIVE_FORMAT,
        turn_detection={} if hands_free else None,
        binary_audio=True,
    )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


_EPHEMERAL = {"host": "127.0.0.1", "port": 0}


@asynccontextmanager
async def _conversation(
    arguments: argparse.Namespace, config: Config
) -> AsyncIterator[ClientConversation]:
    """Open a conversation, and print the server's note if another model serves than the
    requested one.
    """
    async with (
        _server(arguments, config) as (url, key),
        connect(url, key=key, model=arguments.model) as conversation,
    ):
        if conversation.note:
            _announce(conversation.note)
        yield conversation


@asynccontextmanager
async def _server(arguments: argparse.Namespace, config: Config) -> AsyncIterator[tuple[str, str]]:
    """Yield address and key of the server at ``--url``, or of one started for this
    conversation.
    """
    if arguments.url:
        yield arguments.url, arguments.key or config.api_key or local_key(config.data_dir)
        return
    key = secrets.token_urlsafe()
    records = config.records.model_copy(update={"usage": False})
    config = dataclasses.replace(config, records=records)  # Nothing but the answer is left.
    admitted = Credentials(KeyStore(config.data_dir / KEY_FILE), {"talk": key}, key)
    async with serving(config, build_services(config), admitted, _announce) as server:
        yield server.url, key


def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMAND = CliCommand(
    summary="hold a conversation: with the microphone, or by sending a recording",
    example="  voicechat talk hello.wav -o answer.mp3\n  voicechat talk hello.wav --hands-free\n"
    "  voicechat talk --url https://voice.example --key vc_...",
    add_arguments=_add_arguments,
    run=_run,
)
