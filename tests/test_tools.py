"""``tests/`` is for pytest, and what people run by hand is in ``tools/``."""

import asyncio
import importlib
from pathlib import Path

import pytest

from tools.evaluate_conversation import control

ROOT = Path(__file__).parent.parent
CHILDREN = {
    "tests/devices/stock_client.py",
    "tests/processes/echo_worker.py",
    "tests/processes/forking_worker.py",
    "tests/config/mcp_weather.py",
    "tests/knowledge/questions/build.py",
    "tests/pictures/inspect_one.py",
}
"""Programs that tests start as children, and the writer of the evaluation's documents,
which belongs to its questions.
"""
ELSEWHERE = ("diffusers_server", "peers", "real_server_model")
"""They run in other environments: beside another bench, and with torch."""


def test_tests_are_no_commands() -> None:
    commands = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "tests").rglob("*.py")
        if any(line.startswith("if __name__ ==") for line in file.read_text("utf-8").splitlines())
    }
    assert commands == CHILDREN


MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "tools").rglob("*.py"))
    if not any(name in file.parts or name == file.stem for name in ELSEWHERE)
]


@pytest.mark.parametrize("module", MODULES)
def test_a_tool_can_be_imported_and_says_what_it_is_for(module: str) -> None:
    tool = importlib.import_module(module)
    assert tool.__doc__ or not hasattr(tool, "main")


@pytest.mark.long
@pytest.mark.real_time
async def test_the_idle_loop_beside_an_evaluation_tells_its_lag_and_ends() -> None:
    largest: dict[str, float] = {}
    async with asyncio.timeout(60), control(largest):
        pass
    assert largest["control: loop_lag_seconds"] >= 0
