"""Regular expressions from a `config.json`, matched in time linear in the name.

Quantised checkpoints say by expressions which layers they leave alone, and such a file may come from anybody who can
create a ModelDeployment. Python's `re` backtracks: a dozen characters can keep it busy for hours; RE2 cannot be. What
RE2 does not know (back-references, look-around) is refused, but for a negative look-ahead at the beginning, which is
how people write "all but".
"""

import re2

#: Longer expressions are not about layer names.
_LONGEST = 512
#: Bytes of one compiled expression: counted repetitions multiply.
_LARGEST = 2**20


class RegexError(ValueError):
    """An expression that is not one, or cannot be matched in linear time; reads on after its name."""


class LayerRegex:
    """As `re.match`: from the name's beginning."""

    def __init__(self, pattern: str) -> None:
        """Raises RegexError."""
        if len(pattern) > _LONGEST:
            raise RegexError(f"has {len(pattern)} characters; at most {_LONGEST} are read")
        # Matched from the beginning anyhow.
        rest = pattern.removeprefix("^")
        self._refused = []
        while rest.startswith("(?!"):
            inner, rest = _split_look_ahead(rest)
            self._refused.append(_compiled(inner))
        self._wanted = _compiled(rest)

    def match(self, name: str) -> bool:
        return self._wanted.match(name) is not None and not any(r.match(name) for r in self._refused)


def _compiled(pattern: str) -> "re2._Regexp[str]":
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _LARGEST
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0] if error.args else error
        raise RegexError(f"cannot be used: {text.decode() if isinstance(text, bytes) else text}") from error


def _split_look_ahead(text: str) -> tuple[str, str]:
    """`(?!inner)rest` -> inner, rest."""
    depth, index = 0, 0
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == "(":
            depth += 1
        elif text[index] == ")":
            depth -= 1
            if depth == 0:
                return text[3:index], text[index + 1 :]
        index += 1
    raise RegexError("has a ( that is not closed")
