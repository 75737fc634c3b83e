"""One export of a small random filter and one of the bundled quality model serve most of the tests: tracing takes seconds."""

import contextlib
import hashlib
import importlib
import io
import json
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_docs import examples, run, write_photo

from camo import CamoError
from camo.__main__ import main
from camo.export import check, checked, export, formats
from camo.export.export import photo_like
from camo.filter.checkpoint import load_filter, save_filter
from camo.filter.full_size import FullSize
from camo.filter.generator import Filter
from camo.filter.settings import JNDSettings
from camo.photos.images import to_float, to_uint8
from camo.quality import models

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")

NAMES = ["filter.onnx", "filter.pt2", "filter.ts"]
# Smallest, thin, multiples of 16, odd, above the working area, one whose reduced size comes out wrong in plain 32-bit arithmetic, the largest with
# one pass, and large ones: the smallest, two in a batch, and one that is lower than the window of the second pass.
SIZES = [
    (1, 16, 16),
    (2, 17, 200),
    (1, 384, 512),
    (3, 383, 511),
    (1, 427, 640),
    (1, 509, 684),
    (1, 767, 1025),
    (2, 768, 1024),
    (1, 270, 3001),
]


def save_random_filter(path, seed):
    torch.manual_seed(seed)
    model = Filter(width=8, depth=1, gain=4.0, coordinates=True, jnd=JNDSettings(edges=0.8))  # some of its residuals meet the limit, some do not
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    save_filter(path, model, {"preset": "test"})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What the command line made of a random filter: the folder, the eager filter, its checkpoint, the printed lines."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint = folder / "random.safetensors"
    save_random_filter(checkpoint, seed=0)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert main(["export", "--checkpoint", str(checkpoint), "--out", str(folder / "out" / "deep")]) == 0
    return SimpleNamespace(
        folder=folder / "out" / "deep", eager=load_filter(checkpoint), checkpoint=checkpoint, lines=printed.getvalue().splitlines()
    )


@pytest.fixture(scope="module")
def cases(exported):
    """Photos of all sizes as floats, a strength each, and the 8-bit pixels that infer.py's ``FullSize`` makes of them."""
    strengths = np.linspace(2.4, 0.9, len(SIZES)).round(1).tolist()
    photos, full_size = [to_uint8(photo_like(*size)) for size in SIZES], FullSize(exported.eager)
    return [(to_float(photo), strength, full_size(photo, strength)) for photo, strength in zip(photos, strengths, strict=True)]


def test_examples_of_the_guide(exported, tmp_path):
    write_photo(tmp_path)
    for name in NAMES:
        (tmp_path / name).symlink_to(exported.folder / name)
    results = [run(example, tmp_path) for example in examples("docs/embedding.md")]
    assert len(results) == 3
    assert all(np.abs(result - results[0]).max() <= 1 for result in results)


def assert_close(filtered, expected):
    assert filtered.shape == expected.shape
    assert (to_uint8(filtered).int() - expected.int()).abs().max() <= 1


def check_provenance(text, exported):
    provenance = json.loads(text)
    assert provenance["training"] == {"preset": "test"}
    assert provenance["arguments"] == exported.eager.arguments
    assert provenance["weights"] == "random.safetensors"
    assert provenance["sha256"] == hashlib.sha256(exported.checkpoint.read_bytes()).hexdigest()


def test_writes_three_files_and_says_how_close_they_are(exported):
    assert sorted(path.name for path in exported.folder.iterdir()) == NAMES
    assert [line.split(":")[0].rsplit("/")[-1] for line in exported.lines] == ["filter.ts", "filter.pt2", "filter.onnx"]
    assert all("from the eager model" in line for line in exported.lines)


def test_the_residual_of_the_tests_is_visible(exported, cases):
    for image, _, expected in cases:  # by eight times what files may differ: otherwise one that does nothing would pass
        assert (to_float(expected) - image).abs().max() > 8 / 255
    for case in export.filter_cases(exported.eager):
        assert (to_float(case["expected"]) - case["image"]).abs().max() > 4 * export.FILTER_TOLERANCE


def test_the_second_pass_over_large_photos_is_in_the_cases(exported, cases):
    large = [case for case in cases if case[0].shape[-2] * case[0].shape[-1] >= 1024 * 768]
    assert len(large) == 2
    for image, strength, expected in [
        *large,
        *((case["image"], case["strength"], case["expected"]) for case in export.filter_cases(exported.eager)[-1:]),
    ]:
        single = to_uint8(exported.eager(image, float(strength)))
        assert (single.int() - expected.int()).abs().max() > 3  # a file of a single pass would not agree


def test_torchscript_takes_any_image_and_strength(exported, cases):
    provenance = {"provenance.json": ""}
    script = torch.jit.load(exported.folder / "filter.ts", _extra_files=provenance)
    for image, strength, expected in cases:
        assert_close(script(image, strength), expected)
    assert torch.equal(script(cases[0][0]), script(cases[0][0], 1.0))
    check_provenance(provenance["provenance.json"], exported)


def test_torch_export_takes_any_image_and_strength(exported, cases):
    provenance = {"provenance.json": ""}
    program = torch.export.load(exported.folder / "filter.pt2", extra_files=provenance).module()
    for image, strength, expected in cases:
        assert_close(program(image, torch.tensor(strength)), expected)
    check_provenance(provenance["provenance.json"], exported)


def test_onnx_takes_any_image_and_strength(exported, cases):
    session = onnxruntime.InferenceSession(exported.folder / "filter.onnx")
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", ["batch", 3, "height", "width"]), ("strength", [])]
    for image, strength, expected in cases:
        (filtered,) = session.run(["filtered"], {"image": image.numpy(), "strength": np.array(strength, np.float32)})
        assert_close(torch.from_numpy(filtered), expected)
    model = onnx.load(exported.folder / "filter.onnx")
    assert model.ir_version == 9  # onnxruntime 1.17 refuses a newer one, and opsets above 20
    assert {opset.domain: opset.version for opset in model.opset_import}[""] <= 20
    check_provenance(session.get_modelmeta().custom_metadata_map["provenance"], exported)


def test_existing_files_are_kept_unless_told_otherwise(exported, tmp_path, capsys):
    (tmp_path / "filter.pt2").write_text("precious")
    assert main(["export", "--checkpoint", str(exported.checkpoint), "--out", str(tmp_path)]) == 1
    assert "filter.pt2 exists; --overwrite" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]
    checked.claim([tmp_path / "filter.pt2"], overwrite=True)


def test_a_file_that_differs_is_not_kept(exported, tmp_path):
    save_random_filter(tmp_path / "other.safetensors", seed=1)
    other = formats.torchscript(load_filter(tmp_path / "other.safetensors"), {})
    (tmp_path / "filter.ts").write_text("the old one")
    with pytest.raises(CamoError, match=r"filter\.ts: 0\.\d+ from the eager model"):
        checked.write(tmp_path / "filter.ts", other, export.filter_cases(exported.eager), export.FILTER_TOLERANCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filter.ts", "other.safetensors"]
    assert (tmp_path / "filter.ts").read_text() == "the old one"


def test_nan_is_a_difference(exported, tmp_path):
    good, bad = export.filter_cases(exported.eager)[:2]
    bad["expected"] = to_float(bad["expected"])
    bad["expected"][..., 0, 0] = torch.nan
    with pytest.raises(CamoError, match="nan from the eager model"):
        checked.write(tmp_path / "filter.ts", (exported.folder / "filter.ts").read_bytes(), [bad, good], export.FILTER_TOLERANCE)
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_run_is_not_kept(tmp_path):
    with pytest.raises(CamoError, match=r"^filter\.onnx: does not run without this package") as error:
        checked.write(tmp_path / "filter.onnx", b"not a model", [], export.FILTER_TOLERANCE)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_another_shape_is_an_error():
    case = {"image": np.zeros((1, 3, 20, 20)), "expected": np.zeros((1, 3, 20, 20))}
    with pytest.raises(ValueError, match=r"\(1, 3, 20, 20\) gave \(1, 3, 20, 19\)"):
        check.difference(lambda inputs: inputs["image"][..., 1:], case)


@pytest.mark.parametrize(("output", "apart"), [(0.5, 0), (0.5019, 0), (0.504, 1), (0.498, 1), (0.51, 2), (np.nan, np.nan)])
def test_8_bit_pixels_are_compared_after_rounding(output, apart):
    case = {"image": np.zeros((1, 3, 4, 4)), "expected": np.full((1, 3, 4, 4), 128, np.uint8)}
    found = check.difference(lambda inputs: np.full((1, 3, 4, 4), output, np.float32), case)
    assert found == pytest.approx(apart / 255, nan_ok=True)


def test_the_check_cannot_import_camo(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "camo", sys.modules["camo"])  # restored afterwards
    with pytest.raises(Exception, match="nothing"):
        check.main(tmp_path / "nothing.onnx", tmp_path / "cases.npz")
    with pytest.raises(ImportError):
        importlib.import_module("camo")


def test_without_onnx_packages_the_filter_is_exported_all_the_same(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "missing_onnx_packages", lambda: ["onnxscript"])
    monkeypatch.setattr(export, "trace", lambda *args, **kwargs: None)  # seconds; the other tests have it
    monkeypatch.setattr(export, "serialized", lambda *args: b"")
    written = []
    monkeypatch.setattr(export, "write", lambda path, *args: written.append(path.name))
    assert main(["export", "--checkpoint", str(exported.checkpoint), "--out", str(tmp_path)]) == 0
    assert written == ["filter.ts", "filter.pt2"]
    (line,) = capsys.readouterr().out.splitlines()
    assert "filter.onnx left out: onnxscript not installed (pip install onnx onnxscript onnxruntime)" in line


def test_missing_packages_are_found(monkeypatch):
    assert export.missing_onnx_packages() == []
    monkeypatch.setattr(export, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    assert export.missing_onnx_packages() == ["no_such_package"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
        (["--biqa", "bundled"], "--biqa bundled goes with --what biqa"),
        (["--what", "page", "--biqa", "bundled"], "--biqa bundled goes with --what biqa"),
        (["--what", "page", "--look", "film:0.5"], "--look film:0.5 goes with --what filter; --what page exports every look that the page offers"),
        (["--what", "biqa", "--checkpoint", "a.safetensors"], "--checkpoint a.safetensors goes with --what filter"),
        (["--what", "biqa", "--biqa", "scorer.ts"], "cannot export the quality model 'scorer.ts'"),
        (["--what", "biqa", "--biqa", "koncept512:nowhere.pth"], "nowhere.pth: no such file"),
    ],
)
def test_faults_are_told_in_one_line(arguments, message, tmp_path, capsys):
    assert main(["export", "--out", str(tmp_path / "out"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to(exported, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["export", "--checkpoint", str(exported.checkpoint), "--out", str(tmp_path / "file")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'file'}: not a folder" in line


def test_a_quality_model_needs_the_onnx_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "missing_onnx_packages", lambda: ["onnxscript"])
    with pytest.raises(CamoError, match="needs onnxscript: pip install onnx onnxscript onnxruntime"):
        export.export_biqa("bundled", tmp_path)


def test_the_bundled_quality_model_scores_alike_in_onnxruntime(tmp_path, photos, capsys):
    assert main(["export", "--what", "biqa", "--out", str(tmp_path)]) == 0
    assert "bundled.onnx" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "bundled.onnx")
    scorer = models.load("bundled")
    larger = torch.nn.functional.interpolate(photos[:1], (509, 684), mode="bicubic").clamp(0, 1)
    for images in [photos, photos[1:2, :, :321, 1:482], photos[2:3, :, ::8, ::8], larger]:
        (scores,) = session.run(["score"], {"image": images.contiguous().numpy()})
        assert scores == pytest.approx(scorer(images).numpy(), abs=0.05)
    provenance = json.loads(session.get_modelmeta().custom_metadata_map["provenance"])
    assert provenance["sha256"] == hashlib.sha256(models.BUNDLED_WEIGHTS.read_bytes()).hexdigest()
