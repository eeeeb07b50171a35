"""The documents of the evaluation are read whole: what its questions ask for stands in
one passage.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.knowledge.questions.build import build
from tests.knowledge.questions.material import letters, read_questions
from voicechat.documents.child import open_document
from voicechat.documents.splitting import split_pages


@pytest.mark.long
def test_each_quote_stands_in_one_passage_of_its_document(tmp_path: Path) -> None:
    passages = {}
    for id_, path in build(tmp_path).items():
        document = open_document(path.read_bytes(), path.suffix, 1000)
        for number in range(document.page_count):
            document.read_page(number)
        found = split_pages(document.texts(), numbered=document.is_paged)
        passages[id_] = [letters(passage.searched_text("")) for passage in found]
    missing = [
        (question.document, question.quote)
        for question in read_questions()
        if not any(letters(question.quote) in passage for passage in passages[question.document])
    ]
    assert missing == []
    assert Counter(map(bool, passages.values())) == {True: len(passages)}
