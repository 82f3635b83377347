"""The examples in docstrings are run."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import tdxfs

MODULES = [
    "tdxfs",
    *(module.name for module in walk_packages(tdxfs.__path__, "tdxfs.") if "__main__" not in module.name),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    """What an example prints is what stands below it."""
    failed, _ = doctest.testmod(import_module(name))

    assert not failed


def test_api_is_complete():
    """Every name that the package promises can be imported from it, and no other."""
    assert all(getattr(tdxfs, name) is not None for name in tdxfs.__all__)
    assert set(tdxfs.__all__) <= set(dir(tdxfs))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = tdxfs.nonsense
