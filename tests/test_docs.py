"""The guides agree with the code. ``python tests/test_docs.py`` writes docs/commands.md anew from the help texts."""

import argparse
import contextlib
import importlib
import io
import os
import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "docs" / "commands.md"
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COLUMNS = 110  # of the help texts
INTRODUCTION = """\
# Commands

The help text of every command. This file is generated: `python tests/test_docs.py` writes it, and a test compares it with the code.

`camo` is short for `python -m camo`. In a clone, `python infer.py` does the same as `camo infer`.
"""


class Caught(BaseException):
    """Carries a parser out of a program that is about to use it."""


def parser_of(module, prog):
    """The parser of a program's ``main()``, which is stopped before it parses anything."""

    def catch(parser, *_):
        raise Caught(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", catch), pytest.raises(Caught) as caught:
        importlib.import_module(module).main()
    (parser,) = caught.value.args
    parser.prog = prog
    return parser


def parser_of_verb(verb):
    """A parser with the verb's flags."""
    from camo.__main__ import VERBS

    parser = argparse.ArgumentParser(prog=f"camo {verb}")
    importlib.import_module(VERBS[verb][0]).add_arguments(parser)
    return parser


def help_of(*words):
    """What ``camo WORDS --help`` prints."""
    from camo.__main__ import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def render():
    """The text of docs/commands.md."""
    from camo.__main__ import VERBS

    with mock.patch.dict(os.environ, COLUMNS=str(COLUMNS), NO_COLOR="1"):
        texts = {"camo": help_of(), **{f"camo {verb}": help_of(verb) for verb in VERBS}, "train.py": parser_of("train", "train.py").format_help()}
    sections = (f"\n## {name}\n\n```text\n{text.strip()}\n```\n" for name, text in texts.items())
    return INTRODUCTION + "".join(sections)


def test_help_texts_in_the_docs_are_those_of_the_code():
    assert COMMANDS.read_text() == render(), "help texts have changed: python tests/test_docs.py"


# Command lines


def shell_lines(text):
    """Every command line in a guide: those of ``sh`` blocks, and code within a sentence."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield from re.split(r"\n| && ", block.replace("\\\n", " "))
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def commands_in(text):
    """The words of each command of this project in a guide, without what launches it."""
    for line in shell_lines(text):
        if not re.match(r" *(camo|python|torchrun|accelerate launch) ", line):
            continue
        words = shlex.split(line, comments=True)
        if words[0] != "camo":
            starts = [i for i, word in enumerate(words) if word in {"-m", "train.py", "infer.py"}]
            if not starts:
                continue
            words = words[starts[0] :]
            words = words[1:] if words[0] == "-m" else words
        yield tuple(words)


def fault(words):
    """What is wrong with a command line, or None."""
    from camo.__main__ import VERBS

    name, *arguments = words
    if name == "infer.py":
        name, arguments = "camo", ["infer", *arguments]
    if name == "camo":
        verb, *arguments = arguments or ["--help"]
        if verb.startswith("-"):
            return None
        if verb not in VERBS:
            return f"no verb {verb}"
        parser = parser_of_verb(verb)
    elif name == "train.py" or name.startswith(("benchmarks.", "camo.")):
        parser = parser_of(name.removesuffix(".py"), name)
    else:
        return None  # pytest, pip and the like
    if not arguments or arguments == ["--help"]:
        return None  # only mentioned
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        try:
            parser.parse_args(arguments)
        except SystemExit:
            return printed.getvalue().splitlines()[-1]
    return None


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_command_lines_parse(guide):
    faults = {" ".join(words): fault(words) for words in dict.fromkeys(commands_in(guide.read_text()))}
    assert not {line: problem for line, problem in faults.items() if problem}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Type `camo score a/ --jpg 90`.", "unrecognized arguments: --jpg 90"),
        ("```sh\naccelerate launch -m camo score a/ \\\n    --jpeg high  # loud\n```", "argument --jpeg: invalid"),
        ("1. So:\n\n   ```sh\n   cd a && python train.py --presets demo --out a\n   ```\n", "unrecognized arguments: --presets demo"),
        ("`python -m camo scores a/`", "no verb scores"),
        ("`python -m benchmarks.memory --gigapixels 1`", "unrecognized arguments: --gigapixels 1"),
        ("`camo score a/ --jpeg 90`, `camo score`, `python -m pytest --jpg`, `--jpg`, `pip install camo --jpg`", None),
    ],
)
def test_stale_command_lines_are_found(text, problem):
    faults = [fault(words) for words in commands_in(text)]
    assert faults
    assert (problem is None and not any(faults)) or problem in faults[0]


# Links and sizes


def anchors(path):
    """The anchors of a guide's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(guide):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", guide.read_text()):
        place, _, anchor = link.partition("#")
        target = guide.parent / place if place else guide
        if not re.match(r"https?:", link) and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert not broken


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 150


def test_every_room_has_a_line_in_the_design():
    rooms = {f"camo/{path.parent.name}/" for path in (ROOT / "camo").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(camo/\w+/)` \|", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE)) == rooms


# Examples


def examples(guide):
    """The Python blocks of a guide."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / guide).read_text(), re.DOTALL | re.MULTILINE)


def run(example, folder):
    """Run an example in a folder with a photo.jpg; the photo and the hidden.png that it writes, as (H, W, 3) integers."""
    with contextlib.chdir(folder):
        exec(compile(example, "example", "exec"), {"__name__": "example"})
        photo, hidden = (np.asarray(Image.open(name).convert("RGB")).astype(int) for name in ("photo.jpg", "hidden.png"))
    assert hidden.shape == photo.shape
    assert 0 < np.abs(hidden - photo).mean() < 8
    return hidden


def write_photo(folder):
    """A photo.jpg of an odd size."""
    photo = sorted((ROOT / "data" / "sample" / "test").glob("*.jpg"))[0]
    Image.open(photo).resize((131, 97)).save(folder / "photo.jpg", quality=95)


@pytest.mark.parametrize("guide", ["README.md", "docs/using.md"])
def test_examples_of_the_python_interface(guide, tmp_path):
    write_photo(tmp_path)
    (example,) = examples(guide)
    run(example, tmp_path)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    COMMANDS.write_text(render())
