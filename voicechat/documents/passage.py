"""A part of a document that is found and quoted as a whole."""

from dataclasses import dataclass

LONGEST_PASSAGE = 1200
"""Characters of a passage's text, apart from a table row or a line that is longer by
itself.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A part of a document, in Markdown. Part of a table begins with the table's
    header row.
    """

    text: str
    headings: tuple[str, ...] = ()
    """The headings above it, the outermost first."""
    page: int | None = None
    """The page on which it begins, from 1; None for formats without pages."""

    def searched_text(self, title: str) -> str:
        """Return the text that is searched and embedded: the passage below the title of
        its document and its headings.
        """
        return "\n".join((title, *self.headings, self.text))
