"""infer --cluster: Ray does what one machine does, and loses nothing when machines or the command itself die."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

import infer
from camo import CamoError
from camo.camouflage import shards
from camo.filter.checkpoint import save_filter

pytest.importorskip("ray", reason="needs the extra cluster")
import ray
from ray.cluster_utils import Cluster

from camo.camouflage import cluster as on_cluster
from camo.camouflage.files import Files
from camo.camouflage.pipeline import Pipeline
from camo.camouflage.places import Folder, Store, place
from camo.filter.full_size import FullSize

ROOT = Path(__file__).parent.parent
WRONG_USAGE, INTERRUPTED = 2, 130
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def nodes():
    """A cluster on this machine, to which this process is connected: one connection, so that the workers need to start once."""
    before = set(psutil.Process().children(recursive=True))
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    left = [process for process in set(psutil.Process().children(recursive=True)) - before if process.status() != psutil.STATUS_ZOMBIE]
    _, left = psutil.wait_procs(left, timeout=10)
    assert not left


@pytest.fixture
def checkpoint(tmp_path, small_filter):
    save_filter(tmp_path / "filter.safetensors", small_filter, {})
    return tmp_path / "filter.safetensors"


@pytest.fixture
def camouflage(tmp_path, checkpoint, nodes):
    """Run infer.py --cluster in this process; paths are below tmp_path, except addresses."""

    def run(source, *flags, out="out"):
        source, out = (text if "://" in text else str(tmp_path / text) for text in (source, out))
        return infer.main([source, "--out", out, "--checkpoint", str(checkpoint), "--cluster", nodes.address, *flags])

    return run


@pytest.fixture
def on_one_machine(tmp_path, checkpoint):
    """What infer.py alone writes."""

    def run(source, *flags, out="alone"):
        infer.main([str(tmp_path / source), "--out", str(tmp_path / out), "--checkpoint", str(checkpoint), "--device", "cpu", *flags])
        return files(tmp_path / out)

    return run


def picture(seed, file_format="JPEG", size=(64, 48)):
    """The file of a small photo of noise, another for every seed."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(buffer, file_format)
    return buffer.getvalue()


def make(folder, count):
    """Photos in three folders of a folder."""
    for index in range(count):
        path = folder / "abc"[index % 3] / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(index))


def files(folder):
    """All that is in a folder, hidden files too, but for the file of faults."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "faults.jsonl"}


def faults(folder):
    return [json.loads(line) for line in (folder / "faults.jsonl").read_text().splitlines()]


def test_the_files_are_those_of_one_machine_and_faults_are_told(tmp_path, camouflage, on_one_machine, capsys):
    make(tmp_path / "in", 30)
    for name, content in {"b/dots.gif": picture(1, "GIF"), "b/c.png": picture(2, "PNG"), "c/wide.webp": picture(3, "WEBP", (96, 48))}.items():
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in/.hidden").mkdir()
    (tmp_path / "in/.hidden/0.jpg").write_bytes(picture(0))
    for name, content in {"a/broken.jpg": b"no picture", "small.png": picture(0, "PNG", (8, 8))}.items():
        (tmp_path / "in" / name).write_bytes(content)
    expected = on_one_machine("in")
    capsys.readouterr()
    assert camouflage("in") == 1
    assert files(tmp_path / "out") == expected
    assert len(expected) == 33
    told = faults(tmp_path / "out")
    assert sorted(fault["photo"] for fault in told) == [str(tmp_path / "in/a/broken.jpg"), str(tmp_path / "in/small.png")]
    assert all(fault["photo"] in fault["fault"] for fault in told)
    captured = capsys.readouterr()
    assert captured.out.startswith("33 written, 0 there already, 2 failed; ")
    assert "photos/s for each of" in captured.out
    assert len([line for line in captured.err.splitlines() if line.startswith("error: ")]) == 3  # two photos, and where to read of them
    (tmp_path / "in/a/broken.jpg").write_bytes(picture(99))
    (tmp_path / "in/small.png").unlink()
    assert camouflage("in") == 0
    assert capsys.readouterr().out.startswith("1 written, 33 there already, 0 failed; ")
    assert not (tmp_path / "out/faults.jsonl").exists()
    assert not list((tmp_path / "out").glob(".camo-*"))


def test_batches_names_and_formats_are_as_asked(tmp_path, camouflage, on_one_machine):
    make(tmp_path / "in", 24)
    flags = ("--batch-size", "4", "--run-code", "x", "--format", "png", "--look", "warm", "--strip-metadata")
    expected = on_one_machine("in", *flags)
    assert camouflage("in", *flags) == 0
    assert files(tmp_path / "out") == expected
    assert "a/x_0000.png" in expected


def test_two_photos_of_one_output_are_told(tmp_path, camouflage):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.gif").write_bytes(picture(1, "GIF"))
    (tmp_path / "in/a.png").write_bytes(picture(2, "PNG"))
    assert camouflage("in") == 1
    (fault,) = faults(tmp_path / "out")
    assert "a.png': its output would overwrite the output of" in fault["fault"]


def wait_for(folder, count):
    """Wait until a folder holds so many photos; how many it does."""
    limit = time.monotonic() + 300
    while (held := sum(1 for _ in folder.rglob("[0-9]*.jpg"))) < count and time.monotonic() < limit:
        time.sleep(0.05)
    return held


@pytest.fixture(scope="module")
def folder_of_500(tmp_path_factory):
    folder = tmp_path_factory.mktemp("500")
    make(folder / "in", 500)
    return folder


@pytest.fixture
def five_hundred(folder_of_500, on_one_machine, capsys):
    """A folder of 500 photos, and the files that an undisturbed run writes; the first test waits for it."""
    expected = on_one_machine(folder_of_500 / "in", out=folder_of_500 / "alone")
    assert len(expected) == 500
    capsys.readouterr()
    return folder_of_500 / "in", expected


def test_a_machine_that_dies_halfway_loses_no_photo(tmp_path, five_hundred, camouflage, nodes, capsys):
    source, expected = five_hundred
    node = nodes.add_node(**NODE)
    held = []

    def kill():
        held.append(wait_for(tmp_path / "out", 200))
        nodes.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert camouflage(str(source)) == 0
    finally:
        killer.join()
    assert 200 <= held[0] < 500
    assert files(tmp_path / "out") == expected
    assert "\n500 written, 0 there already, 0 failed; " in f"\n{capsys.readouterr().out}"  # Ray reports the dead machine before that


def test_a_command_that_is_stopped_or_killed_is_completed_by_itself(tmp_path, five_hundred, camouflage, nodes, checkpoint):
    source, expected = five_hundred
    command = [sys.executable, ROOT / "infer.py", source, "--out", tmp_path / "out", "--checkpoint", checkpoint, "--cluster", nodes.address]
    for sent, count, status in ((signal.SIGINT, 100, INTERRUPTED), (signal.SIGKILL, 250, -signal.SIGKILL)):
        process = subprocess.Popen(
            # A shell that runs the tests in the background has SIGINT ignored, which children inherit
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        held = wait_for(tmp_path / "out", count)
        process.send_signal(sent)
        output, _ = process.communicate(timeout=120)
        assert held >= count, output
        assert process.returncode == status, output
        assert "Traceback" not in output
        there = files(tmp_path / "out")
        finished = {name: content for name, content in there.items() if ".camo-" not in name}
        assert finished.items() <= expected.items()
        assert count <= len(finished) < 500
        assert sent == signal.SIGKILL or finished == there
    assert camouflage(str(source)) == 0
    assert files(tmp_path / "out") == expected
    assert not list((tmp_path / "out").glob(".camo-*"))


# Shards


def shard(path, *samples, extra=True):
    """Write a tar file of (key, content of its photo)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, content in samples:
            for name, data in ((f"{key}.jpg", content), *([(f"{key}.json", json.dumps({"key": key}).encode())] if extra else [])):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(data), 1_700_000_000
                archive.addfile(info, io.BytesIO(data))


def contents(path):
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


def test_shards_in_and_out(tmp_path, camouflage, on_one_machine, capsys):
    import webdataset

    make(tmp_path / "in", 20)
    expected = {Path(name).name: content for name, content in on_one_machine("in").items()}
    shard(tmp_path / "shards/sub/0.tar", *((f"{index:04}", picture(index)) for index in range(10)))
    shard(tmp_path / "shards/1.tar", *((f"{index:04}", picture(index)) for index in range(10, 20)), ("broken", b"no picture"))
    capsys.readouterr()
    assert camouflage("shards", "--tar") == 1
    assert capsys.readouterr().out.startswith("20 written, 0 shards there already, 1 failed; ")
    found = files(tmp_path / "out")
    assert sorted(found) == ["1.tar", "sub/0.tar"]
    written = contents(tmp_path / "out/1.tar") | contents(tmp_path / "out/sub/0.tar")
    assert {name: content for name, content in written.items() if name.endswith(".jpg")} == expected
    assert written["0007.json"] == b'{"key": "0007"}'
    assert not any(name.startswith("broken") for name in written)
    (fault,) = faults(tmp_path / "out")
    assert fault["photo"] == f"{tmp_path}/shards/1.tar/broken.jpg"
    samples = list(webdataset.WebDataset(str(tmp_path / "out/1.tar"), shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [f"{index:04}" for index in range(10, 20)]
    assert samples[0]["jpg"] == expected["0010.jpg"]
    assert camouflage("shards", "--tar") == 1  # the photo is still missing
    assert capsys.readouterr().out.startswith("0 written, 2 shards there already, 1 failed; ")
    assert files(tmp_path / "out") == found
    assert faults(tmp_path / "out") == [fault]


def run_here(collection, small_filter):
    """The steps that Ray runs, one after the other in this process."""
    pipeline = Pipeline(FullSize(small_filter))
    told = []
    for listed in collection.listing():
        for part in collection.decode(listed):
            part.jobs = list(pipeline.change(iter(part.jobs), []))
            told.append(collection.encode(part))
    return told


def test_a_large_shard_is_divided_and_only_missing_parts_are_done_again(tmp_path, small_filter, monkeypatch):
    shard(tmp_path / "in/0.tar", *((f"{index:04}", picture(index)) for index in range(10)))
    (tmp_path / "out").mkdir()
    collection = on_cluster.Collection(Folder(tmp_path / "in"), Folder(tmp_path / "out"), Files(), tar=True)
    run_here(collection, small_filter)
    whole = contents(tmp_path / "out/0.tar")
    (tmp_path / "out/0.tar").unlink()
    monkeypatch.setattr(shards, "MOST_PIXELS", 4 * 3 * 64 * 48)
    run_here(collection, small_filter)
    divided = files(tmp_path / "out")
    assert sorted(divided) == [f"0-{number:05}-of-00003.tar" for number in range(3)]
    assert functools.reduce(dict.__or__, (contents(tmp_path / "out" / name) for name in sorted(divided))) == whole
    (tmp_path / "out/0-00001-of-00003.tar").unlink()
    done = run_here(collection, small_filter)
    assert sum(len(outcome.jobs) for outcome in done) == 4
    assert files(tmp_path / "out") == divided
    assert [outcome.kept for outcome in run_here(collection, small_filter)] == [1]
    (tmp_path / "out/0-00001-of-00003.tar").unlink()
    monkeypatch.setattr(shards, "MOST_PIXELS", 2 * 3 * 64 * 48)
    (outcome,) = run_here(collection, small_filter)
    assert "parts of another division of it, of 3 and not of 5" in outcome.faults[0][1]


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 3000, 5632, -512 * 18, -512 * 20])
def test_a_damaged_shard_is_told_and_nothing_of_it_is_written(tmp_path, small_filter, cut):
    shard(tmp_path / "in/0.tar", ("a", picture(1)), ("b", picture(2)), extra=False)
    content = (tmp_path / "in/0.tar").read_bytes()
    (tmp_path / "in/0.tar").write_bytes(content[:cut])
    (tmp_path / "out").mkdir()
    (outcome,) = run_here(on_cluster.Collection(Folder(tmp_path / "in"), Folder(tmp_path / "out"), Files(), tar=True), small_filter)
    ((photo, text),) = outcome.faults
    assert photo == str(tmp_path / "in/0.tar")
    assert "0.tar': cannot be read: " in text
    assert files(tmp_path / "out") == {}


def test_a_member_that_would_overwrite_another_is_told(tmp_path, small_filter):
    shard(tmp_path / "in/0.tar", ("a", picture(1)), ("a", picture(2)), extra=False)
    (tmp_path / "out").mkdir()
    (outcome,) = run_here(on_cluster.Collection(Folder(tmp_path / "in"), Folder(tmp_path / "out"), Files(), tar=True), small_filter)
    assert len(outcome.jobs) == len(outcome.faults) == 1
    assert "would overwrite that of another member" in outcome.faults[0][1]


# Object stores


@pytest.fixture
def store():
    """An S3 store on this machine: a function that gives addresses in its bucket, and one that gives what a prefix holds."""
    server_module = pytest.importorskip("moto.server")
    import boto3

    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="photos")

    def address(prefix):
        return f"s3://key:secret@photos/{prefix}?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{port}"

    def held(prefix):
        found = client.list_objects_v2(Bucket="photos", Prefix=f"{prefix}/").get("Contents", [])
        return {item["Key"].removeprefix(f"{prefix}/"): client.get_object(Bucket="photos", Key=item["Key"])["Body"].read() for item in found}

    address.put, address.held = lambda key, body: client.put_object(Bucket="photos", Key=key, Body=body), held
    yield address
    server.stop()


def test_an_object_store_in_and_out(tmp_path, camouflage, on_one_machine, store, capsys):
    make(tmp_path / "in", 12)
    (tmp_path / "in/a/broken.jpg").write_bytes(b"no picture")
    for name, content in files(tmp_path / "in").items():
        store.put(f"in/{name}", content)
    expected = on_one_machine("in")
    capsys.readouterr()
    assert camouflage(store("in"), out=store("out")) == 1
    held = store.held("out")
    (fault,) = map(json.loads, held.pop("faults.jsonl").decode().splitlines())
    assert held == expected
    assert fault["photo"] == "s3://photos/in/a/broken.jpg"  # without the key and the secret of the address
    capsys.readouterr()
    store.put("in/a/broken.jpg", picture(77))
    assert camouflage(store("in"), out=store("out")) == 0
    assert capsys.readouterr().out.startswith("1 written, 12 there already, 0 failed; ")
    assert "faults.jsonl" not in store.held("out")


def test_shards_in_an_object_store(tmp_path, store, small_filter):
    shard(tmp_path / "in/0.tar", *((f"{index:04}", picture(index)) for index in range(3)))
    store.put("shards/sub/0.tar", (tmp_path / "in/0.tar").read_bytes())
    run_here(on_cluster.Collection(place(store("shards")), place(store("divided")), Files(), tar=True), small_filter)
    (tmp_path / "out").mkdir()
    run_here(on_cluster.Collection(Folder(tmp_path / "in"), Folder(tmp_path / "out"), Files(), tar=True), small_filter)
    assert store.held("divided") == {"sub/0.tar": (tmp_path / "out/0.tar").read_bytes()}


@pytest.mark.parametrize(("address", "root"), [("gs://photos/in/", "photos/in"), ("abfs://photos@account.dfs.core.windows.net/in", "photos/in")])
def test_addresses_of_other_stores_are_understood(address, root):
    found = place(address)
    assert isinstance(found, Store)
    assert found.root == root
    assert str(found) == address.rstrip("/")


@pytest.mark.parametrize("address", ["ftp://host/in", "s3://", "s3://photos/in?what=1", "file:///in"])
def test_other_addresses_are_refused_in_one_line(address):
    with pytest.raises(CamoError, match=r"^[^\n]+$"):
        place(address)


# Usage


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["in", "--tar"], "argument --tar: needs --cluster"),
        (["s3://photos/in"], "argument s3://photos/in: needs --cluster"),
        (["in", "--cluster", "auto", "--verify"], "argument --verify: cannot be used with --cluster"),
        (["in", "--cluster", "auto", "--device", "cuda:1"], "argument --device: cuda:1 cannot be used with --cluster"),
        (["in", "--cluster", "auto", "--tar", "--run-code", "x"], "argument --run-code: cannot be used with --tar"),
        (["in", "other", "--cluster", "auto"], "argument --cluster: needs the photos in one folder"),
    ],
)
def test_what_cannot_be_combined_is_wrong_usage(flags, words, capsys):
    with pytest.raises(SystemExit) as ended:
        infer.main([*flags, "--out", "out"])
    assert ended.value.code == WRONG_USAGE
    assert words in capsys.readouterr().err


def test_what_cannot_be_done_is_told_in_one_line(tmp_path, camouflage, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").write_bytes(picture(1))
    for source, out, words in (
        ("missing", "out", "missing': no such folder"),
        ("photo.jpg", "out", "photo.jpg': no such folder"),
        ("empty", "empty", "empty': lies in the output folder"),
        ("empty", "out", "empty': no photo in this folder"),
    ):
        assert camouflage(source, out=out) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert camouflage("empty", "--device", "cuda") == 1
    assert "--device cuda: the cluster has none" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, capsys):
    make(tmp_path / "in", 1)
    for name in ("ray", "camo.camouflage.cluster"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("camo.camouflage.cluster")
    assert infer.main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--cluster", "auto"]) == 1
    assert "pip install 'camo[cluster]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "running", "environment", "named"),
    [
        ("auto", ["python", "raylet"], "", None),
        ("auto", ["python"], "", "local"),  # whatever address a cluster that was killed has left behind
        ("auto", [], "head:6379", None),
        ("head:6379", [], "", "head:6379"),
    ],
)
def test_auto_is_the_cluster_of_this_machine_only_where_one_runs(monkeypatch, address, running, environment, named):
    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda found, **_: asked.append(found))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(psutil, "process_iter", lambda _: [SimpleNamespace(info={"name": name}) for name in running])
    monkeypatch.setenv("RAY_ADDRESS", environment)
    with on_cluster.connected(address):
        assert asked == [named]
