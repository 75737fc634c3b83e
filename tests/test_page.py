"""The page in the browser: its server, its networks under Node against torch, and the page itself in a real browser against what infer.py writes.

The tests of the networks need Node.js and a built page (make page). Those in the browser also need Debian's chromium (or another one that CHROMIUM
names) and the Python package playwright. Without them they are skipped, which says why; with CAMO_BROWSER=required in the environment they fail
instead.
"""

import base64
import contextlib
import http.client
import importlib.util
import io
import json
import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import photo_files as pf
import pytest
import torch
from PIL import Image
from test_images import wide_gamut_profile

from camo import CamoError
from camo.__main__ import main
from camo.export.parts import TOLERANCE, TOLERANCES, Parts, case_of
from camo.filter.checkpoint import load_filter
from camo.filter.full_size import FullSize
from camo.filter.look_pixels import LookPixels, dress
from camo.filter.look_settings import LOOKS
from camo.filter.looks import Look
from camo.page import files as page_files
from camo.page.files import built, copy_to
from camo.page.server import HEADERS, server
from camo.photos.files import sha256
from camo.photos.images import Photo, read, to_float
from camo.quality.models import load_bundled

ROOT = Path(__file__).parent.parent
DIST = ROOT / "page" / "dist"
MODULES = ROOT / "page" / "node_modules"
AXE = MODULES / "axe-core" / "axe.min.js"
NODE = shutil.which("node")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
PATIENCE = 240_000  # ms


# The server and the folder


@contextlib.contextmanager
def serving(folder):
    """A running server for a folder."""
    with server(folder, 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def stand_in(folder, **hashes):
    """A folder that looks like the built page."""
    (folder / "networks").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    stated = {"filter": {"sha256": sha256(page_files.SHIPPED_FILTER)}, "quality": {"sha256": sha256(page_files.BUNDLED_WEIGHTS)}}
    stated |= {name: {"sha256": value} for name, value in hashes.items()}
    (folder / "networks" / "networks.json").write_text(json.dumps({"provenance": stated}))
    return folder


def answer(running, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    response.body = response.read()
    return response


def test_every_file_comes_with_its_type_and_the_headers_that_isolate_the_page(tmp_path):
    stand_in(tmp_path / "page")
    types = {"a.wasm": "application/wasm", "a.mjs": "text/javascript; charset=utf-8", "a.js": "text/javascript; charset=utf-8"}
    types |= {"a.onnx": "application/octet-stream", "a.css": "text/css; charset=utf-8", "index.html": "text/html; charset=utf-8"}
    for name in types:
        (tmp_path / "page" / name).write_text("x")
    with serving(tmp_path / "page") as running:
        for name, kind in types.items():
            response = answer(running, f"/{name}")
            assert (response.status, response.getheader("Content-Type")) == (200, kind)
            assert {key: response.getheader(key) for key in HEADERS} == HEADERS
        assert answer(running, "/", "HEAD").status == 200
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy and "*" not in policy and "unsafe-inline" not in policy


def test_nothing_but_the_folder_is_served_and_only_under_this_machines_name(tmp_path):
    stand_in(tmp_path / "page")
    (tmp_path / "secret").write_text("secret")
    with serving(tmp_path / "page") as running:
        assert running.server_address[0] == "127.0.0.1"
        for path in ("/../secret", "/%2e%2e/secret", "/networks/", "/nothing"):
            response = answer(running, path)
            assert response.status == 404
            assert b"secret" not in response.body
        assert answer(running, "/", Host="evil.example").status == 421
        assert answer(running, "/", Host=f"localhost:{running.server_port}").status == 200
        assert answer(running, "/", "POST").status == 501


def test_a_port_in_use_is_a_fault_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page_files, "CLONE", stand_in(tmp_path / "page"))
    with serving(tmp_path) as running:
        assert main(["page", "--no-browser", "--port", str(running.server_port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --port {running.server_port}: cannot be used")
    assert error.count("\n") == 1


def test_out_writes_all_files_into_a_new_folder_and_replaces_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page_files, "CLONE", stand_in(tmp_path / "page"))
    assert main(["page", "--out", str(tmp_path / "web" / "camo")]) == 0
    assert sorted(path.name for path in (tmp_path / "web" / "camo").rglob("*") if path.is_file()) == ["index.html", "networks.json"]
    assert [path.name for path in (tmp_path / "web").iterdir()] == ["camo"]
    assert main(["page", "--out", str(tmp_path / "web" / "camo")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["page", "--out", str(tmp_path / "other"), "--port", "80"]) == 1
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    stand_in(tmp_path / "page")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CamoError, match="file"):
        copy_to(tmp_path / "page", tmp_path / "file" / "web")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_page_that_is_not_built_or_built_of_other_weights_is_refused(tmp_path):
    with pytest.raises(CamoError, match="make page"):
        built(tmp_path)
    with pytest.raises(CamoError, match="other weights"):
        built(stand_in(tmp_path / "old", filter="0" * 64))
    damaged = stand_in(tmp_path / "damaged")
    (damaged / "networks" / "networks.json").write_text("{}")
    with pytest.raises(CamoError, match="damaged"):
        built(damaged)
    assert built(stand_in(tmp_path / "good")) == tmp_path / "good"


# What the other tests need


def unbuilt():
    """Why the page's files are not there, in words; None where they are."""
    if not AXE.is_file():
        return "page/node_modules is not installed (make page/dist/index.html)"
    try:
        built(DIST)
    except CamoError as error:
        return str(error)
    return None


def need(reason):
    """Skip a test that lacks something, which ``reason`` names, or fail where nothing may be skipped."""
    if reason and os.environ.get("CAMO_BROWSER") == "required":
        pytest.fail(f"the tests of the page cannot run: {reason}")
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize(("setting", "outcome"), [("", pytest.skip.Exception), ("required", pytest.fail.Exception)])
def test_what_is_missing_is_named_and_fails_where_nothing_may_be_skipped(setting, outcome, monkeypatch):
    monkeypatch.setenv("CAMO_BROWSER", setting)
    with pytest.raises(outcome, match="no node"):
        need("no node")
    need(None)


# The networks under Node


def under_node(folder, cases):
    """What page/test/run.js gives for the cases."""
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [NODE, str(ROOT / "page" / "test" / "run.js"), str(DIST / "networks"), str(folder)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert not process.returncode, process.stderr
    return json.loads(process.stdout)


def test_each_network_under_node_gives_what_torch_gives(tmp_path):
    need(unbuilt() if NODE else "no node")
    parts = Parts(load_filter(page_files.SHIPPED_FILTER), load_bundled())
    cases, expected = [], []
    for name, inputs in parts.runs(100, 150).items():
        case, described = case_of(parts.steps[name][0], inputs), {}
        expected.append(case.pop("expected").numpy())
        for key, tensor in case.items():
            file = f"{name}.{key}"
            (tmp_path / f"{file}.bin").write_bytes(tensor.contiguous().numpy().tobytes())
            described[key] = {"file": file, "type": str(tensor.dtype).removeprefix("torch."), "dims": list(tensor.shape)}
        cases.append({"step": name, "inputs": described, "output": name})
    assert {case["step"] for case in cases} == set(parts.steps)
    for case, result, wanted in zip(cases, under_node(tmp_path, cases), expected, strict=True):
        name = case["step"]
        given = np.frombuffer((tmp_path / f"{name}.bin").read_bytes(), wanted.dtype).reshape(result["dims"])
        assert given.shape == wanted.shape
        apart = np.abs(given.astype(float) - wanted).max() / (255 if wanted.dtype == np.uint8 else 1)
        print(f"{name}: at most {apart:.2g} from torch (allowed: {TOLERANCES.get(name, TOLERANCE):.2g})")
        assert apart <= TOLERANCES.get(name, TOLERANCE), name


def test_the_networks_under_node_together_do_what_infer_does(tmp_path):
    need(unbuilt() if NODE else "no node")
    sample = Image.open(min((ROOT / "data" / "sample" / "test").glob("*.jpg"))).convert("RGB")
    settings = [((1030, 770), False, 1.3, ("film", 0.8)), ((320, 200), True, 0.6, ("golden", 1.4)), ((200, 150), False, 1.0, None)]
    cases, model, quality = [], FullSize(load_filter(page_files.SHIPPED_FILTER)), load_bundled()
    for number, ((width, height), greyscale, strength, look) in enumerate(settings):
        photo = sample.resize((width, height), Image.Resampling.LANCZOS)
        photo = photo.convert("L").convert("RGBA") if greyscale else photo.convert("RGBA")
        (tmp_path / f"photo{number}.bin").write_bytes(photo.tobytes())
        facts = {"file": f"photo{number}", "width": width, "height": height, "greyscale": greyscale}
        chosen = {"name": look[0], "amount": look[1]} if look else None
        cases.append({"photo": facts, "strength": strength, "look": chosen, "output": f"filtered{number}"})
    for number, (setting, result) in enumerate(zip(settings, under_node(tmp_path, cases), strict=True)):
        (width, height), greyscale, strength, look = setting
        shape = (height, width, 4)
        original, given = (np.frombuffer((tmp_path / f"{name}{number}.bin").read_bytes(), np.uint8).reshape(shape) for name in ("photo", "filtered"))
        photo = Photo(torch.from_numpy(original[..., :3].copy()).permute(2, 0, 1).contiguous(), "PNG", greyscale=greyscale)
        looked = dress(photo, LookPixels(Look(LOOKS[look[0]], look[1]))) if look else photo
        expected = model(looked.pixels[None], strength)
        apart = np.abs(given[..., :3].astype(int) - expected[0].permute(1, 2, 0).numpy())
        with torch.no_grad():
            scores = [quality(to_float(pixels)).item() for pixels in (photo.pixels[None], expected)]
        points = np.abs(np.subtract([result["before"], result["after"]], scores)).max()
        print(f"{width}x{height} px, look {look}: {(apart > 0).mean():.3%} of the values differ, by {apart.max()} at most; scores by {points:.3f}")
        assert (given[..., 3] == 255).all()
        assert (apart.max(axis=-1) <= 2).mean() >= 0.999
        assert points <= 0.3


# The browser


def missing():
    """What the browser tests need and is not there, in words."""
    if not CHROMIUM:
        return "no chromium (apt-get install chromium)"
    if not importlib.util.find_spec("playwright"):
        return "the package playwright is not installed"
    return unbuilt()


def write_photos(folder):
    """Two JPEGs, one of them on its side, with a thumbnail, a place and a profile, one large; a PNG with alpha; a broken file."""
    folder.mkdir()
    samples = sorted((ROOT / "data" / "sample" / "test").glob("*.jpg"))
    turned, large, cut = (Image.open(samples[index]).convert("RGB") for index in (3, 9, 18))
    turned, cut = (photo.resize((320, 240), Image.Resampling.LANCZOS) for photo in (turned, cut))  # small ones are done sooner
    gps = {1: (2, b"N\0"), 2: (5, (51, 1, 30, 1, 0, 1)), 3: (2, b"W\0"), 4: (5, (0, 1, 7, 1, 0, 1))}
    inner = {0x9003: (2, b"2024:05:06 07:08:09\0"), 0xA002: (4, turned.width), 0xA003: (4, turned.height), 0xA001: (3, 1)}
    tags = {271: (2, b"Maker\0"), 274: (3, 6), 282: (5, (300, 1)), 283: (5, (200, 1)), 296: (3, 2), 34665: (4, inner), 34853: (4, gps)}
    segments = (pf.jpeg_exif(pf.exif_with_thumbnail(tags, pf.thumbnail())), pf.segment(0xE2, b"ICC_PROFILE\0\1\1" + pf.SRGB_ICC))
    (folder / "turned.jpg").write_bytes(pf.jpeg(*segments, pf.jpeg_xmp(pf.xmp('photoshop:City="Greenwich"')), image=turned))
    large.resize((1030, 770), Image.Resampling.LANCZOS).save(folder / "large.jpg", quality=95, subsampling="4:4:4", dpi=(72, 72))
    cut.putalpha(Image.linear_gradient("L").resize(cut.size))
    cut.save(folder / "alpha.png", dpi=(150, 150))
    (folder / "broken.jpg").write_bytes((folder / "large.jpg").read_bytes()[:20_000])
    return folder


DROP = """(photos) => {
    const transfer = new DataTransfer();
    for (const [name, content] of photos) transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
    document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One browser for all tests: the page is loaded, the server stopped, and then four files are dropped on it."""
    need(missing())
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("page")
    photos = write_photos(folder / "photos")
    assert main(["infer", str(photos), "--out", str(folder / "inferred"), "--strip-gps", "--device", "cpu"]) == 1  # the broken one
    with contextlib.ExitStack() as stack:
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        stack.callback(browser.close)
        context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
        page = context.new_page()
        requests, complaints = [], []
        context.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        with serving(built(DIST)) as running:
            origin = f"http://127.0.0.1:{running.server_port}"
            page.goto(origin)
            page.wait_for_selector("body[data-ready]", timeout=PATIENCE)
            isolated = page.evaluate("crossOriginIsolated")
        before = len(requests)  # from here on, there is no server
        page.evaluate(DROP, [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in sorted(photos.iterdir())])
        finished(page)
        save_all(page, folder / "saved")
        yield SimpleNamespace(folder=folder, page=page, requests=requests, complaints=complaints, origin=origin, before=before, isolated=isolated)


def finished(page):
    """Wait until nothing is left to do."""
    page.wait_for_selector("#cancel:enabled", timeout=PATIENCE)
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)


def save_all(page, folder):
    """Save the zip, and take it apart."""
    with page.expect_download() as download:
        page.click("#zip")
    zipfile.ZipFile(Path(download.value.path())).extractall(folder)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGBA" if path.suffix == ".png" else "RGB")).astype(int)


def test_one_bad_file_is_named_and_does_not_stop_the_rest(session):
    faults = session.page.locator("li.fault")
    assert faults.count() == 1
    assert "broken.jpg" in faults.inner_text()
    assert "truncated" in faults.inner_text()
    assert session.page.inner_text("#status") == "3 done, 1 not done"
    assert sorted(path.name for path in (session.folder / "saved").iterdir()) == ["alpha.png", "large.jpg", "turned.jpg"]


def decibels(one, other):
    return 10 * np.log10(255**2 / max(((one - other) ** 2).mean(), 1e-9))


def assert_alike(session, saved_in, inferred_in):
    """The files that the page saved are those of infer, as far as the page promises."""
    for name in ("turned.jpg", "large.jpg", "alpha.png"):
        saved, inferred = (pixels(session.folder / folder / name) for folder in (saved_in, inferred_in))
        assert saved.shape == inferred.shape
        apart = np.abs(saved - inferred).max(axis=-1)
        print(f"{name}: {(apart <= 2).mean():.4%} of the pixels at most 2 apart, {decibels(saved, inferred):.1f} dB")
        assert (apart <= 2).mean() >= 0.999 if name.endswith(".png") else decibels(saved, inferred) >= 45


def test_the_saved_files_are_those_of_infer(session):
    assert_alike(session, "saved", "inferred")
    assert np.array_equal(pixels(session.folder / "saved" / "alpha.png")[..., 3], pixels(session.folder / "photos" / "alpha.png")[..., 3])


def test_the_saved_files_say_what_infers_say(session):
    for name in ("turned.jpg", "large.jpg", "alpha.png"):
        saved, inferred = (read(session.folder / folder / name) for folder in ("saved", "inferred"))
        for said in ("exif", "icc_profile", "xmp", "iptc", "resources", "comments", "text", "greyscale", "dpi", "left_out"):
            assert getattr(saved, said) == getattr(inferred, said), (name, said)
    turned = session.folder / "saved" / "turned.jpg"
    assert Image.open(turned).getexif().get(274) == 1
    content = turned.read_bytes()
    assert b"Greenwich" not in content
    assert content.count(b"\xff\xd8\xff") == 1  # no thumbnail
    saved, inferred = (Image.open(session.folder / folder / "turned.jpg") for folder in ("saved", "inferred"))
    assert saved.quantization == inferred.quantization


def test_each_photo_has_its_scores_before_and_after(session):
    row = session.page.locator("li:has-text('large.jpg')")
    before, after = (float(value) for value in row.locator(".score .value").all_inner_texts()[:2])
    assert before > after
    assert row.locator("meter").count() >= 2
    printed = session.folder / "scores.json"
    assert main(["score", str(session.folder / "photos" / "large.jpg"), str(session.folder / "inferred" / "large.jpg"), "--json", str(printed)]) == 0
    scores = [line["score"] for line in json.loads(printed.read_text())]
    assert sorted((before, after)) == pytest.approx(sorted(scores), abs=0.6)  # the page rounds to whole numbers


@pytest.fixture(scope="module")
def dressed(session):
    """The same page once more: the photos are in a look, which was chosen by keyboard, and keep their location."""
    page = session.page
    assert page.is_disabled("#amount")  # there is no amount of no look
    page.uncheck("#location")
    page.focus("#look")
    page.keyboard.type("film")
    page.focus("#amount")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    assert (page.input_value("#look"), page.inner_text("#amount-value")) == ("film", "0.8")
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    save_all(page, session.folder / "dressed")
    folders = [str(session.folder / "photos"), "--out", str(session.folder / "looked")]
    assert main(["infer", *folders, "--look", "film:0.8", "--device", "cpu"]) == 1  # the broken one
    return session


def test_a_look_gives_what_infer_gives_with_it(dressed):
    assert_alike(dressed, "dressed", "looked")
    for name in ("turned.jpg", "large.jpg", "alpha.png"):
        assert decibels(*(pixels(dressed.folder / folder / name) for folder in ("saved", "dressed"))) < 35  # which it did not have before


def test_the_location_stays_where_a_person_wants_it(dressed):
    kept = dressed.folder / "dressed" / "turned.jpg"
    saved, inferred = read(kept), read(dressed.folder / "looked" / "turned.jpg")
    assert b"Greenwich" in inferred.xmp
    assert (saved.exif, saved.xmp) == (inferred.exif, inferred.xmp)
    assert Image.open(kept).getexif().get_ifd(34853)


def test_a_photo_in_a_look_has_three_scores(dressed):
    row = dressed.page.locator("li:has-text('alpha.png')")
    assert "film at 0.8" in row.locator(".state").inner_text()
    words = [bar.splitlines()[0] for bar in row.locator(".score").all_inner_texts()]
    assert words == ["before", "in this look", "after"]
    numbers = [float(value) for value in row.locator(".score .value").all_inner_texts()]
    photo = read(dressed.folder / "photos" / "alpha.png")
    looked = dress(photo, LookPixels(Look(LOOKS["film"], 0.8)))
    filtered = read(dressed.folder / "looked" / "alpha.png")
    with torch.no_grad():
        expected = [load_bundled()(to_float(one.pixels[None])).item() for one in (photo, looked, filtered)]
    assert numbers == pytest.approx(expected, abs=0.6)  # the page rounds to whole numbers


PIXELS = """async (selector) => {
    const image = document.querySelector(selector);
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
}"""


def change_shown(page):
    """Tick "show the change", and read the picture that is then shown, (H, W, 3)."""
    plain = page.get_attribute("#after", "src")
    page.check("#change")
    page.wait_for_selector(f"#after:not([src='{plain}'])", timeout=PATIENCE)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(page.evaluate(PIXELS, "#after")))).convert("RGB")).astype(int)


def test_the_change_is_that_of_the_camouflage_and_not_of_the_look(dressed):
    page = dressed.page
    page.click("li:has-text('alpha.png') .compare")
    assert "not that of the look" in page.inner_text("#viewer-look")
    shown = change_shown(page)
    assert page.get_attribute("#before", "src") == page.get_attribute("li:has-text('alpha.png') .thumbnail", "src")  # the original
    page.click("#close")
    looked = dress(read(dressed.folder / "photos" / "alpha.png"), LookPixels(Look(LOOKS["film"], 0.8))).pixels.permute(1, 2, 0).numpy()
    change = 128 + 10 * (pixels(dressed.folder / "dressed" / "alpha.png")[..., :3] - looked)
    assert (np.abs(shown - change.clip(0, 255)) <= 10).mean() >= 0.999  # a look's value may be rounded the other way


def test_platform_checks_strength_and_cancel_by_keyboard(dressed):
    page = dressed.page
    page.focus("li:has-text('large.jpg') .remove")
    page.keyboard.press("Enter")
    assert page.locator("li").count() == 3
    page.focus("#platform")
    page.keyboard.press("Space")
    finished(page)
    row = page.locator("li:has-text('turned.jpg')")
    assert row.locator(".score").count() == 9
    assert "JPEG 75, in this look" in row.inner_text()
    assert "JPEG 75, after" in row.inner_text()
    page.focus("#strength")
    page.keyboard.press("Home")  # strength 0
    page.wait_for_selector("#cancel:enabled")
    page.focus("#cancel")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    assert "cancelled" in page.inner_text("#status")
    page.click("li:has-text('turned.jpg') .remove")
    page.focus("#strength")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#strength-value") == "1.0"
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    assert page.inner_text("#status") == "1 done, 1 not done"


def test_the_large_view_works_by_keyboard(session):
    page = session.page
    page.focus("li:has-text('alpha.png') .compare")
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 1
    page.focus("#divider")
    page.keyboard.press("Home")
    assert page.evaluate("document.querySelector('#slider').value") == 0
    page.click("#slider", position={"x": page.locator("#slider").bounding_box()["width"] / 4, "y": 20})
    assert float(page.input_value("#divider")) == pytest.approx(25, abs=2)
    page.focus("#zoom input[value='0']")
    page.keyboard.press("ArrowRight")
    width = Image.open(session.folder / "photos" / "alpha.png").width
    assert page.evaluate("document.querySelector('#after').getBoundingClientRect().width") == width
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('#after').getBoundingClientRect().width") == 2 * width
    plain = page.get_attribute("#after", "src")
    page.focus("#change")
    page.keyboard.press("Space")
    page.wait_for_selector(f"#after:not([src='{plain}'])", timeout=PATIENCE)
    axe(page)
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_the_divider_is_in_sight_on_a_narrow_screen(session):
    page = session.page
    page.set_viewport_size({"width": 360, "height": 800})
    page.click("li:has-text('alpha.png') .compare")
    place = "(() => { const picture = document.querySelector('#slider'), box = picture.getBoundingClientRect();"
    place += " return box.left + (box.width * picture.value) / 100; })()"
    for keys in (["ArrowRight", "ArrowRight"], ["End"]):  # to 200%, twice as wide as the screen; then the divider, to the right border
        page.focus("#divider" if keys == ["End"] else "#zoom input[value='0']")
        for key in keys:
            page.keyboard.press(key)
        assert 0 <= page.evaluate(place) <= 360
    page.click("#close")
    page.set_viewport_size({"width": 1440, "height": 900})


def write_other_kinds(folder):
    """Small files of the other kinds that the page reads: each has a way of its own through it."""
    folder.mkdir()
    photo = Image.open(min((ROOT / "data" / "sample" / "test").glob("*.jpg"))).convert("RGB").resize((160, 120), Image.Resampling.LANCZOS)
    clear = photo.copy()
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.convert("L").save(folder / "grey.jpg", quality=95)
    clear.convert("LA").save(folder / "grey.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    photo.save(folder / "wide.jpg", quality=95, subsampling="4:4:4", icc_profile=wide_gamut_profile())
    photo.save(folder / "lossy.webp", quality=90, exif=b"Exif\0\0" + pf.exif({271: (2, b"Maker\0"), 274: (3, 3)}), icc_profile=pf.SRGB_ICC)
    clear.save(folder / "lossless.webp", lossless=True)
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257 + 77).save(folder / "sixteen_bits.png")
    photo.save(folder / "two_frames.webp", save_all=True, append_images=[photo.rotate(90)])
    photo.crop((0, 0, 8, 8)).save(folder / "tiny.png")
    return folder


def test_other_kinds_of_files_fare_as_with_infer(session):
    page, folder = session.page, session.folder
    photos = write_other_kinds(folder / "kinds")
    assert main(["infer", str(photos), "--out", str(folder / "kinds_inferred"), "--strip-gps", "--device", "cpu"]) == 1
    page.click("#clear")
    page.uncheck("#platform")
    page.check("#location")
    page.select_option("#look", "")
    page.set_input_files("#files", sorted(photos.iterdir()))
    finished(page)
    assert sorted(page.locator("li.fault h3").all_inner_texts()) == ["tiny.png", "two_frames.webp"]
    save_all(page, folder / "kinds_saved")
    inferred = sorted((folder / "kinds_inferred").iterdir())
    assert [path.name for path in inferred] == sorted(path.name for path in (folder / "kinds_saved").iterdir())
    for path in inferred:
        expected, saved = read(path), read(folder / "kinds_saved" / path.name)
        mean = (expected.pixels.float() - saved.pixels.float()).square().mean().item()
        assert 10 * np.log10(255**2 / max(mean, 1e-9)) >= 45, path.name
        for said in ("exif", "icc_profile", "greyscale", "lossless", "bits"):
            assert getattr(saved, said) == getattr(expected, said), (path.name, said)
        assert (saved.alpha is None) == (expected.alpha is None), path.name


def small(name, size=(64, 48), **options):
    """A small photo by name and content, in base64, as ``DROP`` and ``PASTE`` take them."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(content, **{"format": "JPEG", **options})
    return [name, base64.b64encode(content.getvalue()).decode()]


PASTE = DROP.replace('new DragEvent("drop", {', 'new ClipboardEvent("paste", {').replace("dataTransfer: transfer", "clipboardData: transfer")


def test_many_photos_pasted_and_dropped_are_all_saved_those_of_one_name_too(session):
    page, folder = session.page, session.folder
    page.click("#clear")
    page.evaluate(PASTE, [small("image.png", format="PNG")])
    page.evaluate(DROP, [small(f"{number}.jpg") for number in range(20)] + [small("image.png", format="PNG"), small("IMAGE.PNG", format="PNG")])
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    assert page.inner_text("#status") == "23 done"
    save_all(page, folder / "many")
    names = {f"{number}.jpg" for number in range(20)} | {"image.png", "image (2).png", "IMAGE (3).PNG"}
    assert {path.name for path in (folder / "many").iterdir()} == names
    assert all(Image.open(path).size == (64, 48) for path in (folder / "many").iterdir())


def test_heic_and_avif_only_where_the_browser_can_and_written_as_jpeg(session):
    page, folder = session.page, session.folder
    page.click("#clear")
    heic = base64.b64encode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)).decode()
    page.evaluate(DROP, [["phone.heic", heic], small("camera.avif", format="AVIF")])
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    assert "this browser cannot read HEIC or AVIF" in page.inner_text("li:has-text('phone.heic')")
    assert "Written as JPEG" in page.inner_text("li:has-text('camera.avif') .note")
    assert "Left out: all metadata" in page.inner_text("li:has-text('camera.avif') .note")
    save_all(page, folder / "heic")
    (saved,) = (folder / "heic").iterdir()
    assert (saved.name, Image.open(saved).format) == ("camera.jpg", "JPEG")


def set_strength(value):
    return f"""const strength = document.querySelector("#strength");
        strength.value = {value};
        strength.dispatchEvent(new Event("change"));"""


def test_a_change_that_is_asked_for_is_never_shown_for_a_later_result(session):
    page = session.page
    page.click("#clear")
    page.set_input_files("#files", session.folder / "photos" / "alpha.png")
    finished(page)
    page.click("li .compare")
    page.evaluate('() => { document.querySelector("#change").click(); document.querySelector("#close").click(); ' + set_strength(0) + "}")
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    page.wait_for_selector("li .compare:visible")
    page.click("li .compare")
    shown = change_shown(page)
    page.click("#close")
    assert (shown == 128).all()  # at strength 0 nothing changes


def test_what_waits_for_the_change_to_be_computed_can_be_cancelled(session):
    page = session.page
    page.click("li .compare")
    press = '() => { const press = (id) => document.querySelector(id).click(); press("#change"); press("#close"); '
    page.evaluate(press + set_strength(1) + 'press("#cancel"); }')
    page.wait_for_selector("#cancel:disabled", timeout=PATIENCE)
    assert page.inner_text("#status") == "0 done, 1 cancelled"


def axe(page):
    """axe-core finds nothing to mend."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert not found, [(fault["id"], [node["html"][:120] for node in fault["nodes"]]) for fault in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_is_accessible_and_fits(session, width, scheme):
    page = session.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.eval_on_selector("details", "details => details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    axe(page)
    page.screenshot(path=session.folder / f"page-{width}-{scheme}.png", full_page=True)


def test_the_page_asks_no_other_host_and_nothing_once_it_is_loaded(session):
    asked = [url for url in session.requests if not url.startswith(("blob:", "data:"))]
    assert asked
    assert all(url.startswith(session.origin) for url in asked)
    assert not [url for url in session.requests[session.before :] if not url.startswith("blob:")]
    assert not session.complaints
    assert session.isolated
