"""The network as ONNX graphs, built from its weights: `encoder`, and `decoder` up to the pooled states.

The graphs compute what `models.CMIMNetwork` computes, tested against it for each kind of encoder. They are written operator by operator:
PyTorch's exporter fixes sizes of the example batch, and depends on more packages. Names and order of the nodes depend only on the
settings. Linear maps are single nodes on matrices [rows, D], which add the bias without a pass over memory.

With `int8`, most linear maps multiply integers: weights have one scale for each output (symmetric, rounded to nearest); ONNX Runtime
scales the inputs when it runs, one scale for all rows of a batch. All other numbers are float32, and so are the maps that are `exact`:
those from and to latents, which are little work and on which all positions of a vector depend.

Shape letters: B molecules, S encoder tokens, T decoder tokens, K latents (S without bottleneck), Q queries, H heads, d width of a head,
D = H * d, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...config import NetworkConfig
from ...version import __version__
from .folder import OPSET

__all__ = ["decoder_graph", "encoder_graph"]


_IR_VERSION = 10  # of the release that brought the opset; older versions of onnxruntime cannot read newer ones
_MASKED = np.float32(-1e9)  # added to a score, its softmax is exactly 0
_INT8_MAX = (
    90  # below 127, because sums of two products saturate in 16 bits on processors without VNNI; the loss of accuracy is smaller
)
_RUNTIME = "com.microsoft"  # ONNX Runtime's own operators

Weights = Mapping[str, NDArray[np.float32]]


def encoder_graph(network: NetworkConfig, weights: Weights, *, int8: bool = False) -> onnx.ModelProto:
    """ids int64 [B, S], is_token bool [B, S] -> mean and variance of q(z|x), float32 [B, K, D]; see `CMIMNetwork.encode`."""
    graph = _Graph(network, weights, int8)
    mask_B11S = graph.mask("is_token")
    tokens = graph.embed("ids")
    batch, size = graph.size("ids", 0), graph.size("ids", 1)
    if network.encoder != "perceiver":
        for number in range(network.encoder_layers):
            tokens = graph.encoder_layer(tokens, f"encoder.layers.{number}", batch, size, mask_B11S)
    if network.encoder == "transformer":
        x, count = graph.norm(tokens, "encoder.norm"), size
    else:
        prefix = "encoder" if network.encoder == "perceiver" else "encoder.pool"
        x, count = graph.perceiver(tokens, prefix, batch, size, mask_B11S), graph.constant([network.latents])
    shape = graph.op("Concat", batch, count, graph.constant([network.hidden_size]), axis=0)
    mean = graph.linear(x, "posterior.mean", exact=True) if network.is_stochastic else x
    if network.is_stochastic:
        exp = graph.op("Exp", graph.linear(x, "posterior.log_variance", exact=True))
        variance = graph.op("Max", exp, graph.constant(np.float32(network.min_variance)))
    else:
        variance = graph.op("Sub", x, x)
    graph.op("Reshape", mean, shape, name="mean")
    graph.op("Reshape", variance, shape, name="variance")
    inputs = [("ids", TensorProto.INT64, ["B", "S"]), ("is_token", TensorProto.BOOL, ["B", "S"])]
    return graph.model("encoder", inputs, {name: ["B", "K", network.hidden_size] for name in ("mean", "variance")})


def decoder_graph(network: NetworkConfig, weights: Weights, *, int8: bool = False) -> onnx.ModelProto:
    """decoder int64 [B, T], latents [B, K, D], weight [B, 1, T] -> pooled states of all layers, float32 [B, L, D].

    Without bottleneck there is a fourth input, is_latent bool [B, K]. See `inference.vectors.pooled_layers`.
    """
    graph = _Graph(network, weights, int8)
    batch, size, count = graph.size("decoder", 0), graph.size("decoder", 1), graph.size("latents", 1)
    x = graph.embed("decoder")
    latents = graph.op("Reshape", "latents", graph.constant([-1, network.hidden_size]))
    causal = graph.constant(np.triu(np.full((network.max_positions, network.max_positions), _MASKED), 1))
    for axis in (0, 1):
        causal = graph.op("Slice", causal, graph.constant([0]), size, graph.constant([axis]))
    is_latent = None if network.has_bottleneck else graph.mask("is_latent")
    shape_BTD = graph.op("Concat", batch, size, graph.constant([network.hidden_size]), axis=0)
    pooled = []
    for number in range(network.decoder_layers):
        name = f"decoder.{number}"
        attended = graph.self_attention(graph.norm(x, f"{name}.norm_self"), f"{name}.self_attention", batch, size, causal)
        if network.has_single_latent:  # the same for all positions
            constant_BD = graph.single_key(latents, f"{name}.cross_attention", exact=True)
            wide = graph.op("Unsqueeze", constant_BD, graph.constant([1]))
            x = graph.op("Add", graph.op("Reshape", graph.op("Add", x, attended), shape_BTD), wide)
            x = graph.op("Reshape", x, graph.constant([-1, network.hidden_size]))
        else:
            x = graph.op("Add", x, attended)
            query = graph.norm(x, f"{name}.norm_cross")
            x = graph.op("Add", x, graph.cross_attention(query, latents, f"{name}.cross_attention", batch, size, count, is_latent))
        x = graph.feed(x, name)
        states = graph.norm(x, "decoder_norm") if number + 1 == network.decoder_layers else x
        pooled.append(graph.op("MatMul", "weight", graph.op("Reshape", states, shape_BTD)))
    graph.op("Concat", *pooled, axis=1, name="pooled")
    inputs = [
        ("decoder", TensorProto.INT64, ["B", "T"]),
        ("latents", TensorProto.FLOAT, ["B", "K", network.hidden_size]),
        ("weight", TensorProto.FLOAT, ["B", 1, "T"]),
        *([("is_latent", TensorProto.BOOL, ["B", "K"])] if is_latent else []),
    ]
    return graph.model("decoder", inputs, {"pooled": ["B", network.decoder_layers, network.hidden_size]})


class _Graph:
    """A graph in the making. Methods add nodes and return the name of their output; x are matrices [B * T, D]."""

    def __init__(self, network: NetworkConfig, weights: Weights, int8: bool) -> None:
        self.network, self.weights, self.int8 = network, weights, int8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.head_width = network.hidden_size // network.attention_heads

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node; returns its name, which is also that of its output."""
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any, name: str = "") -> str:
        """A float32 or int64 constant; a name is that of weights, which are stored once."""
        name = name or f"constant_{len(self.constants)}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def weight(self, name: str) -> str:
        return self.constant(self.weights[name], name)

    def size(self, of: str, axis: int) -> str:
        """The length of an axis, int64 [1]."""
        return self.op("Shape", of, start=axis, end=axis + 1)

    def mask(self, is_real: str) -> str:
        """From bool [B, S] to numbers to add to scores, [B, 1, 1, S]."""
        zero, masked = self.constant(np.float32(0)), self.constant(_MASKED)
        return self.op("Unsqueeze", self.op("Where", is_real, zero, masked), self.constant([1, 2]))

    def embed(self, ids: str) -> str:
        table, position = self.weight("embedding.token.weight"), self.weight("embedding.position.weight")
        first = self.op("Slice", position, self.constant([0]), self.size(ids, 1), self.constant([0]))
        x_BTD = self.op("Add", self.op("Gather", table, ids), first)
        return self.op("Reshape", x_BTD, self.constant([-1, self.network.hidden_size]))

    def norm(self, x: str, name: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, epsilon=self.network.layer_norm_eps)

    def linear(self, x: str, name: str, *, exact: bool = False) -> str:
        return self._linear(x, name, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], exact)

    def linears(self, x: str, name: str, parts: str, *, exact: bool = False) -> list[str]:
        """Outputs of one linear map, in as many parts as there are letters; a part `q`, the query, is divided by sqrt(d)."""
        found = []
        weights = (np.split(self.weights[f"{name}.{kind}"], len(parts)) for kind in ("weight", "bias"))
        for part, weight, bias in zip(parts, *weights):
            factor = np.float32(self.head_width**-0.5 if part == "q" else 1)
            found.append(self._linear(x, f"{name}.{part}", factor * weight, factor * bias, exact))
        return found

    def _linear(self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32], exact: bool) -> str:
        bias_name = self.constant(bias, f"{name}.bias")
        matrix = np.ascontiguousarray(weight.T)
        if exact or not self.int8:
            return self.op("Gemm", x, self.constant(matrix, f"{name}.weight.T"), bias_name)
        scale = np.maximum(np.abs(matrix).max(0), np.finfo(np.float32).tiny) / np.float32(_INT8_MAX)
        integers = self.constant(np.rint(matrix / scale).astype(np.int8), f"{name}.weight.int8")
        zero = self.constant(np.zeros(len(scale), np.int8), f"{name}.zero")
        return self.op(
            "DynamicQuantizeMatMul", x, integers, self.constant(scale, f"{name}.scale"), zero, bias_name, domain=_RUNTIME
        )

    def feed(self, x: str, name: str) -> str:
        """x + FFN(norm(x))."""
        up = self.op("Gelu", self.linear(self.norm(x, f"{name}.norm_ffn"), f"{name}.ffn.up"))
        return self.op("Add", x, self.linear(up, f"{name}.ffn.down"))

    def single_key(self, x: str, name: str, *, exact: bool = False) -> str:
        """See `models.attention.SingleKeyAttention`; both linear maps are multiplied into one."""
        value, out = (self.weights[f"{name}.{part}.weight"].astype(np.float64) for part in ("value", "out"))
        bias = out @ self.weights[f"{name}.value.bias"] + self.weights[f"{name}.out.bias"]
        return self._linear(x, name, (out @ value).astype(np.float32), bias.astype(np.float32), exact)

    def heads(self, x: str, batch: str, size: str, order: Sequence[int] = (0, 2, 1, 3)) -> str:
        """From [B * T, D] to [B, H, T, d], or another order of the axes of [B, T, H, d]."""
        shape = self.op("Concat", batch, size, self.constant([self.network.attention_heads, -1]), axis=0)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=order)

    def attend(self, query: str, key_BHdS: str, value: str, mask: str | None) -> str:
        """softmax(q k + mask) v; the scale is in the query."""
        scores = self.op("MatMul", query, key_BHdS)
        if mask is not None:
            scores = self.op("Add", scores, mask)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), value)

    def joined(self, context_BHTd: str) -> str:
        """From [B, H, T, d] to [B * T, D]."""
        back = self.op("Transpose", context_BHTd, perm=(0, 2, 1, 3))
        return self.op("Reshape", back, self.constant([-1, self.network.hidden_size]))

    def self_attention(self, x: str, name: str, batch: str, size: str, mask: str | None) -> str:
        query, key, value = self.linears(x, f"{name}.qkv", "qkv")
        key_BHdT, value = self.heads(key, batch, size, (0, 2, 3, 1)), self.heads(value, batch, size)
        context = self.attend(self.heads(query, batch, size), key_BHdT, value, mask)
        return self.linear(self.joined(context), f"{name}.out")

    def cross_attention(self, x: str, latents: str, name: str, batch: str, size: str, count: str, mask: str | None) -> str:
        """See `models.attention.LatentCrossAttention`."""
        (query,), (key, value) = self.linears(x, f"{name}.q", "q"), self.linears(latents, f"{name}.kv", "kv", exact=True)
        query = self.heads(query, batch, size)
        context = self.attend(query, self.heads(key, batch, count, (0, 2, 3, 1)), self.heads(value, batch, count), mask)
        return self.linear(self.joined(context), f"{name}.out")

    def encoder_layer(self, x: str, name: str, batch: str, size: str, mask: str | None) -> str:
        x = self.op("Add", x, self._latent_or_token_attention(x, name, batch, size, mask))
        return self.feed(x, name)

    def _latent_or_token_attention(self, x: str, name: str, batch: str, size: str, mask: str | None) -> str:
        normed, attention = self.norm(x, f"{name}.norm_self"), f"{name}.self_attention"
        if f"{attention}.qkv.weight" in self.weights:
            return self.self_attention(normed, attention, batch, size, mask)
        return self.single_key(normed, attention)

    def perceiver(self, tokens: str, name: str, batch: str, size: str, mask_B11S: str) -> str:
        """See `models.perceiver.PerceiverEncoder`; returns [B * K, D]."""
        D, K = self.network.hidden_size, self.network.latents
        count, width = self.constant([K]), self.constant([D])
        tokens_BSD = self.op("Reshape", self.norm(tokens, f"{name}.norm_tokens"), self.op("Concat", batch, size, width, axis=0))
        tokens_BDS = self.op("Transpose", tokens_BSD, perm=(0, 2, 1))
        mask_B1S = self.op("Squeeze", mask_B11S, self.constant([1]))
        start = self.op("Expand", self.weight(f"{name}.latents_KD"), self.op("Concat", batch, count, width, axis=0))
        x = self.op("Reshape", start, self.constant([-1, D]))
        for number in range(sum(f"{name}.read.{i}.norm_cross.weight" in self.weights for i in range(self.network.encoder_layers))):
            layer = f"{name}.read.{number}"
            y = self.op("Add", x, self._latent_or_token_attention(x, layer, batch, count, None))
            query = self.norm(y, f"{layer}.norm_cross")
            cross = self._absorbed(query, f"{layer}.cross_attention", batch, tokens_BSD, tokens_BDS, mask_B1S)
            y = self.feed(self.op("Add", y, cross), layer)
            x = self.op("Add", x, self.encoder_layer(y, f"{name}.think.{number}", batch, count, None))
        return self.norm(x, f"{name}.norm")

    def _absorbed(self, x: str, name: str, batch: str, tokens_BSD: str, tokens_BDS: str, mask_B1S: str) -> str:
        """See `models.attention.absorbed_attention`; the weights of the heads multiply all queries of a head at once."""
        H, D, K = self.network.attention_heads, self.network.hidden_size, self.network.latents
        w_key, w_value = np.split(self.weights[f"{name}.kv.weight"], 2)
        key_HdD = self.constant(w_key.reshape(H, -1, D), f"{name}.key")
        value_HDd = self.constant(np.ascontiguousarray(w_value.reshape(H, -1, D).swapaxes(1, 2)), f"{name}.value")
        by_head = self.op("Reshape", *self.linears(x, f"{name}.q", "q", exact=True), self.constant([0, H, -1]))
        query_HBKd = self.op("Transpose", by_head, perm=(1, 0, 2))
        absorbed = self.op("Transpose", self.op("MatMul", query_HBKd, key_HdD), perm=(1, 0, 2))  # [B * K, H, D]
        shape = self.op("Concat", batch, self.constant([K * H, D]), axis=0)
        context_BQD = self.attend(self.op("Reshape", absorbed, shape), tokens_BDS, tokens_BSD, mask_B1S)
        by_head = self.op("Transpose", self.op("Reshape", context_BQD, self.constant([-1, H, D])), perm=(1, 0, 2))
        back = self.op("Transpose", self.op("MatMul", by_head, value_HDd), perm=(1, 0, 2))  # [B * K, H, d]
        bias = self.constant(np.split(self.weights[f"{name}.kv.bias"], 2)[1], f"{name}.value.bias")
        return self.linear(self.op("Add", self.op("Reshape", back, self.constant([-1, D])), bias), f"{name}.out", exact=True)

    def model(self, name: str, inputs: Sequence[tuple[str, int, Any]], outputs: Mapping[str, Any]) -> onnx.ModelProto:
        """The finished model, checked."""
        used = {one for node in self.nodes for one in node.input}
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*one) for one in inputs],
            [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one, shape in outputs.items()],
            [tensor for key, tensor in self.constants.items() if key in used],
        )
        opset = [helper.make_opsetid("", OPSET), helper.make_opsetid(_RUNTIME, 1)]
        made = helper.make_model(
            graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="nemo_cmim", producer_version=__version__
        )
        onnx.checker.check_model(made)
        return made
