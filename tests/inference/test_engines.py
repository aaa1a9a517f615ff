"""Engines on ONNX Runtime: the vectors of PyTorch, without importing it, and nothing from damaged or other files."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import nemo_cmim
from nemo_cmim import MoleculeEmbedder
from nemo_cmim.cli import main
from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.inference import CMIMModel, list_models, load, stream
from nemo_cmim.inference.engines import export as export_module
from nemo_cmim.inference.engines import fidelity, folder, onnx_model
from nemo_cmim.inference.engines.export import export_engine
from nemo_cmim.inference.engines.onnx_model import OnnxModel
from nemo_cmim.inference.model_file import read_model_file, write_model_file
from nemo_cmim.inference.shipped import model_file_of
from nemo_cmim.inference.threads import limit_threads, thread_count
from nemo_cmim.molecules import standard_smiles
from nemo_cmim.tokenizers import SmilesTokenizer
from tests.inference.conftest import random_model
from tests.shipped_names import DEFAULT

SMILES = ["CCO", "C", "c1ccccc1C(=O)O", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "OCC", "C[C@H](N)C(=O)O", "N" + "C" * 50]
BOTH = ("onnx", "onnx-int8")
ENOUGH = {"onnx": 0.999999, "onnx-int8": 0.9}  # for random weights
FEW = [*SMILES[:6], "C" * 60]


@pytest.fixture(autouse=True)
def few_molecules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small comparison at export, and a cache of its own."""
    monkeypatch.setattr(export_module, "molecules", lambda: FEW)
    monkeypatch.setenv("NEMO_CMIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEMO_CMIM_ENGINE", raising=False)


@pytest.fixture
def exported(model_file: Path, tmp_path: Path) -> Path:
    export_engine(read_model_file(model_file), tmp_path / "engine", name="random", engines=BOTH, cosines=ENOUGH)
    return tmp_path / "engine"


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return fidelity.compare(a, b).smallest_cosine


NETWORKS: dict[str, dict[str, Any]] = {
    "one latent": {},
    "three latents": {"latents": 3},
    "hybrid": {"latents": 2, "encoder": "hybrid", "posterior": "point"},
    "transformer": {"encoder": "transformer", "posterior": "point"},
    "no decoder": {"latents": 2, "posterior": "point", "decoder_layers": 0},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    content = random_model(**NETWORKS[name])
    export_engine(content, tmp_path / "engine", name="random")
    found, exact = OnnxModel.load(tmp_path / "engine"), CMIMModel(content, "cpu")
    choices: list[dict[str, Any]] = [{"kind": "mean"}, {"kind": "mean", "canonical": False}]
    if content.config.network.decoder_layers:
        choices += [{}, {"layers": (2, 1)}, {"pooling": "last"}]
    for choice in choices:
        expected = exact.embed(SMILES, **choice)
        np.testing.assert_allclose(found.embed(SMILES, **choice), expected, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(found.embed(SMILES, **choice, batch_size=1), expected, rtol=1e-4, atol=2e-5)
        assert found.fingerprint(**choice) == exact.fingerprint(**choice)
    ids_BS = np.arange(20, 26).reshape(2, 3)
    is_token_BS = np.array([[True, True, True], [True, False, False]])
    mean, variance = found._encoder.run(None, {"ids": ids_BS, "is_token": is_token_BS})
    posterior = exact.network.encode(torch.from_numpy(ids_BS), torch.from_numpy(is_token_BS))
    real = is_token_BS if posterior.is_latent_BK is not None else slice(None)
    np.testing.assert_allclose(mean[real], posterior.mean_BKD[real], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance[real], posterior.variance_BKD[real], rtol=1e-4, atol=1e-5)


def test_int8_is_close_and_has_fingerprints_of_its_own(exported: Path, model: CMIMModel) -> None:
    exact, int8 = load(exported), load(exported, engine="onnx-int8")
    assert (exact.engine, int8.engine, exact.precision, int8.precision) == ("onnx", "onnx-int8", "fp32", "int8")
    for kind in ("informative", "mean"):
        expected = model.embed(SMILES, kind)
        assert 1 - 1e-9 > cosine(int8.embed(SMILES, kind), expected) > 0.99
        assert exact.fingerprint(kind) == model.fingerprint(kind) != int8.fingerprint(kind)
        assert int8.fingerprint(kind) == load(exported, engine="onnx-int8").fingerprint(kind)
    sizes = [sum((exported / file).stat().st_size for file in folder.graph_files(name, has_decoder=True)) for name in BOTH]
    assert sizes[1] < sizes[0]


def test_rows_warnings_errors_and_progress_are_those_of_pytorch(exported: Path, model: CMIMModel) -> None:
    engine, mixed = load(exported), ["CCO", "C1C", "OCC", None]
    with pytest.warns(UserWarning, match=r"2 of 4 molecules are invalid"):
        found = engine.embed(mixed, on_invalid="nan")
    assert np.isnan(found).all(1).tolist() == [False, True, False, True] and (found[0] == found[2]).all()
    for call in (lambda m: m.embed(mixed), lambda m: m.embed([]), lambda m: m.embed(SMILES, layers=(3,)), lambda m: m.embed("C")):
        with pytest.raises(ValueError) as ours:
            call(engine)
        with pytest.raises(type(ours.value)) as theirs:
            call(model)
        assert str(ours.value) == str(theirs.value)
    told: list[tuple[int, int]] = []
    engine.embed([*SMILES, "CCO"], progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (6, 6) and told == sorted(told)  # CCO is there three times
    assert engine.invalid_reason("C1C") == model.invalid_reason("C1C") is not None
    explained = engine.embed_or_explain(mixed)
    assert explained.invalid.keys() == {1, 3} and engine.width() == 32


def test_methods_that_need_pytorch_say_so(exported: Path, model: CMIMModel) -> None:
    engine = load(exported)
    public = {name for name in dir(CMIMModel) if not name.startswith("_") and callable(getattr(CMIMModel, name))}
    assert public - set(dir(OnnxModel)) == set(onnx_model._ONLY_TORCH)
    for name in onnx_model._ONLY_TORCH:
        with pytest.raises(ConfigError, match=f"{name} is not available with engine='onnx'.*engine=\"torch\""):
            getattr(engine, name)(["CCO"])
    with pytest.raises(ConfigError, match=r'sample=True is not available .*engine="torch"'):
        engine.embed(["CCO"], sample=True)
    with pytest.raises(AttributeError, match=r"no attribute 'other'"):
        engine.other  # noqa: B018
    assert "engine=onnx, 0.1 M parameters" in repr(engine)


def test_settings_that_an_engine_does_not_have(exported: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"device='cuda' is not available with an ONNX engine"):
        load(exported, device="cuda")
    with pytest.raises(ConfigError, match=r"precision='bf16' is not available with an ONNX engine"):
        load(DEFAULT, precision="bf16", engine="onnx")
    with pytest.raises(ConfigError, match=r"engine must be one of torch, onnx, onnx-int8, found 'tensorrt'"):
        load(exported, engine="tensorrt")
    with pytest.raises(ConfigError, match=r"has ONNX graphs, which engine='torch' cannot use"):
        load(exported, engine="torch")
    with pytest.raises(ConfigError, match=r"engine='torch', but engine='onnx' is asked for"):
        nemo_cmim.embed(SMILES, model, engine="onnx")
    with pytest.raises(ConfigError, match=r"precision='fp32', but precision='bf16'"):
        nemo_cmim.embed(SMILES, model, precision="bf16")
    with pytest.raises(CheckpointError, match=r"There is no model 'none'"):
        load("none", engine="onnx")
    monkeypatch.setenv("NEMO_CMIM_ENGINE", "fast")
    with pytest.raises(ConfigError, match=r"NEMO_CMIM_ENGINE is 'fast'. Set it to one of torch, onnx, onnx-int8"):
        load(exported)


def test_the_argument_beats_the_environment_variable(exported: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMO_CMIM_ENGINE", "onnx-int8")
    assert load(exported).engine == "onnx-int8" and load(exported, engine="onnx").engine == "onnx"
    assert load(model_file, engine="torch").engine == "torch"
    np.testing.assert_array_equal(nemo_cmim.embed(["CCO"], exported), load(exported, engine="onnx-int8").embed(["CCO"]))
    monkeypatch.setenv("NEMO_CMIM_ENGINE", "")
    assert load(model_file).engine == "torch"


def test_a_model_file_is_exported_once(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changing = tmp_path / "changing.nemo"
    shutil.copy(model_file, changing)
    first = load(changing, engine="onnx")
    assert "Exporting changing for engine='onnx' to" in capsys.readouterr().err and first.folder.is_relative_to(tmp_path / "cache")
    again = load(changing, engine="onnx")
    assert again.folder == first.folder and not capsys.readouterr().err and again.name == str(changing)
    write_model_file(changing, random_model(3))
    other = load(changing, engine="onnx")
    assert other.folder != first.folder and other.width("mean") == 96
    assert [path for path in (tmp_path / "cache" / "engines").iterdir() if path.name.startswith(".")] == []
    shutil.rmtree(other.folder)
    first.folder.rename(other.folder)
    with pytest.raises(CheckpointError, match=r"is not an engine of .*changing.nemo, but of another model"):
        load(changing, engine="onnx")
    (tmp_path / "file").write_text("")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ConfigError, match=r"cannot be written.*Set the environment variable NEMO_CMIM_CACHE"),
    ):
        patch.setenv("NEMO_CMIM_CACHE", str(tmp_path / "file"))
        load(changing, engine="onnx")


@pytest.mark.parametrize("name", list_models())
def test_shipped_models_are_exported_with_the_default_limits(name: str, tmp_path: Path) -> None:
    reports = export_engine(model_file_of(name), tmp_path / "engine", name=name, engines=BOTH)
    assert reports["onnx-int8"].fidelity["informative"].mean_cosine > 0.999


def test_an_engine_that_misses_its_limit_is_not_written(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"The engine onnx-int8 is not written: the cosine similarity of its informative"):
        export_engine(
            read_model_file(model_file), tmp_path / "engine", name="random", engines=BOTH, cosines={"onnx": 0.9, "onnx-int8": 1.0}
        )
    assert not (tmp_path / "engine").exists()


def test_a_model_that_cannot_embed_the_molecules_of_the_comparison(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "molecules", lambda: ["C" * 99])
    with pytest.raises(ConfigError, match="random cannot embed any of the 1 molecules"):
        export_engine(read_model_file(model_file), tmp_path / "engine", name="random")


def rewritten(path: Path, **changes: Any) -> None:
    """Changes entries of engine.json, and its checksums."""
    content = json.loads((path / folder.DESCRIPTION).read_text())
    content.pop("sha256"), content.pop("files")
    folder.write_description(path, {**content, **changes})


def test_damaged_and_other_files_are_errors(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(name: str, content: bytes | None) -> Path:
        path = tmp_path / "changed"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(exported, path)
        if content is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(content)
        return path

    text = (exported / "engine.json").read_text()
    for name, content, message in [
        ("decoder.onnx", b"", "checksum of decoder.onnx does not match"),
        ("encoder.onnx", None, "encoder.onnx is missing"),
        ("vocabulary.txt", b"C\n", "checksum of vocabulary.txt"),
        ("engine.json", text[:99].encode(), "cannot be read"),
        ("engine.json", b"[]", "another format or opset"),
        ("engine.json", text.replace("engine 1", "engine 2").encode(), "another format or opset"),
        ("engine.json", text.replace('"opset": 20', '"opset": 99').encode(), "another format or opset"),
        ("engine.json", text.replace("0.999999", "0.5").encode(), "checksum of engine.json does not match"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            load(changed(name, content))
    path = changed("encoder.onnx", b"no graph")
    rewritten(path, model={})
    with pytest.raises(CheckpointError, match=r"engine.json is not of this version of nemo_cmim \(KeyError"):
        load(path)
    shutil.copy(exported / "engine.json", path)
    rewritten(path)
    with pytest.raises(CheckpointError, match=r"cannot be read by onnxruntime"):
        load(path)
    monkeypatch.setattr("onnxruntime.__version__", "1.2.0")
    with pytest.raises(
        ConfigError, match=r'was checked with onnxruntime 1.\d+.\d+, but 1.2.0 is installed.*pip install "onnxruntime>='
    ):
        load(exported)


def test_graphs_of_another_model_miss_the_stated_fidelity(exported: Path, tmp_path: Path) -> None:
    own = random_model()
    weights = {name: weight + 0.05 * torch.randn_like(weight) for name, weight in own.weights.items()}
    export_engine(dataclasses.replace(own, weights=weights), tmp_path / "other", name="other")
    shutil.copy(tmp_path / "other" / "encoder.onnx", exported)
    rewritten(exported)
    with pytest.raises(
        CheckpointError, match=r"onnx misses the fidelity that it states: the cosine similarity of its (mean|informative)"
    ):
        load(exported)
    with pytest.raises(CheckpointError, match=r"has the engine onnx, but not onnx-int8.*export-onnx --int8"):
        load(tmp_path / "other", engine="onnx-int8")


@pytest.mark.parametrize(("package", "call"), [("onnxruntime", "runtime"), ("onnx", "export")])
def test_missing_packages_are_named(
    package: str, call: str, exported: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "nemo_cmim.inference.engines.graphs", raising=False)
    monkeypatch.delattr("nemo_cmim.inference.engines.graphs", raising=False)
    with pytest.raises(ConfigError, match=rf'package {package}, which cannot be imported.*pip install "nemo_cmim\[onnx\]"'):
        load(exported) if call == "runtime" else load(model_file, engine="onnx")
    assert not capsys.readouterr().err  # not that an engine is exported


def test_pickles_and_pipelines(exported: Path, model_file: Path) -> None:
    engine = load(exported, engine="onnx-int8")
    again = pickle.loads(pickle.dumps(engine))
    np.testing.assert_array_equal(again.embed(SMILES), engine.embed(SMILES))
    embedder = MoleculeEmbedder(str(exported)).fit(SMILES)
    assert embedder.fingerprint_ == MoleculeEmbedder(str(model_file)).fit(SMILES).fingerprint_
    embedder.set_params(engine="onnx-int8")
    with pytest.raises(CheckpointError, match=r"The embedding of .* has changed"):
        embedder.transform(SMILES)
    old = MoleculeEmbedder(str(model_file)).fit(SMILES)
    del old.engine, old.precision
    assert pickle.loads(pickle.dumps(old)).transform(SMILES).shape == (len(SMILES), 32)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_an_argument_of_embed(model_file: Path, precision: str) -> None:
    expected = load(model_file, precision=precision).embed(SMILES)
    np.testing.assert_array_equal(nemo_cmim.embed(SMILES, model_file, precision=precision), expected)
    np.testing.assert_array_equal(MoleculeEmbedder(model_file, precision=precision).fit_transform(SMILES), expected)


def test_the_command_exports_and_embeds(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles,y\n" + "".join(f"{'C' * n}O,{n}\n" for n in range(1, 21)))
    command = ["export-onnx", str(model_file), "-o", str(tmp_path / "engine"), "--int8", "--min-cosine-int8", "0.9"]
    check = ["--check", str(tmp_path / "in.csv"), "--target", "y"]
    assert main([*command, *check]) == 0
    printed = capsys.readouterr().out
    assert "onnx-int8: 0." in printed and printed.count("RMSE of y with ridge regression") == 4
    facts = json.loads((tmp_path / "engine" / "engine.json").read_text())
    assert facts["engines"]["onnx-int8"]["fidelity"]["mean"]["smallest_cosine"] > 0.9
    assert facts["engines"]["onnx"]["ridge_rmse"]["mean"].keys() == {"torch", "onnx"} and facts["ridge_rmse_of"]["molecules"] == 20
    assert main(command) == 2 and "already exists and is not empty" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert main(["export-onnx", str(model_file), "-o", str(tmp_path / "new"), "--min-cosine-int8", "0.9"]) == 2
    assert "no effect without --int8" in capsys.readouterr().err
    assert main(["embed", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.npy"), "--model", str(tmp_path / "engine")]) == 0
    of_torch = ["-o", str(tmp_path / "torch.npy"), "--model", str(model_file), "--engine", "torch"]
    assert main(["embed", str(tmp_path / "in.csv"), *of_torch]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.load(tmp_path / "torch.npy"), rtol=1e-4, atol=2e-5)


NO_TORCH = """
import sys
from nemo_cmim.cli import main
import nemo_cmim
folder, table, output, *engines = sys.argv[1:]
for engine in engines:
    assert nemo_cmim.load(folder, engine=engine).embed(["CCO"]).shape == nemo_cmim.embed(["CCO"], folder, engine=engine).shape == (1, 32)
    assert main(["embed", table, "-o", f"{output}/{engine}.parquet", "--model", folder, "--engine", engine]) == 0
    assert nemo_cmim.MoleculeEmbedder(folder, engine=engine).fit_transform(["CCO"]).shape == (1, 32)
    assert main(["neighbors", "CCO", f"{output}/{engine}.parquet"]) == 0
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_onnx_engines_do_not_import_torch(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\nc1ccccc1\n")
    command = [sys.executable, "-c", NO_TORCH, exported, tmp_path / "in.csv", tmp_path, *BOTH]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert "onnxruntime" in loaded and {"torch", "onnx"}.isdisjoint(loaded)
    assert [len(pd.read_parquet(tmp_path / f"{name}.parquet")) for name in BOTH] == [2, 2]


@pytest.mark.slow  # starts processes
def test_rows_do_not_depend_on_the_number_of_processes(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 3)
    (tmp_path / "in.csv").write_text("\n".join(["smiles", *SMILES]) + "\n")
    for n_jobs in (1, 2):
        stream.embed_file(load(exported, engine="onnx-int8"), tmp_path / "in.csv", tmp_path / f"{n_jobs}.npy", n_jobs=n_jobs)
    np.testing.assert_array_equal(np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy"))


def test_molecules_of_the_comparison_have_all_lengths() -> None:
    smiles = fidelity.molecules()
    lengths = [len(SmilesTokenizer().tokenize(one)) for one in smiles]
    assert len(smiles) > 300 and lengths == sorted(lengths) and lengths[0] < 5 and lengths[-1] > 255
    assert all(standard_smiles(one) == one for one in smiles[::10])


def test_comparison_of_vectors() -> None:
    found = fidelity.compare([[1.0, 0.0], [3.0, 4.0]], [[2.0, 0.0], [4.0, 3.0]])
    assert found == pytest.approx((0.96, 0.98, 1.0))
    assert np.isnan(fidelity.compare([[np.nan, 0.0]], [[1.0, 0.0]]).smallest_cosine)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    assert fidelity.ridge_rmse(vectors, vectors[:, 0]) < 0.1 < fidelity.ridge_rmse(vectors, rng.normal(size=60))


def test_threads_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored after the test
    try:
        limit_threads(2)
        assert thread_count() == 2 == torch.get_num_threads() and os.environ["OMP_NUM_THREADS"] == "2"
        monkeypatch.delitem(sys.modules, "torch")
        for told, expected in (("3", 3), ("4,2", 4), ("", len(os.sched_getaffinity(0))), ("0", len(os.sched_getaffinity(0)))):
            monkeypatch.setenv("OMP_NUM_THREADS", told)
            assert thread_count() == expected
    finally:
        torch.set_num_threads(before)
