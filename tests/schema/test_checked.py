"""Errors of fields that take one of several types."""

from typing import Annotated

import pytest
from pydantic import ValidationError

from voicechat.schema.checked import Check, Either, RequestModel, first_failure


def _short(texts: list[str]) -> list[str]:
    if len(texts) > 2:
        raise ValueError(f"{len(texts)} texts are more than 2")
    return texts


class Letter(RequestModel):
    """A model with a union."""

    to: Annotated[
        str | Annotated[list[str], Check(_short, {"maxItems": 2})],
        Either("a text or an array of texts"),
    ] = ""


def test_what_a_union_takes() -> None:
    assert Letter(to="a").to == "a"
    assert Letter(to=["a", "b"]).to == ["a", "b"]
    schema = Letter.model_json_schema()["properties"]["to"]
    assert {"type": "string"} in schema["anyOf"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "to: 7 is not a text or an array of texts"),
        ([7], "to: an array is not a text or an array of texts"),
        (["a", "b", "c"], "to: 3 texts are more than 2"),
    ],
)
def test_errors_name_the_field_and_not_the_types(value: object, message: str) -> None:
    with pytest.raises(ValidationError) as failed:
        Letter.model_validate({"to": value})
    assert first_failure(failed.value) == message
