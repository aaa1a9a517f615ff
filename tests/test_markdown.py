from __future__ import annotations

from nemo_cmim.markdown import markdown_table


def test_a_table_has_a_header_a_rule_and_a_line_for_each_row() -> None:
    assert markdown_table(["a", "b"], [["1", "2"], ["", "x"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n|  | x |"
    assert markdown_table(["a"], []) == "| a |\n|---|"
