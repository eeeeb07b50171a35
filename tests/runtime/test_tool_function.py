import math
from typing import Annotated, Literal

import pytest
from pydantic import Field

from voicechat.errors import ConfigError, ToolError
from voicechat.runtime.tool_function import is_asynchronous, open_tool
from voicechat.session.filler import Filler

HERE = "tests.runtime.test_tool_function"


async def weather(
    city: Annotated[str, Field(description="Where")], days: int = 1, unit: Literal["c", "f"] = "c"
) -> str:
    """Tell the weather in a city."""
    return f"{city} {days} {unit}"


def copy(copy: bool, _list: list[int], schema: float = 1.0) -> str:
    """Have parameters whose names no model's field may have."""
    return f"{copy} {_list} {schema}"


def undocumented(x: int) -> int:
    return x


def unbounded(*cities: str) -> str:
    """Take as many as you like."""
    return " ".join(cities)


def unresolved(x: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Have an annotation that is not there."""


class Caller:
    """Be called and awaited without being a function."""

    async def __call__(self, city: str) -> str:
        return city


caller = Caller()
number = 7


def test_the_description_is_the_docstring_and_the_schema_the_annotations() -> None:
    tool = open_tool("weather", f"{HERE}:weather")
    assert tool.definition == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where"},
                    "days": {"type": "integer", "default": 1},
                    "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


def test_what_is_configured_comes_before_what_the_function_says() -> None:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}}
    tool = open_tool("weather", f"{HERE}:weather", description="Only Paris.", parameters=parameters)
    assert tool.definition["function"] == {
        "name": "weather",
        "description": "Only Paris.",
        "parameters": parameters,
    }


def test_arguments_are_read_by_their_annotations_and_may_have_any_name() -> None:
    assert open_tool("w", f"{HERE}:weather").read_arguments('{"city": "Paris", "days": "3"}') == {
        "city": "Paris",
        "days": 3,
        "unit": "c",
    }
    read = open_tool("c", f"{HERE}:copy").read_arguments('{"copy": true, "_list": [1]}')
    assert read == {"copy": True, "_list": [1], "schema": 1.0}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "city"),
        ("{}", "city"),
        ('{"city": "Paris", "unit": "kelvin"}', "unit"),
        ('{"city": "Paris", "dayz": 2}', "dayz"),
        ('{"city": ', "arguments"),
        ("[]", "arguments"),
        ('{"days": "x", "unit": 3}', "city"),
    ],
)
def test_wrong_arguments_are_named_to_the_model(arguments: str, named: str) -> None:
    with pytest.raises(ToolError, match=named):
        open_tool("weather", f"{HERE}:weather").read_arguments(arguments)


@pytest.mark.parametrize(
    ("name", "function", "named"),
    [
        ("weather", "weather", "package.module:function"),
        ("weather", ":weather", "package.module:function"),
        ("weather", "nowhere_at_all:weather", "nowhere_at_all"),
        ("weather", f"{HERE}:wether", "wether"),
        ("weather", f"{HERE}:number", "number"),
        ("weather", f"{HERE}:undocumented", "description"),
        ("weather", f"{HERE}:unbounded", r"\*cities"),
        ("weather", f"{HERE}:unresolved", "Nowhere"),
        ("the weather", f"{HERE}:weather", "the weather"),
        ("", f"{HERE}:weather", "letters"),
        ("w" * 65, f"{HERE}:weather", "64"),
    ],
)
def test_a_tool_that_cannot_be_used_stops_the_start(name: str, function: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        open_tool(name, function)


def test_an_object_that_can_be_called_is_asynchronous_if_its_call_is() -> None:
    assert is_asynchronous(caller)
    assert is_asynchronous(weather)
    assert not is_asynchronous(copy)
    assert not is_asynchronous(math.sqrt)


def test_a_filler_is_in_the_language_of_the_user() -> None:
    both = Filler(en="Let me look.", zh="我看看。")
    assert both.text_for("巴黎天气怎么样?") == "我看看。"
    assert both.text_for("Is it warm in Paris?") == "Let me look."
    assert Filler(zh="我看看。").text_for("Is it warm?") == "我看看。"
