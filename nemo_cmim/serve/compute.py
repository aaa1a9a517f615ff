"""Computes requests with a model. N rows, K latents, D width."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..generation import BEFORE_TOKEN, DecodingSettings
from ..inference import CMIMModel
from ..inference.capabilities import require_bottleneck, require_decoder
from ..inference.decoding import as_latents, decode_batches
from ..optimization import OBJECTIVES, SearchResult
from .jobs import BadMolecules, Decode, Embed, Generate, Hidden, Molecules, Request, Sample
from .turns import Pause

__all__ = ["compute_alone", "compute_together", "is_short", "warm_up"]

_STEP = 256  # molecules that are embedded without a pause
_STEP_DECODED = 32  # molecules of a short request that are decoded: decoding costs about ten times as much as embedding
_STEP_SCORED = 8  # molecules that are scored without a pause
_SMALLEST_RADIUS = 1e-9  # of a search, for a radius of 0: it changes no float32 latent, but CMA-ES needs a number above 0
_WARM_UP = ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CCO")


def is_short(request: Request) -> bool:
    """Whether a request is computed without a pause, so that it may run between the steps of long ones."""
    if isinstance(request, Molecules):
        return request.rows <= _STEP
    if isinstance(request, Sample) and (request.unique or request.must_contain):
        return False  # many more may be decoded
    return not isinstance(request, Generate) and request.rows <= _STEP_DECODED


def warm_up(model: CMIMModel) -> list[Any] | None:
    """Computes one of everything that the model supports, so that the first request is not slower than others.

    Returns:
        Latents [1, K, D] of a molecule, as an example for `/decode`; None if the model cannot decode latents.
    """
    network = model.config.network
    model.fingerprint("mean")
    model.embed(_WARM_UP, "mean")
    for score in OBJECTIVES.values():
        score(list(_WARM_UP))
    if not network.decoder_layers:
        return None
    model.embed(_WARM_UP, "informative")
    if not network.has_bottleneck:
        return None
    latents = model.encode(_WARM_UP[:1]).mean_BKD
    _decode(model, latents.to(model.device))
    return latents.double().numpy().round(4).tolist()


def compute_together(model: CMIMModel, requests: Sequence[Request]) -> list[Any]:
    """The result of each of several short requests with equal keys, or its error.

    Raises:
        Exception: An error of the joined computation that may concern only one of them.
    """
    first = requests[0]
    if isinstance(first, Decode):
        return _decode_together(model, [each for each in requests if isinstance(each, Decode)])
    if not isinstance(first, Molecules):
        return [compute_alone(model, each, lambda: None) for each in requests]
    asked = [each for each in requests if isinstance(each, Molecules)]  # all of them: their keys are equal
    molecules = [smiles for each in asked for smiles in each.sequences]
    kind, layers = (first.kind or "mean", first.layers) if isinstance(first, Embed) else ("mean", None)
    rows, invalid, _ = model.embed_or_explain(molecules, kind, layers=layers)
    results, start = [], 0
    for each in asked:
        reasons = {i: invalid[start + i] for i in range(each.rows) if start + i in invalid}
        results.append(_vectors_of(model, each, rows[start : start + each.rows], reasons))
        start += each.rows
    return results


def compute_alone(model: CMIMModel, request: Request, pause: Pause) -> Any:
    """The result of one request of any size. `pause` is called between its steps: before each token, or some molecules."""
    if isinstance(request, Molecules):
        return _embed_in_steps(model, request, pause)
    before = BEFORE_TOKEN.set(pause)
    try:
        if isinstance(request, Decode):
            latents = _latents(model, request)
            return _decode(model, latents), _warnings_of(model, latents)
        return _sample(model, request, pause) if isinstance(request, Sample) else _generate(model, request, pause)
    finally:
        BEFORE_TOKEN.reset(before)


def _vectors_of(model: CMIMModel, request: Molecules, rows_NZ: np.ndarray, reasons: dict[int, str]) -> Any:
    """The rows of a request in the form that it asks for, with the reasons of invalid ones; or the error that describes them."""
    network = model.config.network
    may_be_invalid = isinstance(request, Embed) and request.on_invalid == "nan"
    if reasons and not may_be_invalid:
        return BadMolecules("sequences", reasons)
    if isinstance(request, Hidden):
        if not network.has_bottleneck:
            return ConfigError("/hidden needs a model with a fixed number of latents, and this one has no bottleneck.")
        return rows_NZ.reshape(len(rows_NZ), network.latents, network.hidden_size)
    if isinstance(request, Embed) and request.kind is None and network.latents > 1:
        rows_NZ = rows_NZ.reshape(len(rows_NZ), network.latents, network.hidden_size).mean(1)
    return rows_NZ, reasons


def _embed_in_steps(model: CMIMModel, request: Molecules, pause: Pause) -> Any:
    kind, layers = (request.kind or "mean", request.layers) if isinstance(request, Embed) else ("mean", None)
    parts: list[np.ndarray] = []
    reasons: dict[int, str] = {}
    for start in range(0, request.rows, _STEP):
        pause()
        rows, invalid, _ = model.embed_or_explain(request.sequences[start : start + _STEP], kind, layers=layers)
        parts.append(rows)
        reasons |= {start + i: reason for i, reason in invalid.items()}
    result = _vectors_of(model, request, np.concatenate(parts), reasons)
    if isinstance(result, Exception):
        raise result
    return result


def _decode_together(model: CMIMModel, requests: Sequence[Decode]) -> list[Any]:
    latents: list[Any] = []
    for each in requests:
        try:
            latents.append(_latents(model, each))
        except ValueError as error:
            latents.append(error)
    valid = [each for each in latents if isinstance(each, Tensor)]
    texts = iter(_decode(model, torch.cat(valid)) if valid else [])
    return [([next(texts) for _ in each], _warnings_of(model, each)) if isinstance(each, Tensor) else each for each in latents]


def _latents(model: CMIMModel, request: Decode) -> Tensor:
    """The latents of a request, checked as by `CMIMModel.decode`; the check must see all of a request, and nothing of others."""
    require_decoder(model.config, "/decode")
    require_bottleneck(model.config, "/decode", "use a model that has one")
    return as_latents(request.latents, model.network, model.device)


def _decode(model: CMIMModel, latents_NKD: Tensor) -> list[str]:
    batches = ((batch_BKD, None) for batch_BKD in latents_NKD.split(_STEP))
    found = decode_batches(model.network, model.tokenizer, batches, DecodingSettings(), report_truncated=False)
    return [text for (text,) in found]


def _warnings_of(model: CMIMModel, latents_NKD: Tensor) -> list[str]:
    far = model.far_from_molecules(latents_NKD)
    return [] if far is None else [far]


def _sample(model: CMIMModel, request: Sample, pause: Pause) -> tuple[list[list[str]], list[str]]:
    """SMILES of each molecule, and warnings.

    They are the same as those of one call of `sample`: those of a row depend on the seed and on its index, not on other rows.
    """
    reasons: dict[int | None, str] = {}
    for start in range(0, len(request.sequences), _STEP):
        pause()
        for i, smiles in enumerate(request.sequences[start : start + _STEP], start):
            reason = model.invalid_reason(smiles)
            if reason is not None:
                reasons[i] = reason
    if reasons:
        raise BadMolecules("sequences", reasons)
    seed = secrets.randbits(63) if request.seed is None else request.seed
    size = max(1, _STEP // (request.num_molecules * request.beam_size))
    texts: list[list[str]] = []
    for start in range(0, len(request.sequences), size):
        pause()
        texts += model.sample(
            request.num_molecules,
            smiles=request.sequences[start : start + size],
            scaled_radius=request.scaled_radius,
            unit=request.unit,
            beam_size=request.beam_size,
            temperature=request.temperature,
            must_contain=request.must_contain or (),
            unique=request.unique,
            attempts=request.attempts,
            seed=seed,
            first_index=start,
        )
    short = [i for i, row in enumerate(texts) if len(row) < request.num_molecules]
    if not short:
        return texts, []
    return texts, [
        f"Fewer than {request.num_molecules} molecules met the conditions in {len(short)} of {len(texts)} rows. The first is row "
        f"{short[0]}, counted from 0, with {len(texts[short[0]])} molecules. Change the radius or the temperature, or drop a condition."
    ]


def _generate(model: CMIMModel, request: Generate, pause: Pause) -> tuple[list[tuple[str, float]], str | None]:
    """SMILES and scores, the best first; and why there are fewer than asked for, or None."""
    reason = model.invalid_reason(request.smi)
    if reason is not None:
        raise BadMolecules("smi", {None: reason})
    is_search = request.algorithm == "CMA-ES"

    def score(smiles: list[str]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(smiles), _STEP_SCORED):
            pause()
            scores.extend(OBJECTIVES[request.property_name](smiles[start : start + _STEP_SCORED]))
        return scores

    score.__name__ = request.property_name  # for texts about the result
    (result,) = model.optimize(
        [request.smi],
        score,
        algorithm=request.algorithm,
        maximize=not request.minimize,
        evaluations=request.particles * request.iterations,
        population=request.particles,
        scaled_radius=max(request.scaled_radius, _SMALLEST_RADIUS),
        unit=request.unit,
        min_similarity=request.min_similarity if is_search else 0.0,
        n=request.num_molecules,
        seed=request.seed,
        progress=lambda done, of: pause(),
    )
    assert result is not None  # the molecule is valid
    found = [(one.smiles, one.score) for one in result.molecules]
    return found, _note(result, is_search) if len(found) < request.num_molecules else None


def _note(result: SearchResult, is_search: bool) -> str:
    """Why a search found few molecules, and what to change."""
    advice = {"invalid": "Lower scaled_radius", "the seed itself": "Raise scaled_radius"}
    if is_search:
        advice["too dissimilar"] = "Lower min_similarity"
    main = max(result.dropped, key=lambda reason: result.dropped[reason])
    if not result.dropped[main]:  # all others were repeats
        return f"{result.explain()} Raise particles or iterations, to get more molecules."
    return (
        f"{result.explain()} {advice.get(main, 'Change scaled_radius')}, or raise particles or iterations, to get more molecules."
    )
