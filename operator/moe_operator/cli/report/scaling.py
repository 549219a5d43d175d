"""How often a deployment's number of groups changed, for its record. Pure."""

from collections import Counter

from moe_operator.api.scaling import CHANGES_KEPT
from moe_operator.cli.report.data import ScalingRecord, Source
from moe_operator.cli.report.subject import Subject, time_of


def scaling_of(subject: Subject) -> ScalingRecord:
    """By Prometheus; without it by the changes that the status remembers."""
    scaling = subject.status.scaling
    mode = None if subject.invalid else subject.deployment.spec.scaling.mode.value
    remembered = list(scaling.history) if scaling else []
    within = [one for one in remembered if subject.span.has(time_of(one.time))]
    by_reason = dict(sorted(Counter(one.reason for one in within).items()))
    if subject.recorded is not None and subject.recorded.scalings is not None:
        changes = max(round(subject.recorded.scalings), len(within))
        return ScalingRecord(mode=mode, changes=changes, source=Source.PROMETHEUS, by_reason=by_reason)
    if scaling is None:
        return ScalingRecord(mode=mode, source=Source.NONE)
    # None is missed where the oldest that is remembered is of before the period, or more could be remembered.
    oldest = time_of(remembered[0].time) if remembered else None
    all_ = len(remembered) < CHANGES_KEPT or (oldest is not None and oldest < subject.span.begin)
    return ScalingRecord(
        mode=mode, changes=len(within), at_least=not all_, source=Source.STATUS, by_reason=by_reason
    )
