import pytest
import torch

from camo import CamoError
from camo.training.state import PARTS, STATE_KEYS, load_state, restore, save_state

VALUES = {"step": 3, "best": 1.5, "weights": [2.0, 0.1], "config": {"seed": 1}, "processes": 1}


def parts():
    return dict.fromkeys(PARTS) | {"model": torch.nn.Linear(2, 1)}


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    saved, restored = parts(), parts()
    save_state(tmp_path / "last.pt", saved, **VALUES)
    state = load_state(tmp_path / "last.pt")
    assert state.keys() == STATE_KEYS
    assert restore(tmp_path / "last.pt", state, restored) == (3, 1.5, [2.0, 0.1])
    assert torch.equal(saved["model"].weight, restored["model"].weight)


def test_a_state_that_is_missing_damaged_or_something_else_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    with pytest.raises(CamoError, match=r"last\.pt: nothing to resume from"):
        load_state(path)
    save_state(path, parts(), **VALUES)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CamoError, match="cannot be resumed from"):
        load_state(path)
    for other in ([1], {"model": {}}, {"config": 5}):
        torch.save(other, path)
        with pytest.raises(CamoError, match=r"not the state of a training run$"):
            load_state(path)


def test_a_state_of_another_version_is_refused_by_what_it_lacks(tmp_path):
    old = {name: value for name, value in VALUES.items() if name != "processes"}
    torch.save(old | dict.fromkeys(set(PARTS) - {"average"}), tmp_path / "last.pt")
    with pytest.raises(CamoError, match=r"last\.pt: not the state of a training run of this version \(it lacks average, processes\)"):
        load_state(tmp_path / "last.pt")


@pytest.mark.parametrize("changed", [{"model": {}}, {"model": 3}, {"step": None}, {"best": "high"}])
def test_a_state_that_does_not_fit_is_one_clear_line(tmp_path, changed):
    state = VALUES | {name: None if part is None else part.state_dict() for name, part in parts().items()} | changed
    with pytest.raises(CamoError, match=r"last\.pt: does not fit the run's settings") as caught:
        restore(tmp_path / "last.pt", state, parts())
    assert "\n" not in str(caught.value)
