"""Whose price of a GPU-hour counts: the spec's, the node's, the operator's price list's, the catalogue's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from moe_operator.api import names
from moe_operator.api.cost import CostSpec, PriceSource, PriceStatus
from moe_operator.costs.amounts import amount

_ANNOTATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?: +([A-Z]{3}))?")
#: Of the price list, of the catalogue, and of an annotation that names none.
_DOLLARS = "USD"


@dataclass(frozen=True)
class ListPrice:
    """What the operator's price list, or the catalogue, says of an accelerator, in US dollars."""

    per_gpu_hour: Decimal
    source: str
    """Whose price, of when."""
    shipped: bool
    """Whether it is the catalogue's own, which the site has not replaced."""


@dataclass(frozen=True)
class Price:
    """Of one pod's GPUs."""

    millionths: int | None
    """Of the spec's currency, per GPU-hour; None: not known."""
    source: PriceSource | None
    message: str


def price_of(
    spec: CostSpec, accelerator: str, node: str | None, annotation: str | None, listed: ListPrice | None
) -> Price:
    """`node` and `annotation`: where the pod is, and what is written there."""
    if spec.price_per_gpu_hour is not None:
        return Price(_millionths(spec.price_per_gpu_hour), PriceSource.SPEC, "spec.cost.pricePerGPUHour")
    unused = ""
    if annotation is not None:
        found = _ANNOTATION.fullmatch(annotation.strip())
        currency = (found.group(2) or _DOLLARS) if found else ""
        if found and currency == spec.currency:
            text = f"annotation {names.ANNOTATION_PRICE} of node {node}"
            return Price(_millionths(found.group(1)), PriceSource.NODE, text)
        unused = (
            f"; node {node} has a price in {currency}, which is not converted"
            if found
            else f'; node {node}: {annotation[:32]!r} is no price: write "2.10" or "1.95 EUR"'
        )
    if listed is not None and spec.currency == _DOLLARS:
        source = PriceSource.CATALOGUE if listed.shipped else PriceSource.PRICE_LIST
        whose = "a public price, as an estimate: " if listed.shipped else ""
        text = f"{whose}{accelerator}, {listed.source}{unused}"
        return Price(_millionths(str(listed.per_gpu_hour)), source, text)
    why = (
        f"prices of {accelerator} are known in {_DOLLARS} only, not in {spec.currency}"
        if listed is not None
        else f"no price of {accelerator} is known"
    )
    return Price(None, None, f"{why}: set spec.cost.pricePerGPUHour{unused}")


def status_of(prices: Sequence[tuple[int, Price]]) -> PriceStatus:
    """Of all GPUs: (how many, at which price). Raises ValueError for none."""
    known = [(gpus, one) for gpus, one in prices if one.millionths is not None]
    if not known:
        return PriceStatus(message=prices[0][1].message)
    total = sum(gpus for gpus, _ in known)
    mean = sum(gpus * (one.millionths or 0) for gpus, one in known) / total / 1e6
    alike = len({(one.source, one.millionths) for _, one in prices}) == 1
    first = known[0][1]
    if alike:
        return PriceStatus(per_gpu_hour=amount(mean), source=first.source, message=first.message)
    texts = sorted({one.message for _, one in prices})
    text = f"nodes differ: {'; '.join(texts[:3])}" + ("; …" if len(texts) > 3 else "")
    return PriceStatus(per_gpu_hour=amount(mean), source=PriceSource.MIXED, message=text)


def _millionths(text: str) -> int:
    return int(Decimal(text) * 1_000_000)
