"""Numbers as the status writes them: decimals in text."""


def amount(value: float) -> str:
    """Money: cents, and four digits of what is less than one."""
    return f"{value:.2f}" if abs(value) >= 1 else four_digits(value)


def hours(seconds: float) -> str:
    """To four decimals."""
    return f"{seconds / 3600:.4f}"


def four_digits(value: float) -> str:
    """Four digits that count, without an exponent."""
    if not value or abs(value) < 1e-9:
        return "0"
    text = f"{float(f'{value:.4g}'):.12f}".rstrip("0").rstrip(".")
    return text or "0"
