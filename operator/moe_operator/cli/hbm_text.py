"""`status.hbm` in one line for people."""

from moe_operator.api.hbm import HbmSource, HbmStatus

_MIB_PER_GIB = 1024


def hbm_text(hbm: HbmStatus) -> str:
    """In GiB."""
    whole = f"{_gib(hbm.used_mib)} of {_gib(hbm.capacity_mib)} GiB ({hbm.percent} %), {_source(hbm)}"
    parts = [
        f"{name} {_gib(mib)}"
        for name, mib in (
            ("weights", hbm.weights_mib),
            ("KV cache in use", hbm.kv_used_mib),
            ("free", hbm.kv_free_mib),
            ("other", hbm.other_mib),
        )
        if mib is not None
    ]
    said = [whole + (f": {', '.join(parts)}" if parts else "")]
    if worst := hbm.worst:
        gpu = f"GPU {worst.gpu} of " if worst.gpu is not None else ""
        rank = f", rank {worst.rank}" if worst.rank is not None else ""
        said.append(f"fullest {gpu}{worst.pod}{rank} on {worst.node}: {worst.percent} %")
    if hbm.planner_error_percent is not None:
        said.append(f"planner off by {hbm.planner_error_percent} %")
    return "; ".join(said)


def _source(hbm: HbmStatus) -> str:
    if hbm.source is HbmSource.MEASURED:
        return "measured"
    return f"estimated ({hbm.measured_gpus} of {hbm.gpus} GPUs measured)"


def _gib(mib: int) -> str:
    gib = mib / _MIB_PER_GIB
    return f"{gib:.0f}" if gib >= 10 else f"{gib:.1f}"
