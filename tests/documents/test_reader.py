"""Documents of every kind, and hostile ones, through the real child process."""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.documents import material
from tests.documents.material import docx_file, docx_of, pdf_file, pptx_file, xlsx_file
from voicechat.documents import reader as reader_module
from voicechat.documents.reader import DocumentReader, DocumentText
from voicechat.errors import RemoteProtocolError, Status

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]
ASSETS = Path(__file__).parent / "assets"
TABLE = "| 型号 | Power |\n| --- | --- |\n| X-1 | 100 W |\n| X-2 | 200 W |"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def reader() -> AsyncIterator[DocumentReader]:
    reader = DocumentReader()
    yield reader
    await reader.aclose()


class Reading:
    """Reads contents as files of a name."""

    def __init__(self, reader: DocumentReader, folder: Path) -> None:
        self._reader = reader
        self._path = folder / "0123"
        self.progress: list[float] = []

    async def read(self, content: bytes, title: str, **more: object) -> DocumentText:
        self._path.write_bytes(content)
        return await self._reader.read(
            self._path,
            title,
            report=self.progress.append,
            **more,  # type: ignore[arg-type]
        )

    async def refusal(self, content: bytes, title: str = "x") -> RemoteProtocolError:
        with pytest.raises(RemoteProtocolError) as raised:
            await self.read(content, title)
        assert raised.value.message.startswith("file: the document")
        return raised.value


@pytest.fixture
def reading(reader: DocumentReader, tmp_path: Path) -> Reading:
    return Reading(reader, tmp_path)


async def test_office_files_keep_headings_lists_and_tables(reading: Reading) -> None:
    for content in (docx_file(), (ASSETS / "installation.doc").read_bytes()):
        found = await reading.read(content, "any name")
        assert "# 安装 Installation\n\n先打开电源，再按启动键。" in found.markdown
        assert "\n## Parts\n" in found.markdown
        assert "one fuse" in found.markdown
        assert TABLE in found.markdown
        assert found.passages[-1].headings == ("安装 Installation", "Parts")
    slides = await reading.read(pptx_file(), "a.pptx")
    assert slides.pages == 3
    assert [passage.page for passage in slides.passages] == [1, 2, 3]
    assert "say it slowly" in slides.passages[0].text
    assert slides.passages[1].text == TABLE
    assert slides.passages[2].text == "Only a title"
    sheet = await reading.read(xlsx_file(), "a.xlsx")
    assert sheet.markdown == f"## 价格\n\n{TABLE}"


async def test_a_pdf_has_pages_headings_and_tables_and_reports_progress(reading: Reading) -> None:
    found = await reading.read(pdf_file(4), "a.pdf")
    assert found.pages == 4
    assert "| Model | Power |\n| --- | --- |\n| X-1 | 100 W |\n| X-2 | 200 W |" in found.markdown
    assert [passage.page for passage in found.passages] == [1, 2, 3, 4]
    assert found.passages[3].headings == ("Chapter 4 Installation",)
    assert reading.progress == [0.25, 0.5, 0.75, 1.0]


async def test_the_content_tells_the_kind_and_not_the_name(reading: Reading) -> None:
    assert "先打开电源" in (await reading.read(docx_file(), "wrong.pdf")).markdown
    text = await reading.read("# 标题\n\n正文".encode("gb18030"), "wrong.docx")
    assert text.passages[0].headings == ("标题",)
    assert (await reading.read(b"a,b\n1,2", "a.csv")).markdown.startswith("| a | b |")
    page = """<!DOCTYPE html><html><head><title>no</title><script>no()</script></head><body>
        <h1>安装</h1><p>See <a href="http://x.example">this</a>.<img src="http://x.example">
        <table><tr><th>型号</th></tr><tr><td>X-1</td></tr></table></body></html>"""
    found = await reading.read(page.encode("gb18030"), "a.txt")
    assert found.markdown == "# 安装\n\nSee this.\n\n| 型号 |\n| --- |\n| X-1 |"


async def test_pages_that_are_pictures_are_read_where_something_reads_them(
    reading: Reading,
) -> None:
    scanned, pictures = material.scanned_pdf(), []

    async def read_picture(picture: bytes) -> str:
        pictures.append(picture)
        return "先打开电源"

    left_out = await reading.read(scanned, "a.pdf")
    assert (left_out.markdown, left_out.unread_pages) == ("This page can be read.", 1)
    reading.progress.clear()
    found = await reading.read(scanned, "a.pdf", read_picture=read_picture)
    assert (found.markdown, found.unread_pages) == ("先打开电源\n\nThis page can be read.", 0)
    assert [picture[:4] for picture in pictures] == [b"\x89PNG"]
    assert reading.progress == [0.25, 0.5, 1.0]


async def test_what_is_no_document_is_told_so(reading: Reading) -> None:
    encrypted = "EncryptedPackage\0".encode("utf-16-le").ljust(64, b"\0") + b"\x22\0"
    cases = {
        "is empty": b" \n",
        "is a picture, a program, an archive or markup": b"\x89PNG\r\n\x1a\n",
        "is encrypted": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + encrypted,
        "is a damaged archive": docx_file()[:-30],
        "is a damaged PDF": b"%PDF-1.7\n" + bytes(range(256)),
        "is a PDF and an archive": pdf_file() + b"PK\x05\x06" + bytes(18),
        "is no text": os.urandom(3000),
        "is no document of Word": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000),
        "contains no text": docx_of("<w:p/>"),
    }
    for message, content in cases.items():
        assert message in (await reading.refusal(content)).message, message


async def test_bombs_are_refused_and_expand_nothing(reading: Reading) -> None:
    entities = "".join(
        f'<!ENTITY e{number} "{f"&e{number - 1};" * 10}">' for number in range(1, 10)
    )
    paragraph = "<w:p><w:r><w:t>before {} after</w:t></w:r></w:p>"
    laughs = docx_of(paragraph.format("&e9;"), f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]>')
    assert "ha" not in (await reading.read(laughs, "a.docx")).markdown
    outside = docx_of(
        paragraph.format("&e;"), '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    )
    assert "root" not in (await reading.read(outside, "a.docx")).markdown
    deep = docx_of("<w:tbl><w:tr><w:tc>" * 5000 + "<w:p/>" + "</w:tc></w:tr></w:tbl>" * 5000)
    assert len((await reading.read(deep, "a.docx")).markdown) < 1000


async def test_a_pdf_that_loops_is_read_once(reading: Reading) -> None:
    for name, content in material.looping_pdfs().items():
        assert "hello loop" in (await reading.read(content, "a.pdf")).markdown, name
    many = await reading.refusal(material.pdf_of_pages(100_000))
    assert many.status is Status.TOO_LARGE
    assert "100000 pages; 5000 are allowed" in many.message


async def test_without_its_packages_it_says_what_to_install(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "PACKAGES", ("no_such_package",))
    with pytest.raises(RemoteProtocolError, match=r"pip install 'voicechat\[knowledge\]'"):
        await reading.read(b"text", "a.txt")


@pytest.mark.long
async def test_damaged_documents_are_read_or_refused(reading: Reading) -> None:
    whole = {
        "doc": (ASSETS / "installation.doc").read_bytes(),
        "docx": docx_file(),
        "pdf": pdf_file(),
        "pptx": pptx_file(),
        "scan": material.scanned_pdf(),
        "xlsx": xlsx_file(),
    }
    outcomes = Counter[tuple[str, str]]()
    chance = random.Random(7)
    for _ in range(150):
        kind = chance.choice(sorted(whole))
        content = damaged(whole[kind], chance)
        try:
            await reading.read(content, "a", read_picture=read_nothing)
            outcomes[kind, "read"] += 1
        except RemoteProtocolError as error:
            outcomes[kind, error.status.name] += 1
    assert {how for _, how in outcomes} <= {"read", "UNSUPPORTED_FORMAT", "TOO_LARGE"}
    assert {kind for kind, how in outcomes if how == "read"} == set(whole)
    assert {kind for kind, how in outcomes if how != "read"} == set(whole)


async def read_nothing(_: bytes) -> str:
    return "read"


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Change, remove and repeat bytes."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 3, 10, 100))):
        at, how = chance.randrange(len(changed)), chance.random()
        if how < 0.6:
            changed[at] = chance.randrange(256)
        elif how < 0.8:
            del changed[at : at + chance.randrange(1, 200)]
        else:
            changed[at:at] = changed[: chance.randrange(1, 300)]
    return bytes(changed)


@pytest.mark.long
async def test_large_bombs_end_with_their_process(reading: Reading) -> None:
    large = docx_of(f"<w:p><w:r><w:t>{'a' * (600 << 20)}</w:t></w:r></w:p>")
    assert (await reading.refusal(large)).status is Status.TOO_LARGE
    many = docx_of("<w:p><w:r><w:t>x</w:t></w:r></w:p>" * 3_000_000)
    assert "too much time or memory" in (await reading.refusal(many)).message
    beside = docx_of("<w:p><w:r><w:t>fine</w:t></w:r></w:p>", picture=bytes(600 << 20))
    assert (await reading.read(beside, "a.docx")).markdown == "fine"
    # The next document is not affected.
    assert (await reading.read(b"text", "a.txt")).markdown == "text"
