"""The expressions that rules and dashboard share. `only` are label matchers within the braces, `window` a range.

All figures of ModelDeployments come from the leader alone. For a moment after another replica took over, both may be
stored: so gauges are taken by `max`, and counters as the sum of rates, each of which ends with its own series.
"""

#: Of a ModelDeployment; with `honor_labels` these are its own, not those of the operator's pods.
OWN = "namespace, name"


def by(function: str, metric: str, only: str = "", *labels: str) -> str:
    """`function` over the replicas, by deployment and `labels`."""
    return f"{function} by ({', '.join((OWN, *labels))}) (moe_operator_{metric}{braced(only)})"


def braced(*matchers: str) -> str:
    """Matchers that are not empty, in braces."""
    inner = ", ".join(one for one in matchers if one)
    return f"{{{inner}}}" if inner else ""


def gauge(metric: str, only: str = "", *labels: str) -> str:
    """A gauge, by deployment and `labels`."""
    return by("max", metric, only, *labels)


def rate(metric: str, window: str, only: str = "", *labels: str) -> str:
    """A counter's growth per second, by deployment and `labels`."""
    inner = f"rate(moe_operator_{metric}{braced(only)}[{window}])"
    return f"sum by ({', '.join((OWN, *labels))}) ({inner})"


def hbm_used_ratio(only: str = "") -> str:
    """Used of what processes may have."""
    used, capacity = (gauge("hbm_bytes", _and(only, f'state="{state}"')) for state in ("used", "capacity"))
    return f"{used} / {capacity}"


def groups_missing(only: str = "") -> str:
    """Groups that are wanted and do not serve."""
    wanted, ready = (gauge("groups", _and(only, f'state="{state}"')) for state in ("desired", "ready"))
    return f"clamp_min({wanted} - {ready}, 0)"


def gpus_held(window: str, only: str = "") -> str:
    """GPUs that are held, by what their groups do."""
    return rate("gpu_seconds_total", window, only, "state")


def cost_per_hour(window: str, only: str = "") -> str:
    """Money per hour, by currency and by what the groups do."""
    return f"3600 * {rate('cost_total', window, only, 'currency', 'state')}"


def beyond_objective(window: str, only: str = "") -> str:
    """Share of requests that were beyond the objective, by part of it."""
    beyond = rate("objective_requests_total", window, _and(only, 'outcome="beyond"'), "part")
    return f"{beyond} / {rate('objective_requests_total', window, only, 'part')}"


def objective_requests(window: str, only: str = "") -> str:
    """Requests in the window that count against the objective, by part of it."""
    inner = f"increase(moe_operator_objective_requests_total{braced(only)}[{window}])"
    return f"sum by ({OWN}, part) ({inner})"


def groups_lost(window: str, only: str = "") -> str:
    """Groups lost in the window, by reason.

    The counter of a reason begins with its first loss, at 1, and again with each leader: what a new series begins with
    has grown within the window too. A series is new where the window before had no sample of it: at a single moment it
    may be away because nobody scraped, and then losses of long ago would be told. So the first loss may be
    missed after an operator began anew in its pod, where it had counted one of that reason there within two windows.
    `increase` estimates, so it is rounded.
    """
    series = f"moe_operator_groups_lost_total{braced(only)}"
    grown = f"sum by ({OWN}, reason) (increase({series}[{window}]))"
    before = f"max_over_time({series}[{window}] offset {window})"
    begun = f"sum by ({OWN}, reason) (min_over_time({series}[{window}]) unless {before})"
    return f"round(({grown} + {begun}) or {grown})"


def joules_per_token(window: str, only: str = "") -> str:
    """Energy of all GPUs over output tokens."""
    tokens = rate("tokens_total", window, _and(only, 'kind="output"'))
    return f"{rate('energy_joules_total', window, only)} / ({tokens} > 0)"


def _and(*matchers: str) -> str:
    return ", ".join(one for one in matchers if one)
