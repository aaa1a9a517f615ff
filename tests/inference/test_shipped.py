"""Shipped models: how they are made (tools/ship_model.py), found and verified, and the models themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nemo_cmim
from nemo_cmim.cli import main
from nemo_cmim.config import AugmentationConfig, DataConfig
from nemo_cmim.errors import CheckpointError
from nemo_cmim.inference import list_models, load, shipped
from nemo_cmim.inference.fit_density import fit_density, sample_molecules
from nemo_cmim.inference.model_file import ModelFile, read_model_file, write_model_file
from nemo_cmim.molecules import canonical_smiles, is_valid
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.training.checkpoints.format import CheckpointManifest, commit, folder_name, partial_of
from tests.inference.conftest import random_model
from tests.inference.golden_shipped import GOLDEN, SMILES, vectors
from tests.shipped_names import NAMES
from tools import ship_model
from tools.model_card import elements
from tools.ship_model import LARGEST_FILE, ShippingError, ship, write_checksums

SECTIONS = (
    "Architecture", "Data", "Training", "Results on held-out molecules", "Property prediction", "Intended use", "Limits",
    "Half precision", "Licence", "How to reproduce it",
)  # fmt: skip
STEP = 3


def trained() -> ModelFile:
    """A checkpoint of a network that small molecules fit."""
    return random_model()


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(trained(), data, tmp_path_factory.mktemp("run"))


def run_of(checkpoint: ModelFile, data: Path, folder: Path) -> Path:
    """What a training run of three steps leaves, without its tensors, and `trained.nemo`."""
    config = dataclasses.replace(checkpoint.config, train_ds=DataConfig(folder="elsewhere"))
    write_model_file(folder / "trained.nemo", checkpoint)
    order = {"seed": 5, "molecules": json.loads((data / "manifest.json").read_text())["splits"]["train"]["molecules"]}
    manifest = CheckpointManifest(
        step=STEP, monitored=-1.5, model=json.loads(json.dumps(dataclasses.asdict(config))), order=order, parallel={}, vocabulary="",
        versions={}, files={},
    )  # fmt: skip
    partial = partial_of(folder / "checkpoints" / folder_name(STEP))
    (partial / "tensors").mkdir(parents=True)
    for name in ("state.pt", "vocabulary.txt"):
        (partial / name).touch()
    commit(folder / "checkpoints" / folder_name(STEP), manifest)
    (folder / "metrics").mkdir()
    lines = [
        {"step": n, "molecules": 16.0, "seconds": 1800.0, "train_loss": 10.0 - n, "train/token_accuracy": 0.5} for n in range(1, 5)
    ]
    (folder / "metrics" / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def make(run: Path, data: Path) -> Callable[..., Path]:
    """Ships the model of `run`, with the changes of the caller."""

    def shipping(folder: Path, name: str = "cmim_small", **changes: Any) -> Path:
        settings: dict[str, Any] = {
            "sources": ["mole*=MOSES"], "density": [], "commit": "abc1234", "hardware": "two cores",
            "commands": ["nemo-cmim train objective=cmim"], "numbers": {}, "held_out": 8, "folder": folder,
        }  # fmt: skip
        nemo, exported = changes.pop("nemo", run / "trained.nemo"), changes.pop("exported", None)
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.filterwarnings("ignore", message=".*SMILES had not ended")
            patch.setattr(ship_model, "_exported", lambda _: exported or read_model_file(nemo))  # the run holds no tensors
            return ship(nemo, name, changes.pop("run", run), changes.pop("data", data), **settings | changes)

    return shipping


@pytest.fixture(scope="module")
def three(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three shipped models; only read."""
    folder = tmp_path_factory.mktemp("three")
    make(folder, "a_model")
    for name in (NAMES[0], "z_model"):
        shutil.copy(folder / "a_model.nemo", folder / f"{name}.nemo")
    write_checksums(folder)
    return folder


@pytest.fixture
def folder(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `three` that replaces the folder of shipped models."""
    copy = shutil.copytree(three, tmp_path / "shipped")
    monkeypatch.setattr(shipped, "_FOLDER", copy)
    shipped._cached.cache_clear()
    return copy


@pytest.fixture(autouse=True)
def forget_models() -> Any:
    yield
    shipped._cached.cache_clear()


def test_the_default_is_listed_first_and_used_by_embed(folder: Path) -> None:
    assert list_models() == [NAMES[0], "a_model", "z_model"]
    other = random_model()
    other.weights["decoder_norm.weight"].mul_(2)
    write_model_file(folder / "z_model.nemo", other)
    write_checksums(folder)
    default = nemo_cmim.embed(["CCO"])
    np.testing.assert_array_equal(default, load(NAMES[0]).embed(["CCO"]))
    assert not np.allclose(default, nemo_cmim.embed(["CCO"], model="z_model"))


def test_no_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path / "none")
    assert list_models() == []
    with pytest.raises(CheckpointError, match="No model ships with this version"):
        nemo_cmim.embed(["CCO"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "SHA256SUMS").unlink(), r"SHA256SUMS\) cannot be read"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\xfe"), r"SHA256SUMS\) cannot be read"),
        (lambda folder: (folder / "SHA256SUMS").write_text("nonsense\n"), "cannot be verified: SHA256SUMS is damaged"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "cannot be verified: SHA256SUMS does not list this file"),
        (lambda folder: flip_a_bit(folder / f"{NAMES[0]}.nemo"), "does not have the checksum in SHA256SUMS"),
    ],
    ids=["sums missing", "sums not text", "sums nonsense", "not in the sums", "a bit flipped"],
)
def test_a_model_that_cannot_be_verified_raises(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=f"{message}.*Reinstall the package"):
        nemo_cmim.embed(["CCO"])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_checksums_are_those_of_sha256sum(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}"
        for name in sorted(p.name for p in folder.glob("*.nemo"))
    ]


def test_shipping_twice_gives_the_same_bytes(make: Callable[..., Path], three: Path, tmp_path: Path) -> None:
    written = make(tmp_path, "a_model").read_bytes()
    assert written == (three / "a_model.nemo").read_bytes() and written.startswith(b"\x1f\x8b"), "compressed by gzip"


def test_half_precision_changes_little_and_small_tensors_stay_fp32(three: Path) -> None:
    full, half = trained(), read_model_file(three / "a_model.nemo")
    assert (
        half.weights["embedding.token.weight"].dtype == torch.float16 and half.weights["decoder_norm.weight"].dtype == torch.float32
    )
    for kind in ("mean", "informative"):
        a, b = (nemo_cmim.CMIMModel(checkpoint, "cpu").embed(SMILES, kind) for checkpoint in (full, half))
        np.testing.assert_allclose(np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1), 0, atol=2e-3)
        assert not np.array_equal(a, b)


def test_the_card_describes_the_run(three: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = read_model_file(three / "a_model.nemo").card
    assert card is not None
    assert tuple(re.findall("^## (.*)$", card, flags=re.MULTILINE)) == SECTIONS
    counts = json.loads((data / "manifest.json").read_text())["splits"]
    for text in (
        "# a_model", f"{counts['train']['molecules']:,} for training", "| steps | 3, of a run of 4 |", "| molecules seen | 48,",
        "| time | 1.5 hours", "| step | molecules | train_loss | token_accuracy |", "| 3 | 48 | 8 | 0.5 |",
        "means over 3 training steps", "Validation loss at the last of them: -1.5.",
        "| seed of the order of molecules | 5 |", "hidden_size: 32",
        "SMILES of at most 63 tokens", "Elements in its training data: ", "commit abc1234",
        "8 molecules of the test split", "| triple bonds (`#`) |",
        "    nemo-cmim train objective=cmim", "MOSES", "examples/RESULTS.md",
    ):  # fmt: skip
        assert text in card, text
    check_no_placeholder(card)
    assert main(["models", str(three / "a_model.nemo")]) == 0
    assert capsys.readouterr().out.strip() == card.strip()


def test_the_card_has_a_learning_curve(make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_model, "AVERAGED_STEPS", 1)
    card = read_model_file(make(tmp_path)).card
    assert card is not None and "| 1 | 16 | 9 | 0.5 |\n| 3 | 48 | 7 | 0.5 |\n\n## " in card


def check_no_placeholder(card: str) -> None:
    assert not re.search(r"\bNone\b|\bnan\b|\?\?\?|TODO|\bnull\b|[{}]", card)
    assert not re.search(r"(?:^|[\s`'\"])/(?:\w+/)+", card), "a path of a machine"


def test_the_card_counts_samples_of_the_prior_and_around_molecules(three: Path, data: Path) -> None:
    path = three / "a_model.nemo"
    model, card = load(path), read_model_file(path).card
    assert card is not None
    store = TokenStore.open(data, "test")
    smiles = [model.tokenizer.decode(row.tolist()) for row in store.gather(np.arange(len(store)))]
    training = TokenStore.open(data, "train")
    trained_on = {model.tokenizer.decode(row.tolist()) for row in training.gather(np.arange(len(training)))}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*SMILES had not ended")
        prior, around = (
            model.sample(200, seed=0, density="normal"),
            model.sample(1, smiles=smiles, unit="posterior", scaled_radius=1, seed=0),
        )
    for what, texts in (("from the prior", prior), ("from q(z|x) of test molecules", [text for (text,) in around])):
        valid = [text for text in texts if is_valid(text)]
        (row,) = (line for line in card.splitlines() if line.startswith(f"| {what}"))
        assert row.split(" | ")[1:3] == [str(len(texts)), f"{len(valid) / len(texts):.1%}"]
        different = set(map(canonical_smiles, valid))
        assert row.endswith(f" | {len(different)} | {len(different - trained_on)} |")


def test_a_density_is_fitted_to_the_weights_that_ship(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "some.smi").write_text("\n".join("C" * n + end for n in range(1, 20) for end in "NOF"))
    path = make(tmp_path, "z_fitted", density=[tmp_path / "some.smi"], bandwidth=0.5)
    model = load(path)
    expected = fit_density(
        read_model_file(path), sample_molecules([tmp_path / "some.smi"], 100), bandwidth=0.5, device="cpu"
    ).density
    assert model.density is not None and expected is not None
    np.testing.assert_array_equal(model.density.means_MZ, expected.means_MZ)
    assert "| from the fitted density (bandwidth 0.5): `sample(n)` | 200 |" in (model.card or "")


def test_a_prior_far_from_the_latents_is_reported_as_a_limit(make: Callable[..., Path], three: Path, tmp_path: Path) -> None:
    close = trained()
    for name in ("posterior.mean.weight", "posterior.mean.bias"):
        close.weights[name].mul_(0.01)
    close.weights["posterior.log_variance.bias"].fill_(-100.0)
    write_model_file(tmp_path / "close.nemo", close)
    card = read_model_file(make(tmp_path / "shipped", nemo=tmp_path / "close.nemo")).card
    told = "q(z|x) is 0.001, the minimum that `min_variance` allows. Both are 1 for the prior N(0, I). So samples of the prior"
    assert card is not None and told in card
    assert "close to the origin" not in (read_model_file(three / "a_model.nemo").card or "close to the origin")


def test_smiles_enumeration_is_mentioned_with_token_accuracy(
    make: Callable[..., Path], data: Path, three: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(trained().config, augmentation=AugmentationConfig(strings="different_random"))
    spelled = run_of(dataclasses.replace(trained(), config=config), data, tmp_path / "run")
    told = "Token accuracy is measured on canonical SMILES, although the model was trained on randomized SMILES."
    assert told in (read_model_file(make(tmp_path / "shipped", nemo=spelled / "trained.nemo", run=spelled)).card or "")
    assert told not in (read_model_file(three / "a_model.nemo").card or told)


def test_numbers_become_tables(make: Callable[..., Path], tmp_path: Path) -> None:
    numbers = {
        "FreeSolv": {
            "protocol": "5 folds.",
            "rows": [{"embedding": "mean", "SVM": "2.5"}, {"embedding": "informative", "SVM": 2.4}],
        }
    }
    card = read_model_file(make(tmp_path, numbers=numbers)).card
    assert card is not None
    assert "**FreeSolv.** 5 folds.\n\n| embedding | SVM |\n|---|---|\n| mean | 2.5 |\n| informative | 2.4 |\n" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, r"source of molecules\.smi is unknown"),
        ({"sources": ["*=CHEMBL"]}, r"source of molecules\.smi is unknown"),
        ({"commands": ["nemo-cmim train model.train_ds.folder=/data/zinc"]}, "a path of this machine.*/data/zinc"),
        ({"hardware": "None"}, "an unknown value.*None"),
        ({"numbers": {"ESOL": {"protocol": "x", "rows": []}}}, "numbers of 'ESOL' need"),
    ],
)
def test_invalid_arguments_of_ship_raise(make: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShippingError, match=message):
        make(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_weights_and_vocabulary_are_compared_with_the_checkpoints(make: Callable[..., Path], tmp_path: Path) -> None:
    weights = trained()
    weights.weights["decoder_norm.weight"][0] += 1e-6
    tokens = trained().vocabulary.tokens
    vocabulary = dataclasses.replace(trained(), vocabulary=Vocabulary((*tokens[:-2], tokens[-1], tokens[-2])))
    for other in (weights, vocabulary):
        with pytest.raises(ShippingError, match="step 3; none has the weights and the vocabulary"):
            make(tmp_path, exported=other)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_line_for_each_step_raises(make: Callable[..., Path], run: Path, tmp_path: Path) -> None:
    short = shutil.copytree(run, tmp_path / "run")
    lines = (short / "metrics" / "steps.jsonl").read_text().splitlines(keepends=True)
    (short / "metrics" / "steps.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(ShippingError, match="has 2 of the 3 steps"):
        make(tmp_path / "shipped", run=short)


def test_another_runs_model_and_weights_that_overflow_are_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    other = random_model(latents=3)
    write_model_file(tmp_path / "other.nemo", other)
    with pytest.raises(ShippingError, match="different settings of `network`"):
        make(tmp_path / "shipped", nemo=tmp_path / "other.nemo")
    large = trained()
    large.weights["embedding.token.weight"][0, 0] = 1e6
    write_model_file(tmp_path / "large.nemo", large)
    with pytest.raises(ShippingError, match=r"weights of embedding\.token\.weight overflow"):
        make(tmp_path / "shipped", nemo=tmp_path / "large.nemo")


def test_elements_of_tokens() -> None:
    tokens = {
        "C": 1,
        "c": 2,
        "Cl": 3,
        "[nH]": 4,
        "[C@@H]": 5,
        "[Si]": 6,
        "[se]": 7,
        "[2H]": 8,
        "[13cH]": 9,
        "(": 10,
        "1": 11,
        "[Sn+2]": 12,
    }
    assert elements(tokens) == {"C": 17, "Sn": 12, "H": 8, "Se": 7, "Si": 6, "N": 4, "Cl": 3}


def test_shipped_models_are_small_and_have_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_models() == NAMES
    assert main(["models"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    for name in NAMES:
        card = load(name).card
        assert card is not None and card.startswith(f"# {name}\n")
        assert tuple(re.findall("^## (.*)$", card, flags=re.MULTILINE)) == SECTIONS
        check_no_placeholder(card)
        assert load(name).density is not None  # so that `sample` works
        assert len((shipped._FOLDER / f"{name}.nemo").read_bytes()) < LARGEST_FILE


def test_embed_uses_the_first_model_by_default() -> None:
    for kind in ("informative", "mean"):
        np.testing.assert_array_equal(nemo_cmim.embed(SMILES, kind=kind), load(NAMES[0]).embed(SMILES, kind))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_decode_to_molecules(name: str) -> None:
    model = load(name)
    decoded = model.reconstruct(DRUG_LIKE)
    assert sum(map(is_valid, decoded)) > len(DRUG_LIKE) / 2, decoded
    assert all(0.5 < len(text) / len(smiles) < 2 for text, smiles in zip(decoded, DRUG_LIKE)), decoded


DRUG_LIKE = [
    "CC(=O)Nc1ccc(O)cc1", "CC(C)Cc1ccc(C(C)C(=O)O)cc1", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CN1CCC[C@H]1c1cccnc1", "CC(=O)Oc1ccccc1C(=O)O",
    "COc1ccc(CCN2CCCC2)cc1", "O=C(Nc1ccccc1)c1ccco1", "Cc1ccc(S(=O)(=O)N2CCOCC2)cc1", "CCOC(=O)c1ccc(N)cc1", "CCN(CC)CC(=O)Nc1c(C)cccc1C",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_vectors_equal_the_golden_file(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == set(NAMES), "update the vectors of the shipped models: python -m tests.inference.golden_shipped"
    for kind, rows in vectors(name).items():
        np.testing.assert_allclose(rows, golden[name][kind], rtol=1e-3, atol=2e-4, err_msg=kind)
