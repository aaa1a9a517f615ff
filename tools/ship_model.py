"""Prepares a trained model for shipping: writes half-precision weights with a card, and a checksum, to nemo_cmim/shipped/.

    python -m tools.ship_model RUN/checkpoints/NAME.nemo cmim_small --run RUN --data DATA --source 'train.csv*=MOSES' \
        --density train.csv.gz --bandwidth 0.1 --commit HASH --hardware 'two cores of an AMD EPYC' \
        --command 'nemo-cmim prepare ...' --command 'nemo-cmim train ...' \
        [--numbers NUMBERS.json]

Everything in the card is read or measured: settings from the `.nemo`, steps and losses from the run's `metrics/steps.jsonl` and
checkpoints, molecules from the manifest of the prepared folder; decoding and the effect of half precision by running the model. Hardware,
commit and commands are in no file, so they are required options. The same input gives the same bytes.

NUMBERS.json adds tables: {"Title": {"protocol": "how the numbers were measured", "rows": [{"column": "value", ...}, ...]}, ...}
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemo_cmim.evaluation.decoding import decoding
from nemo_cmim.evaluation.features import embedding_kinds
from nemo_cmim.files import atomic_write
from nemo_cmim.generation import BANDWIDTH
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.fit_density import fit_density, sample_molecules
from nemo_cmim.inference.model_file import ModelFile, read_model_file, write_model_file
from nemo_cmim.molecules import canonical_or_none
from nemo_cmim.report.overlap import find_overlap
from nemo_cmim.store.manifest import StoreManifest
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.training.checkpoints.format import CheckpointManifest, find_checkpoints
from nemo_cmim.zinc.tranches import Tranche
from tools.model_card import SOURCES, Facts, Sampling, Training, card

__all__ = ["main", "ship", "write_checksums"]

SHIPPED = Path(__file__).resolve().parents[1] / "nemo_cmim" / "shipped"
LARGEST_FILE = 40_000_000  # bytes
LARGEST_DIFFERENCE = 0.01  # largest relative change of an embedding by half precision
AVERAGED_STEPS = 100
CURVE = 6  # rows of the learning curve, each at twice the steps of the one before
COMPARED = 512  # molecules whose embeddings are compared
FITTED = 20_000  # molecules that the density is fitted to
SAMPLES = 200
_SMALLEST_NORMAL = torch.finfo(torch.float16).smallest_normal
_PLACE = re.compile(r"(?:^|[\s'\"=(:,`])(?:/\w|~/|[A-Z]:\\)")  # a path on one machine
_UNKNOWN = re.compile(r"\bNone\b|\bnan\b|\?\?\?|TODO|\bnull\b")


class ShippingError(ValueError):
    """The input is inconsistent, incomplete or too large."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("nemo", type=Path, metavar="NEMO", help="the trained model, float32")
    add("name", metavar="NAME", help="name under which it ships, such as cmim_small")
    add("--run", type=Path, required=True, metavar="FOLDER", help="folder of the run that trained it")
    add("--data", type=Path, required=True, metavar="FOLDER", help="training data: a folder written by nemo-cmim prepare")
    add(
        "--source",
        action="append",
        default=[],
        metavar="PATTERN=KEY",
        help=f"source of the input files that match PATTERN; repeat; choices of KEY: {', '.join(SOURCES)}",
    )
    density = "files of molecules to fit the density of latents to; without it, the model has the density of NEMO, if any"
    add("--density", nargs="+", type=Path, default=[], metavar="FILE", help=density)
    bandwidth = "spread of its kernels in units of the spread of all latents (default: %(default)s)"
    add("--bandwidth", type=float, default=BANDWIDTH, metavar="H", help=bandwidth)
    add("--commit", required=True, metavar="HASH", help="commit of the code that trained it")
    add("--hardware", required=True, metavar="TEXT", help="hardware of the training, in words")
    add("--command", action="append", required=True, metavar="TEXT", help="a command that reproduces it; repeat")
    add("--numbers", type=Path, metavar="FILE", help="JSON file of further tables, see above")
    add(
        "--held-out",
        type=int,
        default=1000,
        metavar="N",
        help="number of molecules of the test split to decode (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    try:
        path = ship(
            args.nemo, args.name, args.run, args.data, sources=args.source, density=args.density, bandwidth=args.bandwidth,
            commit=args.commit, hardware=args.hardware, commands=args.command,
            numbers=json.loads(args.numbers.read_text()) if args.numbers else {}, held_out=args.held_out, folder=SHIPPED,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        parser.exit(2, f"ship_model: {error}\n")
    print(read_model_file(path).card)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB) and SHA256SUMS")


def ship(
    nemo: Path,
    name: str,
    run: Path,
    data: Path,
    *,
    sources: Sequence[str],
    density: Sequence[Path],
    bandwidth: float = BANDWIDTH,
    commit: str,
    hardware: str,
    commands: Sequence[str],
    numbers: Mapping[str, Mapping[str, Any]],
    held_out: int,
    folder: Path,
) -> Path:
    """Writes `folder/NAME.nemo` and `folder/SHA256SUMS`. The arguments are those of the command line.

    Raises:
        ShippingError: If the inputs do not belong together, if the model is too large, or if the card would have a path of this machine.
    """
    for title, table in numbers.items():
        rows = table.get("rows")
        if not table.get("protocol") or not rows or any(row.keys() != rows[0].keys() for row in rows):
            raise ShippingError(f"The numbers of {title!r} need a `protocol`, and `rows` with the same columns in each row.")
    checkpoint = read_model_file(nemo)
    store = TokenStore.open(data, "test", vocabulary=checkpoint.vocabulary)
    training = _training(checkpoint, run, store.manifest)
    stored = _stored(checkpoint.weights)
    content = dataclasses.replace(checkpoint, weights=stored)
    if density:
        content = fit_density(content, sample_molecules(density, FITTED), bandwidth=bandwidth, device="cpu")
    small = CMIMModel(content, "cpu")
    rows = store.gather(np.arange(min(len(store), max(held_out, COMPARED, SAMPLES))))
    smiles = [small.tokenizer.decode(row.tolist()) for row in rows]
    lost = _lost_weights(checkpoint.weights, stored)
    change = _change_by_half_precision(CMIMModel(checkpoint, "cpu"), small, smiles[:COMPARED])
    facts = Facts(
        name=name,
        config=checkpoint.config,
        vocabulary=checkpoint.vocabulary,
        parameters=sum(weight.numel() for weight in stored.values()),
        training=training,
        data=store.manifest,
        sources=_sources(store.manifest, sources),
        measured=decoding(small, smiles[:held_out]),
        held_out=len(smiles[:held_out]),
        sampling=_sampling(small, smiles[:SAMPLES], data, bandwidth if density else None),
        half=change | lost,
        hardware=hardware,
        commit=commit,
        commands=tuple(commands),
        numbers=numbers,
    )
    text = card(facts)
    for pattern, what in ((_PLACE, "a path of this machine"), (_UNKNOWN, "an unknown value")):
        if found := pattern.search(text):
            line = text[text.rfind("\n", 0, found.end() - 1) + 1 :].split("\n", 1)[0]
            raise ShippingError(f"The card would have {what}: {line.strip()!r}. Correct the option or file that it comes from.")
    path = folder / f"{name}.nemo"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as staging:
        write_model_file(staging, dataclasses.replace(content, card=text))
        staging.write_bytes(gzip.compress(staging.read_bytes(), mtime=0))  # a tenth smaller
        if staging.stat().st_size > LARGEST_FILE:
            raise ShippingError(
                f"{path.name} would have {staging.stat().st_size:,} bytes; the limit is {LARGEST_FILE:,}. Use a smaller network."
            )
    write_checksums(folder)
    return path


def write_checksums(folder: Path) -> None:
    """Writes `SHA256SUMS` of all models in a folder, in the format of `sha256sum *.nemo`."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("*.nemo"))]
    with atomic_write(folder / "SHA256SUMS") as staging:
        staging.write_text("".join(lines), encoding="utf-8")


def _training(checkpoint: ModelFile, run: Path, data: StoreManifest) -> Training:
    """Reads the records of the run, and checks that they belong to this model and these data."""
    found = {path: CheckpointManifest.read(path) for path in find_checkpoints(run / "checkpoints")}
    if not found:
        raise ShippingError(
            f"{run} has no checkpoint, so the data of the training are unknown. Pass the folder of a run with checkpoints."
        )
    one = next(iter(found.values()))
    for part in ("network", "objective", "optim", "augmentation"):
        if json.loads(json.dumps(dataclasses.asdict(getattr(checkpoint.config, part)))) != one.model[part]:
            raise ShippingError(
                f"{run} trained a model with different settings of `{part}` than the .nemo file has. Pass the run of this model."
            )
    limit = one.model["train_ds"]["limit"]
    if one.order["molecules"] != min(data.splits["train"]["molecules"], limit or one.order["molecules"]):
        raise ShippingError(
            f"{run} was trained on {one.order['molecules']:,} molecules, but the data folder has "
            f"{data.splits['train']['molecules']:,} in its training split. Pass the folder of the training data."
        )
    step = _step_of(checkpoint, {path: manifest.step for path, manifest in found.items()})
    losses = [manifest.monitored for manifest in found.values() if manifest.step == step]
    with (run / "metrics" / "steps.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.endswith("\n")]
    lines = [record for record in records if record["step"] <= step]
    if len(lines) != step:
        raise ShippingError(
            f"{run}/metrics/steps.jsonl has {len(lines):,} of the {step:,} steps. Pass a run with complete records."
        )
    molecules = np.cumsum([line["molecules"] for line in lines])
    names = [name for name in lines[-1] if name in ("lr", "train_loss") or name.startswith("train/")]
    averaged = min(AVERAGED_STEPS, step)
    ends = sorted({max(averaged, step >> halvings) for halvings in range(CURVE)})
    curve = [
        {"step": end, "molecules": molecules[end - 1]}
        | {name: float(np.mean([line[name] for line in lines[end - averaged : end]])) for name in names}
        for end in ends
    ]
    return Training(
        step=step,
        last_step=records[-1]["step"],
        molecules=int(molecules[-1]),
        batch=int(lines[0]["molecules"]),
        hours=sum(line["seconds"] for line in lines) / 3600,
        order=one.order,
        validation_loss=losses[0] if losses else None,
        curve=curve,
        averaged=averaged,
    )


def _step_of(checkpoint: ModelFile, steps: Mapping[Path, int]) -> int:
    """The step of the run's checkpoint that the `.nemo` was exported from."""
    for folder, step in steps.items():
        exported = _exported(folder)
        if exported.vocabulary.fingerprint == checkpoint.vocabulary.fingerprint and all(
            torch.equal(exported.weights[name], weight) for name, weight in checkpoint.weights.items()
        ):
            return step
    there = ", ".join(map(str, sorted(set(steps.values()))))
    raise ShippingError(f"The run has checkpoints of step {there}; none has the weights and the vocabulary of the .nemo file.")


def _exported(folder: Path) -> ModelFile:
    """The content of the `.nemo` file that a training checkpoint is exported to."""
    from nemo_cmim.training.checkpoints.export import export_checkpoint  # imports Megatron

    with tempfile.TemporaryDirectory() as scratch:
        export_checkpoint(folder, Path(scratch) / "one.nemo")
        return read_model_file(Path(scratch) / "one.nemo")


def _sampling(model: CMIMModel, smiles: Sequence[str], data: Path, bandwidth: float | None) -> Sampling | None:
    """Decodes random latents, of the prior and around molecules. None for a model without prior or without decoder."""
    network = model.config.network
    if not (network.is_stochastic and network.decoder_layers):
        return None
    posterior = model.encode(smiles)
    return Sampling(
        prior=_counts(model.sample(SAMPLES, seed=0, density="normal"), data),
        fitted=None if model.density is None else _counts(model.sample(SAMPLES, seed=0), data),
        bandwidth=bandwidth,
        around=_counts(model.sample(1, smiles=smiles, unit="posterior", scaled_radius=1, seed=0), data),
        rms=float(posterior.mean_BKD.square().mean().sqrt()),
        std=float(posterior.variance_BKD.sqrt().mean()),
    )


def _counts(samples: list[str] | list[list[str]], data: Path) -> dict[str, int]:
    texts = np.ravel(samples).tolist()
    valid = [canonical for text in texts if (canonical := canonical_or_none(text)) is not None]
    different = sorted(set(valid))
    known = int(find_overlap(data, different, stereo=False).same["train"].sum()) if different else 0
    return {"samples": len(texts), "valid": len(valid), "different": len(different), "new": len(different) - known}


def _sources(data: StoreManifest, patterns: Sequence[str]) -> dict[str, dict[str, int]]:
    """Numbers of files and lines of each source of molecules."""
    found: dict[str, dict[str, int]] = {}
    for entry in data.inputs:
        name = Path(entry["file"]).name
        keys = [key for pattern, _, key in (text.rpartition("=") for text in patterns) if fnmatch.fnmatchcase(name, pattern)]
        keys += ["ZINC15"] if not keys and Tranche.of_file(name) else []
        if len(keys) != 1 or keys[0] not in SOURCES:
            raise ShippingError(
                f"The source of {name} is unknown. Pass one --source 'PATTERN=KEY' for it; choices of KEY: {', '.join(SOURCES)}."
            )
        of_source = found.setdefault(keys[0], {"files": 0, "read": 0, "kept": 0})
        for count, value in (("files", 1), ("read", entry["read"]), ("kept", entry["kept"])):
            of_source[count] += value
    return found


def _stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in half precision; vectors (norms, biases) in full precision."""
    return {name: weight.float() if weight.dim() < 2 else weight.half() for name, weight in weights.items()}


def _change_by_half_precision(full: CMIMModel, half: CMIMModel, smiles: Sequence[str]) -> dict[str, Any]:
    """The largest change of an embedding, relative to its length, for each kind."""
    difference = {}
    for kind in embedding_kinds(full):
        a, b = full.embed(smiles, kind), half.embed(smiles, kind)
        difference[kind] = float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)).max())
        if not difference[kind] <= LARGEST_DIFFERENCE:  # also if it is not a number
            raise ShippingError(
                f"Half precision changes an embedding ({kind}) by {difference[kind]:.2g} of its length; the limit is {LARGEST_DIFFERENCE}."
            )
    return {"difference": difference, "molecules": len(smiles)}


def _lost_weights(weights: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, float]:
    """Fractions of all weights: stored in half precision, zero in it, and with fewer digits in it."""
    infinite = [name for name, weight in stored.items() if not weight.isfinite().all()]
    if infinite:
        raise ShippingError(f"The weights of {', '.join(infinite)} overflow in half precision.")
    half = {name: weight for name, weight in stored.items() if weight.dtype == torch.float16}
    counts = {
        "stored": sum(weight.numel() for weight in half.values()),
        "zero": sum(int(((weights[name] != 0) & (weight == 0)).sum()) for name, weight in half.items()),
        "subnormal": sum(int(((weight != 0) & (weight.abs() < _SMALLEST_NORMAL)).sum()) for weight in half.values()),
    }
    total = sum(weight.numel() for weight in weights.values())
    return {what: count / total for what, count in counts.items()}


if __name__ == "__main__":
    main()
