"""The service with the default model: MolMIM's defaults and all documented examples give molecules."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from starlette.testclient import TestClient

from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.shipped import list_models
from nemo_cmim.molecules import is_valid
from nemo_cmim.optimization import SearchResult
from nemo_cmim.serve.compute import _note
from nemo_cmim.serve.radius import FACTOR, radius_unit
from tests.serve.running import client_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "service.md"
DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O", "CC(Cc1ccc(cc1)C(C(=O)O)C)C", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(=O)Nc1ccc(O)cc1",
    "Cc1ccc(cc1)-c1cc(nn1-c1ccc(cc1)S(N)(=O)=O)C(F)(F)F",
]  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> CMIMModel:
    return load(list_models()[0], "cpu")


@pytest.fixture(scope="module")
def client(shipped: CMIMModel) -> Iterator[TestClient]:
    with client_of(shipped) as client:
        yield client


def answer(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_default_radius_of_sampling_gives_valid_molecules(client: TestClient, shipped: CMIMModel) -> None:
    found = answer(client, "/sampling", {"sequences": DRUGS, "num_molecules": 4, "seed": 1})["generated"]
    assert found == shipped.sample(4, smiles=DRUGS, scaled_radius=0.7 * FACTOR, unit="spread", seed=1)
    assert sum(is_valid(smiles) for row in found for smiles in row) >= 10  # half of them; 1 in 40 with the absolute radius


def test_the_defaults_of_generate_give_molecules(client: TestClient, shipped: CMIMModel) -> None:
    found = answer(client, "/generate", {"smi": DRUGS[4], "seed": 1})
    (expected,) = shipped.optimize(
        [DRUGS[4]], evaluations=300, population=30, scaled_radius=FACTOR, unit="spread", min_similarity=0.7, seed=1
    )
    assert expected is not None and expected.molecules
    assert [each["smiles"] for each in found["generated"]] == [one.smiles for one in expected.molecules]
    assert ("note" in found) == (len(expected.molecules) < 10)


@pytest.mark.parametrize(("limit", "is_alone"), [(1.0, True), (0.3, False)])
def test_a_short_answer_of_generate_has_a_reason(client: TestClient, shipped: CMIMModel, limit: float, is_alone: bool) -> None:
    found = answer(
        client, "/generate", {"smi": DRUGS[3], "num_molecules": 100, "particles": 10, "min_similarity": limit, "seed": 1}
    )
    (expected,) = shipped.optimize([DRUGS[3]], evaluations=100, population=10, min_similarity=limit, n=100, seed=1)
    assert expected is not None and bool(expected.molecules) != is_alone and len(found["generated"]) == len(expected.molecules)
    assert found["note"].startswith(expected.explain()) and "or raise particles" in found["note"]
    assert not is_alone or "the seed itself" in found["note"]


@pytest.mark.parametrize(
    ("reason", "is_search", "advice"),
    [
        ("invalid", True, "Lower scaled_radius"),
        ("the seed itself", True, "Raise scaled_radius"),
        ("too dissimilar", True, "Lower min_similarity"),
        ("too dissimilar", False, "Change scaled_radius"),
    ],
)
def test_the_advice_of_a_short_answer_is_for_its_main_reason(reason: str, is_search: bool, advice: str) -> None:
    result = SearchResult("CCO", 0.4, "QED", evaluations=20, dropped={"no score": 1} | {reason: 19})
    assert f"19 {reason}" in _note(result, is_search)
    repeats = SearchResult("CCO", 0.4, "QED", evaluations=20, dropped={reason: 0})
    assert _note(repeats, is_search).endswith("(none was dropped). Raise particles or iterations, to get more molecules.")
    assert _note(result, is_search).endswith(f"{advice}, or raise particles or iterations, to get more molecules.")


@pytest.mark.filterwarnings("ignore:.*met the conditions")
def test_the_limit_of_evaluations_holds_for_replaced_molecules(shipped: CMIMModel) -> None:
    with client_of(shipped, max_evaluations=30) as client:
        body = {"sequences": [DRUGS[0]], "num_molecules": 10, "must_contain": "[Au]", "seed": 1}
        assert answer(client, "/sampling", body) == {"generated": [[]], "warnings": ANY}
        assert client.post("/sampling", json=body | {"num_molecules": 31}).status_code == 422
        assert len(answer(client, "/sampling", body | {"must_contain": None})["generated"][0]) == 10


def test_a_unit_of_the_request_overrides_the_setting(client: TestClient, shipped: CMIMModel) -> None:
    for unit in ("absolute", "spread", "posterior"):
        found = answer(client, "/sampling", {"sequences": DRUGS[:1], "scaled_radius": 0.1, "unit": unit, "seed": 1})["generated"]
        assert found == shipped.sample(1, smiles=DRUGS[:1], scaled_radius=0.1, unit=unit, seed=1)


def test_the_setting_of_the_unit() -> None:
    assert radius_unit("auto", None, True) == ("spread", FACTOR)
    assert radius_unit("auto", None, False) == ("absolute", 1.0)
    assert radius_unit("absolute", None, True) == ("absolute", 1.0)
    assert radius_unit("spread", None, True) == ("spread", 1.0)
    assert radius_unit("auto", "posterior", True) == ("posterior", 1.0)


def test_metadata_have_the_unit(client: TestClient) -> None:
    assert client.get("/v1/metadata").json()["radius"] == {"unit": "spread", "factor": FACTOR}


def is_empty(found: Any) -> bool:
    return not found or (isinstance(found, list) and all(is_empty(each) for each in found))


def test_examples_of_the_description_give_molecules(client: TestClient) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        if "post" in methods:
            found = answer(client, path, methods["post"]["requestBody"]["content"]["application/json"]["example"])
            assert not any(is_empty(field) for field in found.values()), (path, found)


def test_examples_of_the_page_give_molecules(client: TestClient) -> None:
    commands = [shlex.split(line) for line in re.findall(r"^    (curl .*)$", PAGE.read_text(encoding="utf-8"), re.M)]
    assert {command[2].partition("8000")[2] for command in commands} >= {"/embedding", "/sampling", "/generate"}
    for command in commands:
        found = answer(client, command[2].partition("8000")[2], json.loads(command[command.index("-d") + 1]))
        assert not any(is_empty(field) for field in found.values()), (command, found)


def test_latents_far_from_molecules_have_the_warning_of_python(client: TestClient, shipped: CMIMModel) -> None:
    latents = shipped.encode(DRUGS[:2]).mean_BKD.numpy()
    assert set(answer(client, "/decode", {"hiddens": latents.astype(float).tolist()})) == {"generated"}
    latents[1] += 9.0
    found = answer(client, "/decode", {"hiddens": latents.astype(float).tolist()})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert found["generated"] == shipped.decode(latents)
    (warning,) = found["warnings"]
    assert warning in [str(each.message) for each in caught] and "1 of 2 latents are far" in warning and "row 1" in warning
    many = {"hiddens": np.repeat(latents, 20, 0).astype(float).tolist()}  # computed in steps
    assert "20 of 40 latents" in answer(client, "/decode", many)["warnings"][0]
