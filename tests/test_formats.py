import csv

import pytest

from camo.measure import comparison, tables
from camo.measure.figures import Measured
from camo.measure.formats import csv_path, latex, printable
from camo.measure.operations import HEADLINE


def row(**more):
    return {"psnr": 40.0, "worst_patch_psnr": 38.0, "ssim": 0.99, "operations": {name: {"protected": 0.5} for name in HEADLINE}} | more


def test_latex_specials_in_a_folder_name_are_escaped():
    table = tables.latex_table({"runs/50% & #1_{$~^\\": row()})
    assert r"50\% \& \#1\_\{\$\textasciitilde{}\textasciicircum{}\textbackslash{} & 50.0 &" in table


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("[1ex]", "{[}1ex] "),  # \midrule and \\ would take it for a length
        ("*", "{*} "),  # \\ would take it for its own
        ("a\n\nb", r"a\textbackslash{}n\textbackslash{}nb "),  # a paragraph ends a cell with an error
        ("\udcff", r"\textbackslash{}udcff "),
    ],
)
def test_names_that_would_be_latex_commands_or_arguments(name, source):
    assert f"\\midrule\n{source}& 50.0" in tables.latex_table({name: row()})
    assert latex(name) + " " == source


@pytest.mark.parametrize(("name", "line"), [("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m"), ("\udcff", r"\udcff"), ("Zoë & 東京", "Zoë & 東京")])
def test_a_name_is_one_line_of_unicode(name, line):
    assert printable(name) == line


@pytest.mark.parametrize("name", ["=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "\t=1.jpg", "\r=1.jpg", "\n=1.jpg"])
def test_no_cell_of_a_csv_file_begins_as_a_formula(tmp_path, name):
    scores = dict.fromkeys(HEADLINE, 40.0)
    one = Measured(name, tmp_path, tmp_path, scores, scores, 40.0, 38.0, 0.99, None, 3, 1.0)
    tables.write_csv(tmp_path / "images.csv", {name: [one]}, HEADLINE)
    comparison.write_table(tmp_path / "table.csv", [row(method=name, seconds=1.0, times_the_first=1.0)])
    for file, columns in (("images.csv", ["folder", "name"]), ("table.csv", ["method"])):
        with (tmp_path / file).open(newline="") as text:
            (line,) = csv.DictReader(text)
        assert [line[column] for column in columns] == [f"./{name}"] * len(columns)
    assert csv_path(f"photos/{name}") == f"photos/{name}"


def test_names_on_the_terminal_take_one_line_each(capsys):
    figures = row(photos=1, psnr_lowest=40.0, lpips=None, size_ratio=1.0, regularity=None, coherence=None, operations={}, look={})
    tables.print_table({"a\nb\x1b[2J": figures})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[1].endswith(r"  a\nb\x1b[2J")
