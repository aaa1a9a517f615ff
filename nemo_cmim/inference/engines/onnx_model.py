"""A model on ONNX Runtime: embeds without importing torch.

Shape letters: N rows, B molecules in a batch, S encoder tokens, T decoder positions, K latents (S without bottleneck), D width.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError, ConfigError
from ...tokenizers import SmilesTokenizer
from ...tokenizers.padding import decoder_input, pad
from ..batching import Progress, length_sorted_batches, pooling_weights, token_budget_slices
from ..capabilities import EmbeddingSpec
from ..embedding import EmbeddingModel
from ..inputs import TokenizedMolecules
from ..threads import thread_count
from . import INT8
from .fidelity import compare
from .folder import EngineFolder, graph_files, read_folder

__all__ = ["OnnxModel", "runtime"]

_ONLY_TORCH = (
    "decode", "encode", "far_from_molecules", "interpolate", "interpolate_pairs", "log_likelihood", "optimize", "predict_properties",
    "reconstruct", "sample",
)  # fmt: skip
_QUIET = 3  # errors only


class OnnxModel(EmbeddingModel):
    """A model on ONNX Runtime, on the CPU. It has the methods of `CMIMModel` that compute vectors.

    In fp32 its vectors and fingerprints are those of `CMIMModel`. The engine "onnx-int8" scales the inputs of a layer by the largest
    number in a batch, so that rounding errors depend on the batch more than in fp32; its fingerprints are different.

    Attributes:
        name: Name or path that it was loaded by.
        config: All settings that it was trained with.
        tokenizer: The tokenizer that it was trained with.
        engine: "onnx" or "onnx-int8".
        precision: "fp32", or "int8".
        device: "cpu".
        folder: The folder that it was read from.
    """

    device = "cpu"

    def __init__(self, content: EngineFolder, engine: str, name: str | None = None) -> None:
        self.name, self.config, self.tokenizer = name, content.config, SmilesTokenizer(content.vocabulary)
        self.engine, self.precision = engine, "int8" if engine == INT8 else "fp32"
        self.folder = content.path
        self._content = content
        files = graph_files(engine, has_decoder=self.config.network.decoder_layers > 0)
        self._encoder, *self._decoders = [_session(self.folder / file) for file in files]

    @classmethod
    def load(
        cls,
        folder: Path,
        engine: str | None = None,
        *,
        name: str | None = None,
        source: str | None = None,
        device: str | None = None,
        precision: str = "fp32",
    ) -> OnnxModel:
        """Reads a folder written by `nemo-cmim export-onnx`, and checks that it computes the vectors that it states.

        Args:
            folder: The folder.
            engine: "onnx" or "onnx-int8"; None: the first that the folder has.
            name: Name of the model; None: the folder.
            source: SHA-256 of the file from which it must have been exported; None: any.
            device: "cpu" or None.
            precision: "fp32"; the engine determines how it computes.

        Raises:
            CheckpointError: If the folder is damaged, was written by another version or from another model, does not have the engine, or
                if the engine misses the fidelity that it states.
            ConfigError: If a package is not installed or too old, or if the device or the precision is a different one.
        """
        cls.check_settings(device, precision)
        content, chosen = read_folder(folder, engine)
        if source not in (None, content.source):
            raise CheckpointError(f"{folder} is not an engine of {name}, but of another model, {content.model}. Delete the folder.")
        installed = runtime().__version__
        if _release(installed) < _release(content.onnxruntime):
            raise ConfigError(
                f"{folder} was checked with onnxruntime {content.onnxruntime}, but {installed} is installed. Update it: "
                f'pip install "onnxruntime>={content.onnxruntime}".'
            )
        model = cls(content, chosen, name or os.fspath(folder))
        for kind, expected in content.vectors.items():
            found = compare(model.embed_canonical(content.probes, kind), expected).smallest_cosine
            if not found >= content.limits[chosen]:
                raise CheckpointError(
                    f"{folder}: the engine {chosen} misses the fidelity that it states: the cosine similarity of its {kind} embedding to "
                    f"that of PyTorch is {found:.7f}, and must be at least {content.limits[chosen]}. This processor may round "
                    'differently, or the file is of another model. Export it again on this computer, or pass engine="torch".'
                )
        return model

    @staticmethod
    def check_settings(device: str | None, precision: str) -> None:
        """Raises a `ConfigError` if an ONNX engine does not have this device or precision."""
        for name, value, only in (("device", device or "cpu", "cpu"), ("precision", precision, "fp32")):
            if value != only:
                raise ConfigError(f'{name}={value!r} is not available with an ONNX engine. Leave it out, or pass engine="torch".')

    def __repr__(self) -> str:
        return f"OnnxModel({self.name!r}, engine={self.engine}, {self._content.parameters / 1e6:.1f} M parameters)"

    @property
    def _weights_digest(self) -> str:
        return self._content.weights

    def __reduce__(self) -> tuple[Any, ...]:  # a pickle has the place of the folder; sessions cannot be pickled
        return _unpickled, (self.folder, self.engine, self.name)

    def __getattr__(self, name: str) -> Any:
        if name in _ONLY_TORCH:
            return lambda *args, **options: self._raise(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _raise(self, what: str) -> None:
        raise ConfigError(
            f'{what} is not available with engine={self.engine!r}, which computes vectors only. Load the model with engine="torch".'
        )

    def _vectors(
        self,
        inputs: TokenizedMolecules,
        spec: EmbeddingSpec,
        batch_size: int | None,
        progress: Progress | None = None,
        sample: bool = False,
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        if sample:
            self._raise("sample=True")
        tokens = inputs.tokens
        found = np.full((len(tokens) + 1, spec.width), np.nan, dtype=np.float32)  # the last row is that of invalid molecules, -1
        limits = self._limits(batch_size)
        done = 0
        for rows in length_sorted_batches([len(row) for row in tokens], limits.encoder_molecules):
            of_rows = [tokens[row] for row in rows]
            ids_BS, is_token_BS, lengths_B = pad(of_rows, self.tokenizer.vocabulary)
            mean_BKD = self._encoder.run(["mean"], {"ids": ids_BS, "is_token": is_token_BS})[0]
            if spec.kind == "mean":
                found[rows] = (
                    mean_BKD.reshape(len(rows), -1) if self.config.network.has_bottleneck else _mean(mean_BKD, is_token_BS)
                )
            else:
                for part in token_budget_slices(lengths_B.tolist(), limits):
                    found[rows[part]] = self._pooled(of_rows[part], mean_BKD[part], is_token_BS[part], spec)
                    if progress:
                        progress(done + part.stop, len(tokens))
            done += len(rows)
            if progress:
                progress(done, len(tokens))
        return found[inputs.molecule_of_row]

    def _pooled(
        self, tokens: list[list[int]], latents_BKD: NDArray[np.float32], is_latent_BK: NDArray[np.bool_], spec: EmbeddingSpec
    ) -> NDArray[np.float32]:
        ids_BS, _, lengths_B = pad(tokens, self.tokenizer.vocabulary)
        feed = {
            "decoder": decoder_input(ids_BS, self.tokenizer.vocabulary),
            "latents": latents_BKD,
            "weight": pooling_weights(lengths_B.tolist(), spec.pooling),
        }
        if not self.config.network.has_bottleneck:
            feed["is_latent"] = is_latent_BK
        states_BLD = self._decoders[0].run(None, feed)[0]
        return states_BLD[:, [layer - 1 for layer in spec.layers]].reshape(len(tokens), -1)


def runtime() -> Any:
    """The package onnxruntime.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f'ONNX engines require the package onnxruntime, which cannot be imported ({error}). Run pip install "nemo_cmim[onnx]".'
        ) from error
    return onnxruntime


def _session(file: Path) -> Any:
    """Raises a `CheckpointError` if ONNX Runtime cannot read the graph, for example because its opset is too new."""
    package = runtime()
    options = package.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = thread_count(), 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the cores to others
    try:
        return package.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise CheckpointError(
            f"{file} cannot be read by onnxruntime {package.__version__} ({str(error).strip()}). Update it: "
            "pip install --upgrade onnxruntime."
        ) from error


def _mean(states_BSD: NDArray[np.float32], is_token_BS: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean of real states, as `types.Posterior.pooled`."""
    real_B1S = is_token_BS[:, None].astype(np.float32)
    return (real_B1S @ states_BSD)[:, 0] / real_B1S.sum(2)


def _unpickled(folder: Path, engine: str, name: str | None) -> OnnxModel:
    return OnnxModel.load(folder, engine, name=name)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
