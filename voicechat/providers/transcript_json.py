"""Transcripts as bytes, for the way between processes."""

import orjson

from voicechat.session.vocabulary import Transcript, Word


def encode_transcript(transcript: Transcript) -> bytes:
    """Give the transcript as JSON."""
    return orjson.dumps(transcript)


def decode_transcript(message: bytes) -> Transcript:
    """Read what `encode_transcript` gave."""
    fields = orjson.loads(message)
    words = tuple(Word(**word) for word in fields.pop("words"))
    return Transcript(**fields, words=words)
