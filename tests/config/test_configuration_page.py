from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from tools.configuration_page import ORDER, PAGE, page
from voicechat.config.sections import ConfigFile


def test_the_page_is_what_the_code_says() -> None:
    """Write it anew with ``python -m tools.configuration_page`` after a change that is
    meant.
    """
    assert PAGE.read_text("utf-8") == page()


def test_the_page_has_every_section() -> None:
    assert set(tables_of(ConfigFile)) - {ConfigFile} == set(ORDER)


def tables_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        table: Any = (
            get_args(field.annotation)[1]
            if get_origin(field.annotation) is dict
            else field.annotation
        )
        if isinstance(table, UnionType):  # a table that may be left out
            table = get_args(table)[0]
        if isinstance(table, type) and issubclass(table, BaseModel):
            yield from tables_of(table)
