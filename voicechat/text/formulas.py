"""Reads simple LaTeX formulas as words."""

import re
from collections.abc import Iterator

LONGEST_SPOKEN = 160
"""Limit of a formula's words, in characters. A longer formula cannot be followed by ear
and is dropped.
"""
_DEEPEST = 8

_GREEK = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi
rho sigma tau upsilon phi chi psi omega""".split()
_FUNCTIONS = """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp min max
det gcd lim""".split()
_OPERATORS = {
    # LaTeX: (English, Chinese)
    "+": ("plus", "加"),
    "-": ("minus", "减"),
    "*": ("times", "乘"),
    "/": ("over", "除以"),
    "=": ("equals", "等于"),
    "<": ("is less than", "小于"),
    ">": ("is greater than", "大于"),
    "!": ("factorial", "的阶乘"),
    "'": ("prime", "撇"),
    "|": ("", ""),
    ":": ("to", "比"),
    "times": ("times", "乘"),
    "cdot": ("times", "乘"),
    "ast": ("times", "乘"),
    "div": ("divided by", "除以"),
    "pm": ("plus or minus", "正负"),
    "mp": ("minus or plus", "负正"),
    "le": ("is at most", "小于等于"),
    "ge": ("is at least", "大于等于"),
    "ne": ("is not equal to", "不等于"),
    "approx": ("is about", "约等于"),
    "sim": ("is about", "约等于"),
    "equiv": ("is equivalent to", "恒等于"),
    "propto": ("is proportional to", "正比于"),
    "to": ("to", "趋于"),
    "implies": ("implies", "推出"),
    "iff": ("if and only if", "当且仅当"),
    "in": ("in", "属于"),
    "cup": ("union", "并"),
    "cap": ("intersection", "交"),
    "subset": ("is a subset of", "包含于"),
    "forall": ("for all", "对任意"),
    "exists": ("there exists", "存在"),
    "infty": ("infinity", "无穷"),
    "partial": ("partial", "偏"),
    "nabla": ("nabla", "nabla"),
    "degree": ("degrees", "度"),
    "circ": ("degrees", "度"),
    "ldots": ("and so on", "等等"),
    "sum": ("the sum", "和"),
    "prod": ("the product", "积"),
    "int": ("the integral", "积分"),
    "%": ("percent", "%"),
    "&": ("and", "和"),
}
_BOUNDED = frozenset(name for key in ("sum", "prod", "int") for name in _OPERATORS[key])
"""Operators with a lower and an upper bound."""
_ALIASES = {
    "leq": "le",
    "leqslant": "le",
    "geq": "ge",
    "geqslant": "ge",
    "neq": "ne",
    "rightarrow": "to",
    "longrightarrow": "to",
    "mapsto": "to",
    "Rightarrow": "implies",
    "Longrightarrow": "implies",
    "Leftrightarrow": "iff",
    "dots": "ldots",
    "cdots": "ldots",
    "subseteq": "subset",
    "simeq": "approx",
    "varepsilon": "epsilon",
    "varphi": "phi",
    "vartheta": "theta",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "mid": "|",
    "iint": "int",
    "oint": "int",
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
}
_WRAPPERS = frozenset(
    """text textbf textit textrm mathrm mathbf mathit mathsf mathcal mathbb mathfrak boxed
    boldsymbol operatorname vec hat ce bar overline underline tilde dot mbox bm emph""".split()
)
"""Commands that are ignored; their argument is read."""
_SILENT = frozenset(
    r"""left right middle big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits
    nolimits quad qquad not , ; : ! \ { }""".split()
) | {" "}
KNOWN_COMMANDS = frozenset(
    {"frac", "sqrt", *_GREEK, *map(str.capitalize, _GREEK), *_FUNCTIONS, *_ALIASES, *_WRAPPERS}
    | {name for name in _OPERATORS if name.isalpha()}
    | {"left", "right", "quad", "qquad"}
)
"""Commands that can be read aloud, without their backslash."""

_TOKEN = re.compile(
    r"\\([A-Za-z]+|.)|(\d+(?:[.,]\d+)*)|([A-Za-z]+|[^\W\d_]+)|([{}^_])|\s+|(.)", re.DOTALL
)
_BESIDE_HAN = re.compile(r" (?=[\u3000-\u9fff\uff0c])|(?<=[\u3000-\u9fff\uff0c]) ")
_BRACKETS = "()[].,;?。，"
_POWERS = {"2": (" squared", "的平方"), "3": (" cubed", "的立方")}


class _UnreadableError(Exception):
    """The formula contains something that cannot be read as words."""


def read_formula(latex: str, *, chinese: bool) -> str:
    """Return the words of a formula, in Chinese or English, or "" if it is not simple
    enough.
    """
    try:
        words = " ".join(_FormulaParser(latex, chinese=chinese).read().split())
    except _UnreadableError:
        return ""
    words = _BESIDE_HAN.sub("", words)
    return words if len(words) <= LONGEST_SPOKEN else ""


class _FormulaParser:
    """A recursive descent parser over tokens; groups and arguments nest at most eight
    deep.
    """

    def __init__(self, latex: str, *, chinese: bool) -> None:
        self._tokens = [match[0] for match in _TOKEN.finditer(latex) if not match[0].isspace()]
        self._at = 0
        self._depth = 0
        self._chinese = int(chinese)

    def read(self) -> str:
        """Return the words of the whole formula."""
        words = " ".join(self._items(closer=None))
        if self._at < len(self._tokens):
            raise _UnreadableError
        return words

    def _items(self, closer: str | None) -> Iterator[str]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _UnreadableError
        while self._at < len(self._tokens) and self._tokens[self._at] != closer:
            yield self._with_scripts()
        self._depth -= 1

    def _with_scripts(self) -> str:
        """Return one item with its subscript and superscript."""
        base = self._item()
        below, above = "", ""
        while self._at < len(self._tokens) and self._tokens[self._at] in ("_", "^"):
            mark = self._next()
            script = self._argument()
            if mark == "_":
                below = script
            elif script.replace(" ", "") in ("度", "degrees"):
                base = f"{base} {script}"
            else:
                above = script
        return self._scripted(base, below, above)

    def _scripted(self, base: str, below: str, above: str) -> str:
        if base in _BOUNDED:
            start = (f"from {below}", f"从{below}")[self._chinese] if below else ""
            end = (f"to {above}", f"到{above}")[self._chinese] if above else ""
            return (f"{base} {start} {end} of", f"{start}{end}的{base}，")[self._chinese]
        if base == "lim" and below:
            return (f"the limit as {below} of", f"{below}时的极限")[self._chinese]
        if below:
            base = f"{base} {below}"
        if not above:
            return base
        if above in _POWERS:
            return base + _POWERS[above][self._chinese]
        if above in ("prime", "撇"):
            return f"{base} {above}"
        return (f"{base} to the power of {above}", f"{base}的{above}次方")[self._chinese]

    def _item(self) -> str:
        token = self._next()
        if token == "{":
            words = " ".join(self._items(closer="}"))
            self._close("}")
            return words
        if token.startswith("\\"):
            return self._command(token[1:])
        if token in _OPERATORS:
            return _OPERATORS[token][self._chinese]
        if token in ("}", "^", "_", "&"):
            raise _UnreadableError
        return "" if token in _BRACKETS or token == "~" else token

    def _command(self, name: str) -> str:
        name = _ALIASES.get(name, name)
        if name == "frac":
            above, below = self._argument(), self._argument()
            return (f"{above} over {below}", f"{below}分之{above}")[self._chinese]
        if name == "sqrt":
            degree = self._bracketed()
            inner = self._argument()
            if degree and degree != "2":
                english = f"the {'cube' if degree == '3' else degree + 'th'} root of {inner}"
                return (english, f"{inner}的{degree}次方根")[self._chinese]
            return (f"the square root of {inner}", f"根号{inner}")[self._chinese]
        if name in _WRAPPERS:
            return self._argument()
        if name in _OPERATORS:
            return _OPERATORS[name][self._chinese]
        if name in _SILENT:
            return ""
        if name in _FUNCTIONS or name.lower() in _GREEK:
            return name if name in _FUNCTIONS else name.lower()
        raise _UnreadableError

    def _argument(self) -> str:
        """Return a group, or else the next item, a single digit in ``frac12``."""
        if self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token[0].isalnum() and len(token) > 1:
                self._tokens[self._at] = token[1:]
                return token[0]
        return self._item()

    def _bracketed(self) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at] != "[":
            return ""
        self._next()
        words = " ".join(self._items(closer="]"))
        self._close("]")
        return words

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise _UnreadableError
        self._at += 1
        return self._tokens[self._at - 1]

    def _close(self, closer: str) -> None:
        if self._next() != closer:
            raise _UnreadableError
