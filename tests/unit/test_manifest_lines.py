"""The count behind the comparison: a figure in a document that nobody can get again is an opinion."""

from factories.platforms import EXAMPLES, ROOT
from verify.manifest_lines import Cost, cost


def test_comments_and_blank_lines_are_free_and_repeats_are_seen() -> None:
    block = """
      - image: a
        # said twice
        env:
          - {name: A, value: "1"}
          - name: B
            valueFrom: {fieldRef: {fieldPath: status.podIP}}
        resources: {}
"""
    text = f"kind: X\nspec:\n  containers:{block}  initContainers:{block}"
    assert cost(text) == Cost(lines=4 + 2 * 6, env=4, env_repeated=2, lines_repeated=6)
    assert cost("# nothing\n\n---\n") == Cost(0, 0, 0, 0)


def test_the_comparison_has_the_figures_of_the_shipped_example() -> None:
    """Ours can be counted here; those of others are of the commits that stand beside them."""
    found = cost((EXAMPLES / "deepseek-r1-h200.yaml").read_text(encoding="utf-8"))
    document = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    row = next(line for line in document.splitlines() if line.startswith("| **moe-operator**"))
    assert [cell.strip() for cell in row.split("|")][3:6] == [str(found.lines), str(found.env), "0"]
