import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from camo import CamoError
from camo.filter.checkpoint import FORMAT, SHIPPED_FILTER, content_hash, load_filter, read_provenance, save_filter
from camo.filter.generator import Filter
from camo.filter.settings import CentreSettings, JNDSettings
from camo.measure.metrics import psnr
from camo.photos.images import jpeg_roundtrip, read, to_float, to_uint8
from camo.quality import models


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
    assert provenance["settings"]["biqa"] == ["bundled"]
    assert provenance["settings"]["perceptual"] == "offline"
    assert SHIPPED_FILTER.stat().st_size < 10_000_000


def header(path):
    with safe_open(path, framework="pt") as file:
        return {key: json.loads(value) if key in {"arguments", "provenance"} else value for key, value in file.metadata().items()}


def write(path, tensors, arguments, version):
    """A checkpoint of a format, with a hash that fits; the first format has no version in its header."""
    text = json.dumps(arguments)
    stated = {"format": version} if version else {}
    save_file(tensors, path, metadata={**stated, "arguments": text, "provenance": "{}", "sha256": content_hash(text, tensors, version)})


def damaged(path, kind):
    tensors = {key: value.clone() for key, value in load_file(path).items()}  # load_file maps the file that is about to be damaged
    arguments = header(path)["arguments"]

    def save(tensors, arguments):
        """With the right hash, so that it is not what gives the damage away."""
        write(path, tensors, arguments, FORMAT)

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
        save(tensors, arguments)
    elif kind == "other shape":
        save(tensors, arguments | {"width": 16})
    elif kind == "unknown argument":
        save(tensors, arguments | {"colour": 1})
    elif kind == "coordinates":
        save(tensors, arguments | {"coordinates": 1})
    elif kind == "missing argument":
        del arguments["chroma"]
        save(tensors, arguments)
    elif kind == "missing setting":
        del arguments["jnd"]["flat"]
        save(tensors, arguments)
    elif kind == "other format":
        write(path, tensors, arguments, "3")
    elif kind == "nan":
        tensors["unet.out.bias"][3] = float("nan")
        save(tensors, arguments)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        *(("truncated", "not a safetensors file"), ("empty", "not a safetensors file"), ("pickle", "not a safetensors file")),
        *(("no header", "no hash"), ("missing key", "Missing key"), ("other shape", "size mismatch"), ("unknown argument", "colour")),
        *(("missing argument", "incomplete"), ("missing setting", "incomplete"), ("other format", "format 3, .*reads format 2: install a newer")),
        ("coordinates", "coordinates 1: should be true or false"),
        ("nan", r"unet\.out\.bias holds values that are not finite"),
    ],
)
def test_damaged_checkpoint_is_one_clear_line(tmp_path, small_filter, kind, told):
    path = tmp_path / "filter.safetensors"
    save_filter(path, small_filter, {})
    damaged(path, kind)
    with pytest.raises(CamoError, match=rf"filter\.safetensors: .*{told}") as caught:
        load_filter(path)
    assert "\n" not in str(caught.value)


def test_the_first_format_is_read_as_it_was(tmp_path, photos):
    path = tmp_path / "filter.safetensors"
    small_filter = Filter(width=8, min_psnr=39.2).eval()  # the limit that all files of that format have
    save_filter(path, small_filter, {})
    now = header(path)["arguments"]
    old = {key: now[key] for key in ("width", "depth", "gain", "shaped", "working_area")}
    write(path, {key: value.clone() for key, value in load_file(path).items()}, old, "")
    assert "format" not in header(path)
    loaded = load_filter(path)
    assert loaded.arguments == now
    assert torch.allclose(loaded(photos[:1]), small_filter(photos[:1]), atol=1e-4)
    save_filter(path, loaded, read_provenance(path))
    assert header(path)["format"] == FORMAT
    assert load_filter(path).arguments == now


def test_coordinates_are_stored_and_older_files_have_none(tmp_path, photos):
    model, path = Filter(width=8, coordinates=True).eval(), tmp_path / "filter.safetensors"
    torch.nn.init.normal_(model.unet.place[-1].weight)
    save_filter(path, model, {})
    loaded = load_filter(path)
    assert loaded.arguments == model.arguments
    assert torch.equal(loaded.unet.place[-1].weight, model.unet.place[-1].weight)
    assert "coordinates" not in header(SHIPPED_FILTER)["arguments"]
    tensors = {key: value.clone() for key, value in load_file(path).items() if "place" not in key}
    write(path, tensors, model.arguments, FORMAT)
    with pytest.raises(CamoError, match=r"Missing key.*place"):
        load_filter(path)


def test_unrolled_steps_are_stored_and_older_files_take_one(tmp_path, photos):
    model, path = Filter(width=8, unrolled=2).eval(), tmp_path / "filter.safetensors"
    torch.nn.init.normal_(model.unet.out.weight, std=0.1)
    save_filter(path, model, {})
    loaded = load_filter(path)
    assert loaded.unrolled == 2
    assert torch.allclose(loaded(photos[:1]), model(photos[:1]), atol=1e-4)
    save_filter(path, Filter(width=8), {})
    assert "unrolled" not in header(path)["arguments"]
    assert load_filter(path).unrolled == 1


def test_the_shipped_filter_states_its_format_and_all_settings():
    stated = header(SHIPPED_FILTER)
    assert stated["format"] == FORMAT
    assert stated["arguments"] == load_filter().arguments
    assert stated["arguments"]["jnd"] == {"darkest": 6.0, "flat": 0.12, "overlap": 0.3, "edges": 0.88}
    assert stated["arguments"]["centre"] == {"height": 384, "width": 512, "reduction": 2.0, "louder": 1.15, "fade": 16}


def test_settings_are_stored_and_hashed(tmp_path):
    settings = [
        {},
        {"chroma": 0.2},
        {"min_psnr": 42.0},
        *({"jnd": JNDSettings(**{name: 0.2})} for name in ("flat", "edges")),
        {"centre": CentreSettings(louder=1.3)},
    ]
    hashes = set()
    for change in settings:
        torch.manual_seed(0)
        model = Filter(width=8, **change)
        save_filter(tmp_path / "filter.safetensors", model, {})
        assert load_filter(tmp_path / "filter.safetensors").arguments == model.arguments
        hashes.add(header(tmp_path / "filter.safetensors")["sha256"])
    assert len(hashes) == len(settings)


@pytest.mark.parametrize("where", ["weight", "arguments", "format", "hash"])
def test_one_changed_byte_is_one_clear_line(tmp_path, small_filter, where):
    path = tmp_path / "filter.safetensors"
    save_filter(path, small_filter, {})
    content = bytearray(path.read_bytes())
    if where == "weight":
        content[-2] ^= 1  # a small change of one number
    elif where == "arguments":  # 6.0 to 9.0, which would make another filter
        content[content.index(b"6.0", content.index(b"gain"))] = ord("9")
    elif where == "format":  # the first one, which had no version: as if the settings were not stored
        content[content.index(b'"format":') + 1] = ord("g")
    else:
        place = content.index(b'"sha256":"') + len(b'"sha256":"')
        content[place] = ord("a") if content[place] != ord("a") else ord("b")
    path.write_bytes(content)
    with pytest.raises(CamoError, match=r"filter\.safetensors: damaged: .*hash"):
        load_filter(path)


@pytest.mark.parametrize(
    "argument",
    [
        *({"gain": math.nan}, {"gain": math.inf}, {"gain": -1.0}, {"gain": "6"}, {"gain": True}),
        *({"width": 8.0}, {"width": 0}, {"width": None}, {"working_area": 0}, {"working_area": -5}, {"working_area": math.inf}),
    ],
)
def test_arguments_that_make_no_filter_are_one_clear_line(tmp_path, small_filter, argument):
    path = tmp_path / "filter.safetensors"
    small_filter.arguments |= argument
    save_filter(path, small_filter, {})
    with pytest.raises(CamoError, match=rf"filter\.safetensors: .*{next(iter(argument))} .*: should be a positive"):
        load_filter(path)


def test_a_checkpoint_is_readable_as_any_new_file(tmp_path, small_filter):
    save_filter(tmp_path / "filter.safetensors", small_filter, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "filter.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("cut", [(384, 512), (321, 481)])
def test_the_shipped_filter_protects(cut):
    files = sorted((SHIPPED_FILTER.parent.parent / "data" / "sample" / "test").glob("*.jpg"))[::4]
    original = torch.stack([to_float(read(file).pixels[:, : cut[0], : cut[1]]) for file in files])
    with torch.no_grad():
        filtered = to_float(to_uint8(load_filter()(original)))
        scorer = models.load("bundled")
        clean, after = (scorer(jpeg_roundtrip(image, 90)) for image in (original, filtered))
    assert len(files) == 8
    assert (clean > models.THRESHOLD).all()
    assert (after < models.THRESHOLD).sum() >= 3  # the results in the docs come from hundreds of photos
    assert (clean - after).mean() > 20
    assert psnr(original, filtered).min() >= 37


def test_missing_checkpoint(tmp_path):
    with pytest.raises(CamoError, match=r"absent\.safetensors: no such checkpoint"):
        load_filter(tmp_path / "absent.safetensors")
