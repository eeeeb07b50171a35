"""Windows are short, whole sentences, and cover their passages."""

from voicechat.documents.passage import Passage
from voicechat.documents.splitting import size_of
from voicechat.knowledge.windows import WINDOW_SIZE, windows_of


def test_windows_cover_a_passage_in_whole_sentences() -> None:
    sentences = [f"Sentence number {number} says something else. " for number in range(20)]
    owners, texts = windows_of("Title", [Passage(text="".join(sentences))])
    texts = [text.removeprefix("Title: ") for text in texts]
    assert "".join(texts) == "".join(sentences)
    assert set(owners) == {0}
    assert all(size_of(text) <= WINDOW_SIZE for text in texts)
    assert all(text.endswith(". ") for text in texts)


def test_chinese_counts_twice_and_long_sentences_stay_whole() -> None:
    _, texts = windows_of("", [Passage(text="这句话有十个汉字呢。" * 12 + "长" * 300 + "。完。")])
    assert [len(text) - len(": ") for text in texts] == [100, 20, 301, 2]


def test_a_window_begins_with_its_heading_and_names_its_passage() -> None:
    passages = [
        Passage(text="One.", headings=("Book", "Chapter")),
        Passage(text=""),
        Passage(text="Two."),
    ]
    assert windows_of("a.txt", passages) == ([0, 1, 2], ["Chapter: One.", "a.txt: ", "a.txt: Two."])
