"""Models that no longer ship: errors name the release that has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nemo_cmim import MoleculeEmbedder, PropertyModel, load_property_model
from nemo_cmim.distributed import embed_files
from nemo_cmim.errors import CheckpointError
from nemo_cmim.inference import load, removed
from nemo_cmim.inference import shipped as shipped_models
from nemo_cmim.inference.engines.export import export_engine
from nemo_cmim.inference.model_file import read_model_file, write_model_file
from nemo_cmim.neighbors import find_neighbors
from nemo_cmim.version import __version__
from tests.inference.conftest import random_model
from tools import remove_model
from tools.remove_model import remove
from tools.ship_model import write_checksums

RELEASE = rf"nemo_cmim {__version__} has it \(pip install nemo_cmim=={__version__}\)"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two shipped models."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for latents, name in ((1, "old"), (3, "new")):
        write_model_file(folder / f"{name}.nemo", random_model(latents))
    read = removed.removed_models
    monkeypatch.setattr(removed, "removed_models", lambda: read(folder / "removed.json"))
    return folder


def test_errors_name_the_release_that_has_a_model(shipped: Path, tmp_path: Path) -> None:
    old, new = (str(shipped / f"{name}.nemo") for name in ("old", "new"))
    fingerprints = [
        load(old, precision=precision).fingerprint(kind)
        for kind in ("informative", "mean")
        for precision in ("fp32", "bf16", "fp16")
    ]
    embedder = MoleculeEmbedder(old).fit(["CCO"])
    (tmp_path / "in.smi").write_text("CCO\n")
    embed_files(tmp_path / "in.smi", tmp_path / "library", model=old, scheduler="local:1", progress=False)
    remove("old", shipped / "removed.json")
    assert [path.name for path in shipped.glob("*.nemo")] == ["new.nemo"]
    assert "old" not in (shipped / "SHA256SUMS").read_text()
    (entry,) = json.loads((shipped / "removed.json").read_text())
    assert (entry["name"], entry["release"]) == ("old", __version__) and {*fingerprints} < {*entry["fingerprints"]}
    with pytest.raises(CheckpointError, match=f"There is no model 'old'.* old no longer ships: {RELEASE}"):
        load("old")
    with pytest.raises(CheckpointError, match="There is no model 'other'") as caught:
        load("other")
    assert "pip install" not in str(caught.value)
    embedder.set_params(model=new)
    with pytest.raises(CheckpointError, match=f"has changed since .* That embedding is of old, which no longer ships: {RELEASE}"):
        embedder.transform(["CCO"])
    with pytest.raises(CheckpointError, match=f"Pass the model of the library. That embedding is of old, .*{RELEASE}"):
        find_neighbors("CCO", tmp_path / "library", model=new)
    assert not removed.fingerprint_hint(fingerprints[0][:2]) and not removed.name_hint("ol")
    remove("new", shipped / "removed.json")
    assert [one.name for one in removed.removed_models()] == ["old", "new"]


def test_a_property_file_names_the_release_that_has_its_model(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped_models, "_FOLDER", shipped)
    write_checksums(shipped)
    smiles = [f"{'C' * n}O" for n in range(1, 13)]
    PropertyModel("regression", model="old", head="ridge").fit(smiles, np.arange(12.0)).save(tmp_path / "property.cmim")
    remove("old", shipped / "removed.json")
    with pytest.raises(CheckpointError, match=f"neither a shipped model nor a file here. .* old no longer ships: {RELEASE}"):
        load_property_model(tmp_path / "property.cmim")
    with pytest.raises(CheckpointError, match=f"fitted on a different embedding.*That embedding is of old, .*{RELEASE}"):
        load_property_model(tmp_path / "property.cmim", model="new")


def test_a_model_that_ships_again_has_one_note(shipped: Path) -> None:
    kept = (shipped / "old.nemo").read_bytes()
    remove("old", shipped / "removed.json")
    (shipped / "old.nemo").write_bytes(kept)
    remove("old", shipped / "removed.json")
    assert [one.name for one in removed.removed_models()] == ["old"]


@pytest.mark.parametrize(
    ("names", "message"),
    [(("old", "new"), "new is the default model. First change _DEFAULT"), (("old", "none"), "none does not ship")],
)
def test_nothing_is_removed_if_one_name_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(remove_model, "list_models", lambda: ["new", "old"])
    monkeypatch.setattr(remove_model, "remove", lambda name: pytest.fail(f"removes {name}"))
    with pytest.raises(SystemExit):
        remove_model.main(names)
    assert message in capsys.readouterr().err


def test_the_int8_engine_has_a_fingerprint_too(shipped: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    export_engine(
        read_model_file(shipped / "old.nemo"), tmp_path / "engine", name="old", engines=("onnx-int8",), cosines={"onnx-int8": 0.0}
    )
    fingerprint = load(tmp_path / "engine").fingerprint()
    remove("old", shipped / "removed.json")
    assert fingerprint in removed.removed_models()[0].fingerprints
