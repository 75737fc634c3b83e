"""The parts that the browser page runs, put together as it does, give what infer.py gives."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from camo import CamoError
from camo.__main__ import main
from camo.export import parts as parts_module
from camo.export.export import photo_like
from camo.export.parts import CASES, Parts, export_parts
from camo.filter.checkpoint import load_filter, save_filter
from camo.filter.full_size import FullSize
from camo.filter.generator import Filter
from camo.filter.look_pixels import LookPixels, dress
from camo.filter.look_settings import LOOKS, MOST
from camo.filter.looks import Look
from camo.filter.settings import JNDSettings
from camo.photos.images import Photo, to_float, to_uint8
from camo.quality.models import load_bundled

LOOKED = ("golden", "mono", "film")  # together they have all that a look can have
SIZES = [(384, 512, 1.0), (17, 200, 1.7), (427, 640, 0.6), (1100, 1500, 1.0), (270, 3001, 1.3)]  # height, width, strength


class Sequence:
    """What page/src/camouflage.js does, in Python."""

    def __init__(self, folder):
        self.settings = json.loads((folder / "networks.json").read_text())
        self.sessions = {path.stem: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in folder.glob("*.onnx")}

    def run(self, name, **inputs):
        (output,) = self.sessions[name].run(None, inputs)
        return output

    def strips(self, height, width):
        step = max(1, self.settings["strip"] // width)
        return [(top, min(top + step, height)) for top in range(0, height, step)]

    def dressed(self, name, pixels, amount, greyscale):
        rows, seed = np.zeros(pixels.shape[0], np.uint8), np.array(0)
        strips = self.strips(*pixels.shape[:2])
        for top, bottom in strips:
            seed = self.run("seed", pixels=pixels[top:bottom], seed=seed)
        inputs = {"rows": rows, "seed": seed, "amount": np.array(amount, np.float32)}
        looked = [self.run(f"look_{name}", pixels=pixels[top:bottom], first=np.array(top), **inputs) for top, bottom in strips]
        return np.concatenate([self.run("grey", pixels=strip) if greyscale else strip for strip in looked])

    def narrowed(self, step, pixels):
        rows, columns = (np.zeros(side, np.uint8) for side in pixels.shape[:2])
        narrow = [self.run(step, pixels=pixels[top:bottom], rows=rows) for top, bottom in self.strips(*pixels.shape[:2])]
        return {"narrow": np.concatenate(narrow, axis=2), "columns": columns}

    def residuals(self, pixels):
        height, width = pixels.shape[:2]
        rows, columns = np.zeros(height, np.uint8), np.zeros(width, np.uint8)
        plan = self.run("plan", **self.narrowed("narrow", pixels))
        reach, residuals = self.settings["reach"], []
        for top, bottom in self.strips(height, width):
            part = pixels[max(0, top - reach) : min(height, bottom + reach)]
            residuals.append(self.run("residual", pixels=part, plan=plan, rows=rows, strip=rows[top:bottom], first=np.array(top)))
        powers = [self.run("power", residual=residual) for residual in residuals]
        ceiling = np.full((1, 1, 1, 1), self.settings["limit"], np.float32)
        for _ in range(self.settings["rounds"]):
            tally = np.zeros((2, 1, 1, 1), np.float32)
            for power in powers:
                tally = self.run("tally", power=power, ceiling=ceiling, tally=tally)
            ceiling = self.run("ceiling", ceiling=ceiling, tally=tally, rows=rows, columns=columns)
        return residuals, ceiling

    def __call__(self, pixels, strength):
        height, width = pixels.shape[:2]
        strength = np.array(strength, np.float32)
        large = height * width >= self.settings["leastLargeArea"]
        second, above, left = np.zeros((1, 3, 1, 1), np.float32), 0, 0
        if large:
            rows, columns = (min(most, side) for most, side in zip(self.settings["window"], (height, width), strict=True))
            above, left = (height - rows) // 2, (width - columns) // 2
            window = np.ascontiguousarray(pixels[above : above + rows, left : left + columns])
            (residual,), ceiling = self.residuals(window)
            second = self.run("second", pixels=window, residual=residual, ceiling=ceiling, strength=strength)
        residuals, ceiling = self.residuals(pixels)
        result = []
        for (top, bottom), residual in zip(self.strips(height, width), residuals, strict=True):
            inputs = {"pixels": pixels[top:bottom], "residual": residual, "ceiling": ceiling, "second": second, "strength": strength}
            result.append(self.run("finish", **inputs, place=np.array([top - above, left]), large=np.array(large, np.float32)))
        return np.concatenate(result)


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    """The parts of a random filter, run one after the other, and the filter."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    model = Filter(width=8, depth=1, gain=4.0, coordinates=True, jnd=JNDSettings(edges=0.8))  # all that a filter can have
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    save_filter(folder / "random.safetensors", model, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "CHOICES", LOOKED)  # each takes seconds
        patch.setattr(parts_module, "CASES", CASES[:1])  # for the check
        patch.setattr(parts_module, "write", lambda path, content, *_: path.write_bytes(content))  # its check has tests of its own, and takes seconds
        export_parts(folder / "random.safetensors", folder / "out")
    return Sequence(folder / "out"), load_filter(folder / "random.safetensors")


def rgba(height, width):
    photo = to_uint8(photo_like(1, height, width))
    return photo, np.dstack([photo[0].permute(1, 2, 0).numpy(), np.arange(height * width).reshape(height, width) % 256]).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "strength"), SIZES)
def test_the_parts_together_do_what_infer_does(sequence, height, width, strength):
    run, model = sequence
    photo, pixels = rgba(height, width)
    filtered = run(pixels, strength)
    expected = FullSize(model)(photo, strength)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(filtered[..., 3], pixels[..., 3])  # alpha
    apart = np.abs(filtered[..., :3].astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3
    assert not np.array_equal(expected, pixels[..., :3])


def test_strips_change_nothing(sequence, monkeypatch):
    run, _ = sequence
    _, pixels = rgba(300, 400)
    whole = run(pixels, 1.0)
    monkeypatch.setitem(run.settings, "strip", 7 * 400)
    assert np.abs(run(pixels, 1.0).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("greyscale", [False, True])
@pytest.mark.parametrize(("height", "width", "amount"), [(60, 90, 1.0), (17, 400, 0.3), (800, 1100, MOST)])
@pytest.mark.parametrize("name", LOOKED)
def test_a_look_gives_the_pixels_that_infer_gives(sequence, name, height, width, amount, greyscale, monkeypatch):
    run, _ = sequence
    photo, pixels = rgba(height, width)
    monkeypatch.setitem(run.settings, "strip", 37 * width)
    looked = run.dressed(name, pixels, amount, greyscale)
    expected = dress(Photo(photo[0], "PNG", greyscale=greyscale), LookPixels(Look(LOOKS[name], amount))).pixels.permute(1, 2, 0).numpy()
    apart = np.abs(looked[..., :3].astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-4  # where dithering lies between two steps by a rounding
    assert np.array_equal(looked[..., 3], pixels[..., 3])  # alpha


@pytest.mark.parametrize(("height", "width"), [(321, 481), (16, 900), (1100, 1500)])
def test_the_score_is_that_of_the_bundled_model(sequence, height, width):
    run, _ = sequence
    photo, pixels = rgba(height, width)
    score = run.run("score", **run.narrowed("view", pixels))
    with torch.no_grad():
        assert score == pytest.approx(load_bundled()(to_float(photo)).numpy(), abs=0.05)


def test_half_the_size_is_pillows_half(sequence):
    from PIL import Image

    run, _ = sequence
    _, pixels = rgba(301, 400)
    half = run.run("half_height", pixels=run.run("half_width", pixels=pixels))
    expected = np.asarray(Image.fromarray(pixels[..., :3]).resize((200, 151), Image.Resampling.BICUBIC))
    assert half.shape == (151, 200, 4)
    assert np.abs(half[..., :3].astype(int) - expected).max() <= 1


def test_the_parts_use_one_old_set_of_operators_and_say_where_they_come_from(sequence):
    run, _ = sequence
    assert set(run.settings["steps"]) == set(run.sessions)
    assert {"filter", "quality"} <= set(run.settings["provenance"])
    for session in run.sessions.values():
        model = onnx.load(session._model_path)
        assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
        assert json.loads({prop.key: prop.value for prop in model.metadata_props}["provenance"]) == run.settings["provenance"]


def test_a_filter_without_a_ceiling_is_refused():
    with pytest.raises(CamoError, match="just-noticeable difference"):
        Parts(Filter(width=8, shaped=False), load_bundled())


def test_existing_files_are_kept(tmp_path, capsys):
    (tmp_path / "networks.json").write_text("mine")
    assert main(["export", "--what", "page", "--out", str(tmp_path)]) == 1
    assert "exists; --overwrite replaces it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["networks.json"]
