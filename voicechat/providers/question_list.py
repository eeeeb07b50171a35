"""A list of questions and answers, read from TOML and searched by word overlap."""

import re
import tomllib
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from voicechat.errors import ConfigError

MATCH_THRESHOLD = 0.7
"""Share of the words (Dice's coefficient) that two wordings must have in common. One
misheard word in four still matches ("go forward ten years", 0.75); the price is that
"what are you doing" matches "what are you" (0.86).
"""
MAX_FILE_BYTES = 1 << 20

_TOKEN = re.compile(r"[㐀-鿿豈-﫿]|[^\W_㐀-鿿豈-﫿]+")
"""A Han character, or a word of any other script."""

_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Phrases(_Strict):
    """One text for each language."""

    en: _Text
    zh: _Text


class Entry(_Strict):
    """Ways to ask, and the answer."""

    questions: Annotated[list[_Text], Field(min_length=1)]
    answer: _Text


class QuestionFile(_Strict):
    """The whole file."""

    fallback: Phrases
    silence: Phrases
    entry: list[Entry] = []


def read_question_file(path: Path) -> QuestionFile:
    """Read and check the file. Raises `ConfigError` naming path, line or key."""
    try:
        content = path.read_bytes()
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: longer than {MAX_FILE_BYTES} bytes")
        return QuestionFile.model_validate(tomllib.loads(content.decode("utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: no UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:  # its text ends with line and column
        raise ConfigError(f"{path}: no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {key}: {first['msg']}") from error


def tokens(text: str) -> Counter[str]:
    """Count the words of a text, ignoring case, width, punctuation and order. A Han
    character is a word.
    """
    return Counter(_TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()))


@dataclass(frozen=True, slots=True)
class _Question:
    words: Counter[str]
    answer: str


class QuestionList:
    """Finds the answer to a question by similarity."""

    def __init__(self, entries: list[Entry]) -> None:
        self._questions = [
            _Question(tokens(text), entry.answer) for entry in entries for text in entry.questions
        ]

    def find_answer(self, text: str) -> str | None:
        """Return the answer to the most similar question, the first one in a tie; None
        if none is similar enough.
        """
        asked = tokens(text)
        best = max(
            self._questions, key=lambda question: _similarity(asked, question.words), default=None
        )
        if best is None or _similarity(asked, best.words) < MATCH_THRESHOLD:
            return None
        return best.answer


def _similarity(one: Counter[str], other: Counter[str]) -> float:
    """Return Dice's coefficient: twice the shared words by all words, 0 to 1."""
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 0.0
