"""Removes shipped models, and notes in nemo_cmim/shipped/removed.json which release has them.

    python -m tools.remove_model NAME...

Run it after a release with the models was tagged, and before the version is increased: the current version becomes the release that has
them. The default model cannot be removed: first change `_DEFAULT` in nemo_cmim/inference/shipped.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from nemo_cmim.evaluation.features import embedding_kinds
from nemo_cmim.files import atomic_write
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.capabilities import embedding_spec
from nemo_cmim.inference.fingerprint import embedding_fingerprint
from nemo_cmim.inference.model_file import read_model_file
from nemo_cmim.inference.removed import REMOVED, RemovedModel, removed_models
from nemo_cmim.inference.shipped import list_models
from nemo_cmim.version import __version__
from tools.ship_model import write_checksums

PRECISIONS = ("fp32", "bf16", "fp16")


def remove(name: str, file: Path = REMOVED) -> None:
    """Deletes the model of this name in the folder of `file`, and notes it in `file`, in place of an older note of the same name."""
    path = file.with_name(f"{name}.nemo")
    others = [one for one in removed_models(file) if one.name != name]
    models = [*others, RemovedModel(name, __version__, tuple(_fingerprints(path)))]
    with atomic_write(file) as staging:
        staging.write_text(json.dumps([one._asdict() for one in models], indent=1) + "\n", encoding="utf-8")
    removed_models.cache_clear()
    path.unlink()
    write_checksums(file.parent)


def _fingerprints(path: Path) -> list[str]:
    """Fingerprints of all kinds of embedding in all precisions of PyTorch, and of the engine onnx-int8."""
    content = read_model_file(path)
    models = [CMIMModel(content, "cpu", precision=precision) for precision in PRECISIONS]
    full, vocabulary = models[0], content.vocabulary.fingerprint
    found = []
    for kind in embedding_kinds(full):
        found += [model.fingerprint(kind) for model in models]
        spec = embedding_spec(content.config, kind, None, "mean")
        found.append(
            embedding_fingerprint(full._weights_digest, content.config.network, vocabulary, spec, canonical=True, precision="int8")
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="shipped model to remove")
    names = parser.parse_args(arguments).names
    default, *others = list_models()
    for name in names:
        if name == default:
            parser.error(f"{name} is the default model. First change _DEFAULT in nemo_cmim/inference/shipped.py.")
        if name not in others:
            parser.error(f"{name} does not ship. Models: {', '.join(others)}.")
    for name in names:
        remove(name)
        print(f"{name}: removed; {__version__} is the last release that has it")


if __name__ == "__main__":
    main()
