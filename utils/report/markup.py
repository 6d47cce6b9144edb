"""A table of text cells in a markup language: Markdown or LaTeX. The first row is the heading."""

from __future__ import annotations

import re

from utils.errors import printable

# What Markdown would not set as it stands: code, emphasis, HTML, entities, formulas, cells, links.
MARKDOWN = re.compile(r"[\\`*<&~$|]|](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")
# What has a meaning of its own in LaTeX, or another shape there. "[" and "*" would be read as arguments of a line end.
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "%&#$_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "–": "--",
    "\n": " ",
}
NUMBER = re.compile(r"(-?[\d,]+(?:\.\d+)?)(?: ± ([\d,]+(?:\.\d+)?))?(?= |$)")


def markdown_table(rows: list[list[str]]) -> str:
    """A GitHub table whose columns line up in plain text too; the first column is set left, the others right."""
    rows = [[markdown_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
    )


def markdown_text(text: str) -> str:
    """Text of one line that Markdown sets as it stands."""
    return MARKDOWN.sub(r"\\\g<0>", printable(text))


def latex_table(rows: list[list[str]]) -> str:
    """A tabular for the package booktabs, set as `markdown_table` sets it."""
    heading, *body = [" & ".join([latex_text(row[0]), *map(latex_cell, row[1:])]) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}"])


def latex_cell(text: str) -> str:
    """Text for LaTeX; a leading number, alone or as mean ± deviation, is set in math mode, which knows a minus."""
    number = NUMBER.match(text)
    if not number:
        return latex_text(text)
    parts = [part.replace(",", "{,}") for part in number.groups() if part]  # no gap after the comma of a thousand
    return "$" + r" \pm ".join(parts) + "$" + latex_text(text[number.end() :])


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(LATEX.get(c, c if c.isprintable() else " ") for c in text)
