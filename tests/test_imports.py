"""The import graph points down, and importing starts nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "frcnn_jax"

# From the top down: a part may import those after it, but none before it.
LAYERS = (
    "cli",
    "predict",
    "benchmark",
    "init_config",
    "training",
    "checking",
    "report",
    "evaluation",
    "export",
    "detector",
    "detections",
    "visualization",
    "weights",
    "run_dir",
    "distributed",
    "models",
    "data",
    "config",
    "ops",
    "files",
    "errors",
)
# Parts that must stay usable without the libraries of the others.
LIBRARIES = {
    "ops": {"jax", "jaxtyping", "numpy"},
    "models": {"flax", "jax", "jaxtyping", "numpy"},
    "data": {
        "PIL",
        "absl",
        "defusedxml",
        "grain",
        "numpy",
        "tensorflow_datasets",
        "yaml",
    },
    "config": {"dacite", "tyro"},
    "files": set(),
    "errors": set(),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def own_parts(path: Path) -> set[str]:
    modules = [name.split(".") for name in imported_modules(path)]
    own = {name[1] for name in modules if name[0] == "frcnn_jax"}
    return own - {"__version__"}  # of the package itself, which imports nothing


def test_every_module_has_a_layer():
    assert {part_of(path) for path in MODULES} == {*LAYERS, "__init__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if path == PACKAGE / "__init__.py":  # lazy: the next test but two
        return
    layer = LAYERS.index(part_of(path))
    assert own_parts(path) <= set(LAYERS[layer:])


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_parts_import_only_their_libraries(path):
    if part_of(path) not in LIBRARIES:
        return
    libraries = {module.split(".")[0] for module in imported_modules(path)}
    outside = libraries - set(sys.stdlib_module_names) - {"frcnn_jax"}
    assert outside <= LIBRARIES[part_of(path)]


def test_modules_of_a_part_do_not_import_one_another_in_a_circle():
    edges = {
        "frcnn_jax." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): {
            name for name in imported_modules(path) if name.startswith("frcnn_jax")
        }
        for path in MODULES
        if path.name != "__init__.py"
    }
    # `from a.b import c` names the module a.b, or the module a.b.c.
    graph = {
        module: {other for other in edges for name in names if is_in(name, other)}
        for module, names in edges.items()
    }
    while leaves := [module for module, needs in graph.items() if not needs]:
        for leaf in leaves:
            del graph[leaf]
        graph = {module: needs - set(leaves) for module, needs in graph.items()}
    assert graph == {}


def is_in(name: str, module: str) -> bool:
    return name == module or name.rpartition(".")[0] == module


def run(code: str, **environment: str) -> None:
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=os.environ | environment, check=True)


def test_importing_everything_starts_no_backend():
    # JAX would fail on a platform that does not exist, if it were started.
    run(
        "import importlib, pkgutil, frcnn_jax\n"
        "for module in pkgutil.walk_packages(frcnn_jax.__path__, 'frcnn_jax.'):\n"
        "    importlib.import_module(module.name)\n",
        JAX_PLATFORMS="nonsense",
    )


def test_importing_the_package_imports_no_library():
    run(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import frcnn_jax\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= {'frcnn_jax', *sys.stdlib_module_names}, new\n"
    )


def test_ops_need_jax_numpy_and_jaxtyping_only():
    run(
        "import sys\n"
        "import jax, jax.numpy, jaxtyping\n"
        "before = set(sys.modules)\n"
        "import frcnn_jax\n"
        "assert callable(frcnn_jax.ops.nms)\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "allowed = {'frcnn_jax', 'jax', 'jaxlib', 'jaxtyping', 'numpy'}\n"
        "assert new <= {*allowed, *sys.stdlib_module_names}, new\n"
    )


def test_the_report_is_made_without_jax():
    run(
        "import sys\n"
        "import frcnn_jax.report.page\n"
        "assert not {'jax', 'flax', 'matplotlib'} & set(sys.modules)\n"
    )


def test_the_detector_is_found_lazily():
    run(
        "import frcnn_jax\n"
        "from frcnn_jax.detector import Detector\n"
        "assert frcnn_jax.Detector is Detector\n"
        "assert {'Detector', 'ops'} <= set(dir(frcnn_jax))\n"
        "assert not hasattr(frcnn_jax, 'nonsense')\n"
    )
