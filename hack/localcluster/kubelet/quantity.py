"""Kubernetes quantities ("500m", "2Gi", "1e3") as exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction

_SUFFIX = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(n|u|m|k|Ki|Mi|Gi|Ti|Pi|Ei|M|G|T|P|E)?)")


def parse(text: str | int | float) -> Fraction:
    """The value of a quantity. Raises ValueError for anything else."""
    match = _PATTERN.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    number, exponent, suffix = match.groups()
    if exponent:
        return Fraction(number + exponent)
    return Fraction(number) * _SUFFIX[suffix or ""]


def whole(text: str | int | float) -> int:
    """The value rounded up to an integer, as Kubernetes rounds."""
    value = parse(text)
    return -(-value.numerator // value.denominator)


def divided(value: Fraction, divisor: str | int | float | None) -> int:
    """``value / divisor`` rounded up: what a resourceFieldRef yields. A divisor of zero or none counts as 1."""
    unit = parse(divisor) if divisor is not None else Fraction(1)
    result = value / (unit or Fraction(1))
    return -(-result.numerator // result.denominator)
