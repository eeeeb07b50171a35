"""The documents and questions of the retrieval evaluation are sound."""

import html
import re
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.knowledge.questions.build import build
from tests.knowledge.questions.material import (
    HERE,
    SourceDocument,
    letters,
    read_documents,
    read_questions,
)

DOCUMENTS = {document.id: document for document in read_documents()}
QUESTIONS = read_questions()
FORMATS = {"pdf", "docx", "doc", "xlsx", "txt", "pptx"}


def test_each_quote_stands_once_in_the_set_and_in_its_document() -> None:
    texts = {id_: letters(document.source) for id_, document in DOCUMENTS.items()}
    wrong = []
    for question in QUESTIONS:
        quote = letters(question.quote)
        found = {id_: text.count(quote) for id_, text in texts.items() if quote in text}
        if found != {question.document: 1}:
            wrong.append((question.quote, found))
    assert wrong == []


def test_the_set_is_as_large_and_as_mixed_as_the_evaluation_needs() -> None:
    assert len(DOCUMENTS) >= 60
    assert {document.format for document in DOCUMENTS.values()} == FORMATS
    assert len(QUESTIONS) >= 500
    languages = Counter(question.language for question in QUESTIONS)
    assert min(languages["en"], languages["zh"]) >= 200
    asked = Counter(DOCUMENTS[question.document].format for question in QUESTIONS)
    assert min(asked[format_] for format_ in FORMATS) >= 50


def test_a_quote_is_neither_a_word_nor_a_page() -> None:
    def columns(text: str) -> int:
        return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)

    assert [q.quote for q in QUESTIONS if not 20 <= columns(q.quote) <= 120] == []


def test_kinds_and_languages_agree_with_the_questions() -> None:
    kinds = Counter(question.kind for question in QUESTIONS)
    assert set(kinds) == {"paraphrase", "plain", "detail", "keyword", "cross-lingual"}
    assert kinds["paraphrase"] >= len(QUESTIONS) / 2
    assert kinds["cross-lingual"] <= len(QUESTIONS) / 10
    for question in QUESTIONS:
        written_in = "zh" if re.search("[\u4e00-\u9fff]", question.question) else "en"
        assert question.language == written_in, question
        crosses = question.language != DOCUMENTS[question.document].language
        assert crosses == (question.kind == "cross-lingual"), question


def test_no_question_is_asked_twice_or_copies_its_quote() -> None:
    asked = Counter(letters(question.question) for question in QUESTIONS)
    assert [text for text, times in asked.items() if times > 1] == []
    for question in QUESTIONS:
        assert letters(question.quote) not in letters(question.question), question


def test_paraphrases_use_other_words_than_their_passages() -> None:
    lines = {
        id_: [letters(line) for line in document.source.splitlines()]
        for id_, document in DOCUMENTS.items()
    }
    copied = []
    for question in QUESTIONS:
        if question.kind != "paraphrase":
            continue
        quote = letters(question.quote)
        passage = next((line for line in lines[question.document] if quote in line), quote)
        asked = letters(question.question)
        length = 10 if question.language == "zh" else 20
        runs = {asked[start : start + length] for start in range(len(asked) - length + 1)}
        if any(run in passage for run in runs):
            copied.append(question.question)
    assert copied == []


def test_every_document_has_a_source_questions_and_a_licence() -> None:
    sources = {
        path.relative_to(HERE / "sources").with_suffix("").as_posix()
        for path in (HERE / "sources").rglob("*.md")
    }
    assert sources == set(DOCUMENTS)
    assert {question.document for question in QUESTIONS} == set(DOCUMENTS)
    titles = Counter(document.title for document in DOCUMENTS.values())
    assert max(titles.values()) == 1
    notices = (HERE / "LICENCES" / "README.md").read_text(encoding="utf-8")
    licensed = {
        package.strip()
        for row in re.findall(r"(?m)^\| ([a-z][^|]*) \|", notices)
        for package in row.split(",")
    }
    assert {document.package for document in DOCUMENTS.values()} <= licensed


def text_of(file: Path, document: SourceDocument) -> str:
    """The text of a built file, read without the libraries that write or read it."""
    match document.format:
        case "txt":
            return file.read_bytes().decode(document.encoding)
        case "doc":
            # Word's text, in UTF-16. It begins at an even offset.
            return file.read_bytes().decode("utf-16-le", errors="replace")
        case "docx" | "pptx" | "xlsx":
            with zipfile.ZipFile(file) as archive:
                parts = [archive.read(name) for name in archive.namelist() if "xml" in name]
            return html.unescape(re.sub("<[^>]*>", "", b" ".join(parts).decode()))
        case other:
            raise ValueError(other)


def test_the_doc_files_hold_the_text_of_their_sources() -> None:
    for document in DOCUMENTS.values():
        if document.format != "doc":
            continue
        held = letters(text_of(document.word_file, document))
        lines = [letters(line) for line in document.source.splitlines() if line[:1] not in "|`"]
        assert [line for line in lines if line not in held] == []


@pytest.mark.long
def test_every_built_file_holds_the_quotes_of_its_questions(tmp_path: Path) -> None:
    files = build(tmp_path)
    for id_, document in DOCUMENTS.items():
        if document.format == "pdf":
            assert files[id_].read_bytes().startswith(b"%PDF-")
            continue
        held = letters(text_of(files[id_], document))
        quotes = [q.quote for q in QUESTIONS if q.document == id_]
        assert [quote for quote in quotes if letters(quote) not in held] == []
