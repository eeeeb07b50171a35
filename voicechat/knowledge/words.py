"""The words by which a text is found: Chinese by jieba's dictionary, English by its
stems.

The packages belong to the extra ``knowledge``. Importing them takes 0.4 s and 35 MB, so
`load` does it before the server is ready.
"""

import importlib
import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

from voicechat.errors import ConfigError

LONGEST_TEXT = 2000
"""Characters of a question that are searched; the rest is ignored."""

UNSEARCHED = frozenset(
    """
    a an the of to in on at by for from with as and or is are was were be been am
    do does did can could would should will shall may might must i you he she it we they
    me my your his her its our their this that these those there here what which who whom
    how when where why if then so please tell want need about into than

    的 了 和 与 及 或 在 是 有 为 以 对 于 把 被 从 到 向 由 就 都 也 还 而 但 并 且 等 之 其
    我 你 您 他 她 它 我们 你们 他们 咱们 这 那 这个 那个 这些 那些 这里 那里 哪 哪个 哪些 哪里
    什么 怎么 怎样 怎么样 如何 为什么 为何 多少 几 吗 呢 吧 啊 呀 嘛 请 请问 想 想要 要 能 能否
    能不能 可以 可不可以 是否 是不是 有没有 一下 一个 告诉 知道 需要 应该 会 会不会 该 让 给 用
    时 时候 上 下 里 中 后 前 得 地 着 过 个
    """.split()
)
"""Words that say nothing about what a text treats, or that ask. Documents have few of
those that ask, so that BM25 would take them for the most telling words.
"""

POLITE = frozenset(
    """
    a an the please hello hi hey um uh er well so ok okay kindly
    请 请问 你好 您好 嗯 呃 啊 呀 吧 呢 嘛 那 那么 一下 麻烦
    """.split()
)
"""Words that change nothing about a question."""

PAIR = "+"
"""Begins a pair of neighbouring Chinese characters among the words of a text. No word
begins with it.
"""
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")
_FORMS = 65_536
"""Word forms whose stems are kept."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def load() -> None:
    """Load the dictionaries. Raises ``ConfigError`` if a package is missing."""
    for module in ("rjieba", "Stemmer"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise ConfigError(
                "knowledge: it needs packages: pip install 'voicechat[knowledge]'"
            ) from None


def search_words(text: str) -> list[str]:
    """Return the words of a text in their order, repeated ones included, as they are
    compared: normalised (NFKC), in lower case and stemmed.

    Parts of a compound word come before it (jieba's search mode). Numbers, versions and
    product codes stay whole, thousands without their comma. Words of ``UNSEARCHED`` are
    left out, unless the text has no others. Pairs of Chinese characters follow, each
    after ``PAIR``: they find what the dictionary does not know, or divides differently
    in question and document.
    """
    folded = _folded(text)
    words = _cut(folded)
    found = [_stem(word) for word in words if word not in UNSEARCHED] or words
    return [*found, *_pairs(folded)]


def question_words(text: str) -> frozenset[str]:
    """Return all words of a question but those of politeness, compared as above. Two
    questions with the same ones are the same question.
    """
    return frozenset(_stem(word) for word in _cut(_folded(text)) if word not in POLITE)


def storable(text: str) -> str:
    """Return a text as a database can keep it: without NUL, and with a question mark
    for half of a surrogate pair.
    """
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _folded(text: str) -> str:
    return _THOUSANDS.sub("", unicodedata.normalize("NFKC", storable(text)).lower())


def _cut(folded: str) -> list[str]:
    from rjieba import cut_for_search

    return [word for word in cut_for_search(folded) if any(map(str.isalnum, word))]


def _pairs(folded: str) -> list[str]:
    return [
        PAIR + first + second for run in _HAN.findall(folded) for first, second in pairwise(run)
    ]


@lru_cache(_FORMS)
def _stem(word: str) -> str:
    from Stemmer import Stemmer

    if not (word.isascii() and word.isalpha()):
        return word
    # A stemmer of its own for each call, because one must not be used by two threads.
    return str(Stemmer("english").stemWord(word))
