"""``voicechat say``: synthesise a text into a file."""

import argparse
import asyncio
from pathlib import Path

from voicechat.cli.command import EXIT_OK, EXIT_USAGE, CliCommand, CommandError, add_config_argument
from voicechat.cli.recordings import SpeechFile, output_format
from voicechat.cli.started_service import started_voices
from voicechat.config import load_config
from voicechat.providers.interfaces import VoiceOptions
from voicechat.text.hidden import HiddenText
from voicechat.text.pieces import SpeechPieces


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="what to say")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out.mp3"),
        metavar="FILE",
        help="default: out.mp3",
    )
    parser.add_argument("--voice", default="", help="one of the service's voices")
    parser.add_argument(
        "--format", help="for example WAV_16000HZ_MONO_16BIT (default: by the file's suffix)"
    )
    parser.add_argument(
        "--service", default="default", metavar="NAME", help="the [tts.NAME] to use"
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    format_name = output_format(arguments.output, arguments.format)
    file = SpeechFile(format_name)
    asyncio.run(_synthesize(arguments, file))
    content = file.content()
    arguments.output.write_bytes(content)
    print(f"{arguments.output}: {len(content)} bytes, {format_name}")
    return EXIT_OK


async def _synthesize(arguments: argparse.Namespace, file: SpeechFile) -> None:
    config = load_config(arguments.config)
    async with started_voices(arguments.service, config.tts) as synthesizer:
        if arguments.voice and arguments.voice not in synthesizer.voices:
            raise CommandError(
                f"--voice: the service has {', '.join(synthesizer.voices)}", EXIT_USAGE
            )
        silent = True
        for sentence in _sentences(arguments.text):
            async for chunk in synthesizer.synthesize(
                sentence, VoiceOptions(voice=arguments.voice)
            ):
                file.add_audio(chunk.pcm, chunk.rate_hz)
                silent = False
        if silent:
            raise CommandError("TEXT: there is nothing in it that can be spoken")


def _sentences(text: str) -> list[str]:
    hidden, pieces = HiddenText(), SpeechPieces()
    shown = hidden.push_text(text) + hidden.finish_text()
    return [
        piece.spoken for piece in [*pieces.push_text(shown), *pieces.finish_text()] if piece.spoken
    ]


COMMAND = CliCommand(
    summary="synthesise a text into a file",
    example='  voicechat say "Good morning." -o morning.mp3\n'
    '  voicechat say "早上好。" -o morning.wav --voice cmn',
    add_arguments=_add_arguments,
    run=_run,
)
