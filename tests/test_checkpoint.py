import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from camo import CamoError
from camo.checkpoint import SHIPPED_FILTER, load_filter, load_state, read_provenance, save_filter, save_state


def test_round_trip(tmp_path, small_filter, photos):
    path = tmp_path / "runs" / "filter.safetensors"
    save_filter(path, small_filter, {"step": 7})
    loaded = load_filter(path)
    assert torch.allclose(loaded(photos), small_filter(photos), atol=1e-4)  # the memory layout differs
    assert read_provenance(path) == {"step": 7}
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [file.name for file in path.parent.iterdir()] == ["filter.safetensors"]


def test_shipped_filter_says_how_it_was_trained():
    provenance = read_provenance(SHIPPED_FILTER)
    assert provenance["settings"]["biqa"] == "bundled"
    assert provenance["settings"]["perceptual"] == "offline"
    assert SHIPPED_FILTER.stat().st_size < 10_000_000


def damaged(path, kind):
    tensors = {key: value.clone() for key, value in load_file(path).items()}  # load_file maps the file that is about to be damaged
    header = {"arguments": json.dumps({"width": 8, "depth": 1, "gain": 3.0, "working_area": 196608}), "provenance": "{}"}
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        torch.save(tensors, path)
    elif kind == "no header":
        save_file(tensors, path)
    elif kind == "missing key":
        tensors.popitem()
        save_file(tensors, path, metadata=header)
    elif kind == "other shape":
        save_file(tensors, path, metadata=header | {"arguments": header["arguments"].replace("8", "16", 1)})
    elif kind == "unknown argument":
        save_file(tensors, path, metadata=header | {"arguments": '{"colour": 1}'})
    elif kind == "nan":
        tensors["unet.out.bias"][3] = float("nan")
        save_file(tensors, path, metadata=header)


@pytest.mark.parametrize("kind", ["truncated", "empty", "pickle", "no header", "missing key", "other shape", "unknown argument", "nan"])
def test_damaged_checkpoint_is_one_clear_line(tmp_path, small_filter, kind):
    path = tmp_path / "filter.safetensors"
    save_filter(path, small_filter, {})
    damaged(path, kind)
    with pytest.raises(CamoError, match=r"filter\.safetensors: ") as caught:
        load_filter(path)
    assert "\n" not in str(caught.value)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(CamoError, match=r"absent\.safetensors: no such checkpoint"):
        load_filter(tmp_path / "absent.safetensors")


def test_training_state_round_trip_and_refusals(tmp_path):
    path = tmp_path / "last.pt"
    save_state(path, step=3, config={"seed": 1}, model={"w": torch.ones(2)})
    assert load_state(path)["step"] == 3
    with pytest.raises(CamoError, match="nothing to resume from"):
        load_state(tmp_path / "absent.pt")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CamoError, match="cannot be resumed from"):
        load_state(path)
    torch.save([1], path)
    with pytest.raises(CamoError, match="not the state of a training run"):
        load_state(path)
