"""What there is to tell, once, of a change of what is said about the width."""

from collections.abc import Iterator
from typing import Literal

from moe_operator.api import reasons
from moe_operator.api.scaling import ScalingStatus

News = tuple[Literal["Normal", "Warning"], str, str]
"""Type, reason and text of an Event."""


def width_news(old: ScalingStatus | None, new: ScalingStatus | None) -> Iterator[News]:
    """By two statuses in a row. That nothing is recommended any more is none."""
    if new is None:
        return
    chosen, before = new.chosen_width, old.chosen_width if old else None
    if chosen is not None and (before is None or before.since != chosen.since):
        if chosen.given_up_time == chosen.since:
            text = f"groups of {chosen.given_up} GPUs did not come to serve: groups of {chosen.gpus} stay"
            yield "Warning", reasons.WIDTH_GIVEN_UP, text
        else:
            text = f"groups move from {chosen.before} to {chosen.gpus} GPUs, as in a rollout: {new.width_message}"
            yield "Normal", reasons.WIDTH_CHOSEN, text
    wide = new.recommended_width
    if wide is not None and wide != (old.recommended_width if old else None):
        text = f"groups of {wide} GPUs are recommended: {new.width_message}"
        yield "Normal", reasons.WIDTH_RECOMMENDED, text
