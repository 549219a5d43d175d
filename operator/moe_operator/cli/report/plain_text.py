"""Text of others as one line without anything that acts on a reader's screen. Pure."""

import unicodedata

#: Characters of one piece of text in a page; `-o json` has all of it.
LONGEST = 1000
#: Categories of Unicode that are no visible character: controls, formats (those that turn the direction of text among
#: them), surrogates, what is private or unassigned, breaks of lines and paragraphs.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str) -> str:
    """Blanks for what is not to be seen, one between words, and no more than a page can bear."""
    seen = "".join(" " if unicodedata.category(one) in _INVISIBLE else one for one in text[: 4 * LONGEST])
    line = " ".join(seen.split())
    return line if len(line) <= LONGEST and len(text) <= 4 * LONGEST else f"{line[: LONGEST - 3]}..."
