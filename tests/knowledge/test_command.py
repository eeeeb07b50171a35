"""``voicechat knowledge`` and its client, against the endpoints."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.knowledge.stage import KEY, KnowledgeStage, knowledge_stage
from voicechat.cli import _parser
from voicechat.cli.command import CommandError
from voicechat.cli.knowledge import _perform
from voicechat.client import ApiError

pytestmark = pytest.mark.real_time

TEXT = "Breakfast is served from seven to ten.\n\nDogs may stay for 20 euros a night."


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[KnowledgeStage]:
    async with knowledge_stage(tmp_path) as stage:
        yield stage


async def _run(stage: KnowledgeStage, *words: str, base: str = "anna") -> None:
    options = ("--url", stage.url, "--key", KEY, "--base", base)
    await _perform(_parser().parse_args(["knowledge", *options, *words]))


async def test_documents_are_added_listed_asked_and_removed(
    stage: KnowledgeStage, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = stage.folder / "手册.txt", stage.folder / "bad.txt"
    good.write_text(TEXT)
    bad.write_text("bad")
    with pytest.raises(CommandError, match="1 of 2 documents cannot be used"):
        await _run(stage, "add", str(bad), str(good))
    told = capsys.readouterr()
    assert "手册.txt  2 passages" in told.out
    assert told.err == "bad.txt: it is broken\n", "no progress bar without a terminal"
    await _run(stage, "list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[2:] for line in lines] == [
        ["ENABLED", "手册.txt", "2 passages"],
        ["ERROR", "bad.txt", "it is broken"],
    ]
    await _run(stage, "ask", "--found", "May my dogs stay?")
    assert "[1] 手册.txt, page 1\n    Dogs may stay" in capsys.readouterr().out
    stage.model.replies = [["Yes, for 20 euros [1]."]]
    await _run(stage, "ask", "May my dogs stay?")
    assert capsys.readouterr().out == (
        "Yes, for 20 euros [1].\n\n[1] 手册.txt\n    Dogs may stay for 20 euros a night.\n"
    )
    await _run(stage, "remove", "手册.txt", "bad.txt")
    capsys.readouterr()
    await _run(stage, "list")
    assert capsys.readouterr().out == ""
    with pytest.raises(CommandError, match=r"there is no document '手册\.txt'"):
        await _run(stage, "remove", "手册.txt")
    with pytest.raises(CommandError, match="nothing was found"):
        await _run(stage, "ask", "--found", "dogs")


async def test_what_goes_wrong_is_told(stage: KnowledgeStage) -> None:
    with pytest.raises(ApiError, match="40401: serviceId: there is no agent or knowledge base"):
        await _run(stage, "list", base="nobody")
    with pytest.raises(OSError, match="missing"):
        await _run(stage, "add", str(stage.folder / "missing.txt"))
    for _ in range(2):
        (stage.folder / "twice.txt").write_text("text")
        await _run(stage, "add", str(stage.folder / "twice.txt"))
    with pytest.raises(CommandError, match=r"2 documents are called 'twice\.txt'; say which: "):
        await _run(stage, "remove", "twice.txt")


async def test_a_base_that_is_no_agent_is_asked_as_well(
    stage: KnowledgeStage, capsys: pytest.CaptureFixture[str]
) -> None:
    (stage.folder / "pets.txt").write_text("Dogs may stay for 20 euros a night.")
    await _run(stage, "add", str(stage.folder / "pets.txt"), base="pets")
    stage.model.replies = [["Yes [1]."]]
    capsys.readouterr()
    await _run(stage, "ask", "May dogs stay?", base="pets")
    assert "[1] pets.txt" in capsys.readouterr().out
