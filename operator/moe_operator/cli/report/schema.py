"""The JSON schema of `moe-report/v1`, written to `docs/reference` from the document's models."""

import json

from moe_operator.cli.report.data import SCHEMA, Report

#: Where it is committed.
FILE = "docs/reference/moe-report-v1.schema.json"


def render() -> str:
    """As it is committed."""
    made = Report.model_json_schema(by_alias=True, mode="serialization")
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": SCHEMA}
    return json.dumps(made, indent=2, sort_keys=True) + "\n"
