"""How well text in pictures is read: ``python -m tools.evaluate_ocr``.

Forty pages of A4 are written at 150 dpi: Chinese and English prose, both mixed, two
columns, and tables, each once upright and once turned by 3 degrees. The configured
reader (``rapidocr`` unless ``--config`` names another) reads them, and what it returns
is compared with what was written, character by character in reading order, without
white space.
"""

import argparse
import asyncio
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pylopdf_fonts_zh_cn
from PIL import Image, ImageDraw, ImageFont

from voicechat.config import load_config
from voicechat.config.media import open_media
from voicechat.pictures.inspection import read_size
from voicechat.providers.media import BlockKind, TextBlock

WIDTH, HEIGHT, MARGIN = 1240, 1754, 120
"""A4 at 150 dpi."""
TURN_DEGREES = 3.0
SEEDS = 4
"""Pages of each kind and turn."""
POINTS = 11
DPI = 150
FONT = Path(pylopdf_fonts_zh_cn.__file__).with_name("NotoSansSC-Regular.otf")
CHINESE = (
    "语音合成把文字变成声音，听起来应当自然而清楚。",
    "服务器收到请求以后，先检查密钥，再决定由哪一个模型来回答。",
    "图片里的文字按照阅读的顺序输出，表格保留它的行和列。",
    "如果网络突然中断，任务不会丢失，重新连接之后可以继续查询结果。",
    "请在二〇二六年十一月三十日之前提交申请材料，逾期不再受理。",
    "本次会议共有三十七家单位参加，讨论了数据中心的建设和运行。",
    "春天的湖面平静得像一面镜子，远处的山峰倒映在水中。",
    "合同金额为人民币壹拾贰万元整，分两次支付。",
    "他把旧书一本一本地放回书架，然后关上了窗户。",
    "质量检验部门每周抽查一次，发现问题立即整改并记录。",
)
ENGLISH = (
    "The committee met on Tuesday and approved the annual budget without changes.",
    "Water boils at a lower temperature when the pressure of the air is reduced.",
    "Please keep this receipt, as it is required for any exchange or refund.",
    "A journey of a thousand miles begins with a single step, or so they say.",
    "Engineers measured the delay between both microphones to locate the speaker.",
    "The library opens at nine and closes at half past five on working days.",
    "Each sample was heated for 45 minutes and then cooled to room temperature.",
    "She folded the letter twice and put it into the pocket of her coat.",
)
NAMES = ("苹果", "Coffee", "茶叶", "Sugar", "面包", "Butter", "牛奶", "Rice")


@dataclass(frozen=True)
class Page:
    """A page and what stands on it, in reading order."""

    kind: str
    content: bytes
    text: str


class Writer:
    """Writes one page."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.truetype(str(FONT), round(POINTS * DPI / 72))
        self.written: list[str] = []
        self.line_height = round(POINTS * DPI / 72 * 1.6)

    def paragraph(self, text: str, left: int, top: int, width: int) -> int:
        """Write a paragraph, and return where the next one begins."""
        for line in self._wrapped(text, width):
            self.draw.text((left, top), line, fill="black", font=self.font)
            self.written.append(line)
            top += self.line_height
        return top + self.line_height // 2

    def _wrapped(self, text: str, width: int) -> list[str]:
        lines = [""]
        for piece in self._pieces(text):
            if self.font.getlength(lines[-1] + piece.rstrip()) > width and lines[-1]:
                lines.append("")
            lines[-1] += piece.lstrip() if not lines[-1] else piece
        return [line.rstrip() for line in lines]

    @staticmethod
    def _pieces(text: str) -> list[str]:
        pieces: list[str] = []
        for character in text:
            if (
                pieces
                and character.isascii()
                and pieces[-1][-1].isascii()
                and pieces[-1][-1] != " "
            ):
                pieces[-1] += character
            else:
                pieces.append(character)
        return pieces

    def table(self, rows: list[list[str]], top: int) -> int:
        """Write a ruled table."""
        columns, height = len(rows[0]), self.line_height + 12
        width = (WIDTH - 2 * MARGIN) // columns
        for number, row in enumerate(rows):
            y = top + number * height
            for column, cell in enumerate(row):
                x = MARGIN + column * width
                self.draw.rectangle((x, y, x + width, y + height), outline="black", width=2)
                self.draw.text((x + 14, y + 6), cell, fill="black", font=self.font)
                self.written.append(cell)
        return top + len(rows) * height + self.line_height

    def page(self, kind: str, *, turned: bool) -> Page:
        """Return the page."""
        image = self.image
        if turned:
            kind += ", turned"
            image = image.rotate(
                TURN_DEGREES, resample=Image.Resampling.BICUBIC, expand=True, fillcolor="white"
            )
        content = io.BytesIO()
        image.save(content, "PNG")
        return Page(kind, content.getvalue(), "".join("".join(self.written).split()))


def prose(rng: random.Random, sentences: tuple[str, ...], count: int) -> str:
    return " ".join(rng.choice(sentences) for _ in range(count))


def make_pages() -> list[Page]:
    """Write all pages; the same ones each time."""
    rng = random.Random(7)
    pages = []
    for _ in range(SEEDS):
        for turned in (False, True):
            full = WIDTH - 2 * MARGIN
            for kind, sentences in (
                ("Chinese", CHINESE),
                ("English", ENGLISH),
                ("mixed", CHINESE + ENGLISH),
            ):
                writer, top = Writer(), MARGIN
                for _ in range(6):
                    text = prose(rng, sentences, 3)
                    text = text.replace(" ", "") if kind == "Chinese" else text
                    top = writer.paragraph(text, MARGIN, top, full)
                pages.append(writer.page(kind, turned=turned))
            writer, width = Writer(), (full - 80) // 2
            for left in (MARGIN, MARGIN + width + 80):
                top = MARGIN
                for _ in range(3):
                    top = writer.paragraph(prose(rng, ENGLISH, 3), left, top, width)
            pages.append(writer.page("two columns", turned=turned))
            writer = Writer()
            top = writer.paragraph(prose(rng, CHINESE, 2), MARGIN, MARGIN, full)
            rows = [["品名", "数量", "Price", "日期"]] + [
                [
                    rng.choice(NAMES),
                    str(rng.randint(10, 999)),
                    f"{rng.randint(1, 99)}.{rng.randint(10, 99)}",
                    f"2026-{rng.randint(10, 12)}-{rng.randint(10, 28)}",
                ]
                for _ in range(8)
            ]
            top = writer.table(rows, top)
            writer.paragraph(prose(rng, ENGLISH, 3), MARGIN, top, full)
            pages.append(writer.page("table", turned=turned))
    return pages


def read_characters(blocks: tuple[TextBlock, ...]) -> str:
    """Return what was read in order, without white space and the marks of tables."""
    texts = []
    for block in blocks:
        if block.kind is BlockKind.TABLE:
            rows = block.text.splitlines()
            del rows[1]
            texts += [cell for row in rows for cell in row.strip("| ").split(" | ")]
        else:
            texts.append(block.text)
    return "".join("".join(texts).split())


def distance(one: str, other: str) -> int:
    """Return the edit distance."""
    row = list(range(len(other) + 1))
    for number, mine in enumerate(one, 1):
        last, row[0] = row[0], number
        for at, theirs in enumerate(other, 1):
            last, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, last + (mine != theirs))
    return row[-1]


async def evaluate(config: Path | None, show: bool) -> float:
    """Read all pages, and return the share of characters that are right."""
    media = open_media(load_config(config).media_services)
    reader = media.ocr.find("ocr")
    errors: dict[str, int] = defaultdict(int)
    characters: dict[str, int] = defaultdict(int)
    tables = found_tables = 0
    try:
        for page in make_pages():
            blocks = await reader.read_text(read_size(page.content))
            read = read_characters(blocks)
            wrong = distance(page.text, read)
            errors[page.kind] += wrong
            characters[page.kind] += len(page.text)
            if page.kind.startswith("table"):
                tables += 1
                found_tables += any(block.kind is BlockKind.TABLE for block in blocks)
            if show and wrong > len(page.text) * 0.03:
                print(f"{page.kind}: {wrong} of {len(page.text)}\n{page.text}\n{read}\n")
    finally:
        await reader.aclose()
    for kind in sorted(errors):
        print(f"{kind:24} {100 * (1 - errors[kind] / characters[kind]):6.2f} %")
    print(f"tables found             {found_tables} of {tables}")
    return 1 - sum(errors.values()) / sum(characters.values())


def main() -> None:
    """Evaluate, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--show", action="store_true", help="print pages with many errors")
    arguments = parser.parse_args()
    right = asyncio.run(evaluate(arguments.config, arguments.show))
    print(f"all                      {100 * right:6.2f} %")


if __name__ == "__main__":
    main()
