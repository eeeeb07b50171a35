import pytest

from voicechat.text.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello there.", "en"),
        ("Bonjour, ça va ?", "en"),
        ("今天天气很好。", "zh"),
        ("The word 你好 means hello.", "zh"),
        ("東京へ行きます。", "ja"),
        ("コーヒー", "ja"),
        ("안녕하세요 Kim", "ko"),
        ("25.", ""),
        ("。！・", ""),
        ("Привет", ""),
        ("", ""),
    ],
)
def test_the_script_tells_the_language(text: str, language: str) -> None:
    assert language_of(text) == language
