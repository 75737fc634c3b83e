"""Imports point one way: what works on files knows no network, and the command lines sit on top."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from camo.__main__ import VERBS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "camo"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in (*PACKAGE.rglob("*.py"), *ROOT.glob("*.py"))
}
ENTRIES = {"train", "infer", "setup"}  # the scripts of the clone
VERB_MODULES = {module for module, _ in VERBS.values()}
FILES_ALONE = {"camo.measure.metrics", "camo.measure.operations", "camo.weights"}  # below all rooms with a network, like photos
NETWORKS = {"api", "attacks", "camouflage", "export", "filter", "page", "quality", "task", "training", "verbs"}  # and what uses them


def imported(source, module="", is_package=False):
    """Names of the modules of this project that a source text imports anywhere: at the top, within functions and for type checkers."""
    package = module if is_package else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(filter(None, [*parents[: len(parents) + 1 - node.level], node.module])) if node.level else node.module
            names |= {inner if (inner := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return {name for name in names if name.split(".")[0] in {"camo", *ENTRIES}}


IMPORTS = {name: imported(path.read_text(encoding="utf-8"), name, path.name == "__init__.py") - {"camo"} for name, path in MODULES.items()}


def room(module):
    """The folder of ``camo/`` that a module lives in, such as ``photos``; modules that stand alone are a room each."""
    return module.split(".")[1] if module.startswith("camo.") and module not in FILES_ALONE else module


def offending(importers, is_wrong):
    """Imports of some modules that are wrong, as lines to read."""
    return sorted(f"{name} imports {other}" for name in IMPORTS if importers(name) for other in IMPORTS[name] if is_wrong(name, other))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import camo.quality.models", {"camo.quality.models"}),
        ("from camo.quality import models", {"camo.quality.models"}),
        ("from camo.quality.models import load", {"camo.quality.models"}),
        ("def f():\n    from camo.verbs import score", {"camo.verbs.score"}),
        ("if TYPE_CHECKING:\n    from camo.verbs.score import run", {"camo.verbs.score"}),
        ("from . import models", {"camo.quality.models"}),
        ("from .models import load", {"camo.quality.models"}),
        ("from ..filter.jnd import JustNoticeableDifference", {"camo.filter.jnd"}),
        ("import torch\nfrom infer import main", {"infer"}),
    ],
)
def test_every_form_of_import_is_seen(source, expected):
    assert imported(source, "camo.quality.training") == expected


def test_modules_that_are_imported_exist():
    assert offending(lambda name: True, lambda name, other: other not in MODULES) == []


def test_photos_metrics_and_operations_know_no_network():
    assert offending(lambda name: room(name) == "photos" or name in FILES_ALONE, lambda name, other: room(other) in NETWORKS) == []


def test_filter_and_quality_do_not_know_each_other():
    assert offending(lambda name: room(name) == "filter", lambda name, other: room(other) == "quality") == []
    assert offending(lambda name: room(name) == "quality", lambda name, other: room(other) == "filter") == []


def test_nothing_but_the_command_line_imports_a_verb():
    assert offending(lambda name: name not in {"camo.__main__", "infer"}, lambda name, other: other in VERB_MODULES) == []
    assert offending(lambda name: room(name) not in {"verbs", "__main__", "infer"}, lambda name, other: room(other) == "verbs") == []


def test_every_verb_of_the_command_line_lives_in_verbs():
    assert sorted(module for module in VERB_MODULES if module not in MODULES or room(module) != "verbs") == []


def test_nothing_imports_the_scripts_or_the_public_interface():
    assert offending(lambda name: name != "camo", lambda name, other: other in ENTRIES or other == "camo.api") == []


def test_modules_import_each_other_in_no_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_rooms_import_each_other_in_no_circle():
    rooms = {}
    for name, others in IMPORTS.items():
        rooms.setdefault(room(name), set()).update({room(other) for other in others} - {room(name)})
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
