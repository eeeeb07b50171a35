"""Filter a recogniser's notes on non-speech sounds out of its transcripts."""

from dataclasses import replace

from voicechat.session.types import Transcript, Word
from voicechat.text.annotations import find_annotations, has_words, without
from voicechat.text.characters import is_cjk


class AnnotationFilter:
    """Removes annotations from the transcripts of one stream, in order.

    A recogniser writes ``[Music]`` or ``(coughing)`` for a sound, and a lone full stop
    for silence. If these counted as words, they would begin turns and interrupt
    replies.
    """

    def __init__(self) -> None:
        self._shown: Transcript | None = None
        """The last partial transcript returned for the sentence that is still open."""

    def filter_transcript(self, transcript: Transcript) -> Transcript | None:
        """Return the transcript with words only, or None if neither it nor its
        hypothesis has any.

        If a partial result of a sentence was returned and its final transcript has no
        words left, the partial result is returned again as final, so that the sentence
        is closed.
        """
        if transcript.hypothesis:
            transcript = replace(transcript, hypothesis=_likely_words(transcript))
        said = _said(transcript)
        if transcript.final:
            shown, self._shown = self._shown, None
            return said or _closed(shown, transcript)
        self._shown = said or self._shown
        if said is None and transcript.hypothesis:
            return replace(transcript, text="", words=())
        return said


def _closed(shown: Transcript | None, final: Transcript) -> Transcript | None:
    if shown is None or final.end_ms is None:
        return None
    words = tuple(replace(word, fixed=True) for word in shown.words)
    return replace(shown, words=words, end_ms=words[-1].end_ms if words else final.end_ms)


def _likely_words(transcript: Transcript) -> str:
    """Return the hypothesis without annotations; the shown text if it has no words."""
    text = transcript.hypothesis
    text = without(text, find_annotations(text, complete=transcript.settled))
    return text if has_words(text) else transcript.text


def _said(transcript: Transcript) -> Transcript | None:
    text = transcript.text
    spans = find_annotations(text, complete=transcript.final)
    if spans:
        text = without(text, spans)
    if not has_words(text):
        return None
    if not spans:
        return transcript
    words = _said_words(transcript)
    begin_ms = words[0].begin_ms if words else transcript.begin_ms
    return replace(transcript, text=text, begin_ms=begin_ms, words=words)


def _said_words(transcript: Transcript) -> tuple[Word, ...]:
    """Remove the annotations from the words. An annotation may begin and end anywhere
    within a word.
    """
    written, places = "", []
    for word in transcript.words:
        if written and not (is_cjk(written[-1]) or is_cjk((word.text or " ")[0])):
            written += " "
        places.append(len(written))
        written += word.text + word.punctuation
    hidden = {
        at
        for begin, end in find_annotations(written, complete=transcript.final)
        for at in range(begin, end)
    }
    said: list[Word] = []
    for word, begin in zip(transcript.words, places, strict=True):
        after = begin + len(word.text)
        text = "".join(char for at, char in enumerate(word.text, begin) if at not in hidden)
        marks = "".join(char for at, char in enumerate(word.punctuation, after) if at not in hidden)
        if has_words(text):
            said.append(replace(word, text=text.strip(), punctuation=marks))
        elif said and marks.strip() and not said[-1].punctuation:
            said[-1] = replace(said[-1], punctuation=marks.strip())
    return tuple(said)
