"""Rules that every function of the package keeps."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "frcnn_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 40  # of code: without docstring, comments and empty lines

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def public_functions(path: Path) -> Iterator[Function]:
    """Functions and methods without an underscore; not those inside of functions.

    Nor are overloads: the implementation that follows them has the docstring.
    """
    tree = ast.parse(path.read_text())
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    for parent in [tree, *(c for c in classes if not c.name.startswith("_"))]:
        for node in parent.body:
            if "overload" in map(ast.unparse, getattr(node, "decorator_list", ())):
                continue
            is_public = isinstance(node, Function) and not node.name.startswith("_")
            if is_public or getattr(node, "name", "") in ("__init__", "__call__"):
                yield node


def parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [each for each in (arguments.vararg, arguments.kwarg) if each]
    return [each for each in named if each.arg not in ("self", "cls", "_")]


def code_lines(path: Path, function: Function) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)
    lines = {
        line
        for token in tokens
        if token.type not in (*ignored, tokenize.DEDENT)
        for line in range(token.start[0], token.end[0] + 1)
    }
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines & set(range(function.lineno, function.end_lineno + 1)))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_are_short(path):
    lengths = {each.name: code_lines(path, each) for each in functions(path)}
    assert {n: length for n, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_functions_are_typed(path):
    untyped = [
        f"{function.name}: {parameter.arg}"
        for function in public_functions(path)
        for parameter in parameters(function)
        if parameter.annotation is None
    ]
    untyped += [f.name for f in public_functions(path) if f.returns is None]
    assert untyped == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_docstrings_describe_two_or_more_parameters(path):
    undocumented = [
        f"{function.name}: {parameter.arg}"
        for function in public_functions(path)
        if len(parameters(function)) > 1
        for parameter in parameters(function)
        if f"{parameter.arg}: " not in (ast.get_docstring(function) or "")
    ]
    assert undocumented == []
