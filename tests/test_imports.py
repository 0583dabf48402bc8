"""The import graph points down, and importing starts nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "frcnn_jax"

# What each part may import of the others; errors and config are at the bottom.
ALLOWED = {
    "ops": set(),
    "models": {"ops", "config", "errors"},
    "weights": {"models", "config", "errors", "preprocessing"},
    "data": {"config", "errors"},
    "evaluation": {
        "ops",
        "models",
        "data",
        "config",
        "errors",
        "parallel",
        "visualize",
        "writing",
    },
    "training": {
        "models",
        "data",
        "evaluation",
        "config",
        "config_files",
        "errors",
        "parallel",
        "plotting",
        "preprocessing",
        "weights",
        "writing",
    },
}
MODULES = [path for part in ALLOWED for path in sorted((PACKAGE / part).rglob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    part = path.relative_to(PACKAGE).parts[0]
    own = {m.split(".")[1] for m in imported_modules(path) if m.startswith("frcnn_jax")}
    assert own <= ALLOWED[part] | {part}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_parts_import_only_their_libraries(path):
    part = path.relative_to(PACKAGE).parts[0]
    libraries = {module.split(".")[0] for module in imported_modules(path)}
    if part == "ops":
        assert not libraries & {"flax", "optax", "grain", "orbax", "PIL"}
    if part == "data":
        assert not libraries & {"jax", "flax", "optax", "orbax"}


def test_importing_everything_starts_no_backend():
    code = (
        "import importlib, pkgutil, frcnn_jax\n"
        "for module in pkgutil.walk_packages(frcnn_jax.__path__, 'frcnn_jax.'):\n"
        "    importlib.import_module(module.name)\n"
    )
    # JAX would fail on a platform that does not exist, if it were started.
    environment = os.environ | {"JAX_PLATFORMS": "nonsense"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
