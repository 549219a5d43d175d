"""`status.cost` in one line for people."""

from moe_operator.api.cost import CostStatus


def cost_text(cost: CostStatus) -> str:
    """As of when it was written."""
    day, currency = cost.last_day, cost.currency
    said = []
    if cost.per_million_tokens is not None:
        said.append(f"{cost.per_million_tokens} {currency} per million tokens")
    held = f"last day {day.gpu_hours.total} GPU-hours, {day.gpu_hours.idle} of them idle"
    said.append(held if day.cost is None else f"{held}: {day.cost} {currency}")
    if day.energy_kwh is not None:
        per = day.energy_kwh_per_million_tokens
        said.append(f"{day.energy_kwh} kWh" + ("" if per is None else f", {per} kWh per million tokens"))
    price = cost.price
    said.append(
        price.message
        if price.per_gpu_hour is None
        else f"{price.per_gpu_hour} {currency} per GPU-hour ({price.message})"
    )
    if cost.comparison is not None:
        percent = cost.comparison.saving_percent
        said.append(f"{abs(percent)} % {'less' if percent >= 0 else 'more'} than by cost.compareTo")
    if cost.budget is not None:
        said.append(f"budget: {cost.budget.message}")
    return "; ".join(said)
