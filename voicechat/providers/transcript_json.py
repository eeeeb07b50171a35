"""Transcripts as JSON, for messages between processes."""

import orjson

from voicechat.session.types import Transcript, Word


def encode_transcript(transcript: Transcript) -> bytes:
    """Return the transcript as JSON."""
    return orjson.dumps(transcript)


def decode_transcript(message: bytes) -> Transcript:
    """Parse the output of `encode_transcript`."""
    fields = orjson.loads(message)
    words = tuple(Word(**word) for word in fields.pop("words"))
    return Transcript(**fields, words=words)
