"""Molecules per second of `embed` for each kind of vector and each precision, compared with BART."""

from __future__ import annotations

import functools
from collections.abc import Callable

from benchmarks.bart import bart
from benchmarks.gpu.setting import Setting
from nemo_cmim.config import ModelConfig
from nemo_cmim.inference import CMIMModel, list_models
from nemo_cmim.inference.capabilities import KINDS
from nemo_cmim.inference.model_file import ModelFile
from nemo_cmim.inference.shipped import model_file_of
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer

__all__ = ["measure"]

BATCH = 1024
WITH_RDKIT = 4000  # molecules that are also canonicalised, by one core, which takes most of the time


def measure(setting: Setting) -> list[str]:
    """Rows for each model, kind and precision; BART has the paper's size."""
    config, tokenizer = ModelConfig(), SmilesTokenizer()
    smiles = setting.smiles[: 16 if setting.is_rehearsal else None]
    tokens = [tokenizer.encode(one, on_unknown="unk") for one in smiles]
    shipped = list_models()[0]
    files = {f"`{shipped}`": model_file_of(shipped)}
    if not setting.is_rehearsal:
        weights = CMIMNetwork(config.network).state_dict()
        files["paper size, random weights"] = ModelFile(config, tokenizer.vocabulary, weights)
    lines = [
        "| model | precision | vectors | molecules/s | from canonical SMILES | memory, GiB | canonical molecules/s relative to BART |",
        "|---|---|---|---|---|---|---|",
    ]
    for precision in ("fp32", "bf16"):
        peer = bart(tokens, BATCH, encoder_only=False, device=setting.device)
        functions: dict[str, Callable[[], object]] = {"BART": functools.partial(_under, setting, precision, peer)}
        for name, file in files.items():
            model = CMIMModel(file, setting.device, precision=precision)
            for kind in KINDS:
                functions[f"{name}|{kind}"] = functools.partial(model.embed, smiles[:WITH_RDKIT], kind)
                functions[f"{name}|{kind}|canonical"] = functools.partial(model.embed, smiles, kind, canonical=False)
        seconds = setting.seconds(functions)
        memory = {name: _memory(setting, functions[name]) for name in functions if name == "BART" or name.endswith("|canonical")}
        for name, value in seconds.items():
            if name.count("|") == 1:
                label, kind = name.split("|")
                canonical = seconds[f"{name}|canonical"]
                lines.append(
                    f"| {label} | {precision} | `{kind}` | {len(smiles[:WITH_RDKIT]) / value:,.0f} | {len(smiles) / canonical:,.0f} "
                    f"| {memory[name + '|canonical']} | {seconds['BART'] / canonical:.2f} |"
                )
        lines.append(
            f"| BART 6+6x512, states averaged | {precision} | | | {len(smiles) / seconds['BART']:,.0f} | {memory['BART']} | 1 |"
        )
    mean = sum(map(len, tokens)) / len(tokens)
    return [
        *lines,
        "",
        f"{len(smiles):,} molecules, {mean:.1f} tokens on average, default batches. Molecules/s: from SMILES to array, canonicalised by "
        f"one core (at most {WITH_RDKIT:,} molecules); the next columns are without canonicalisation. BART: batches of {BATCH}, autocast, "
        "tokenized before. NVIDIA quotes 7,361 molecules/s for MolMIM on one A100 in fp32: another card and another day, not a ratio "
        "of this run.",
    ]


def _under(setting: Setting, precision: str, function: Callable[[], None]) -> None:
    with setting.autocast(precision):
        function()


def _memory(setting: Setting, function: Callable[[], object]) -> str:
    before = setting.start_memory()
    function()
    return setting.peak_gib(before)
