"""Random values for random fields: a config that survives JSON, or one line.

The cases are the same in every run (`derandomize`).
"""

import functools
import math
import tempfile
import typing
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from frcnn_jax.config import Config
from frcnn_jax.config.loading import (
    config_from_dict,
    override_config,
    read_config,
    save_config,
)
from frcnn_jax.errors import UserError
from tests.helpers import fields

FIELDS = {field.path: field for field in fields.fields()}
NUM_SLOW = 1000

INTEGERS = st.sampled_from([0, 1, -1, 2, 16, 100, 2**31, 2**32, 2**63, 10**30])
FLOATS = st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e-30, 1e30, math.nan, math.inf, 5e-324])
NUMBERS = INTEGERS | st.integers() | FLOATS | st.floats()
TEXTS = st.sampled_from(["", "0", "None", "nan", "\0", "\ud800", "é", "a b", "x" * 300])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)


def fitting(kind) -> st.SearchStrategy:
    """Values of a field's type, in its range or not."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(fitting(arguments[0]), max_size=4)
    if origin is tuple:
        return st.tuples(*map(fitting, arguments)).map(list)
    if arguments:
        return st.one_of(*map(fitting, arguments))
    usual = {bool: st.booleans(), str: TEXTS, int: st.integers(-1, 2000)}
    usual[float] = st.floats(-1.0, 200.0)
    return usual.get(kind, st.none())


def changes(value_of) -> st.SearchStrategy:
    """A few fields, by path, with a value for each."""
    chosen = st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4)
    return chosen.flatmap(
        lambda paths: st.fixed_dictionaries({p: value_of(FIELDS[p]) for p in paths})
    )


def json_value(field: fields.Field) -> st.SearchStrategy:
    return fitting(field.type) | fitting(field.type) | ANYTHING


def words(field: fields.Field) -> st.SearchStrategy:
    """What follows a field's flag on the command line."""
    text = st.text(max_size=5).filter(lambda text: "\0" not in text)
    word = NUMBERS.map(str) | TEXTS.filter(lambda t: t != "\0") | text
    return fitting(field.type).map(as_words) | st.lists(word, max_size=4)


def as_words(value) -> list[str]:
    if isinstance(value, list):
        return [word for item in value for word in as_words(item)]
    return [str(value)]


def assert_config_or_one_line(make) -> None:
    """Checks what a config came to."""
    try:
        config = make()
    except UserError as refusal:
        config = str(refusal)
    if isinstance(config, str):
        assert len(config.splitlines()) == 1
        assert len(config) < 2000
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        save_config(config, path)
        assert read_config(path) == config


def check_json(values) -> None:
    tree = fields.nested(values)
    assert_config_or_one_line(lambda: config_from_dict(tree, where="here"))


def check_command_line(values) -> None:
    arguments = []
    for path, following in values.items():
        arguments += [FIELDS[path].flag, *following]
    hypothesis.assume(not {"-h", "--help"} & set(arguments))
    make = functools.partial(override_config, Config(), arguments, "train.py")
    assert_config_or_one_line(make)


fast = hypothesis.settings(derandomize=True, deadline=None, max_examples=60)
slow = hypothesis.settings(fast, max_examples=NUM_SLOW)


@fast
@hypothesis.given(changes(json_value))
def test_any_json_is_a_config_or_one_line(values):
    check_json(values)


@fast
@hypothesis.given(changes(words))
def test_any_command_line_is_a_config_or_one_line(values):
    check_command_line(values)


@pytest.mark.slow
@slow
@hypothesis.given(changes(json_value))
def test_a_thousand_json_files_are_configs_or_one_line(values):
    check_json(values)


@pytest.mark.slow
@slow
@hypothesis.given(changes(words))
def test_a_thousand_command_lines_are_configs_or_one_line(values):
    check_command_line(values)
