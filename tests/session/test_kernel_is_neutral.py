"""The kernel and what carries it out speak no protocol: its words appear only in
dialects and servers.
"""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "voicechat"
NUMBERS = r"(?<![\w.])(?:100[1-9]|101[0-5]|[45]\d{4}|40[1349]|413|415|422|429|50[1-4])(?![\w.])"
"""HTTP's and WebSocket's, and our own five digits. 500 and 1000 are also lengths."""
WORDS = (
    *(
        "websocket",
        "http",
        "aiohttp",
        "subprotocol",
        "event_type",
        r"\bstatus\b",
        "close code",
        "contract",
    ),
    *(r"\bchat\.(?:update|created|complete|error)", "input_audio", "heartbeat"),
    *("speech[-_.]?chat", "stream[-_.]?speech", r"session\.update", r"response\.(?:create|done)"),
    *("openai", "xiaozhi", "twilio", "audiosocket", "asterisk", "streamsid", "base64"),
    *("ollama", "vllm", "mistral", "deepseek", "azure", "dashscope", "volcengine"),
)
PROTOCOL = re.compile("|".join((NUMBERS, *WORDS)), re.IGNORECASE)


@pytest.mark.parametrize("folder", ["session", "runtime"])
def test_no_word_of_a_protocol_appears(folder: str) -> None:
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PROTOCOL.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "Close(1011)",
        "code = 40901",
        '"event_type"',
        "the WebSocket",
        "status=413",
        "OpenAI's form",
        "stream_speech",
    ],
)
def test_such_words_are_found(line: str) -> None:
    assert PROTOCOL.search(line)


@pytest.mark.parametrize("line", ["after_ms: int = 40_901", "1000 ms", "silence_ms: int = 500"])
def test_lengths_are_not(line: str) -> None:
    assert not PROTOCOL.search(line)
