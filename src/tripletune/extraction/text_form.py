r"""A text as items of it are written in the output, and the way back to the original.

The tokenizer rewrites characters (ChatGLM-6B: NFKC), the target language escapes some. Both are
decided by the text around, so that every item is a substring of one written text:

```
original   甲，  乙\n丙          the comma stands before a blank, the line feed is one character
written    甲\,  乙\\n丙         (shown for ChatGLM-6B, whose comma is ASCII)
```

What the tokenizer cannot write at all splits the text; no item spans it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tripletune.extraction.alignment import iter_clusters
from tripletune.extraction.vocabulary import Vocabulary
from tripletune.schema import Span

__all__ = ["TextForm", "TextFormBuilder", "escape_item"]

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_ESCAPED_COMMA = "\\,"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\|\n|\r|,(?= )")


def escape_item(item: str) -> str:
    r"""An item or relation as the target language writes it.

    Example:
        >>> print(escape_item("甲, 乙"))
        甲\, 乙
    """
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match.group(), _ESCAPED_COMMA), item)


@dataclass(frozen=True, slots=True)
class TextForm:
    """The written text, one symbol a place.

    Attributes:
        symbols: The written characters; "" where the text is split, and at the end.
        starts: Places where an item may begin.
        closes: For each place, whether an item may end before it.
        first: For each place, start of the original characters it belongs to.
        last: Likewise their end, exclusive.
    """

    symbols: list[str]
    starts: list[int]
    closes: list[bool]
    first: list[int]
    last: list[int]

    def find(self, written: str) -> list[Span]:
        """Where in the original an item stands, given as it is written, escapes included."""
        length = len(written)
        opening = set(self.starts)
        joined = "".join(symbol or "\udfff" for symbol in self.symbols)
        spans = []
        at = joined.find(written)
        while at >= 0:
            if at in opening and self.closes[at + length]:
                spans.append(Span(self.first[at], self.last[at + length - 1]))
            at = joined.find(written, at + 1)
        return spans


class TextFormBuilder:
    """Makes the forms of texts for one vocabulary.

    Args:
        vocabulary: Rewrites characters and tells which it can write.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._clusters: dict[str, str | None] = {}

    def build(self, text: str) -> TextForm:
        """The form of any text; what cannot be written is left out."""
        form = TextForm([], [], [False], [], [])
        pending: list[tuple[str, int, int]] = []
        for start, end in iter_clusters(text):
            cluster = text[start:end]
            if cluster not in self._clusters:
                self._clusters[cluster] = self._write(cluster)
            written = self._clusters[cluster]
            if written is None:
                self._flush(form, pending)
                _split(form, start, end)
            elif written == "," or written.isspace():
                pending.append((written, start, end))
            elif written:
                if pending:
                    self._flush(form, pending, following=written)
                _append(form, written, start, end)
        self._flush(form, pending)
        form.symbols.append("")
        return form

    def _write(self, cluster: str) -> str | None:
        """The written form of a cluster; None when a character of it cannot be written."""
        if _SURROGATE.search(cluster):
            return None
        written = self._vocabulary.rewrite(cluster)
        if cluster.isspace() and not written.isspace():
            return None
        if len(written) > 1 and written[-1] == ",":
            return None  # whether to escape that comma would depend on the next cluster
        can_write = self._vocabulary.can_write
        return written if all(can_write(symbol) for symbol in escape_item(written)) else None

    def _flush(
        self, form: TextForm, pending: list[tuple[str, int, int]], *, following: str = ""
    ) -> None:
        """Writes the blanks and commas held back until it is known what follows them.

        Blanks are of use only before something that can end an item; else they split the text.
        """
        num_kept = len(pending)
        while not following and num_kept and pending[num_kept - 1][0].isspace():
            num_kept -= 1
        for index, (written, start, end) in enumerate(pending):
            after = pending[index + 1][0] if index + 1 < num_kept else following
            if index >= num_kept:
                _split(form, start, end)
            elif written == "," and after[:1] == " ":
                _append(form, written, start, end, escaped=_ESCAPED_COMMA)
                form.closes[-1] = False
            else:
                _append(form, written, start, end)
        pending.clear()


def _append(form: TextForm, written: str, start: int, end: int, escaped: str = "") -> None:
    if not written[0].isspace():
        form.starts.append(len(form.symbols))
    for symbol in escaped or escape_item(written):
        form.symbols.append(symbol)
        form.closes.append(False)
        form.first.append(start)
        form.last.append(end)
    form.closes[-1] = not written[-1].isspace()


def _split(form: TextForm, start: int, end: int) -> None:
    form.symbols.append("")
    form.closes.append(False)
    form.first.append(start)
    form.last.append(end)
