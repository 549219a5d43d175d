"""Regular expressions from a `config.json`, matched in time linear in the name.

Quantised checkpoints say by expressions which layers they leave alone, and such a file may come from anybody who can
create a ModelDeployment. Python's `re` backtracks: a dozen characters can keep it busy for hours. Expressions here
become a finite automaton instead, whose steps are remembered, so that a match costs one dictionary access per
character. What needs backtracking (back-references, look-around) is refused, but for a negative look-ahead at the
beginning, which is how people write "all but".
"""

from dataclasses import dataclass, field

from moe_operator.catalog.models.regex_syntax import (
    Chars,
    Either,
    End,
    Node,
    RegexError,
    Repeat,
    Sequence,
    parse,
    split_look_ahead,
)

#: Longer expressions are not about layer names.
_LONGEST = 512
#: States of one automaton, which counted repetitions multiply.
_MOST_STATES = 2048
#: States looked at in making steps, over all names: a tenth of a second or so. Expressions of real checkpoints take a
#: hundredth of it; one that is made to reach a new set of states at every character stops here.
_MOST_WORK = 500_000


@dataclass
class _State:
    """Takes a character of `chars`; or, without it, leads on for free, `at_end` only behind the last character."""

    targets: list[int]
    chars: Chars | None = None
    at_end: bool = False


@dataclass(eq=False)
class LinearRegex:
    """Matches from the beginning of a text, not necessarily to its end, as `re.match` does."""

    pattern: str
    _states: list[_State] = field(default_factory=list, repr=False)
    _steps: dict[tuple[frozenset[int], str], frozenset[int]] = field(default_factory=dict, repr=False)
    _refused: "LinearRegex | None" = field(default=None, repr=False)
    _work: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        """Raises RegexError."""
        if len(self.pattern) > _LONGEST:
            raise RegexError(f"has {len(self.pattern)} characters; at most {_LONGEST} are allowed")
        text = self.pattern.removeprefix("^")
        if text.startswith("(?!"):
            inner, text = split_look_ahead(text)
            self._refused = LinearRegex(inner)
        self._states.append(_State([]))  # The accepting state: number 0.
        start = self._build(parse(text), 0)
        self._start = self._closure({start}, at_end=False)

    def match(self, text: str) -> bool:
        """Whether the expression matches at the beginning of `text`. Raises RegexError if it takes too much work."""
        if self._refused is not None and self._refused.match(text):
            return False
        current = self._start
        for char in text:
            if 0 in current:
                return True
            key = (current, char)
            following = self._steps.get(key)
            if following is None:
                following = self._steps[key] = self._closure(self._taking(current, char), at_end=False)
            current = following
            if not current:
                return False
        return 0 in current or 0 in self._closure(set(current), at_end=True)

    def _taking(self, current: frozenset[int], char: str) -> set[int]:
        self._work += len(current)
        if self._work > _MOST_WORK:
            raise RegexError("is too intricate to match")
        states = (self._states[i] for i in current)
        return {state.targets[0] for state in states if state.chars is not None and char in state.chars}

    def _closure(self, reached: set[int], *, at_end: bool) -> frozenset[int]:
        waiting = list(reached)
        while waiting:
            state = self._states[waiting.pop()]
            if state.chars is not None or (state.at_end and not at_end):
                continue
            for target in state.targets:
                if target not in reached:
                    reached.add(target)
                    waiting.append(target)
        return frozenset(reached)

    def _add(self, state: _State) -> int:
        if len(self._states) >= _MOST_STATES:
            raise RegexError("repeats too much: write it with fewer counted repetitions")
        self._states.append(state)
        return len(self._states) - 1

    def _build(self, node: Node, following: int) -> int:
        """The state that begins `node` and leads to `following`."""
        match node:
            case Chars():
                return self._add(_State([following], chars=node))
            case End():
                return self._add(_State([following], at_end=True))
            case Sequence(items):
                for item in reversed(items):
                    following = self._build(item, following)
                return following
            case Either(choices):
                return self._add(_State([self._build(choice, following) for choice in choices]))
            case Repeat(inner, least, most):
                start = following
                if most is None:
                    start = self._add(_State([]))
                    self._states[start].targets = [self._build(inner, start), following]
                else:
                    for _ in range(most - least):
                        start = self._add(_State([self._build(inner, start), following]))
                for _ in range(least):
                    start = self._build(inner, start)
                return start
