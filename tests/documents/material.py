"""Documents that the tests read, each with a heading, a list and a table."""

import io
import zipfile
from pathlib import Path

import docx
import fpdf
import openpyxl
import pptx
import pylopdf_fonts_zh_cn
from PIL import Image, ImageDraw, ImageFont

FONT = Path(pylopdf_fonts_zh_cn.__file__).with_name("NotoSansSC-Regular.otf")
ROWS = (("型号", "Power"), ("X-1", "100 W"), ("X-2", "200 W"))


def docx_file() -> bytes:
    document = docx.Document()
    document.add_heading("安装 Installation", 1)
    document.add_paragraph("先打开电源，再按启动键。")
    document.add_heading("Parts", 2)
    for item in ("one fuse", "两根电线"):
        document.add_paragraph(item, style="List Bullet")
    table = document.add_table(rows=0, cols=2)
    for row in ROWS:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    return saved(document)


def xlsx_file() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "价格"
    for at, row in enumerate(ROWS):
        for column, text in enumerate(row):
            sheet.cell(5 + 2 * at, 3 + column, text)
    book.create_sheet("Empty")
    return saved(book)


def pptx_file() -> bytes:
    slides = pptx.Presentation()
    first = slides.slides.add_slide(slides.slide_layouts[1])
    first.shapes.title.text = "安装 Installation"
    first.placeholders[1].text_frame.text = "先打开电源"
    first.notes_slide.notes_text_frame.text = "say it slowly"
    second = slides.slides.add_slide(slides.slide_layouts[5])
    second.shapes.title.text = "Table"
    table = second.shapes.add_table(len(ROWS), 2, 0, 0, 3_000_000, 1_000_000).table
    for at, row in enumerate(ROWS):
        for column, text in enumerate(row):
            table.cell(at, column).text = text
    slides.slides.add_slide(slides.slide_layouts[5]).shapes.title.text = "Only a title"
    return saved(slides)


def pdf_file(pages: int = 2) -> bytes:
    document = fpdf.FPDF()
    for number in range(1, pages + 1):
        document.add_page()
        document.set_font("helvetica", "B", 24)
        document.cell(text=f"Chapter {number} Installation", new_x="LMARGIN", new_y="NEXT")
        document.set_font("helvetica", size=12)
        document.multi_cell(0, text="Switch it on, then press start. " * 10)
        document.ln()
        with document.table() as table:
            for row in (("Model", "Power"), *ROWS[1:]):
                table.row(row)
    return bytes(document.output())


def scanned_pdf() -> bytes:
    """A page that is a picture of text, and a page of text."""
    picture = Image.new("RGB", (1240, 1754), "white")
    font = ImageFont.truetype(str(FONT), 60)
    ImageDraw.Draw(picture).text((100, 200), "先打开电源，再按启动键。", "black", font)
    document = fpdf.FPDF()
    document.add_page()
    document.image(picture, 0, 0, document.w, document.h)
    document.add_page()
    document.set_font("helvetica", size=12)
    document.cell(text="This page can be read.")
    return bytes(document.output())


def looping_pdfs() -> dict[str, bytes]:
    """PDFs of one page, "hello loop", that refer to themselves, or promise much."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<<%s>>>>"
    font, draw = b"/Font<</F 5 0 R>>", b"BT /F 12 Tf 100 700 Td (hello loop) Tj ET"
    itself = b"/XObject<</X 6 0 R>>"
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<<%s>>" % (itself + font)

    def pdf(pages: bytes, page: bytes = page % font, content: bytes = stream(draw)) -> bytes:
        helvetica = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
        catalog = b"<</Type/Catalog/Pages 2 0 R>>"
        return pdf_of([catalog, pages, page, content, helvetica, stream(b"/X Do " + draw, form)])

    pages = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
    return {
        "a page tree in itself": pdf(b"<</Type/Pages/Kids[2 0 R 3 0 R]/Count 2>>"),
        "more pages than there are": pdf(b"<</Type/Pages/Kids[3 0 R]/Count 100000000>>"),
        "a form in itself": pdf(pages, page % (itself + font), stream(draw + b" /X Do")),
        "a length that is its own": pdf(
            pages, content=b"<</Length 4 0 R>>\nstream\n" + draw + b"\nendstream"
        ),
    }


def pdf_of_pages(count: int) -> bytes:
    """A small PDF that shows one page so many times."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]>>"
    kids = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b"3 0 R " * count, count)
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", kids, page])


def stream(content: bytes, more: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (more, len(content), content)


def pdf_of(objects: list[bytes]) -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalogue."""
    written, places = b"%PDF-1.5\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return (
        written
        + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
        % (
            *(size, table, size),
            len(written),
        )
    )


def docx_of(body: str, doctype: str = "", picture: bytes = b"") -> bytes:
    """A file of Word with this body as XML."""
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
            f'Type="{office}" Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml",
            f'{doctype}<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
        )
        archive.writestr("word/media/a.png", picture)
    return written.getvalue()


def saved(document: object) -> bytes:
    written = io.BytesIO()
    document.save(written)  # type: ignore[attr-defined]
    return written.getvalue()
