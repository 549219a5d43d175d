"""Figures as people read them."""

GIB = 2**30


def gib(size: int | float) -> str:
    """`57.0 GiB`."""
    return f"{size / GIB:.1f} GiB"


def usd(amount: float) -> str:
    """`$0.82`, `$1,651`: cents only where they say something."""
    if amount >= 100:
        return f"${amount:,.0f}"
    return f"${amount:.2f}" if amount >= 0.1 else f"${amount:.3f}"


def billions(number: int) -> str:
    """`397.0B`."""
    return f"{number / 1e9:.1f}B" if number >= 1e8 else f"{number / 1e6:.0f}M"


def count(number: int, thing: str) -> str:
    """`1 GPU`, `8 GPUs`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
