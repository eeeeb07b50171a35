"""What the documents point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "protocol/README.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OF_OURS = [document for document in DOCUMENTS if document.parent.name != "providers"]
"""Providers' pages name files of other projects."""
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*(\.(py|md|toml|json|js|html)|/)")
"""A file, or a folder with a slash at the end."""
_MODULE = re.compile(r"[a-z_]+")


def anchors(document: Path) -> set[str]:
    """Name the headings as a link does."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT))
)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_found() -> None:
    """From the README, in one step or two."""
    pages = {
        (ROOT / link).resolve() for link in _LINK.findall((ROOT / "README.md").read_text("utf-8"))
    }
    for index in [page for page in pages if page.suffix == ".md"]:
        pages |= {
            (index.parent / link).resolve() for link in _LINK.findall(index.read_text("utf-8"))
        }
    assert [page for page in (ROOT / "docs").rglob("*.md") if page not in pages] == []


@pytest.mark.parametrize("document", OF_OURS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_path_of_our_own_that_is_named_exists(document: Path) -> None:
    paths = [
        code
        for code in _CODE.findall(document.read_text("utf-8"))
        if "/" in code and _PATH.fullmatch(code)
    ]
    missing = []
    for path in paths:
        first = path.split("/")[0]
        roots = [
            root
            for root in (ROOT, ROOT / "voicechat", ROOT / "web_demo")
            if (root / first).is_dir()
        ]
        if first != "." and roots and not any((root / path).exists() for root in roots):
            missing.append(path)
    assert missing == []


def rows(heading: str) -> list[list[str]]:
    section = ARCHITECTURE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_table_of_packages_has_all_of_them_and_their_modules() -> None:
    package = ROOT / "voicechat"
    named = set()
    for place, is_, _ in rows("Where things are"):
        folders = [package / code.strip("/") for code in _CODE.findall(place)]
        named |= {folder.stem for folder in folders}
        assert all(folder.is_dir() or folder.with_suffix(".py").is_file() for folder in folders), (
            place
        )
        for module in filter(_MODULE.fullmatch, _CODE.findall(is_)):
            assert any((folder / f"{module}.py").is_file() for folder in folders), (
                f"{place}: {module}"
            )
    assert {
        path.stem
        for path in package.iterdir()
        if not path.name.startswith("_") and path.suffix != ".typed"
    } == named


def test_to_change_something_there_is_something_to_open() -> None:
    for wish, answer in rows("To change something"):
        paths = [code for code in _CODE.findall(answer) if _PATH.fullmatch(code)]
        assert paths, wish
        folder = ROOT
        for code in paths:
            places = [
                root / code for root in (ROOT / "voicechat", ROOT, folder) if (root / code).exists()
            ]
            assert places, f"{wish}: {code}"
            folder = places[0].parent


PROSE_COLUMNS = 88
_UNBREAKABLE = re.compile(r"(?:`[^`]*`|\[[^\]]*\]\([^)]*\)|[^\s`\[]|[\[`])+")
"""A word, with any code spans and links in it."""


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT))
)
def test_prose_is_wrapped(document: Path) -> None:
    """Tables, code and lines of a single word may be longer."""
    long, in_code = [], False
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        is_prose = not in_code and not line.startswith(("|", "#", "<"))
        if is_prose and len(line) > PROSE_COLUMNS and len(_UNBREAKABLE.findall(line)) > 1:
            long.append(number)
    assert long == []
