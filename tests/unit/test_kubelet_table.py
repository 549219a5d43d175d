"""The kubelet's README says which behaviour can be relied on; it must not promise what no test shows."""

from __future__ import annotations

from kubelet_contract import rows_with_tests, table_rows


def test_every_kept_row_has_a_test() -> None:
    rows, tested = table_rows(), rows_with_tests()
    assert len(rows) > 30
    missing = [name for name, kept in rows.items() if not kept.startswith("no") and name not in tested]
    assert not missing, f"rows of the contract without a test: {missing}"


def test_every_test_names_a_row_of_the_table() -> None:
    rows = table_rows()
    unknown = {name: tests for name, tests in rows_with_tests().items() if name not in rows}
    assert not unknown, f"tests name rows that the table does not have: {unknown}"
