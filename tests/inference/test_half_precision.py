"""Models that compute in half precision: on a CPU, which shows that nothing needs fp32. tests/gpu repeats it on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel, list_models, load

SMILES = ["CCO", "c1ccccc1C(=O)O", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]


@pytest.fixture(scope="module")
def exact() -> CMIMModel:
    return load(list_models()[0], "cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["mean", "informative"])
def test_vectors_are_close_to_those_of_fp32(exact: CMIMModel, precision: str, kind: str) -> None:
    half = load(list_models()[0], "cpu", precision)
    found, expected = half.embed(SMILES, kind), exact.embed(SMILES, kind)
    assert found.dtype == np.float32
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99 and np.abs(found - expected).max() > 0
    assert half.fingerprint(kind) != exact.fingerprint(kind)
    assert half.fingerprint(kind) == load(list_models()[0], "cpu", precision).fingerprint(kind)
    assert f"precision={precision}" in repr(half) and "precision" not in repr(exact)


@pytest.mark.filterwarnings("ignore:.*were truncated")
def test_latents_are_decoded_in_half_precision(exact: CMIMModel) -> None:
    half = load(list_models()[0], "cpu", "bf16")
    latents = exact.embed(SMILES, "mean")
    assert all(isinstance(text, str) for text in half.decode(latents, max_tokens=30))
    assert half.encode(SMILES).mean_BKD.dtype == exact.encode(SMILES).mean_BKD.dtype


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"precision is 'int8'. Choose from fp32, bf16, fp16"):
        load(list_models()[0], "cpu", "int8")
