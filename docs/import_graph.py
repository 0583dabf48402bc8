"""Draws which part of the package imports which: `python docs/import_graph.py`.

Every part stands above those it imports. An arrow that a longer path implies is left
out. Writes docs/images/import_graph.svg.
"""

import ast
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "frcnn_jax"

# (row, column) of each part; `tests/test_imports.py` has the order within a row.
PLACES = {
    "cli": (0, 1),
    "export": (1, 0),
    "training": (1, 1),
    "report": (2, 1),
    "evaluation": (3, 1),
    "detector": (4, 1),
    "run_dir": (4, 2),
    "visualization": (4, 3),
    "weights": (5, 1),
    "models": (6, 1),
    "distributed": (6, 2),
    "ops": (7, 0),
    "data": (7, 2),
    "config": (8, 1),
    "files": (9, 1),
    "errors": (10, 1),
}
WIDTH, HEIGHT = 124, 34  # of a box
COLUMN, ROW = 158, 66
STYLE = """
  text { font: 15px system-ui, sans-serif; fill: #1f2933; text-anchor: middle; }
  rect { fill: #eef3f8; stroke: #55708c; stroke-width: 1.4; }
  path { fill: none; stroke: #7c8fa3; stroke-width: 1.4; marker-end: url(#tip); }
  marker path { fill: #7c8fa3; stroke: none; marker-end: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    rect { fill: #22303d; stroke: #8aa4bd; }
    path { stroke: #8b9aab; }
    marker path { fill: #8b9aab; }
  }
"""


def part_of(path: Path) -> str:
    """Returns the part that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def read_edges() -> dict[str, set[str]]:
    """Reads which parts each part imports."""
    edges: dict[str, set[str]] = {part: set() for part in PLACES}
    for path in PACKAGE.rglob("*.py"):
        if part_of(path) not in PLACES:  # a command, or detections
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                own = [n.split(".")[1] for n in names if n.startswith("frcnn_jax.")]
                edges[part_of(path)] |= set(own) & PLACES.keys() - {part_of(path)}
    return edges


def reachable(edges: dict[str, set[str]], part: str) -> set[str]:
    """Returns what a part imports, directly or not."""
    return edges[part] | {
        end for other in edges[part] for end in reachable(edges, other)
    }


def draw(edges: dict[str, set[str]]) -> str:
    """Returns the picture as SVG."""
    centers = {
        part: (80 + column * COLUMN, 30 + row * ROW)
        for part, (row, column) in PLACES.items()
    }
    lines = []
    for part, others in edges.items():
        implied = {end for other in others for end in reachable(edges, other)}
        for other in sorted(others - implied):
            (x, y), (other_x, other_y) = centers[part], centers[other]
            start, end = y + HEIGHT / 2, other_y - HEIGHT / 2 - 3
            # The bend lies in the gap above the lower box, clear of other boxes.
            upper, lower = (
                max(start, end - 2 * (ROW - HEIGHT)),
                end - (ROW - HEIGHT) / 2,
            )
            lines.append(
                f'<path d="M{x},{start} L{x},{upper} C{x},{end + 8} '
                f'{other_x},{lower - 12} {other_x},{end}"/>'
            )
    for part, (x, y) in centers.items():
        left, top = x - WIDTH / 2, y - HEIGHT / 2
        lines.append(
            f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        )
        lines.append(f'<text x="{x}" y="{y + 5}">{part}</text>')
    num_rows = max(row for row, _ in PLACES.values())
    width, height = 160 + 3 * COLUMN, 60 + num_rows * ROW
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n<style>{STYLE}</style>\n'
        f"<defs>{tip}</defs>\n" + "\n".join(lines) + "\n</svg>\n"
    )


if __name__ == "__main__":
    (DOCS / "images" / "import_graph.svg").write_text(draw(read_edges()))
