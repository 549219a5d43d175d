"""The ledger of failures in status: written before a broken group is deleted, so that no cause is ever lost.

Back-off between replacements: the first is at once, then 10 s doubling up to 5 min; ten quiet minutes forgive.
"""

from moe_operator.api.status import Cause, RecoveryStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.controller.observed import GroupFacts

_FIRST_DELAY = 10.0
_LONGEST_DELAY = 300.0
#: Seconds without a failure after which the count starts anew.
_FORGIVE_AFTER = 600.0
_REMEMBERED = 16
_DOMAINS_REMEMBERED = 16


def backoff(failures: int) -> float:
    """Seconds to wait before the next group after so many failures in a row."""
    if failures <= 1:
        return 0.0
    return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 2, 16)))


def record(ledger: RecoveryStatus, group: GroupFacts, cause: Cause, now: float) -> RecoveryStatus:
    """The ledger with this group's failure counted once, however often it is asked."""
    if group.uid in ledger.counted:
        return ledger
    last = parse_time(ledger.last_failure_time)
    calm = last is None or _calm(ledger, last, now)
    failures = 1 if calm else ledger.failures + 1
    delay = backoff(failures)
    return RecoveryStatus(
        failures=failures,
        last_failure_time=format_time(now),
        next_attempt_time=format_time(now + delay + 1) if delay else None,
        last_cause=cause,
        last_group=group.name,
        counted=[*ledger.counted, group.uid][-_REMEMBERED:],
        avoided_domains=_avoid([] if calm else ledger.avoided_domains, cause.domain),
    )


def avoided(ledger: RecoveryStatus, now: float) -> list[str]:
    """Domains that found no room for groups lately, though they seemed to have some; the newest last."""
    last = parse_time(ledger.last_failure_time)
    return [] if last is None or _calm(ledger, last, now) else ledger.avoided_domains


def _calm(ledger: RecoveryStatus, last: float, now: float) -> bool:
    """Whether the last failure is so long ago that it is forgiven."""
    return now - last > _FORGIVE_AFTER + backoff(ledger.failures)


def _avoid(known: list[str], domain: str | None) -> list[str]:
    if domain is None:
        return known
    return [*(one for one in known if one != domain), domain][-_DOMAINS_REMEMBERED:]
