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


def span(seconds: float) -> str:
    """`45s`, `3m`, `2h5m`, `4d`: as kubectl writes ages, coarser the longer. Never negative: clocks differ."""
    total = max(0, int(seconds))
    if total < 120:
        return f"{total}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if hours < 2:
        return f"{minutes}m"
    if days < 2:
        rest = minutes % 60
        return f"{hours}h{rest}m" if hours < 10 and rest else f"{hours}h"
    return f"{days}d"
