"""Names and figures as each output format needs them: a file's name may hold anything but a slash and a null byte.

HTML and SVG are escaped by Jinja2 and MarkupSafe, see ``camo.measure.report`` and ``camo.measure.charts``.
"""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell begins with that a spreadsheet runs as a formula
LATEX = str.maketrans(
    {character: rf"\{character}" for character in "#$%&_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}
    | {"[": "{[}", "*": "{*}"}  # at the start of a row they would be an argument of the command before it
)


def percent(rate: float | None, digits: int = 1) -> str:
    """A rate in 0..1 as a percentage with so many decimals; a dash where there is none, because no clean photo scored high."""
    return "-" if rate is None else f"{rate:.{digits}%}"


def printable(name: object) -> str:
    r"""A name in one line of valid Unicode: control characters, line breaks and bytes that are no UTF-8 as Python's escapes, such as ``\n``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def csv_path(path: object) -> str:
    """A path as a CSV cell. One that a spreadsheet would take for a formula, such as ``=1+1.jpg``, begins with ``./``: it is still the same path."""
    text = str(path)
    return f"./{text}" if text.startswith(FORMULA) else text


def latex(text: str) -> str:
    """A text as LaTeX source that typesets it."""
    return printable(text).translate(LATEX)
