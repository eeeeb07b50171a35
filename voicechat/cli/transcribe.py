"""``voicechat transcribe``: recognise recordings."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator

from voicechat.cli.command import EXIT_OK, CliCommand, add_config_argument
from voicechat.cli.progress import ProgressBar
from voicechat.cli.recordings import ReadRecording, in_pieces, read_recording
from voicechat.cli.started_service import started_service
from voicechat.cli.subtitles import srt
from voicechat.config import load_config
from voicechat.providers.interfaces import RecognitionOptions, SpeechRecognizer
from voicechat.session.types import Transcript
from voicechat.text.words import join


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a recording of any format; - reads stdin"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print one JSON object per recording, with word times"
    )
    form.add_argument("--srt", action="store_true", help="print subtitles")
    parser.add_argument(
        "--service", default="default", metavar="NAME", help="the [asr.NAME] to use"
    )
    add_config_argument(parser)


def _run(arguments: argparse.Namespace) -> int:
    asyncio.run(_transcribe_all(arguments))
    return EXIT_OK


async def _transcribe_all(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config)
    async with started_service("asr", arguments.service, config.asr) as recognizer:
        for name in arguments.files:
            recording = read_recording(name)
            progress = ProgressBar(name, len(recording.pcm), sys.stderr)
            sentences = await _transcribe(recognizer, recording, progress)
            if arguments.json:
                print(json.dumps(_as_json(name, sentences), ensure_ascii=False), flush=True)
            elif arguments.srt:
                print(srt(sentences), flush=True)
            else:
                print("\n".join(sentence.text for sentence in sentences), flush=True)


async def _transcribe(
    recognizer: SpeechRecognizer, recording: ReadRecording, progress: ProgressBar
) -> list[Transcript]:
    async def audio() -> AsyncIterator[bytes]:
        async for piece in in_pieces(recording.pcm):
            yield piece
            progress.advance(len(piece))

    try:
        options = RecognitionOptions(source_rate_hz=recording.source_rate_hz)
        results = recognizer.recognize(audio(), options)
        return [transcript async for transcript in results if transcript.final]
    finally:
        progress.clear()


def _as_json(name: str, sentences: list[Transcript]) -> dict[str, object]:
    return {
        "file": name,
        "text": join(sentence.text for sentence in sentences),
        "sentences": [
            {
                "begin_ms": sentence.begin_ms,
                "end_ms": sentence.end_ms,
                "text": sentence.text,
                "words": [
                    {"begin_ms": word.begin_ms, "end_ms": word.end_ms, "text": word.text}
                    for word in sentence.words
                ],
            }
            for sentence in sentences
        ],
    }


COMMAND = CliCommand(
    summary="recognise recordings",
    example="  voicechat transcribe interview.m4a\n"
    "  voicechat transcribe --srt talk.wav > talk.srt",
    add_arguments=_add_arguments,
    run=_run,
)
