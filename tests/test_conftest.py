"""Where the tests look for real data."""

from pathlib import Path

import pytest

from tests.conftest import find_data


@pytest.mark.parametrize("environment", [{}, {"FRCNN_DATA": ""}])
def test_data_lie_beside_the_project_unless_the_variable_has_a_value(environment):
    root = Path(__file__).parents[1]
    assert find_data(environment) == (root.parent / "shared" / "data").resolve()


def test_the_variable_names_the_folder_of_the_data(tmp_path):
    assert find_data({"FRCNN_DATA": str(tmp_path)}) == tmp_path.resolve()
