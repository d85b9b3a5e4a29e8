"""The whole network as an ONNX graph: uint8 pictures in, probabilities out."""

import json
from typing import Any

import numpy as np

from vgg_jax.exchange.outgoing import Outgoing, layers, need, state
from vgg_jax.model.chain import Layer
from vgg_jax.torch.names import prefixes


class _Graph:
    """Nodes and arrays, as they are added; `x` is the name of the newest output."""

    def __init__(self, out: Outgoing):
        self.onnx: Any = need("onnx")
        self.model, self.state, self.prefixes = out.config.model, state(out), prefixes(layers(out))
        self.nodes: list[Any] = []
        self.arrays: dict[str, Any] = {}
        self.x = "images"

    def add(self, kind: str, *inputs: str, **attributes: Any) -> None:
        """A node on the newest output and further inputs."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, [self.x, *inputs], [name], name, **attributes))
        self.x = name

    def array(self, name: str, value: Any) -> str:
        self.arrays[name] = self.onnx.numpy_helper.from_array(np.asarray(value, np.float32), name)
        return name

    def weights(self, layer: Layer, *leaves: str) -> list[str]:
        """The names of a layer's arrays, those that it has."""
        keys = [f"{self.prefixes[layer.name]}.{leaf}" for leaf in leaves]
        return [self.array(key, self.state[key]) for key in keys if key in self.state]

    def layer(self, layer: Layer) -> None:
        match layer.kind:
            case "conv" | "whiten":
                before = (int(layer.size) - 1) // 2  # as XLA's SAME
                after = int(layer.size) - 1 - before
                self.add("Conv", *self.weights(layer, "weight", "bias"), pads=[before, before, after, after])
            case "dense":
                self.add("Gemm", *self.weights(layer, "weight", "bias"), transB=1)
            case "norm":
                weights = self.weights(layer, "weight", "bias", "running_mean", "running_var")
                self.add("BatchNormalization", *weights, epsilon=self.model.batch_norm_epsilon)
            case "act":
                self.activation()
            case "pool":
                self.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            case "global_pool":
                self.add("GlobalMaxPool")
            case "flatten":
                self.add("Flatten")
            case "residual":
                self.residual(layer)

    def activation(self) -> None:
        kind, x = self.model.activation, self.x
        if kind == "silu":
            self.add("Sigmoid")
            self.add("Mul", x)
        elif kind == "leaky_relu":
            self.add("LeakyRelu", alpha=0.1)
        elif kind == "gelu":
            self.add("Gelu", approximate="tanh")
        else:
            self.add("Relu")

    def residual(self, layer: Layer) -> None:
        entry = self.x
        for inner in layer.inside:
            self.layer(inner)
        inside, self.x = self.x, entry
        for inner in layer.beside:
            self.layer(inner)
        self.add("Add", inside)


def graph(out: Outgoing) -> bytes:
    """The model, float32, for any number of pictures, passed by ONNX's own checker.

    Input `images` uint8 [N, H, W, 3], output `probabilities` float32 [N, classes] = softmax(logits / temperature).

    Raises: UserError without the package onnx, or for a network of one's own.
    """
    g, size = _Graph(out), out.config.data.image_size
    onnx, helper, kinds = g.onnx, g.onnx.helper, g.onnx.TensorProto
    mean, std = (np.reshape(out.facts[name], (1, 3, 1, 1)) for name in ("mean", "std"))
    g.add("Cast", to=kinds.FLOAT)
    g.add("Transpose", perm=[0, 3, 1, 2])
    g.add("Mul", g.array("scale", 1 / (255 * std)))
    g.add("Sub", g.array("shift", mean / std))
    for layer in layers(out):
        g.layer(layer)
    g.add("Mul", g.array("logits_scale", out.config.model.logits_scale / out.temperature))
    g.add("Softmax", axis=-1)
    g.nodes[-1].output[0] = "probabilities"
    images = helper.make_tensor_value_info("images", kinds.UINT8, ["N", size, size, 3])
    probabilities = helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", out.classes])
    whole = helper.make_graph(g.nodes, "vgg", [images], [probabilities], list(g.arrays.values()))
    opset = 20 if out.config.model.activation == "gelu" else 17  # the oldest that have what is used
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", opset)], producer_name="vgg_jax")
    model.ir_version = 9  # of 2023, which older runtimes read too
    helper.set_model_props(model, {"class_names": json.dumps(list(out.facts["class_names"]))})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
