"""`python -m generate`: write everything again that is derived and committed.

The CRD, the reference pages, the schema of `kubectl moe report` and what the chart's schema says of `config` come from
the operator's sources, rules and dashboard from hack/monitoring; from the CRD and the charts come the CRD chart's
copies and install.yaml. Tests compare each with what is committed.
"""

import json
from collections.abc import Callable

import render_manifests
from moe_operator.api import crd
from moe_operator.api import reference as api_reference
from moe_operator.catalog import config_schema, fabrics_reference
from moe_operator.catalog import reference as accelerators_reference
from moe_operator.cli.report import schema as report_schema
from moe_operator.planner import reference as planner_reference
from moe_operator.runtime import metrics_reference
from monitoring import dashboard, rule_files, thresholds


def values_schema() -> str:
    """The chart's schema: by hand, but for `config` and the thresholds of alerts."""
    written = json.loads((render_manifests.ROOT / config_schema.FILE).read_text(encoding="utf-8"))
    written["properties"]["config"] = config_schema.config_schema()
    rules = written["properties"]["metrics"]["properties"]["rules"]["properties"]
    rules["thresholds"] = thresholds.schema()
    return json.dumps(written, indent=2, ensure_ascii=False) + "\n"


_PAGES: dict[str, Callable[[], str]] = {
    crd.FILE: crd.render,
    api_reference.FILE: api_reference.render,
    accelerators_reference.FILE: accelerators_reference.render,
    fabrics_reference.FILE: fabrics_reference.render,
    planner_reference.FILE: planner_reference.render,
    "docs/reference/metrics.md": metrics_reference.render,
    config_schema.FILE: values_schema,
    report_schema.FILE: report_schema.render,
    rule_files.CHART_FILE: rule_files.chart_file,
    rule_files.PLAIN_FILE: rule_files.plain_file,
    rule_files.REFERENCE: rule_files.reference,
    dashboard.FILE: dashboard.render,
}


def main() -> None:
    """Write all files; say which changed."""
    for name, render in _PAGES.items():
        path, text = render_manifests.ROOT / name, render()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"wrote {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in render_manifests.write():
        print(f"wrote {path.relative_to(render_manifests.ROOT)}")


if __name__ == "__main__":
    main()
