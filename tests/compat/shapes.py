"""Whether an answer has the form of a document's sample."""

from typing import Any


def check_shape(sample: Any, answer: Any, path: str = "answer") -> None:
    """Raise ``AssertionError`` unless ``answer`` has every field of ``sample``, of the
    same type. ``<...>`` and null in the sample stand for any value.
    """
    if sample is None or (isinstance(sample, str) and sample.startswith("<")):
        return
    if isinstance(sample, dict):
        assert isinstance(answer, dict), f"{path}: {answer!r} is no object"
        for name, value in sample.items():
            assert name in answer, f"{path}.{name}: is missing in {answer!r}"
            check_shape(value, answer[name], f"{path}.{name}")
    elif isinstance(sample, list):
        assert isinstance(answer, list), f"{path}: {answer!r} is no array"
        for number, item in enumerate(answer if sample else ()):
            check_shape(sample[0], item, f"{path}[{number}]")
    else:
        numbers = (int, float)
        wanted = numbers if type(sample) in numbers else type(sample)
        assert isinstance(answer, wanted), f"{path}: {answer!r} is not like {sample!r}"
        assert isinstance(answer, bool) == isinstance(sample, bool), f"{path}: {answer!r}"
