"""Summarises a record: its turns, its usage, and the words by which it is found."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from voicechat.records.line_format import JsonObject

MAX_TURNS = 10_000
MAX_WORDS = 20_000
"""Different words by which one record is found; further ones are left out."""
LONGEST_WORD = 64
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff]+")


class Summary:
    """Takes the lines of a record in their order."""

    def __init__(self) -> None:
        self.begin: JsonObject = {}
        """The first line, without the setup."""
        self.turns: list[JsonObject] = []
        self.ending = ""
        self.duration_ms = 0
        self.interruptions = 0
        self.failures: list[JsonObject] = []
        self.gaps: list[JsonObject] = []
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.ended = False
        """Whether the record has its last line."""
        self._replies: dict[int, JsonObject] = {}
        self._typed = False

    def take(self, line: JsonObject) -> None:
        """Take the next line."""
        if "begin" in line:
            self.begin = {key: value for key, value in line["begin"].items() if key != "setup"}
            return
        at_ms = int(line.get("t", 0))
        self.duration_ms = max(self.duration_ms, at_ms)
        if "gap" in line:
            self.gaps.append({"from_ms": at_ms, **line["gap"]})
        self.ended = self.ended or "end" in line
        name, data = line.get("event"), line.get("data") or {}
        if name == "AudioSent" and (reply := self._replies.get(data["reply"])) is not None:
            reply.setdefault("first_audio_ms", at_ms)
            reply["sent_ms"] = data["end_ms"]
        for effect in line.get("effects") or ():
            if effect[0] == "Send":
                self._take_notice(effect[1], effect[2], at_ms)

    def _take_notice(self, name: str, data: Any, at_ms: int) -> None:
        match name:
            case "UserSaid":
                self._turn({"user": _text_of(data["item"]["message"]), "said_ms": at_ms})
            case "ReplyBegun":
                reply: JsonObject = {"reply": data["reply"], "begun_ms": data["begun_ms"]}
                reply |= {"text": "", "tools": []}
                self._replies[data["reply"]] = reply
                if not self.turns or "answer" in self.turns[-1]:
                    self._turn({})
                if self.turns:
                    self.turns[-1]["answer"] = reply
            case "Interrupted":
                self.interruptions += 1
            case "Failed":
                self._fail(at_ms, data)
            case "Ended":
                self.ending = str(data["ending"])
                if data.get("fault"):
                    self._fail(at_ms, data)
            case _:
                reply_of = self._replies.get(data.get("reply", 0)) if data else None
                if reply_of is not None:
                    self._take_reply_notice(reply_of, name, data, at_ms)

    def _take_reply_notice(self, reply: JsonObject, name: str, data: Any, at_ms: int) -> None:
        match name:
            case "ReplyText":
                reply["text"] += data["text"]
            case "ReplyToolCall":
                reply["tools"].append({"at_ms": at_ms, "client": data["call"]})
            case "ReplyToolsUsed":
                reply["tools"].append({"at_ms": at_ms, **data["exchange"]})
            case "ReplySources":
                reply.setdefault("sources", []).extend(data["sources"])
            case "LatencyMeasured":
                reply["stages_ms"] = data["breakdown"]["stages_ms"]
            case "ReplyCut":
                reply["heard"] = data["heard"]
                reply["cut_ms"] = at_ms
            case "ReplyEnded":
                reply["outcome"], reply["ended_ms"] = data["outcome"], at_ms
                used = data.get("usage")
                if used:
                    reply["usage"] = used
                    self.prompt_tokens += used["prompt_tokens"]
                    self.completion_tokens += used["completion_tokens"]
                if data.get("fault"):
                    self._fail(at_ms, data)
            case _:
                pass

    def _turn(self, turn: JsonObject) -> None:
        if len(self.turns) < MAX_TURNS:
            self.turns.append(turn)

    def _fail(self, at_ms: int, data: Any) -> None:
        if len(self.failures) < MAX_TURNS:
            self.failures.append(
                {"at_ms": at_ms, "fault": data["fault"], "message": data["message"]}
            )

    def written(self) -> JsonObject:
        """Return the summary as JSON holds it."""
        return {
            "turns": self.turns,
            "duration_ms": self.duration_ms,
            "ending": self.ending,
            "interruptions": self.interruptions,
            "failures": self.failures,
            "gaps": self.gaps,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    @property
    def slowest_ms(self) -> int | None:
        """The longest time from the user's last sound to the first audio of a reply."""
        totals = [
            sum(stages.values())
            for reply in self._replies.values()
            if (stages := reply.get("stages_ms"))
        ]
        return max(totals, default=None)

    def text(self) -> str:
        """Return everything that was said."""
        pieces = []
        for turn in self.turns:
            pieces += [turn.get("user", ""), turn.get("answer", {}).get("text", "")]
        return "\n".join(filter(None, pieces))

    def opening(self, most: int = 80) -> str:
        """Return the first words of the conversation."""
        said = next((turn["user"] for turn in self.turns if turn.get("user")), "")
        answered = next((t["answer"]["text"] for t in self.turns if t.get("answer")), "")
        return " ".join((said or answered).split())[:most]


def summarise(lines: Iterable[JsonObject]) -> Summary:
    """Return the summary of a whole record."""
    summary = Summary()
    for line in lines:
        summary.take(line)
    return summary


def words_of(text: str) -> list[str]:
    """Return the different words of a text, by which it is found: in lower case, and of
    Chinese and Japanese each character and each pair of neighbours.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = {word[:LONGEST_WORD]: None for word in _WORD.findall(_HAN.sub(" ", folded))}
    for run in _HAN.findall(folded):
        words.update(dict.fromkeys(run))
        words.update(dict.fromkeys(a + b for a, b in pairwise(run)))
    return list(words)[:MAX_WORDS]


def searched_words(text: str) -> list[str]:
    """Return the words that a record must have to be found by ``text``."""
    words = words_of(text)
    pairs = {word for word in words if len(word) > 1 and _HAN.fullmatch(word)}
    covered = {character for pair in pairs for character in pair}
    return [word for word in words if word not in covered]


def _text_of(message: Any) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
