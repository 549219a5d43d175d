"""Recording rules: what queries ask for often, by names of the form level:metric:operation."""

from dataclasses import dataclass

from monitoring import expressions as ex


@dataclass(frozen=True)
class Recorded:
    """One recording rule. The part of the name before the first colon has its labels."""

    name: str
    expr: str
    meaning: str


#: Windows of burn rates (the SRE workbook's table 5-8): short ones end an alert soon after what caused it.
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
#: The longer one of each pair.
LONG_WINDOWS = ("1h", "6h", "1d", "3d")


def beyond(window: str) -> str:
    """Name of the rule with the share of requests beyond the objective."""
    return f"namespace_name_part:moe_operator_objective_beyond:ratio_rate{window}"


def counted(window: str) -> str:
    """Name of the rule with the number of requests that this is a share of."""
    return f"namespace_name_part:moe_operator_objective_requests:increase{window}"


HBM_USED = Recorded(
    "namespace_name:moe_operator_hbm_used:ratio",
    ex.hbm_used_ratio(),
    "Used of what processes may have on the GPUs of groups that serve.",
)
FULLEST_RANK = Recorded(
    "namespace_name_group:moe_operator_hbm_rank_used:max_ratio",
    ex.gauge("hbm_rank_used_ratio", "", "group"),
    "The same of each group's fullest rank that was measured.",
)
MISSING = Recorded(
    "namespace_name:moe_operator_groups_missing:max",
    ex.groups_missing(),
    "Groups that are wanted and do not serve.",
)
LOST = Recorded(
    "namespace_name_reason:moe_operator_groups_lost:increase1h",
    ex.groups_lost("1h"),
    "Groups lost within an hour, those included with which a counter begins.",
)

GENERAL = (
    HBM_USED,
    FULLEST_RANK,
    MISSING,
    LOST,
    Recorded(
        "namespace_name_kind:moe_operator_tokens:rate5m",
        ex.rate("tokens_total", "5m", "", "kind"),
        "Tokens per second.",
    ),
    Recorded(
        "namespace_name_outcome:moe_operator_requests:rate5m",
        ex.rate("requests_total", "5m", "", "outcome"),
        "Requests per second.",
    ),
    Recorded(
        "namespace_name_state:moe_operator_gpus_held:rate5m",
        ex.gpus_held("5m"),
        "GPUs that are held, by what their groups do.",
    ),
    Recorded(
        "namespace_name_currency_state:moe_operator_cost_per_hour:rate1h",
        ex.cost_per_hour("1h"),
        "Money per hour.",
    ),
    Recorded(
        "namespace_name:moe_operator_energy_per_output_token:rate5m",
        ex.joules_per_token("5m"),
        "Joules for each output token.",
    ),
)

OBJECTIVE = (
    *(
        Recorded(
            beyond(window), ex.beyond_objective(window), f"Share of requests beyond the objective, {window}."
        )
        for window in WINDOWS
    ),
    *(
        Recorded(
            counted(window), ex.objective_requests(window), f"Requests that this is a share of, {window}."
        )
        for window in LONG_WINDOWS
    ),
)

RECORDED = (*GENERAL, *OBJECTIVE)
