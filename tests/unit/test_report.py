"""`kubectl moe report`: the record that platform teams hand to auditors, made of objects and samples.

Lost otherwise: a licence, a right or an outage that the record leaves out without saying so; or a page in which a
message of somebody else acts.
"""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from factories.cluster_objects import NAME, NAMESPACE, NOW, condition, event_object
from factories.golden import check_golden_text
from factories.records import DAY, SPAN, accounts, asked, collected, lived, node, recorded
from moe_operator.api import names
from moe_operator.api.times import format_time
from moe_operator.cli.report import schema
from moe_operator.cli.report.building import build
from moe_operator.cli.report.command import text_of
from moe_operator.cli.report.data import DeploymentRecord, EgressState, Report, Source
from moe_operator.cli.report.markdown import escaped
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.plain_text import plain
from moe_operator.cli.report.reading import Missing

KEY = (NAMESPACE, NAME)
ROOT = Path(__file__).resolve().parents[2]


def rich(**overrides: Any) -> Report:
    """All parts of it."""
    return build(collected(**overrides), {KEY: recorded(), (NAMESPACE, "gone"): recorded()}, asked())


def only(report: Report) -> DeploymentRecord:
    (one,) = report.deployments
    return one


# --- the whole ------------------------------------------------------------------------------------


def test_the_page_of_a_deployment_that_has_lived() -> None:
    check_golden_text("report", text_of(rich(), "md") + "\n", "md")


def test_the_document_of_a_deployment_that_has_lived() -> None:
    check_golden_text("report", text_of(rich(), "json") + "\n", "json")


def test_the_schema_is_committed_and_names_every_field() -> None:
    assert (ROOT / schema.FILE).read_text(encoding="utf-8") == schema.render(), "run: make generate"
    made = json.loads(schema.render())
    assert made["properties"]["schema"]["const"] == "moe-report/v1"
    for name, part in (("Report", made), *made["$defs"].items()):
        undescribed = [key for key, one in part.get("properties", {}).items() if not one.get("description")]
        assert undescribed == [], name


def test_the_same_in_gives_the_same_out() -> None:
    """Two records of one period can be compared, whatever order the API server lists in."""
    turned = collected()
    for part in (turned.pods, turned.events, turned.policies, turned.cluster_roles, turned.role_bindings):
        assert isinstance(part, list)
        part.reverse()
    turned.deployments[0]["metadata"]["managedFields"].reverse()
    again = build(turned, {KEY: recorded(), (NAMESPACE, "gone"): recorded()}, asked())
    assert again == rich()


def test_it_reads_back() -> None:
    text = text_of(rich(), "json")
    assert Report.model_validate_json(text) == rich()


# --- parts ----------------------------------------------------------------------------------------


def test_without_prometheus_nothing_is_claimed_of_the_period() -> None:
    one = only(build(collected(), None, asked(prometheus=None, span=Span(NOW - 7 * DAY, NOW))))
    assert one.uptime.source is Source.STATUS
    assert (one.uptime.known_seconds, one.uptime.ready_percent) == (2 * DAY, 100.0)
    assert one.usage.source is Source.NONE
    assert one.usage.period is None
    assert one.usage.total is not None
    assert one.usage.total.cost == {"USD": "2016.00"}
    assert "not known without Prometheus" in one.usage.notes[0]
    assert one.incidents.groups_lost is None
    assert (one.scaling.changes, one.scaling.at_least) == (2, False)


def test_accounts_that_began_in_the_period_are_the_period_s() -> None:
    one = only(build(collected(), None, asked(prometheus=None)))
    assert one.usage.source is Source.STATUS
    assert one.usage.period == one.usage.total


def test_a_deployment_that_is_not_ready_was_not_since_then() -> None:
    down = lived(conditions=[condition("Ready", "False", "Starting", "0 of 1", 3600)])
    one = only(build(collected(deployment=down), None, asked(prometheus=None)))
    assert (one.uptime.known_seconds, one.uptime.ready_seconds, one.uptime.ready_percent) == (3600, 0, 0.0)
    assert [each.type for each in one.incidents.conditions] == ["Ready"]


def test_uptime_is_never_rounded_up_to_all_of_it() -> None:
    """A second of an hour of 30 days is missing: that is not 100 %."""
    figures = recorded(
        ready_count=[(SPAN.begin + 1800.0 * (at + 1), 1800.0) for at in range(1440)],
        ready_sum=[(SPAN.begin + 1800.0 * (at + 1), 1800.0 - (at == 7)) for at in range(1440)],
    )
    assert only(build(collected(), {KEY: figures}, asked())).uptime.ready_percent == 99.999


def test_a_prometheus_that_gives_nothing_is_named_and_the_status_used() -> None:
    report = build(collected(), "HTTP 401: it wants to know who asks", asked())
    assert report.prometheus is not None
    assert report.prometheus.message == "HTTP 401: it wants to know who asks"
    assert [one.section for one in report.unread] == ["Prometheus"]
    assert only(report).uptime.source is Source.STATUS
    assert "gave none: HTTP 401" in text_of(report, "md")


def test_a_prometheus_that_does_not_know_it_says_what_to_look_at() -> None:
    figures = recorded(ready_sum=[], ready_count=[], accounts={}, losses={}, scalings=None)
    one = only(build(collected(), {KEY: figures}, asked()))
    assert one.uptime.ready_percent is None
    assert "honorLabels" in one.uptime.message
    assert one.usage.period is None
    assert "honorLabels" in one.usage.notes[0]


def test_figures_of_a_former_deployment_of_the_name_are_told() -> None:
    young = lived()
    young["metadata"]["creationTimestamp"] = format_time(NOW - 2 * DAY)
    one = only(build(collected(deployment=young), {KEY: recorded()}, asked()))
    assert "a former ModelDeployment of this name" in " ".join(one.usage.notes)


def test_what_may_not_be_read_is_said_where_it_would_stand() -> None:
    """A team without rights to nodes and RBAC still has its record."""

    def forbidden(what: str) -> Missing:
        return Missing(what, f"not readable: needs {what}")

    parts = {
        part: forbidden(f"list {part}")
        for part in (
            "pods",
            "revisions",
            "events",
            "services",
            "policies",
            "ingresses",
            "routes",
            "nodes",
            "roles",
            "role_bindings",
            "cluster_roles",
            "cluster_role_bindings",
        )
    }
    parts["secrets"] = {(NAMESPACE, "tiny-keys"): forbidden("get secrets in serving")}  # type: ignore[assignment]
    report = build(collected(**parts, cluster_id=None), None, asked(prometheus=None))
    one = only(report)
    assert one.model.licence == "apache-2.0"
    assert one.engine.running is None
    assert one.place.nodes is None
    assert one.place.egress is EgressState.UNKNOWN
    assert one.callers.services is None
    assert one.callers.ingress_limited is None
    assert one.callers.api_key.present is None
    assert one.changes.revisions is None
    assert one.incidents.events is None
    assert report.access[0].change is None
    assert len(report.unread) == 13
    page = text_of(report, "md")
    for text in (
        "**Running, by digest**: not readable: needs list pods",
        "**Connections to elsewhere**: not readable: needs list policies",
        "not readable: needs get secrets in serving",
        "Events: not readable: needs list events",
        "Revisions: not readable: needs list revisions",
        "id unknown",
    ):
        assert text in page


def test_what_is_not_known_of_the_model_is_said_plainly() -> None:
    unknown = lived(weights=None)
    unknown["status"]["provenance"] |= {"licence": "unknown", "commit": None, "publisher": "unknown"}
    one = only(build(collected(deployment=unknown), None, asked()))
    assert (one.model.licence, one.model.publisher, one.model.commit) == ("unknown", "unknown", None)
    assert one.weights.digest is None
    assert "engines read the source themselves" in one.weights.verification
    assert any("has no licence" in note for note in one.model.notes)
    assert any("the commit is not known" in note for note in one.model.notes)


@pytest.mark.parametrize(
    ("source", "digest", "words"),
    [
        (
            "oci://registry.example/m@sha256:" + "0" * 64,
            "sha256:" + "0" * 64,
            "verify the image by its digest",
        ),
        ("oci://registry.example/m:v1", None, "a tag, which may move"),
        ("pvc://models/m", None, "whoever may write to the claim"),
        ("s3://models/m", None, "engines read the source themselves"),
    ],
)
def test_what_vouches_for_weights_without_a_cache(source: str, digest: str | None, words: str) -> None:
    obj = lived(weights=None)
    obj["status"]["provenance"] |= {"source": source, "commit": None}
    one = only(build(collected(deployment=obj), None, asked()))
    assert one.weights.digest == digest
    assert words in one.weights.verification


def test_a_deployment_that_nobody_has_planned_yet() -> None:
    """No status: the record has its name and says what is not known."""
    new = lived()
    new["status"] = {}
    report = build(collected(deployment=new, pods=[], revisions=[], events=[]), None, asked(prometheus=None))
    one = only(report)
    assert (one.model.name, one.model.licence, one.engine.image) == ("org/tiny-moe", "unknown", None)
    assert one.uptime.source is Source.NONE
    assert (one.usage.source, one.usage.total) == (Source.NONE, None)
    for output in ("md", "html", "json"):
        assert text_of(report, output)


def test_a_stored_spec_that_cannot_be_read_hides_nothing_of_the_rest() -> None:
    broken = lived()
    broken["spec"] = {"model": {}, "engine": "?"}
    one = only(build(collected(deployment=broken), None, asked(prometheus=None)))
    assert one.invalid_spec is not None
    assert "spec.model.name" in one.invalid_spec
    assert (one.model.name, one.model.licence) == ("org/tiny-moe", "apache-2.0")
    assert one.scaling.mode is None


def test_nodes_in_several_regions_are_all_named() -> None:
    one = only(build(collected(nodes=[node(0), node(1, "us-east-1")]), None, asked()))
    assert one.place.regions == ["eu-west-1", "us-east-1"]
    assert {each.name: each.zone for each in one.place.nodes or ()} == {
        "b200-0": "eu-west-1a",
        "b200-1": "us-east-1a",
    }


def test_secrets_in_a_spec_do_not_reach_the_record() -> None:
    """Records are passed on; people write tokens into variables."""
    for output in ("md", "html", "json"):
        assert "hunter2" not in text_of(rich(), output)
    path = "engine.env[SECRET_THING].value"
    changes = {
        each.path: each.after for one in only(rich()).changes.revisions or () for each in one.changes or ()
    }
    assert changes[path] == "(not shown)"
    assert changes["engine.args.max-num-seqs"] == "256"


def test_pods_of_weights_jobs_are_no_engines() -> None:
    job = {
        "metadata": {
            "name": "moe-weights-x",
            "namespace": NAMESPACE,
            "labels": {names.LABEL_DEPLOYMENT: NAME},
        },
        "spec": {"nodeName": "cpu-1"},
    }
    before = collected()
    assert isinstance(before.pods, list)
    one = only(build(collected(pods=[*before.pods, job]), None, asked()))
    assert [each.name for each in one.place.nodes or ()] == ["b200-0", "b200-1"]


def test_events_outside_of_the_period_and_of_others_are_left_out() -> None:
    events = [
        event_object("before it", "Serving", "Admit", 31 * DAY),
        event_object("in it", "Serving", "Admit", 60),
        event_object("of another", "Serving", "Admit", 60, uid="another"),
        {"metadata": {}, "regarding": {"uid": lived()["metadata"]["uid"]}, "eventTime": "yesterday"},
    ]
    one = only(build(collected(events=events), None, asked()))
    assert [each.message for each in one.incidents.events or ()] == ["in it"]


def test_many_events_are_cut_and_counted() -> None:
    events = [event_object(f"event {at}", "Serving", "Admit", 1000 - at) for at in range(130)]
    found = only(build(collected(events=events), None, asked())).incidents
    assert found.events is not None
    assert (len(found.events), found.events_left_off) == (100, 30)
    assert found.events[-1].message == "event 129"


def test_scaling_is_exact_only_where_the_status_remembers_enough() -> None:
    def changes(count: int, first: float) -> Any:
        history = [
            {"time": format_time(NOW - first + at), "before": 1, "after": 2, "reason": "DemandGrows"}
            for at in range(count)
        ]
        scaling = {"desired": 2, "reason": "DemandGrows", "message": "", "history": history}
        return only(build(collected(deployment=lived(scaling=scaling)), None, asked(prometheus=None))).scaling

    assert (changes(9, DAY).changes, changes(9, DAY).at_least) == (9, False)
    assert (changes(10, DAY).changes, changes(10, DAY).at_least) == (10, True)


def test_a_deployment_that_was_made_after_the_period_is_named_and_left_out() -> None:
    past = Span(NOW - 60 * DAY, NOW - 30 * DAY)
    report = build(collected(), None, asked(span=past, prometheus=None))
    assert report.deployments == []
    assert report.period.notes == ["made after it, and left out: serving/tiny"]
    assert [one.namespace for one in report.access] == [NAMESPACE]


def test_a_deployment_that_has_gone_is_told_by_prometheus_alone() -> None:
    (gone,) = rich().gone
    assert (gone.name, gone.usage.period.output_tokens) == ("gone", 1_000_000)  # type: ignore[union-attr]


def test_the_record_says_what_it_is_not() -> None:
    page = text_of(rich(), "md")
    for text in (
        "not legal advice",
        "this record is not those logs",
        "Article 53",
        "who sent a request",
        "an hour",
    ):
        assert text in page


# --- what others wrote ------------------------------------------------------------------------------

EVIL = (
    "x | y\n## heading\r\n<script>alert(1)</script> <img src=x onerror=alert(1)> ![i](http://evil.example/a.png)"
    " [l](javascript:alert(1)) `c` https://evil.example www.evil.example \x1b[2J\x1b]0;title\x07 \u202etxt\u2066"
    " \u200b *b* _e_ ~~s~~ $m$ \\| &lt; {{x}} '\"><b>"
)


def hostile() -> Report:
    """Every text that somebody other than the operator can write."""
    obj = lived(conditions=[condition("Ready", "False", EVIL[:1000], EVIL)])
    obj["metadata"]["managedFields"][0]["manager"] = EVIL
    obj["spec"]["engine"]["args"][EVIL] = EVIL
    obj["status"]["provenance"] |= {"model": EVIL, "source": EVIL, "licence": EVIL, "nodes": {EVIL: [EVIL]}}
    obj["status"]["recovery"]["lastCause"]["message"] = EVIL
    obj["status"]["cost"] = accounts() | {"price": {"message": EVIL}}
    given = collected(deployment=obj)
    assert isinstance(given.pods, list)
    given.pods[0]["status"]["containerStatuses"][0]["imageID"] = EVIL
    return build(
        collected(
            deployment=obj,
            pods=given.pods,
            events=[event_object(EVIL, EVIL, "Admit", 60)],
            role_bindings=[
                {
                    "metadata": {"name": EVIL, "namespace": NAMESPACE},
                    "roleRef": {"kind": "ClusterRole", "name": "edit"},
                    "subjects": [{"kind": "User", "name": EVIL}],
                }
            ],
            nodes=[{"metadata": {"name": "b200-0", "labels": {"topology.kubernetes.io/region": EVIL}}}],
            policies=Missing(None, f"could not be read: {EVIL}"),
        ),
        f"HTTP 500: {EVIL}",
        asked(prometheus=f"http://x/{EVIL}"),
    )


class Tags(HTMLParser):
    """What a browser would take for markup."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def tags(page: str) -> set[tuple[str, tuple[str, ...]]]:
    reader = Tags()
    reader.feed(page)
    return set(reader.found)


def test_a_page_has_no_markup_but_its_own_and_nothing_from_elsewhere() -> None:
    page = text_of(hostile(), "html")
    assert tags(page) <= tags(text_of(rich(), "html"))
    assert {tag for tag, _ in tags(page)}.isdisjoint({"script", "img", "a", "link", "iframe", "b"})
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def tables(page: str) -> Iterator[list[str]]:
    for block in page.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            yield lines


def test_no_text_breaks_a_table_or_makes_markup_in_markdown() -> None:
    page = text_of(hostile(), "md")
    assert len(list(tables(page))) >= 6
    for lines in tables(page):
        assert {_cells(line) for line in lines} == {_cells(lines[0])}, lines
    own = {line for line in text_of(rich(), "md").splitlines() if line.startswith("#")}
    own.add("## What could not be read")
    assert {line for line in page.splitlines() if line.startswith("#")} <= own
    assert "<" not in page
    assert not re.search(r"(?<!\\)[\[\]`]", page)
    assert not re.search(r"(?i)https?://|(?<![\w.])www\.[a-z]", page)


@pytest.mark.parametrize("output", ["md", "html", "json"])
def test_nothing_reaches_a_terminal_that_moves_it(output: str) -> None:
    text = text_of(hostile(), output)
    left = {one for one in text if one != "\n" and (ord(one) < 32 or 0x7F <= ord(one) < 0xA0)}
    assert left == set()
    assert not set("\u202e\u2066\u200b") & set(text)


def test_the_document_keeps_what_was_written() -> None:
    """JSON is for programs: nothing is cut or replaced in it, and everything is escaped."""
    data = json.loads(text_of(hostile(), "json"))
    assert data["deployments"][0]["incidents"]["events"][0]["message"] == EVIL


def test_text_is_one_line_and_bounded() -> None:
    assert plain("a\n\tb\u2028c\x00d") == "a b c d"
    assert plain("x" * 5000).endswith("...")
    assert len(plain("x" * 5000)) == 1000
    assert plain("é 模型 ✓") == "é 模型 ✓"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vllm_config a_b", "vllm_config a_b"),
        ("_a_ *b*", "\\_a\\_ \\*b\\*"),
        ("1. one", "1\\. one"),
        ("99.9 %", "99.9 %"),
        ("- a", "\\- a"),
        ("-5", "-5"),
        ("# a", "\\# a"),
        ("---", "\\---"),
        ("a|b\\", "a\\|b\\\\"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert escaped(text) == shown
