import pytest

from camo.measure.pairs import pair


def tree(folder, *names):
    """A folder of empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paired(originals, filtered):
    """Names of the pairs, (original, filtered), and the faults."""
    faults = []
    pairs = [(str(one.relative_to(originals)), str(other.relative)) for one, other in pair(originals, filtered, faults)]
    return pairs, faults


@pytest.mark.parametrize(
    ("originals", "filtered", "expected"),
    [
        (["a/IMG_1.jpg", "b/IMG_1.jpg"], ["a/IMG_1.jpg", "b/IMG_1.jpg"], "a/IMG_1.jpg b/IMG_1.jpg"),  # equal stems in two folders
        (["a/IMG_1.jpg", "b/IMG_1.jpg"], ["a/run_IMG_1.png", "b/run_IMG_1.png"], "a/IMG_1.jpg b/IMG_1.jpg"),  # the same under a run code
        (["a/IMG_1.jpg", "b/run_IMG_1.jpg"], ["a/run_IMG_1.jpg", "b/run_IMG_1.jpg"], "a/IMG_1.jpg b/run_IMG_1.jpg"),  # the folder before the name
        (["1.jpg", "IMG_1.jpg"], ["team_base_1.png", "team_base_IMG_1.png"], "1.jpg IMG_1.jpg"),  # the longest name
        (["a/IMG_1.jpg", "b/IMG_2.jpg"], ["IMG_1.png", "run_IMG_2.png"], "a/IMG_1.jpg b/IMG_2.jpg"),  # a stem that is unique, elsewhere
        (["IMG_1.jpg", "IMG_1.png"], ["IMG_1.jpg", "IMG_1.png"], "IMG_1.jpg IMG_1.png"),  # one stem, two suffixes
    ],
)
def test_pairs_are_those_of_folder_and_stem(tmp_path, originals, filtered, expected):
    pairs, faults = paired(tree(tmp_path / "originals", *originals), tree(tmp_path / "filtered", *filtered))
    assert pairs == list(zip(expected.split(), filtered, strict=True))
    assert faults == []


@pytest.mark.parametrize(
    ("originals", "filtered"),
    [
        (["a/IMG_1.jpg", "b/IMG_1.jpg"], ["IMG_1.jpg"]),  # of which folder
        (["IMG_1.jpg", "IMG_1.png"], ["IMG_1.webp"]),  # of which of the two
    ],
)
def test_a_name_that_could_be_of_two_originals_is_named(tmp_path, originals, filtered):
    pairs, (fault,) = paired(tree(tmp_path / "originals", *originals), tree(tmp_path / "filtered", *filtered))
    assert pairs == []
    assert "ambiguous" in fault
    assert all(name in fault for name in (*originals, *filtered))


def test_an_original_has_one_partner(tmp_path):
    pairs, (fault,) = paired(tree(tmp_path / "originals", "IMG_1.jpg"), tree(tmp_path / "filtered", "IMG_1.jpg", "old_IMG_1.jpg"))
    assert pairs == [("IMG_1.jpg", "IMG_1.jpg")]
    assert "old_IMG_1.jpg" in fault
    assert "ambiguous" in fault
