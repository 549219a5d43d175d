"""One argument of the engine's command line, with the reason for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Argument:
    """One flag of `vllm serve`; `flag` is empty for the model, which has none."""

    flag: str
    """Without dashes."""
    value: str | None
    """None for a bare flag."""
    reason: str
    """Why it has this value, for people."""
    joined: bool = False
    """Written `--flag=value`: one token, so that a value that begins with a dash is not taken for a flag."""
    more: tuple[str, ...] = ()
    """Further values of a flag that takes several; not with `joined`."""

    def tokens(self) -> list[str]:
        """As on a command line."""
        if not self.flag:
            return [self.value or ""]
        if self.value is None:
            return [f"--{self.flag}"]
        return [f"--{self.flag}={self.value}"] if self.joined else [f"--{self.flag}", self.value, *self.more]
