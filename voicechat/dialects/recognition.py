"""The recognition result, which both of the document's dialects send in the same
form.
"""

from voicechat.schema.json_text import write_json
from voicechat.session.types import Transcript, Word


def result_text(
    transcript: Transcript, *, words_as_objects: bool = False, number: int | None = None
) -> str:
    """Serialise one result. Words are strings, as the document's samples show them, or
    objects if the client asked for objects.

    ``number`` counts the results of a resumable session.
    """
    write_word = _word_object if words_as_objects else _word_string
    result: dict[str, object] = {
        "text": transcript.text,
        "begin_time": transcript.begin_ms,
        "end_time": transcript.end_ms,
        "words": [write_word(word) for word in transcript.words],
        "is_sentence_end": transcript.final,
    }
    if number is not None:
        result["number"] = number
    return write_json(result)


def _word_string(word: Word) -> object:
    # The document's samples say fixed=false in final results too, and clients parse the
    # string literally.
    return (
        f"Word(beginTime={word.begin_ms}, endTime={word.end_ms}, text={word.text}, "
        f"punctuation={word.punctuation}, fixed=false)"
    )


def _word_object(word: Word) -> object:
    return {
        "text": word.text,
        "begin_time": word.begin_ms,
        "end_time": word.end_ms,
        "punctuation": word.punctuation,
        "fixed": word.fixed,
    }
