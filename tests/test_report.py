from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from camo.measure.charts import heat, labelled
from camo.measure.figures import Measured, summarise
from camo.measure.formats import printable
from camo.measure.operations import HEADLINE
from camo.measure.report import write_report
from camo.measure.sheet import SheetRow, contact_sheet

HOSTILE = [
    "<td onclick=alert(1)>",
    "<td>",
    '"><script>alert(1)</script>',
    "' onload='alert(1)",
    "a & b &lt; &amp; c",
    "</svg><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %} $title ${title}",
    b"\xff<b>\n\x00\x1b".decode(errors="surrogateescape"),
]


def test_contact_sheet_shows_the_difference_tenfold():
    grey = torch.full((3, 20, 30), 100, dtype=torch.uint8)
    sheet = contact_sheet([SheetRow("a", grey, grey + 5, 60.0, 40.0, 34.2)], "title")
    assert sheet.getpixel((75, 40)) == (178, 178, 178)
    assert sheet.getpixel((15, 40)) == (100, 100, 100)


class Page(HTMLParser):
    """The tags with their attributes' names, and the text, of a page, a table's cell at a time."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], [""]
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *(name for name, _ in attributes)))
        self.text.append("")

    def handle_endtag(self, tag):
        self.text.append("")

    def handle_data(self, data):
        self.text[-1] += data


def report(path, name):
    """The report on two folders and one photo, where the first folder, the photo and the quality model bear one name."""
    scores = dict.fromkeys(HEADLINE, 60.0), dict.fromkeys(HEADLINE, 40.0)
    results = {folder: [Measured(name, Path(name), Path(name), *scores, 40.0, 38.0, 0.99, None, 3, 1.0)] for folder in (name, "other")}
    document = {
        "settings": {"biqa": name, "threshold": 50.0, "checkpoint": None},
        "results": {folder: summarise(measured, HEADLINE, 50.0) for folder, measured in results.items()},
    }
    grey = torch.full((3, 20, 30), 100, dtype=torch.uint8)
    write_report(path, document, results, [SheetRow(name, grey, grey, 60.0, 40.0, 40.0)])
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_the_report_whatever_they_hold(tmp_path, name):
    plain, hostile = report(tmp_path / "plain.html", "plain"), report(tmp_path / "hostile.html", name)
    assert hostile.tags == plain.tags
    shown = [text.replace(printable(name), "plain").replace(printable(name)[-16:], "plain") for text in hostile.text]
    assert shown == plain.text
    assert sum("plain" in text for text in shown) == 6  # settings, two tables, two legends, gallery


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_a_chart_that_is_a_file_of_its_own(name):
    (label,) = (text for text in ElementTree.fromstring(labelled({name: (40.0, 50.0)}, "x", "y")).iter() if text.text == printable(name))
    assert label.tag.endswith("text")


def test_a_table_cell_is_the_greener_the_higher_the_rate():
    assert heat(None) == "<td>-</td>"
    assert heat(0.0) == '<td style="background:rgb(255,255,255);color:#222">0%</td>'
    assert heat(1.0) == '<td style="background:rgb(27,120,55);color:#fff">100%</td>'
