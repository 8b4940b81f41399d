import pytest

from roadsense.datasets.config import GenerateConfig
from roadsense.datasets.generate import generate

SMALL = {"seed": 5, "train": 32, "val": 8, "eval": 30}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A generated dataset of 70 scenarios; tests that change one copy it first."""
    return generate(GenerateConfig(**SMALL, datasets_dir=str(tmp_path_factory.mktemp("datasets"))))
