"""The documents and questions of the retrieval evaluation."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document of the set."""

    id: str
    """The folder and the name of its source, such as `en/ref-git`."""
    format: str
    """The ending of its file: pdf, docx, doc, xlsx, txt or pptx."""
    title: str
    """The name of its file without the ending, as a user would upload it."""
    package: str
    """The Debian package from which the text comes."""
    encoding: str = "utf-8"
    """How a txt file is encoded."""

    @property
    def language(self) -> str:
        """`en` or `zh`."""
        return self.id.partition("/")[0]

    @property
    def source(self) -> str:
        """Its text, as Markdown."""
        return (HERE / "sources" / f"{self.id}.md").read_text(encoding="utf-8")

    @property
    def word_file(self) -> Path:
        """The kept file of a document whose format is doc."""
        return HERE / "word" / f"{self.id.replace('/', '-')}.doc"


@dataclass(frozen=True, slots=True)
class Question:
    """A question that one passage of the set answers."""

    question: str
    language: str
    """The language of the question: `en` or `zh`."""
    document: str
    """The id of the document that answers it."""
    quote: str
    """Words of the answering passage, which stand nowhere else in the set. A passage
    answers when its `letters` contain those of the quote.
    """
    kind: str
    """`paraphrase` (mostly other words than the passage's), `plain` (its words), `keyword`,
    `detail` or `cross-lingual` (the document is in the other language).
    """


def read_documents() -> list[SourceDocument]:
    """All documents of the set."""
    lines = (HERE / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    return [SourceDocument(**json.loads(line)) for line in lines]


def read_questions() -> list[Question]:
    """All questions of the set."""
    lines = (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [Question(**json.loads(line)) for line in lines]


def letters(text: str) -> str:
    """The letters and digits of a text in lower case.

    Readers of documents break lines, escape marks, divide cells and make links of
    addresses in their own ways. A quote is looked up without all these.
    """
    without_targets = re.sub(r"\]\([^()\s]*\)", "", text)
    return re.sub(r"[\W_]+", "", without_targets).casefold()
