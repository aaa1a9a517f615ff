"""The benchmarks of sampling and search: their measures, and small runs with a tiny model."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fitted, sampling, search
from nemo_cmim.inference import load
from nemo_cmim.inference.model_file import read_model_file, write_model_file
from nemo_cmim.molecules import qed, similarity_to
from nemo_cmim.optimization import Candidate, SearchResult
from tests.streaming.conftest import model_file

__all__ = ["model_file"]

MOLECULES = [f"{'C' * chain}{end}" for chain in range(1, 9) for end in ("O", "N", "F", "C#N", "C(=O)O")]


@pytest.fixture(scope="module")
def without_density(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "plain.nemo"
    write_model_file(path, dataclasses.replace(read_model_file(model_file), density=None))
    return path


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    path = tmp_path / "molecules.smi"
    path.write_text("\n".join(MOLECULES) + "\n")
    return path


def cells(printed: str, name: str) -> list[str]:
    """The cells of the row of a table that begins with a name."""
    line = next(line for line in printed.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_frechet_distance_of_moved_and_scaled_rows_is_known() -> None:
    reference = np.random.default_rng(0).standard_normal((500, 4)) @ np.diag([1.0, 5.0, 0.1, 30.0]) + [1, 2, 3, 4]
    reference[:, 1] += reference[:, 0]
    spread = reference.std(0)
    assert sampling.frechet_distance(reference, reference) == pytest.approx(0, abs=1e-6)
    assert sampling.frechet_distance(reference + 2 * spread, reference) == pytest.approx(4 * 4)
    scaled = reference.mean(0) + 3 * (reference - reference.mean(0))
    assert sampling.frechet_distance(scaled, reference) == pytest.approx(4 * 4 * 500 / 499)
    holes = np.vstack([reference, np.full((1, 4), np.nan)])
    assert sampling.frechet_distance(holes, reference) == pytest.approx(0, abs=1e-6)
    assert math.isnan(sampling.frechet_distance(reference[:1], reference))


def test_internal_diversity_is_over_pairs() -> None:
    assert sampling.internal_diversity(["CCO", "CCO"]) == pytest.approx(0)
    a, b, c = "CCO", "CCN", "c1ccccc1O"
    similarities = [*similarity_to(a, [b, c]), *similarity_to(b, [c])]
    assert sampling.internal_diversity([a, b, c]) == pytest.approx(1 - np.mean(similarities))
    assert math.isnan(sampling.internal_diversity([a]))


def test_measures_around_drugs() -> None:
    rows = [["OCC", "CCO", "CCN", "C(", ""], ["CC", "CCC", "CC(", "CCCC", "CCCC"]]
    found = sampling.measure_radius(0.5, ["CCO", "CC"], rows, {"CCC", "CCO", "CO"}, 1.0)
    assert found.valid == 7 / 10 and found.unique == 5 / 7, "CCO, CCN; CC, CCC, CCCC"
    assert found.novel == 2 / 5, "CCN and CCCC: neither known nor the drug"
    assert found.same == 3 / 7
    assert found.tanimoto.tolist() == [
        *similarity_to("CCO", ["CCO", "CCO", "CCN"]),
        *similarity_to("CC", ["CC", "CCC", "CCCC", "CCCC"]),
    ]


def test_known_molecules_are_found_in_files(molecules: Path) -> None:
    assert sampling.known_among({"CCO", "CCC", "CN"}, [molecules, molecules]) == {"CCO", "CN"}


@pytest.mark.parametrize("has_density", [True, False])
def test_sampling(
    model_file: Path, without_density: Path, molecules: Path, tmp_path: Path, has_density: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = model_file if has_density else without_density
    files = [option for name in ("training", "held-out", "drugs") for option in (f"--{name}", str(molecules))]
    sizes = ["--samples", "20", "--seeds", "3", "--around", "4", "--radii", "0.5", "1"]
    recorded: list[str] = []
    monkeypatch.setattr(sampling, "record", lambda title, command, lines, seed: recorded.append(command))
    monkeypatch.setattr("sys.argv", ["x", "--model", str(model), *files, *sizes, "--plot", str(tmp_path / "a.png"), "--record"])
    sampling.main()
    printed = capsys.readouterr().out
    assert ("The density is that of the model file" in printed) == has_density
    assert (
        "The model has no density: a kernel density estimate of 40 kernels was fitted to 20,000 random molecules of molecules.smi"
        in printed
    ) != has_density
    assert cells(printed, "held-out molecules")[1:4] == ["100.0%", "100.0%", "0.0%"]
    drawn, _ = sampling.draw(load(model_file), 20, density="normal")
    valid = sampling.valid_of(drawn)
    assert cells(printed, "N(0, I)")[1:3] == [f"{len(valid) / 20:.1%}", f"{len(set(valid)) / len(valid):.1%}"]
    assert [len(cells(printed, radius)) for radius in ("0.5", "1")] == [8, 8] and "3 drugs" in printed
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "/" not in recorded[0] and recorded[0].startswith(
        f"python -m benchmarks.sampling --model {model.name} --training molecules.smi"
    )


def test_search(
    without_density: Path, molecules: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--model", str(without_density), "--training", str(molecules), "--held-out", str(molecules)]
    sizes = ["--molecules", "4", "--control-molecules", "2", "--evaluations", "12", "--population", "4"]
    monkeypatch.setattr("sys.argv", ["x", *files, *sizes])
    search.main()
    printed = capsys.readouterr().out
    for name in ("CMA-ES |", "random sampling", "CMA-ES, random weights (2 of the seeds)"):
        goal, found, gain = cells(printed, name)[1:4]
        assert re.fullmatch(r"\d+%", goal) and re.fullmatch(r"\d+%", found) and float(gain) >= 0
    assert (
        "The 4 molecules of lowest QED" in printed and "12 evaluations each, population 4, radius 0.25 times the spread" in printed
    )


def test_seeds_of_a_search_have_the_lowest_qed(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_text("\n".join([*MOLECULES, "C(", "C" * 30, "OCC"]) + "\n")
    found = search.low_qed(tmp_path / "in.smi", load(model_file), 100, 5)
    scores = sorted(qed([*MOLECULES]))
    assert len(set(found)) == 5 and qed(found).tolist() == pytest.approx(scores[:5]), "too long molecules are not used"


def test_the_gain_is_zero_if_nothing_better_was_found() -> None:
    def result(seed_score: float, score: float | None) -> SearchResult:
        molecules = [] if score is None else [Candidate("CC", score, 0.5, 1)]
        return SearchResult("C", seed_score, "QED", molecules, 10, {"invalid": 4, "too dissimilar": 3, "no score": 0})

    outcome = search.Outcome([result(0.3, 0.95), result(0.5, 0.4), result(0.2, None), result(0.3, 0.6)], 8.0)
    assert cells(search.row("x", outcome), "x")[1:] == ["25%", "75%", f"{(0.65 + 0.3) / 4:.3f}", "0.650", "60.0%", "30.0%", "2.0"]
    nothing = search.row("y", search.Outcome([result(0.2, None)], 1.0))
    assert cells(nothing, "y")[1:5] == ["0%", "0%", "0.000", "nan"]


def test_random_weights_are_those_of_the_seed_and_have_their_own_density(model_file: Path, molecules: Path) -> None:
    args = argparse.Namespace(model=str(model_file), training=[molecules], training_molecules=30, device="cpu")
    first, again, other = (fitted.with_random_weights(args, seed) for seed in (0, 0, 1))
    trained, _ = fitted.fitted_model(args)
    for name in ("embedding.token.weight", "output_bias"):
        weights = [model.network.state_dict()[name] for model in (first, again, other, trained)]
        assert (weights[0] == weights[1]).all()
    key = "embedding.token.weight"
    assert (first.network.state_dict()[key] != other.network.state_dict()[key]).any()
    assert first.density is not None and trained.density is not None and again.density is not None
    np.testing.assert_array_equal(first.density.means_MZ, again.density.means_MZ)
    assert np.abs(first.density.mean_Z - trained.density.mean_Z).max() > 1e-3
