"""Answers of the endpoints: those of the Python functions, row by row, in the forms of MolMIM's service."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from nemo_cmim.inference import CMIMModel
from tests.serve.running import client_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # random weights write SMILES that do not end

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CCO"]


def answer(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def mistakes(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text
    return response.json()["detail"]


def test_embedding_without_kind_is_the_posterior_mean(client: TestClient, model: CMIMModel) -> None:
    found = answer(client, "/embedding", sequences=SMILES)
    assert set(found) == {"embeddings"}
    np.testing.assert_allclose(found["embeddings"], model.embed(SMILES, "mean"), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["embeddings"], np.squeeze(answer(client, "/hidden", sequences=SMILES)["hiddens"]))


@pytest.mark.parametrize("options", [{"kind": "mean"}, {"kind": "informative"}, {"kind": "informative", "layers": [1, 2]}])
def test_embedding_is_that_of_the_model(client: TestClient, model: CMIMModel, options: dict[str, Any]) -> None:
    found = answer(client, "/embedding", sequences=SMILES, **options)["embeddings"]
    np.testing.assert_allclose(found, model.embed(SMILES, **options), rtol=1e-5, atol=1e-6)


def test_embedding_without_kind_averages_several_latents(model_of_three_latents: CMIMModel) -> None:
    with client_of(model_of_three_latents) as client:
        hiddens = np.array(answer(client, "/hidden", sequences=SMILES)["hiddens"])
        assert hiddens.shape == (4, 3, 32)
        np.testing.assert_allclose(
            answer(client, "/embedding", sequences=SMILES)["embeddings"], hiddens.mean(1), rtol=1e-5, atol=1e-6
        )
        explicit = answer(client, "/embedding", sequences=SMILES, kind="mean")["embeddings"]
        np.testing.assert_allclose(explicit, model_of_three_latents.embed(SMILES, "mean"), rtol=1e-5, atol=1e-6)


def test_a_list_longer_than_a_step_is_embedded_in_steps(client: TestClient, model: CMIMModel) -> None:
    many = [f"{'C' * (i % 29 + 1)}{'O' * (i % 3)}" for i in range(600)]
    np.testing.assert_allclose(
        answer(client, "/embedding", sequences=many)["embeddings"], model.embed(many, "mean"), rtol=1e-4, atol=1e-5
    )
    bad = mistakes(client, "/embedding", sequences=[*many, "C1CC"])
    assert [each["index"] for each in bad] == [600]


def test_an_invalid_molecule_is_named_with_its_index_and_reason(client: TestClient) -> None:
    for path in ("/embedding", "/hidden", "/sampling"):
        (bad,) = mistakes(client, path, sequences=["CCO", "C1CC"])
        assert bad["loc"] == ["body", "sequences", 1] and bad["index"] == 1 and bad["type"] == "invalid_smiles"
        assert "could not be parsed" in bad["reason"] and "ring" in bad["msg"]
    (bad,) = mistakes(client, "/generate", smi="C1CC")
    assert bad["loc"] == ["body", "smi"] and "index" not in bad and "ring" in bad["msg"]


def test_only_the_first_invalid_molecules_are_listed(client: TestClient) -> None:
    found = mistakes(client, "/embedding", sequences=["C1CC"] * 40)
    assert len(found) == 11 and "30 more" in found[-1]["msg"]


def test_on_invalid_nan_keeps_a_null_row(client: TestClient, model: CMIMModel) -> None:
    found = answer(client, "/embedding", sequences=["CCO", "C1CC", "C"], on_invalid="nan")
    assert found["embeddings"][1] is None and [each["index"] for each in found["invalid"]] == [1]
    np.testing.assert_allclose([found["embeddings"][i] for i in (0, 2)], model.embed(["CCO", "C"], "mean"), rtol=1e-5, atol=1e-6)
    assert answer(client, "/embedding", sequences=["CCO"], on_invalid="nan")["invalid"] == []


def test_hidden_and_decode_reconstruct(client: TestClient, model: CMIMModel) -> None:
    found = answer(client, "/hidden", sequences=SMILES)
    assert set(found) == {"hiddens", "mask"} and found["mask"] == [[True]] * 4
    np.testing.assert_allclose(found["hiddens"], model.encode(SMILES).mean_BKD, rtol=1e-5, atol=1e-6)
    assert answer(client, "/decode", **found) == {"generated": model.decode(model.encode(SMILES).mean_BKD)}
    many = {"hiddens": found["hiddens"] * 20, "mask": found["mask"] * 20}
    assert answer(client, "/decode", **many)["generated"] == model.decode(np.array(many["hiddens"]))


@pytest.mark.parametrize(
    ("change", "place", "text"),
    [
        ({"hiddens": [[[0.0] * 31]]}, ["hiddens", 0], "1 x 32 numbers"),
        ({"hiddens": [[0.0] * 32]}, ["hiddens", 0, 0], "valid array"),
        ({"hiddens": [[[0.0] * 32] * 2]}, ["hiddens", 0], "1 x 32 numbers"),
        ({"mask": [[False]]}, ["mask"], "must be true"),
        ({"mask": [[True], [True]]}, ["mask"], "must be true"),
        ({"hiddens": [[[1e39] * 32]]}, [], "finite"),
        ({"hiddens": [[[1e300] * 32]]}, [], "finite"),
        ({"hiddens": [[["x"] * 32]]}, ["hiddens", 0, 0, 0], "number"),
        ({"hiddens": []}, ["hiddens"], "at least 1"),
    ],
)
def test_decode_checks_its_latents(client: TestClient, change: dict[str, Any], place: list[Any], text: str) -> None:
    (bad,) = mistakes(client, "/decode", **{"hiddens": [[[0.1] * 32]], "mask": [[True]], **change})
    assert bad["loc"] == ["body", *place] and text in bad["msg"]


def test_decode_recognises_informative_embeddings(client: TestClient, model: CMIMModel) -> None:
    (bad,) = mistakes(client, "/decode", hiddens=model.embed(SMILES)[:, None].astype(float).tolist())
    assert "informative" in bad["msg"]


def test_sampling_is_that_of_the_model(client: TestClient, model: CMIMModel) -> None:
    found = answer(client, "/sampling", sequences=SMILES, num_molecules=3, seed=7)
    assert found == {"generated": model.sample(3, smiles=SMILES, scaled_radius=0.7, unit="absolute", seed=7)}
    beam = {"num_molecules": 10, "beam_size": 2, "scaled_radius": 1.5, "unit": "posterior", "seed": 1}
    expected = model.sample(10, smiles=SMILES, beam_size=2, scaled_radius=1.5, unit="posterior", seed=1)
    assert answer(client, "/sampling", sequences=SMILES, **beam)["generated"] == expected  # in several steps
    assert np.shape(answer(client, "/sampling", sequences=SMILES)["generated"]) == (4, 1)


def test_our_own_fields_of_sampling_are_those_of_the_model(client: TestClient, model: CMIMModel) -> None:
    options: dict[str, Any] = {"scaled_radius": 1, "unit": "absolute", "seed": 2}
    found = answer(client, "/sampling", sequences=SMILES[:2], num_molecules=20, temperature=2.0, unique=True, **options)
    assert found["generated"] == model.sample(20, smiles=SMILES[:2], temperature=2.0, unique=True, **options)
    assert len(answer(client, "/sampling", sequences=["C"], num_molecules=300)["generated"][0]) == 300
    for pattern in ("C", ["C", "N"]):
        found = answer(client, "/sampling", sequences=SMILES[:1], num_molecules=2, must_contain=pattern, **options)
        assert found["generated"] == model.sample(2, smiles=SMILES[:1], must_contain=pattern, **options)


def test_fewer_samples_than_asked_for_have_a_reason(client: TestClient) -> None:
    found = answer(client, "/sampling", sequences=["C", "CC"], num_molecules=2, must_contain="[Xe]")
    assert found["generated"] == [[], []]
    assert "Fewer than 2 molecules met the conditions in 2 of 2 rows" in found["warnings"][0]
    assert set(answer(client, "/sampling", sequences=["C"])) == {"generated"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"must_contain": "C1CC"}, "must_contain must be SMARTS"),
        ({"must_contain": ["C", "x" * 300]}, "200 characters"),
        ({"must_contain": ["C"] * 11}, "10 items"),
        ({"temperature": 0}, "greater than 0"),
        ({"temperature": 1.0, "beam_size": 2}, "temperature"),
        ({"num_molecules": 1001}, "less than or equal to 1000"),
        ({"num_molecules": 101, "beam_size": 10}, "num_molecules * beam_size must be at most 1000, found 101 * 10"),
    ],
)
def test_fields_of_sampling_are_checked(client: TestClient, change: dict[str, Any], text: str) -> None:
    assert text in json.dumps(mistakes(client, "/sampling", sequences=["CCO"], **change))


def test_too_many_evaluations_are_an_error(model: CMIMModel) -> None:
    with client_of(model, max_evaluations=50) as client:
        (bad,) = mistakes(client, "/generate", smi="CCO", particles=17, iterations=3)
        assert bad["loc"] == ["body", "iterations"] and "particles * iterations must be at most 50, found 51" in bad["msg"]
        (bad,) = mistakes(client, "/sampling", sequences=["CCO"] * 6, num_molecules=9)
        assert "must be at most 50, found 54" in bad["msg"]
        assert client.get("/v1/metadata").json()["limits"]["evaluations"] == 50


def test_generate_gives_the_forms_of_the_hosted_and_of_the_local_service(client: TestClient, model: CMIMModel) -> None:
    body = {"smi": SMILES[2], "num_molecules": 3, "particles": 6, "iterations": 3, "min_similarity": 0.0, "seed": 3}
    (expected,) = model.optimize(
        [SMILES[2]], "QED", evaluations=18, population=6, scaled_radius=1, unit="absolute", min_similarity=0.0, n=3, seed=3
    )
    found = answer(client, "/generate", **body)
    assert set(found) == {"molecules", "score_type", "generated"} and found["score_type"] == "QED"
    pairs = [(one.smiles, one.score) for one in expected.molecules]
    assert [(each["smiles"], each["score"]) for each in found["generated"]] == pairs
    assert [(each["sample"], each["score"]) for each in json.loads(found["molecules"])] == pairs


def test_generate_without_a_search_ignores_the_similarity(client: TestClient, model: CMIMModel) -> None:
    body = {"smi": SMILES[2], "algorithm": "none", "particles": 20, "iterations": 2, "property_name": "plogP", "minimize": True}
    (expected,) = model.optimize(
        [SMILES[2]],
        "plogP",
        algorithm="none",
        maximize=False,
        evaluations=40,
        population=20,
        scaled_radius=1,
        unit="absolute",
        n=10,
        seed=5,
    )
    assert expected.molecules
    assert [each["smiles"] for each in answer(client, "/generate", **body, seed=5)["generated"]] == [
        one.smiles for one in expected.molecules
    ]
    assert answer(client, "/generate", **{**body, "scaled_radius": 0})["score_type"] == "plogP"


def test_a_unit_that_needs_a_density_is_an_error_without_one(client: TestClient) -> None:
    (bad,) = mistakes(client, "/sampling", sequences=["CCO"], unit="spread")
    assert "fit-prior" in bad["msg"]


def test_health_and_metadata(client: TestClient) -> None:
    assert client.get("/v1/health/live").json() == {"status": "live"}
    assert client.get("/v1/health/ready").json() == {"status": "ready"}
    found = client.get("/v1/metadata").json()
    assert found["modelInfo"][0]["shortName"] == "random" and found["model"]["latents"] == 1 and found["limits"]["rows"] == 1000
    assert "/" not in json.dumps(found["model"])


def test_health_answers_head(client: TestClient) -> None:
    for path in ("/v1/health/live", "/v1/health/ready"):
        answered = client.head(path)
        assert answered.status_code == 200 and "head" not in client.get("/openapi.json").json()["paths"][path]


def test_metrics_count_answers_and_batches(model: CMIMModel) -> None:
    with client_of(model) as client:
        answer(client, "/embedding", sequences=SMILES)
        mistakes(client, "/embedding", sequences=["C1CC"])
        client.get("/CCO/c1ccccc1")
        text = client.get("/v1/metrics").text
    assert 'nemo_cmim_requests_total{path="/embedding",status="200"} 1.0' in text
    assert 'nemo_cmim_requests_total{path="/embedding",status="422"} 1.0' in text
    assert 'nemo_cmim_requests_total{path="unknown",status="404"} 1.0' in text and "c1ccccc1" not in text
    assert "nemo_cmim_batch_molecules_sum 5.0" in text


def test_examples_of_the_description_run(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    examples = {
        path: methods["post"]["requestBody"]["content"]["application/json"]["example"]
        for path, methods in document["paths"].items()
        if "post" in methods
    }
    assert set(examples) == {"/embedding", "/hidden", "/decode", "/sampling", "/generate"}
    for path, example in examples.items():
        answer(client, path, **example)
    sequences = document["paths"]["/embedding"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"][
        "sequences"
    ]
    assert sequences["maxItems"] == 1000 and sequences["items"]["maxLength"] == 2000


def test_the_page_needs_no_other_site(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200 and "http" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_head_is_answered_like_get_without_a_body(client: TestClient) -> None:
    for path in ("/docs", "/openapi.json", "/v1/health/ready", "/v1/metadata", "/nowhere"):
        head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code and head.headers["content-type"] == get.headers["content-type"]
    assert client.head("/embedding").status_code == 405


def test_defaults_are_those_of_molmim(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    def fields(path: str) -> dict[str, Any]:
        properties = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        return {name: (each.get("default"), each.get("minimum"), each.get("maximum")) for name, each in properties.items()}

    sampling, generate = fields("/sampling"), fields("/generate")
    assert (
        sampling["beam_size"] == (1, 1, 10)
        and sampling["num_molecules"] == (1, 1, 1000)
        and sampling["scaled_radius"] == (0.7, 0, 2)
    )
    assert generate["num_molecules"] == (10, 1, 100) and generate["min_similarity"] == (0.7, 0, 1)
    assert (
        generate["particles"] == (30, 2, 1000)
        and generate["iterations"] == (10, 1, 1000)
        and generate["scaled_radius"] == (1.0, 0, 2)
    )
    assert generate["algorithm"][0] == "CMA-ES" and generate["property_name"][0] == "QED" and generate["minimize"][0] is False
