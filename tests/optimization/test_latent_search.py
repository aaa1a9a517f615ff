"""The search, with a decoder whose molecules are known: a latent is a pair of counts of carbon and nitrogen atoms."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError
from nemo_cmim.optimization import Objective, SearchResult, SearchSettings, Seed, search


def decode(z_NZ: np.ndarray, step: int) -> list[str]:
    """A chain of carbons, then nitrogens; invalid with fewer than one carbon."""
    return ["C" * round(float(c)) + "N" * max(0, round(float(n))) if c >= 0.5 else "C(" for c, n, *_ in z_NZ]


def carbons(smiles: list[str]) -> list[int]:
    return [text.count("C") for text in smiles]


def run(*seeds: Seed, objective: object = carbons, **settings: object) -> list[SearchResult]:
    options = {"evaluations": 200, "population": 10, "n": None, **settings}
    return search(seeds, Objective(objective), decode, 1.0, SearchSettings(**options))  # type: ignore[arg-type]


SEED = Seed("CCCN", np.array([3, 1, 0, 0], np.float32), 0)


def test_cma_es_goes_further_than_sampling_and_both_are_reproducible() -> None:
    (found,), (again,), (random,), (other,) = (
        run(SEED, algorithm=algorithm, seed=seed) for algorithm, seed in (("CMA-ES", 0), ("CMA-ES", 0), ("none", 0), ("CMA-ES", 1))
    )
    assert found.molecules == again.molecules != other.molecules
    assert found.molecules[0].score > random.molecules[0].score + 5 > SEED.smiles.count("C")
    assert found.evaluations == 200 and len(found.history) == 20
    assert found.history == sorted(found.history) and found.history[-1] == found.molecules[0].score
    assert all(one.score == one.smiles.count("C") for one in found.molecules)
    assert len({one.smiles for one in found.molecules}) == len(found.molecules) and "CCCN" not in [
        one.smiles for one in found.molecules
    ]
    assert [one.score for one in found.molecules] == sorted((one.score for one in found.molecules), reverse=True)


def test_a_search_does_not_depend_on_other_seeds() -> None:
    other = Seed("CCCCCC", np.array([6, 0, 0, 0], np.float32), 1)
    both = run(SEED, other)
    assert both[0].molecules == run(SEED)[0].molecules and both[1].molecules == run(other)[0].molecules


def test_minimise() -> None:
    seed = Seed("CCCCCCCCCCCC", np.array([12, 0, 0, 0], np.float32), 0)
    (found,) = run(seed, maximize=False)
    assert found.molecules[0].score <= 3 and found.molecules[0].score == found.history[-1] == min(found.history)


def test_conditions_hold_and_what_fails_them_is_counted() -> None:
    (found,) = run(SEED, must_contain="CN", min_similarity=0.3, scaled_radius=2.0)
    assert found.molecules and all("N" in one.smiles and one.similarity >= 0.3 for one in found.molecules)
    used = found.evaluations - sum(found.dropped.values()) + found.dropped["the seed itself"]
    assert used >= len(found.molecules) and found.dropped["invalid"] > 0 and found.dropped["without the substructure"] > 0


def test_an_empty_result_says_why(tmp_path: Path) -> None:
    (found,) = run(SEED, min_similarity=1.0)
    assert not found.molecules and found.dropped["too dissimilar"] > 0 and 0 < found.best_similarity < 1
    assert f"The most similar molecule has the similarity {found.best_similarity:.2f}" in found.explain()
    (other,) = run(SEED, must_contain="O")
    assert not other.molecules and "similarity" not in other.explain()
    assert found.to_frame().columns.tolist() == ["seed", "smiles", "score", "similarity", "step"] and math.isnan(found.history[0])
    found.plot(tmp_path / "plot.png")
    found.grid(tmp_path / "grid.svg")


def test_molecules_without_a_score_are_dropped() -> None:
    def score(smiles: list[str]) -> list[float]:
        if any(len(text) > 6 for text in smiles):
            raise ValueError("too long")
        return [float(len(text)) for text in smiles]

    (found,) = run(SEED, objective=score)
    assert found.dropped["no score"] > 0 and found.molecules[0].score == 6.0
    assert re.search(
        r"The first error of a scoring function: score\(\['[CN]{7,}'\]\) raised ValueError\('too long'\)\.", found.explain()
    )


def test_a_function_that_always_fails_is_an_error() -> None:
    def broken(smiles: list[str]) -> list[float]:
        raise KeyError("no such model")

    other = Seed("CCCCCC", np.array([6, 0, 0, 0], np.float32), 1)
    with pytest.raises(ConfigError, match=r"first step. The first error: broken\(\['CCCN'\]\) raised KeyError\('no such model'\)"):
        run(SEED, other, objective=broken)
    calls: list[str] = []

    def only_for_the_other(smiles: list[str]) -> list[int]:
        calls.extend(smiles)
        return broken(smiles) if "N" in smiles[0] else carbons(smiles)  # type: ignore[return-value]

    first, second = run(SEED, other, objective=only_for_the_other)
    assert second.molecules and math.isnan(first.seed_score) and "raised KeyError" in first.error, "other seeds have scores"


def test_a_function_may_change_its_list() -> None:
    def greedy(smiles: list[str]) -> list[int]:
        scores = carbons(smiles)
        smiles.clear()
        return scores

    assert [one.molecules for one in run(SEED, objective=greedy)] == [one.molecules for one in run(SEED)]


def test_each_molecule_is_scored_once() -> None:
    seen: list[str] = []

    def score(smiles: list[str]) -> list[int]:
        seen.extend(smiles)
        return carbons(smiles)

    run(SEED, objective=score)
    assert len(set(seen)) == len(seen) - 1  # the seed is scored before the search too


def test_pictures_and_tables(tmp_path: Path) -> None:
    (found,) = run(SEED, n=5)
    found.plot(tmp_path / "plot.png")
    found.grid(tmp_path / "grid.svg")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    found.grid(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (tmp_path / "grid.svg").read_text()
    for name in ("grid.pdf", "grid", "plot.gif"):
        with pytest.raises(ConfigError, match=rf"path='.*{name}': a picture is written as .png or .svg"):
            (found.plot if "plot" in name else found.grid)(tmp_path / name)
        assert not (tmp_path / name).exists()
    found.grid(tmp_path / "GRID.PNG")
    assert (tmp_path / "GRID.PNG").read_bytes().startswith(b"\x89PNG")
    found.plot(tmp_path / "plot.pdf")
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF")
    assert found.to_frame()["score"].tolist() == [one.score for one in found.molecules] and len(found.molecules) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "GA"}, "algorithm must be one of CMA-ES, none, found 'GA'"),
        ({"population": 1}, "population must be at least 2"),
        ({"evaluations": 5}, "evaluations=5 is less than population=10"),
        ({"scaled_radius": 0}, "scaled_radius must be a number above 0, found 0: with 0, a search stays at its molecule"),
        ({"scaled_radius": 0.0, "algorithm": "none"}, "scaled_radius must be a number above 0, found 0"),
        ({"scaled_radius": -1}, "scaled_radius must be a number above 0, found -1"),
        ({"scaled_radius": np.zeros(2)}, "scaled_radius must be a number above 0, found array"),
        ({"maximize": "no"}, r"maximize must be True or False, found 'no' \(str\)"),
        ({"must_contain": None}, "must_contain must be SMARTS, .*cannot parse None"),
        ({"must_contain": ["CN", ""]}, "cannot parse ''"),
        ({"min_similarity": 1.5}, "min_similarity must be a number from 0 to 1, found 1.5"),
        ({"min_similarity": "0.5"}, "min_similarity must be a number from 0 to 1, found '0.5'"),
        ({"min_similarity": float("nan")}, "min_similarity must be a number from 0 to 1"),
        ({"must_contain": "c1cc"}, "RDKit cannot parse 'c1cc'"),
        ({"n": 0}, "n must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_invalid_settings_raise(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(SEED, **settings)
