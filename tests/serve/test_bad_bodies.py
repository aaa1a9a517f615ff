"""Wrong bodies: a small answer that says why, whatever is sent, and the service goes on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.serve.parsing import Mistakes, check_amount
from nemo_cmim.serve.settings import ServeSettings
from tests.serve.running import client_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # random weights write SMILES that do not end
PATHS = ["/embedding", "/hidden", "/decode", "/sampling", "/generate"]
JSON = {"Content-Type": "application/json"}
MILLION = 1_000_000
BODIES = {
    "numbers for strings": b'{"sequences": [' + b"1," * (4 * MILLION) + b'1], "smi": [' + b"1]}",
    "empty lists": b'{"hiddens": [' + b"[]," * (2 * MILLION) + b'[]], "sequences": 1, "smi": 1}',
    "empty lists in lists": b'{"hiddens": [[' + b"[]," * (2 * MILLION) + b"[]]]}",
    "empty objects": b'{"sequences": [' + b"{}," * (2 * MILLION) + b"{}]}",
    "empty strings": b'{"sequences": [' + b'"",' * (2 * MILLION) + b'""]}',
    "escaped quotes": b'{"sequences": ["' + b'\\"' * (4 * MILLION) + b'"]}',
    "escaped backslashes": b'{"sequences": ["' + b"\\\\" * (4 * MILLION) + b'"]}',
    "deep lists": b"[" * 100_000,
    "deep lists in a field": b'{"sequences": ' + b"[" * 200 + b"]" * 200 + b"}",
    "deep objects": b'{"a":' * 100_000,
    "many fields": b"{" + b",".join(b'"%d":1' % i for i in range(300_000)) + b"}",
    "a long number": b'{"sequences": ["C"], "beam_size": '
    + b"9" * MILLION
    + b', "smi": "C", "particles": '
    + b"9" * MILLION
    + b"}",
    "a long wrong field": b'{"sequences": ["C"], "kind": "' + b"x" * MILLION + b'", "unit": "' + b"x" * MILLION + b'"}',
    "a long SMILES": b'{"sequences": ["' + b"C" * MILLION + b'"], "smi": "' + b"C" * MILLION + b'"}',
    "spaces": b" " * (8 * MILLION),
    "zeros": b"\0" * (8 * MILLION),
    "no JSON": b"sequences=CCO",
    "nothing": b"",
    "not UTF-8": b'{"sequences": ["\xff\xfe"]}',
    "half a surrogate": b'{"sequences": ["\\ud800"]}',
    "null": b"null",
    "a list": b'["CCO"]',
    "cut off": b'{"sequences": ["CCO"',
    "null fields": b'{"sequences": null, "hiddens": null, "smi": null}',
    "empty": b'{"sequences": [], "hiddens": [], "smi": ""}',
    "nested strings": b'{"sequences": [["CCO"]], "smi": ["CCO"], "hiddens": ["CCO"]}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_wrong_body_has_a_small_answer(client: TestClient, body: bytes) -> None:
    for path in PATHS:
        response = client.post(path, content=body, headers=JSON)
        if path == "/hidden" and body.startswith(b'{"sequences": ["C"],'):  # it ignores the field that is wrong for others
            assert response.status_code in (200, 422)
            continue
        assert response.status_code in (413, 422), (path, response.text[:200])
        assert len(response.content) < 5000 and response.json()["detail"]
        assert b"9999999999" not in response.content and b"xxxxxxxxxx" not in response.content
    assert client.post("/embedding", json={"sequences": ["CCO"]}).status_code == 200


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1", "3", "null", '"x"', "[]", "{}", "1" * 400])
@pytest.mark.parametrize("field", ["scaled_radius", "num_molecules", "min_similarity", "particles", "beam_size", "seed"])
def test_a_number_out_of_range_is_an_error(client: TestClient, field: str, value: str) -> None:
    paths = (
        ["/sampling"]
        if field == "beam_size"
        else ["/generate"]
        if field in ("min_similarity", "particles")
        else ["/sampling", "/generate"]
    )
    is_valid = (value == "3" and field in ("num_molecules", "particles", "beam_size", "seed")) or (
        value == "null" and field == "seed"
    )
    for path in paths:
        body = '{"sequences": ["C"], "smi": "C", "iterations": 1, "particles": 2, "algorithm": "none", "FIELD": VALUE}'
        body = body.replace('"particles": 2, ' if field == "particles" else "no such text", "")
        response = client.post(path, content=body.replace("FIELD", field).replace("VALUE", value), headers=JSON)
        assert response.status_code == (200 if is_valid else 422), response.text
        assert is_valid or response.json()["detail"][0]["loc"] in (["body", field], ["body"])
        assert "1" * 20 not in response.text


def test_numbers_that_are_not_finite_are_errors_in_latents(client: TestClient) -> None:
    for value in ("NaN", "Infinity", "1e999", "1" * 400):
        body = '{"hiddens": [[[' + ",".join([value] * 32) + ']]], "mask": [[true]]}'
        response = client.post("/decode", content=body, headers=JSON)
        assert response.status_code == 422 and len(response.content) < 1000, response.text[:300]


def test_unknown_fields_are_ignored(client: TestClient) -> None:
    response = client.post(
        "/embedding", content='{"sequences": ["C"], "extra": NaN, "deeper": {"a": [1, {"b": null}]}}', headers=JSON
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("layers", [[10**6], [0], [3], [1, 1], [], [-1], ["x"], [10**30], [1.5], "1", [1] * 101, [True] * 200])
def test_layers_are_checked_and_not_repeated(client: TestClient, layers: Any) -> None:
    response = client.post("/embedding", json={"sequences": ["C"], "kind": "informative", "layers": layers})
    assert response.status_code == 422 and len(response.content) < 1000
    assert "00000" not in response.text


def test_layers_without_effect_are_an_error(client: TestClient) -> None:
    for kind in (None, "mean"):
        response = client.post("/embedding", json={"sequences": ["C"], "kind": kind, "layers": [1]})
        assert response.status_code == 422 and "no effect" in response.text


def test_each_limit_is_an_error(model: CMIMModel) -> None:
    with client_of(model, max_rows=3, max_characters=10, max_bytes=2000, max_pending_bytes=4000) as client:
        ok, rows, long = ["CCO"] * 3, ["CCO"] * 4, ["C" * 11]
        for path in ("/embedding", "/hidden", "/sampling"):
            assert client.post(path, json={"sequences": ok}).status_code == 200
            found = [client.post(path, json={"sequences": each}) for each in (rows, long, ["C"] * 700)]
            assert [each.status_code for each in found] == [422, 422, 413 if len(json.dumps(["C"] * 700)) > 2000 else 422]
            assert "at most 3 rows" in found[0].text and "at most 10 characters" in found[1].text
        latent = [[0.5] * 32]
        assert client.post("/decode", json={"hiddens": [latent] * 3}).status_code == 200
        assert "at most 3 rows" in client.post("/decode", json={"hiddens": [latent] * 4}).text
        large = client.post("/decode", json={"hiddens": [latent] * 3, "extra": "x" * 2000})
        assert large.status_code == 413 and "at most 2000 bytes" in large.text


def test_only_json_is_accepted(client: TestClient) -> None:
    body = '{"sequences": ["CCO"]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert client.post("/embedding", content=body, headers={"Content-Type": kind}).status_code == 415
    assert client.post("/embedding", content=body, headers={**JSON, "Content-Encoding": "gzip"}).status_code == 415
    assert client.post("/embedding", content=body, headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200


def test_other_methods_and_paths(client: TestClient) -> None:
    assert client.get("/embedding").status_code == 405
    assert client.post("/nothing", json={}).status_code == 404
    assert client.post("/v1/metadata", json={}).status_code == 405


def test_amounts_are_counted_outside_of_strings() -> None:
    body = json.dumps({"sequences": [r"[C@H](\C)", 'a"b', "\\", '\\"', "[[[,,,"] * 200}).encode()
    check_amount(body, 1000)
    with pytest.raises(Mistakes):
        check_amount(body, 700)
    with pytest.raises(Mistakes):
        check_amount(b"[" * 300, 1000)
    check_amount(b"[" * 300, 1000, lists=100)


def test_the_api_key(model: CMIMModel) -> None:
    with client_of(model, api_key="correct horse") as client:
        body = {"sequences": ["CCO"]}
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "correct horse"},
            {"X-API-Key": "correct hors\u00e9".encode("latin1")},
        ):
            refused = client.post("/embedding", json=body, headers=headers)  # type: ignore[arg-type]
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        for headers in ({"Authorization": "Bearer correct horse"}, {"X-API-Key": "correct horse"}):
            assert client.post("/embedding", json=body, headers=headers).status_code == 200
        assert client.get("/v1/metrics").status_code == client.get("/v1/metadata").status_code == 401
        assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 200
        assert client.get("/v1/health/live").status_code == 200


def test_other_sites_may_call_only_if_named(client: TestClient, model: CMIMModel) -> None:
    asked = {
        "Origin": "https://lab.example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    assert "access-control-allow-origin" not in client.options("/embedding", headers=asked).headers
    with client_of(model, cors_origins=("https://lab.example.org",), api_key="correct horse") as open_client:
        assert open_client.options("/embedding", headers=asked).headers["access-control-allow-origin"] == asked["Origin"]
        assert open_client.options("/embedding", headers={**asked, "Origin": "https://other.example.org"}).status_code == 400


def test_names_of_other_computers_are_refused(client: TestClient, model: CMIMModel) -> None:
    """A page of another site whose name is resolved to this computer sends its own name."""
    body = {"sequences": ["CCO"]}
    for host in ("evil.example.org", "evil.example.org:8000", "localhost.example.org", ""):
        refused = client.post("/embedding", json=body, headers={"Host": host})
        assert refused.status_code == 421 and "--allowed-host" in refused.json()["detail"]
    for host in ("localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "[::1]"):
        assert client.post("/embedding", json=body, headers={"Host": host}).status_code == 200
    with client_of(model, allowed_hosts=("cmim.example.org",)) as named:
        assert named.post("/embedding", json=body, headers={"Host": "cmim.example.org"}).status_code == 200
        assert named.post("/embedding", json=body, headers={"Host": "evil.example.org"}).status_code == 421
    for wrong in ("cmim.example.org:8000", "https://cmim.example.org", "*", ""):
        with pytest.raises(ConfigError, match=f"names without scheme, port and path, found {re.escape(repr(wrong))}"):
            ServeSettings(allowed_hosts=(wrong,))
    with client_of(model, host="0.0.0.0") as reachable:
        assert reachable.post("/embedding", json=body, headers={"Host": "cmim.example.org"}).status_code == 200
