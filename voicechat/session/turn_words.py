"""What recognised words reveal about a turn, in English and Chinese: that it continues,
that it interrupts.

Recognisers differ: some punctuate, some return bare lower-case words. Both forms are
understood.
"""

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from voicechat.text.characters import is_han
from voicechat.text.words import count_words


class TextEnding(Enum):
    """How a text ends."""

    COMPLETE = "complete"
    """A sentence is finished, as its punctuation, or a word that closes turns,
    shows.
    """
    PLAIN = "plain"
    """The ending is unclear."""
    UNFINISHED = "unfinished"
    """More must follow: a conjunction, an article, a hesitation, a comma."""
    DICTATING = "dictating"
    """A number is being dictated; it may be complete, or more digits may follow."""


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")

_DIGITS = frozenset("zero oh one two three four five six seven eight nine double triple".split())
_HAN_DIGITS = frozenset("零〇一二三四五六七八九幺两")
_DIGITS_OF_A_DICTATION = 3
"""From this many digits in a row a number is being dictated: "twenty two" and "三个"
are counts of things.
"""

_HESITATIONS = frozenset("um uh er erm hmm hm like umm uhh ah eh".split())
_OPEN_WORDS = frozenset(
    """and but or so because since although though if when while unless until whether
    than as which whose where the a an my your his her its our their every each is are
    was were i'm you're we're they're it's that's can could will would shall should may
    might must don't i we he she they gonna plus maybe very really""".split()
)
_STRANDED_WORDS = frozenset(
    "to of in on at by for from with about into between before after over under near".split()
)
"""Words that leave a statement open and may end a question: "what is it for"."""
_QUESTION_WORDS = frozenset(
    """what which who whom how where when why can could would will should do does did is
    are was were have has may shall what's where's who's how's""".split()
)
_QUESTION_REACH = 8
"""The beginning of a question is searched among this many words before the end."""
_CLOSING_WORDS = frozenset(
    "please thanks thank you today tomorrow tonight now okay right goodbye bye done yes".split()
)

_HAN_OPEN = """和 跟 与 或 或者 还有 而且 并且 但是 但 可是 不过 然后 因为 所以 如果 要是 虽然
    除了 以及 的话 比如 比如说 就是 就是说 那个 这个 那 嗯 呃 额 啊 想 要 想要 我 我们
    你 在 从 把 被 给 对于 关于 的时候 是 有 去 到 为了 一个 先 再 帮我 请""".split()
_HAN_CLOSED = (
    "吗 呢 吧 了 谢谢 好的 可以 多少 什么 怎么办 怎么样 哪里 没有 就这样 再见 行 一下".split()
)

_BACKCHANNELS = frozenset(
    """mm hmm mhm mm-hm mm-hmm uh-huh uhuh huh uh um hm ah oh aha yeah yep yes yup ok
    okay right sure good great nice true exactly absolutely indeed alright wow cool fine
    see i got it totally really interesting""".split()
)
_HUMS = frozenset("you the a it i oh he".split())
"""What recognisers write for a hum or a breath, besides backchannels. These words alone
do not interrupt.
"""
_BACKCHANNEL_HAN = frozenset(
    """嗯 嗯嗯 哦 噢 喔 啊 哈 哈哈 呵呵 对 对对 对对对 对的 对啊 好 好的 好啊 好好 好吧
    是 是的 是啊 是吗 行 没错 明白 明白了 知道了 懂了 可以 嗯对 嗯好 当然 真的 哇
    原来如此 这样啊 哦这样 有道理""".split()
)
_STOP_WORDS = frozenset("stop wait no hold quiet pause enough cancel hey shut excuse".split())
_STOP_HAN = (
    "停",
    "等等",
    "等一下",
    "等下",
    "别说",
    "不要",
    "不是",
    "不对",
    "闭嘴",
    "暂停",
    "够了",
    "打住",
    "算了",
)


def ending_of(text: str) -> TextEnding:
    """Classify how ``text``, a turn so far, ends. Its last words decide."""
    stripped = text.rstrip()
    if not stripped:
        return TextEnding.PLAIN
    body = stripped.rstrip(".。!！?？…")
    if _trailing_digits(body) >= _DIGITS_OF_A_DICTATION:
        return TextEnding.DICTATING
    if stripped[-1] in ",，、;；:：-—…" or stripped.endswith("..."):
        return TextEnding.UNFINISHED
    if stripped[-1] in "?？":
        return TextEnding.COMPLETE
    ending = _ending_of_words(body)
    if stripped[-1] in ".。!！" and ending is TextEnding.PLAIN:
        return TextEnding.COMPLETE
    return ending


def is_backchannel(text: str) -> bool:
    """Whether all words are backchannels, which only mean "I am listening". False for
    an empty text.
    """
    words = _words(text)
    return bool(words) and all(_is_backchannel_word(word) for word in words)


def is_interruption_request(text: str) -> bool:
    """Whether the text asks the speaker to stop, however short it is: "wait", "停"."""
    return any(word in _STOP_WORDS or word.startswith(_STOP_HAN) for word in _words(text))


def words_of_substance(text: str) -> int:
    """Count the words that are not backchannels; each Han character counts as a
    word.
    """
    return sum(count_words(word) for word in _words(text) if not _is_backchannel_word(word))


def _ending_of_words(body: str) -> TextEnding:
    if body and is_han(body[-1]):
        run = _last_han_run(body)
        # "对吗" is complete and "然后" open whatever precedes it; the longer match
        # is more specific.
        closed, opened = _longest_suffix(run, _HAN_CLOSED), _longest_suffix(run, _HAN_OPEN)
        if max(closed, opened) == 0:
            return TextEnding.PLAIN
        return TextEnding.COMPLETE if closed >= opened else TextEnding.UNFINISHED
    words = _WORD.findall(body.lower())
    if not words:
        return TextEnding.PLAIN
    last, before = words[-1], words[-1 - _QUESTION_REACH : -1]
    if last in _HESITATIONS or last in _OPEN_WORDS:
        return TextEnding.UNFINISHED
    if last in _STRANDED_WORDS and _QUESTION_WORDS.isdisjoint(before):
        return TextEnding.UNFINISHED
    return TextEnding.COMPLETE if words[-1] in _CLOSING_WORDS else TextEnding.PLAIN


def _trailing_digits(body: str) -> int:
    """Count the digits, spoken or written, at the end of the text, without another word
    between them.
    """
    count = 0
    for token in reversed(re.findall(r"\d|[^\W\d_]+", body.lower())):
        if token.isdigit() or token in _DIGITS:
            count += 1
            continue
        if not is_han(token[-1]):
            return count
        digits = _trailing(token, _HAN_DIGITS)
        count += digits
        if digits < len(token):
            return count
    return count


def _trailing(token: str, allowed: frozenset[str]) -> int:
    return len(token) - len(token.rstrip("".join(allowed)))


def _longest_suffix(run: str, endings: Iterable[str]) -> int:
    return max((len(ending) for ending in endings if run.endswith(ending)), default=0)


def _last_han_run(body: str) -> str:
    begin = len(body)
    while begin > 0 and is_han(body[begin - 1]):
        begin -= 1
    return body[begin:]


def _words(text: str) -> Sequence[str]:
    """Split the text into words; a run of Han characters stays together."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def _is_backchannel_word(word: str) -> bool:
    return word in _BACKCHANNELS or word in _BACKCHANNEL_HAN or word in _HUMS
