"""Who imports whom in this project, read from the files, and the map of it: `python -m tests.imports` draws it.

The map is docs/imports.svg; a test holds it against the imports as they are.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAP = ROOT / "docs" / "imports.svg"
FOLDERS = ("command", "models", "datasets", "backbone", "utils")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([ROOT / "main.py", *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))])
}
ROOMS = ("utils.report", "utils.runs", "utils.training", "utils.data", "utils.streams", "utils.files")
# Who may import whom. A room is a folder; "utils" are the files of its root. A method may also import one other method,
# which it extends, and a dataset one other dataset.
MAY_IMPORT = {
    "main": ("command", "models", "datasets", "backbone", "utils", *ROOMS),
    "command": ("command", "models", "datasets", "backbone", "utils", *ROOMS),
    "models": ("models.base", "backbone", "utils", "utils.files"),
    "datasets": (
        *("datasets.base", "datasets.drawing", "datasets.pictures", "utils", "utils.data", "utils.files"),
        "utils.runs.plots",  # of a dataset that draws what a method predicts
    ),
    "backbone": ("backbone", "utils", "utils.files"),
    "utils.report": ("utils.report", "utils.runs", "utils.training", "utils.files", "utils"),
    "utils.runs": ("utils.runs", "utils.training", "utils.streams", "utils.files", "utils"),
    "utils.training": ("utils.training", "utils.data", "utils.streams", "utils"),
    "utils.data": ("utils.data", "utils.files", "utils"),
    "utils.streams": ("utils.streams", "utils"),
    "utils.files": ("utils.files", "utils"),
    "utils": ("utils",),
}

# Sizes of the map in pixels
WIDTH, MARGIN, GAP, LINE, LETTER = 1180, 20, 46, 15, 6.8


def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def known(name: str) -> str | None:
    """The project file that an import of `name` reads; `utils.args.option` is utils/args.py."""
    while name not in FILES and "." in name:
        name = name.rpartition(".")[0]
    return name if name in FILES else None


def imports_of(module: str) -> set[str]:
    """Project modules that a file imports, at module level, inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {known(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where they lead"
            found |= {known(f"{node.module}.{alias.name}") for alias in node.names}
    return found - {None, module}


def room_of(module: str) -> str:
    """The row of the table that a file belongs to."""
    return next((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), module.partition(".")[0])


def names_of(module: str) -> set[str]:
    """What the table may call a file: its room, itself, or the folder inside of its room."""
    return {room_of(module), module, module.rpartition(".")[0]}


def arrows() -> dict[str, set[str]]:
    """Room -> the other rooms that its files import."""
    found: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for module in FILES:
        found[room_of(module)] |= {room_of(name) for name in imports_of(module)} - {room_of(module)}
    return found


def floors(found: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by the longest way down from them, the highest first."""

    def height(room: str) -> int:
        return 1 + max((height(below) for below in found[room]), default=-1)

    heights = {room: height(room) for room in found}
    return [[room for room in found if heights[room] == floor] for floor in range(max(heights.values()), -1, -1)]


def follows(found: dict[str, set[str]], room: str, below: str) -> bool:
    """Whether an arrow says nothing beyond a longer way."""
    waiting, seen = [*(found[room] - {below})], set()
    while waiting:
        if (other := waiting.pop()) == below:
            return True
        if other not in seen:
            seen.add(other)
            waiting += found[other]
    return False


def content(room: str) -> list[str]:
    """Names of a room's files, in lines of about forty letters."""
    names = [
        module.removeprefix(f"{room}.") for module in FILES if room_of(module) == room and module not in (room, "main")
    ]
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > 40:
            lines.append("")
        lines[-1] = f"{lines[-1]} {name}".strip()
    return lines if names else []


def drawing() -> str:
    """The map as SVG: a box for each room with its files, arrows to the rooms that it imports."""
    found = arrows()
    boxes: dict[str, tuple[float, float, float, float]] = {}  # left, top, width, height
    top = float(MARGIN)
    for floor in floors(found):
        sizes = {
            room: (
                LETTER * max(len(line) for line in (room, *content(room))) + 24,
                LINE * (1 + len(content(room))) + 16,
            )
            for room in floor
        }
        space = (WIDTH - sum(width for width, _ in sizes.values())) / (len(floor) + 1)
        left = space
        for room, (width, height) in sizes.items():
            boxes[room] = (left, top, width, height)
            left += width + space
        top += max(height for _, height in sizes.values()) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top - GAP + MARGIN:.0f}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>',
    ]
    lines = [(follows(found, room, below), room, below) for room in found for below in sorted(found[room])]
    for minor, room, below in sorted(lines, reverse=True):
        left, up, width, height = boxes[room]
        other_left, down, other_width, _ = boxes[below]
        x, y, to_x = left + width / 2, up + height, other_left + other_width / 2
        bend = (down - y) / 2
        colour = "#cccccc" if minor else "#0072B2"
        parts.append(
            f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {to_x:.0f} {down - bend:.0f} {to_x:.0f} {down:.0f}" '
            f'fill="none" stroke="{colour}" marker-end="url(#tip)"/>'
        )
    for room, (left, up, width, height) in boxes.items():
        parts.append(
            f'<rect x="{left:.0f}" y="{up:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5" fill="#f6f6f2" '
            'stroke="#555555"/>'
        )
        for k, line in enumerate((room.replace(".", "/"), *content(room))):
            weight = "" if k else ' font-weight="bold"'
            parts.append(f'<text x="{left + 12:.0f}" y="{up + 18 + k * LINE:.0f}"{weight}>{line}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    MAP.parent.mkdir(exist_ok=True)
    MAP.write_text(drawing(), encoding="utf-8")
    print(MAP)
