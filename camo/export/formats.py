"""A model in the three formats that run without this package, as bytes, with its provenance inside."""

import copy
import io
import json
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

ANY_IMAGE = {0: Dim("batch", min=1), 2: Dim("height", min=16), 3: Dim("width", min=16)}
IR_VERSION = 9  # of ONNX: the oldest that has opset 20, and all that onnxruntime 1.17 reads; nothing here needs a newer one


def torchscript(model: nn.Module, provenance: dict[str, Any]) -> bytes:
    """A model as TorchScript. It is deprecated, and yet the one format that runs in every torch and from C++."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        torch.jit.save(torch.jit.script(model), content, _extra_files={"provenance.json": json.dumps(provenance)})
    return content.getvalue()


Shapes = tuple[dict[int, Dim] | None, ...]  # of each input: its dimensions that are free


def trace(model: nn.Module, image: Tensor, *, shapes: Shapes | None = None, **other: Tensor) -> ExportedProgram:
    """A model as a graph for images of any size and batch; ``other`` inputs keep their shape. ``shapes`` says otherwise.

    The size is an expression all through. What torch would otherwise assume from the example, say that the image needs padding, is left
    to run time, where the operators themselves check what they need.
    """
    contiguous = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # archives warn about channels-last weights
    return torch.export.export(
        contiguous,
        (image, *other.values()),
        dynamic_shapes=shapes or (ANY_IMAGE, *(None for _ in other)),
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def serialized(program: ExportedProgram, provenance: dict[str, Any]) -> bytes:
    """A traced model as a torch.export archive."""
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"provenance.json": json.dumps(provenance)})
    return content.getvalue()


def onnx(program: ExportedProgram, inputs: Sequence[str], output: str, provenance: dict[str, Any], shapes: Shapes | None = None) -> bytes:
    """A traced model in ONNX; ``inputs`` and ``shapes`` as it was traced with."""
    converted = torch.onnx.export(
        program,
        input_names=inputs,
        output_names=[output],
        dynamic_shapes=shapes or (ANY_IMAGE, *(None for _ in inputs[1:])),
        dynamo=True,
        verbose=False,
    )
    assert converted is not None  # as with dynamo and without a file
    converted.model.metadata_props["provenance"] = json.dumps(provenance)
    converted.model.ir_version = IR_VERSION
    return converted.model_proto.SerializeToString()
