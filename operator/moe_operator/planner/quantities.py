"""Kubernetes' quantities as whole numbers."""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGTPE]i|[kMGTPE]|[eE][0-9]{1,2})?")
_FACTORS = {suffix: 1000**power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))} | {
    suffix: 1024**power for power, suffix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
}


def whole(amount: object) -> int | None:
    """The quantity rounded down, or None for what is no quantity of whole things (negative, in thousandths).

    The API server writes round numbers with a suffix: a thousand shared network devices are `1k`.
    """
    text = str(amount)
    found = _QUANTITY.fullmatch(text)
    # Longer than any quantity that the API server writes.
    if found is None or len(text) > 40:
        return None
    number, suffix = found.group(1), found.group(2) or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix[1:].isdigit():
        return int(Decimal(number) * 10 ** int(suffix[1:]))
    return int(Decimal(number) * _FACTORS[suffix])
