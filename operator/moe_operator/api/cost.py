"""What a user may write about money, and what is told of it: `spec.cost` and `status.cost`.

Amounts are decimals in text: Kubernetes' API has no floats. GPUs on the accelerator `cpu` are ranks.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from moe_operator.api import time_zones
from moe_operator.api.base import ApiModel

#: Most digits that an amount may have before and after the point.
AMOUNT = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"
_Amount = Annotated[str, Field(min_length=1, max_length=16, pattern=AMOUNT)]
_Decimal = Annotated[str, Field(max_length=24)]


class BudgetPeriod(StrEnum):
    """For how long a budget is."""

    DAY = "Day"
    MONTH = "Month"


class BudgetAction(StrEnum):
    """What happens once a budget is spent."""

    WARN = "Warn"
    HOLD = "Hold"


class BudgetState(StrEnum):
    """Where a deployment stands with its budget."""

    WITHIN = "Within"
    SPENT = "Spent"
    HELD = "Held"
    UNKNOWN = "Unknown"


class PriceSource(StrEnum):
    """Who says what a GPU-hour costs."""

    SPEC = "Spec"
    NODE = "Node"
    PRICE_LIST = "PriceList"
    CATALOGUE = "Catalogue"
    MIXED = "Mixed"


class BudgetSpec(ApiModel):
    """What may be spent in a period."""

    amount: _Amount
    """In `cost.currency`, more than 0: `"500"`."""
    period: BudgetPeriod = BudgetPeriod.MONTH
    """`Day` or `Month`, by the calendar of `timeZone`."""
    action: BudgetAction = BudgetAction.WARN
    """Once it is spent: `Warn` tells in the status and by an Event. `Hold` also makes no more groups than there are
    until the period is over; `scaling.minGroups`, schedules and wake-ups are served all the same, and lost groups
    are replaced."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64, pattern=time_zones.PATTERN)] = "UTC"
    """Name in the time zone database, such as `Europe/Berlin`: its midnight begins a period."""


class ApiPriceSpec(ApiModel):
    """What the same tokens would cost at a provider, in `cost.currency` per million tokens."""

    name: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Whose price it is, for people."""
    input_per_million: _Amount
    """Per million input tokens: `"0.60"`."""
    cached_input_per_million: _Amount | None = None
    """Per million input tokens that are found in a cache; default: as other input."""
    output_per_million: _Amount
    """Per million output tokens."""


class CostSpec(ApiModel):
    """What GPUs cost, what may be spent, and what to compare with. Changes nothing that runs."""

    # As Kubernetes writes acronyms; the generated name would be pricePerGpuHour.
    price_per_gpu_hour: Annotated[_Amount | None, Field(alias="pricePerGPUHour")] = None
    """Of one GPU, in `currency`: `"2.10"`. Default: the annotation `moe-operator.dev/price-per-gpu-hour` of the pod's
    node, else the operator's price list, else the catalogue's public price, in US dollars."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", max_length=3)] = "USD"
    """Of all amounts here, as ISO 4217 names it. Prices in another currency are not used: nothing is converted."""
    compare_to: ApiPriceSpec | None = None
    """A provider's price for the same tokens: the status then has what is saved, and from how many tokens on."""
    budget: BudgetSpec | None = None
    """What may be spent per day or month."""


class GpuHours(ApiModel):
    """GPU-hours by what the GPUs were held for. A pod holds its GPUs from when it has a node until it is gone. A
    deployment without groups (parked, or scaled to zero) holds none."""

    total: _Decimal = "0"
    """All of them."""
    starting: _Decimal = "0"
    """Until the group serves, and while it is out of traffic in doubt."""
    serving: _Decimal = "0"
    """In traffic, with requests."""
    idle: _Decimal = "0"
    """In traffic, without a request."""
    draining: _Decimal = "0"
    """On the way out."""


class TokenCounts(ApiModel):
    """What engines counted, without the operator's own requests."""

    input: int = 0
    """Prompt tokens, those found in a cache included."""
    cached_input: int = 0
    """Of these, those that were found in a cache."""
    output: int = 0
    """Tokens generated."""


class RequestCounts(ApiModel):
    """Requests by how they ended. What clients send again counts anew: vLLM does not know it for the same."""

    completed: int = 0
    """Came to their end."""
    aborted: int = 0
    """Their client left."""
    failed: int = 0
    """The engine failed them."""
    preempted: int = 0
    """Times that one lost its KV cache to others and was computed again."""


class CostFigures(ApiModel):
    """Figures of a span of time. What cannot be said is absent: money without a price, a ratio without its divisor."""

    since: str
    """From when (RFC 3339). Later than the span asks for while the deployment, or what is known of it, is younger."""
    gpu_hours: GpuHours = GpuHours()
    """GPU-hours by state."""
    cost: _Decimal | None = None
    """Of these."""
    idle_cost: _Decimal | None = None
    """Of those in traffic without a request."""
    tokens: TokenCounts = TokenCounts()
    """Tokens."""
    requests: RequestCounts = RequestCounts()
    """Requests."""
    per_million_tokens: _Decimal | None = None
    """All of the cost over all tokens, input and output alike."""
    per_million_input_tokens: _Decimal | None = None
    """The share of the cost that prompts take, over input tokens; absent where the plan was not sized."""
    per_million_output_tokens: _Decimal | None = None
    """The rest, over output tokens."""
    per_request: _Decimal | None = None
    """All of the cost over all requests that ended, however they did."""
    per_completed_request: _Decimal | None = None
    """All of the cost over completed requests: those that were aborted or failed are paid for by these."""
    energy_kwh: Annotated[_Decimal | None, Field(alias="energyKWh")] = None
    """Energy of the GPUs, in kWh, as they tell it; absent where they do not, or did not for more than a twentieth of
    the time."""
    energy_kwh_per_million_tokens: Annotated[_Decimal | None, Field(alias="energyKWhPerMillionTokens")] = None
    """All of the energy over all tokens, input and output alike."""
    unpriced_gpu_hours: _Decimal | None = None
    """GPU-hours for which no price was known, and which `cost` lacks; absent where there are none."""


class PriceStatus(ApiModel):
    """What a GPU-hour costs, and who says so."""

    per_gpu_hour: _Decimal | None = None
    """In `status.cost.currency`; of several prices their mean over the GPUs that are held. Absent: not known."""
    source: PriceSource | None = None
    """`Spec`, `Node` (its annotation), `PriceList` (the operator's configuration), `Catalogue` (a public price, as an
    estimate), or `Mixed` where nodes differ."""
    message: str
    """Whose price it is, or why there is none."""


class ComparisonStatus(ApiModel):
    """What the last day's tokens would have cost at the price of `cost.compareTo`."""

    api_cost: _Decimal
    """There."""
    saving: _Decimal
    """That much less was paid here; negative: more."""
    saving_percent: int
    """Of the price there."""
    break_even_tokens_per_day: int
    """With so many tokens a day, mixed as they were, the GPUs that were held cost as much as the API."""


class BudgetStatus(ApiModel):
    """Where the deployment stands with `cost.budget`."""

    state: BudgetState
    """`Within`, `Spent` (action Warn), `Held` (action Hold: no more groups than there are), or `Unknown` without a
    price."""
    period_start: str
    """When the period began (RFC 3339)."""
    resets_at: str
    """When the next one begins (RFC 3339)."""
    spent: _Decimal | None = None
    """In the period, as of `status.cost.time`."""
    amount: _Decimal
    """What may be."""
    message: str
    """The numbers, and what to do."""


class LedgerStatus(ApiModel):
    """The accounts themselves, for the operator alone: kept over its restarts."""

    version: Annotated[str, Field(max_length=16)] = ""
    """Of `state`."""
    state: Annotated[str, Field(max_length=262144)] = ""
    """What is counted, and what is held since when: what runs on is computed from it, and needs no write."""


class CostStatus(ApiModel):
    """What the deployment took and what that cost.

    Written together with other changes, and by itself only for what could not be found out again, or once a figure
    has moved by a tenth, at most every ten minutes: of GPUs that merely go on the ledger says since when. Metrics are
    of the moment.
    """

    time: str
    """As of when the figures are (RFC 3339)."""
    since: str
    """Since when is counted (RFC 3339)."""
    currency: str
    """Of all amounts."""
    price: PriceStatus
    """What a GPU-hour costs now."""
    per_million_tokens: _Decimal | None = None
    """Of the last hour, else of the last day, else in total: for the $/MTOK column."""
    last_hour: CostFigures
    """Of the last 60 minutes."""
    last_day: CostFigures
    """Of the last 24 hours."""
    total: CostFigures
    """Since `since`."""
    comparison: ComparisonStatus | None = None
    """With `cost.compareTo`."""
    budget: BudgetStatus | None = None
    """With `cost.budget`."""
    ledger: LedgerStatus = LedgerStatus()
    """For the operator alone."""
