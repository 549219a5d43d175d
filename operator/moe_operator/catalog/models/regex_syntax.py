"""The syntax of regular expressions that can be matched in linear time, as a tree."""

import string
from collections.abc import Iterator
from dataclasses import dataclass

_DEEPEST = 16

_CLASSES = {
    "d": frozenset(string.digits),
    "w": frozenset(string.ascii_letters + string.digits + "_"),
    "s": frozenset(string.whitespace),
}


class RegexError(ValueError):
    """An expression that is malformed or that cannot be matched in linear time; the message says where."""


@dataclass(frozen=True)
class Chars:
    chars: frozenset[str]
    negated: bool = False

    def __contains__(self, char: str) -> bool:
        return (char in self.chars) is not self.negated


@dataclass(frozen=True)
class Sequence:
    items: tuple["Node", ...]


@dataclass(frozen=True)
class Either:
    choices: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    node: "Node"
    least: int
    most: int | None


@dataclass(frozen=True)
class End:
    pass


Node = Chars | Sequence | Either | Repeat | End


def parse(text: str) -> Node:
    """The tree of an expression without `^` or look-ahead at its beginning. Raises RegexError."""
    return _Parser(text).parse()


def split_look_ahead(text: str) -> tuple[str, str]:
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


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> Node:
        node = self._either(0)
        if self._at < len(self._text):
            raise RegexError("has a ) that was not opened")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise RegexError("ends too early")
        self._at += 1
        return char

    def _accept(self, wanted: str) -> bool:
        if not self._text.startswith(wanted, self._at):
            return False
        self._at += len(wanted)
        return True

    def _either(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise RegexError(f"is nested deeper than {_DEEPEST} groups")
        choices = [Sequence(tuple(self._items(depth)))]
        while self._accept("|"):
            choices.append(Sequence(tuple(self._items(depth))))
        return choices[0] if len(choices) == 1 else Either(tuple(choices))

    def _items(self, depth: int) -> Iterator[Node]:
        while self._peek() not in ("", "|", ")"):
            node = self._atom(depth)
            repeated = self._repeated(node)
            if repeated is not node and self._peek() in ("*", "+", "{"):
                raise RegexError("repeats a repetition")
            yield repeated

    def _atom(self, depth: int) -> Node:
        char = self._take()
        if char == "(":
            if self._accept("?") and not self._accept(":"):
                raise RegexError("uses (?…; only (?:…) anywhere and (?!…) at the beginning can be matched")
            node = self._either(depth + 1)
            if not self._accept(")"):
                raise RegexError("has a ( that is not closed")
            return node
        if char == "[":
            return self._character_class()
        if char == ".":
            return Chars(frozenset("\n"), negated=True)
        if char == "$":
            return End()
        if char in "*+?{^":
            raise RegexError(f"has {char!r} where it means nothing")
        return self._escape() if char == "\\" else Chars(frozenset(char))

    def _escape(self) -> Chars:
        char = self._take()
        if char.lower() in _CLASSES:
            return Chars(_CLASSES[char.lower()], negated=char.isupper())
        if char.isalnum():
            raise RegexError(f"uses \\{char}, which cannot be matched")
        return Chars(frozenset(char))

    def _character_class(self) -> Chars:
        negated = self._accept("^")
        found: set[str] = set()
        while not self._accept("]") or not found:
            char = self._take()
            if char == "\\":
                escaped = self._escape()
                if escaped.negated:
                    raise RegexError("has a negated class inside […]")
                found |= escaped.chars
            elif self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._take()
                last = self._take()
                if not 0 <= ord(last) - ord(char) < 128:
                    raise RegexError(f"has the senseless range {char}-{last}")
                found |= {chr(code) for code in range(ord(char), ord(last) + 1)}
            else:
                found.add(char)
        return Chars(frozenset(found), negated)

    def _repeated(self, node: Node) -> Node:
        least, most = 1, 1
        if self._accept("*"):
            node = Repeat(node, 0, None)
        elif self._accept("+"):
            node = Repeat(node, 1, None)
        elif self._accept("?"):
            node = Repeat(node, 0, 1)
        elif self._accept("{"):
            numbers = self._text[self._at :].partition("}")[0]
            first, comma, second = numbers.partition(",")
            if not (first.isdecimal() and second.isdecimal() if comma and second else first.isdecimal()):
                raise RegexError(f"has {{{numbers}}}, which is no count")
            self._at += len(numbers) + 1
            if len(first) > 3 or len(second) > 3:
                raise RegexError(f"repeats {numbers} times")
            least = int(first)
            most = int(second) if second else least
            if most < least:
                raise RegexError(f"has {{{numbers}}}, which is no count")
            return Repeat(node, least, None if comma and not second else most)
        else:
            return node
        # A trailing ? only says which of several matches to prefer.
        self._accept("?")
        return node
