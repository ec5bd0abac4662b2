"""The conditions of every test: no network, no cache of the user's, no GPU unless a test asks for one, repeatable draws."""

import os

# Before anything imports torch or transformers, in each of xdist's processes.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds", type=int, default=1, help="from how many seeds each test of learning starts (-m learning)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests of learning a `seed`, for the first weights and all draws."""
    if metafunc.definition.get_closest_marker("learning"):
        metafunc.parametrize("seed", range(metafunc.config.getoption("seeds")))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["EVOTEXT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
