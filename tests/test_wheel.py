"""The built wheel, installed where no clone is at hand, does what its users were promised."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import camo

ROOT = Path(__file__).parent.parent
SOURCES = ("camo", "checkpoints", "LICENSE", "README.md", "pyproject.toml", "requirements.txt", "setup.py")
PAGE = ("index.html", "assets/worker.js", "networks/plan.onnx")  # stands for what make page builds
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

# Runs in one process with the installed package: importing torch again for every verb would take longer than the verbs do.
SESSION = """
import contextlib, io, json, sys
from pathlib import Path
import numpy as np
from PIL import Image
import camo, camo.weights
from camo.__main__ import main

def verb(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}

photo, seen = Image.open("photos/photo.png"), {}
np.save("filtered.npy", camo.load_filter(device="cpu")(np.asarray(photo)))
seen["infer"] = verb("infer", "photos", "--out", "filtered", "--device", "cpu")
seen["score"] = verb("score", "photos", "--json", "scores.json")
seen["evaluate"] = verb("evaluate", "photos", "filtered", "--quick", "--out", "evaluation")
seen["compare"] = verb("compare", "photos", "--methods", "filter", "pgd", "--steps", "1", "--out", "comparison")
seen["compare universal"] = verb("compare", "photos", "--out", "comparison-universal")
seen["koncept512"] = verb("score", "photos", "--biqa", "koncept512")
seen["files"] = sorted({module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "camo"})
seen["weights"] = str(camo.weights.CHECKPOINTS)
Path("seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources, so that the clone is left as it was and holds nothing of an earlier build."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    (source / "checkpoints" / "KonCept512.pth").write_bytes(b"a user's own")
    for name in PAGE:
        (source / "page" / "dist" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "page" / "dist" / name).write_text("built")
    subprocess.run([*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder to import the installed package from, as site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-index", "--no-deps", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture(scope="module")
def session(installed, tmp_path_factory):
    """A folder outside the clone in which the installed command line has worked on a photo, and what it said."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "photos").mkdir()
    photo = Image.open(min((ROOT / "data" / "sample" / "test").glob("*.jpg")))
    photo.crop((0, 0, 256, 192)).save(folder / "photos" / "photo.png")
    # -P and PYTHONPATH: neither the folder at work nor anything but the installed copy comes first.
    environment = os.environ | {"PYTHONPATH": str(installed), "TORCH_HOME": str(folder / "cache")}
    process = subprocess.run([sys.executable, "-P", "-c", SESSION], cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder, json.loads((folder / "seen.json").read_text())


def test_the_wheel_holds_every_file_of_the_package_the_shipped_weights_alone_and_the_built_page(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "camo").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    weights = {f"camo/checkpoints/{path.name}" for path in (ROOT / "checkpoints").glob("*.safetensors")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert len(weights) >= 2
    assert held == files | weights | {f"camo/page/built/{name}" for name in PAGE}


def test_the_command_is_installed(installed):
    command = next((installed / "bin").glob("camo*"), None) or next((installed / "Scripts").glob("camo*"))
    environment = os.environ | {"PYTHONPATH": str(installed)}
    assert subprocess.run([command, "--version"], env=environment, capture_output=True, text=True).stdout == f"camo {camo.__version__}\n"


def test_the_installed_package_and_its_own_weights_are_used(session, installed):
    _, seen = session
    assert seen["files"]
    assert all(Path(file).is_relative_to(installed) for file in seen["files"])
    assert Path(seen["weights"]) == installed / "camo" / "checkpoints"


def test_the_installed_filter_changes_a_photo_as_the_clones_does(session):
    folder, seen = session
    assert seen["infer"]["status"] == 0, seen["infer"]
    photo = np.asarray(Image.open(folder / "photos" / "photo.png"))
    filtered = np.asarray(Image.open(folder / "filtered" / "photo.png"))
    assert np.array_equal(filtered, camo.load_filter(device="cpu")(photo))
    assert np.array_equal(filtered, np.load(folder / "filtered.npy"))
    assert not np.array_equal(filtered, photo)


def test_installed_verbs_work_on_the_users_files(session):
    folder, seen = session
    for verb in ("score", "evaluate", "compare"):
        assert seen[verb]["status"] == 0, seen[verb]
    assert len(json.loads((folder / "scores.json").read_text())) == 1
    assert (folder / "comparison" / "compare.json").is_file()
    assert any((folder / "evaluation").iterdir())


def test_what_only_a_clone_has_is_asked_for(session):
    folder, seen = session
    assert seen["compare universal"]["status"] == 1
    assert seen["compare universal"]["err"].startswith("error: --dev data/sample/dev: no such folder; name photos")
    assert not (folder / "comparison-universal").exists()
    assert seen["koncept512"]["status"] == 1
    assert str(folder / "cache" / "hub" / "checkpoints" / "KonCept512.pth") in seen["koncept512"]["err"]  # a place that a user can write to
    assert seen["koncept512"]["err"].count("\n") == 1


def test_the_constraints_pin_a_version_of_everything_that_is_required():
    """Each pin lies within what the requirement allows."""
    lines = [line for name in ("requirements.txt", "constraints.txt") for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in requirements if str(pin.specifier).startswith("==")}
    for extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].values():
        requirements += [Requirement(line.partition("#")[0]) for line in extra if not line.startswith("camo[")]
    assert len(requirements) > 20
    for requirement in requirements:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
