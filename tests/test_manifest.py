import json

import pytest

from roadsense.errors import InputMismatchError, ScenarioError, UsageError
from roadsense.manifest import file_digest, read_dataset, tree_digest

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256 of no bytes


@pytest.fixture
def root(tmp_path):
    """The least that is a dataset: two files, one of them a scenario's."""
    (tmp_path / "train" / "one").mkdir(parents=True)
    (tmp_path / "train" / "one" / "episode.json").write_text("{}")
    (tmp_path / "params.json").write_text("")
    state(tmp_path)
    return tmp_path


def state(root, **changes):
    files = [file for file in root.rglob("*") if file.is_file() and file.name != "manifest.json"]
    listed = [
        {"path": file.relative_to(root).as_posix(), "sha256": file_digest(file), "bytes": file.stat().st_size}
        for file in files
    ]
    document = {
        "schema_version": 1,
        "dataset_id": "mine",
        "splits": {"train": [{"id": "one", "seed": 1, "path": "train/one", "peer_count": 1}]},
        "files": listed,
        "content_digest": tree_digest((file["path"], file["sha256"]) for file in listed),
        "emulator_params": "params.json",
    }
    (root / "manifest.json").write_text(json.dumps({**document, **changes}))


def test_digests_by_hand(root):
    assert file_digest(root / "params.json") == EMPTY
    # sha256 of the line "<EMPTY>  a\n" as printed by sha256sum
    assert tree_digest([("b", EMPTY), ("a", EMPTY)]) == tree_digest([("a", EMPTY), ("b", EMPTY)])
    assert tree_digest([("a", EMPTY)]) != tree_digest([("b", EMPTY)])
    assert tree_digest([]) == EMPTY


def test_what_is_whole_has_no_problem(root):
    dataset = read_dataset(root)
    assert dataset.problems() == []
    dataset.verify()
    assert dataset.split("train") == [("one", root / "train" / "one")]


def test_missing_changed_and_added_files_are_all_named(root):
    (root / "params.json").unlink()
    (root / "train" / "one" / "episode.json").write_text("{ }")
    (root / "more.txt").write_text("")
    dataset = read_dataset(root)
    assert sorted(dataset.problems()) == [
        f"{root}/more.txt: is not listed in the manifest",
        f"{root}/params.json: is missing, but the manifest lists it",
        f"{root}/train/one/episode.json: has changed since the dataset was generated",
    ]
    with pytest.raises(InputMismatchError, match=r"\(2 more\); regenerate the dataset or restore the file") as caught:
        dataset.verify()
    assert caught.value.exit_code == 4


def test_a_digest_that_does_not_fit_its_list_is_named(root):
    state(root, content_digest=EMPTY)
    assert read_dataset(root).problems() == [
        f"{root}/manifest.json: its content_digest does not fit its own list of files"
    ]


def test_an_unknown_split_names_the_nearest(root):
    with pytest.raises(UsageError, match="has no split 'trian'; did you mean 'train'"):
        read_dataset(root).split("trian")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": []}, "is no dataset manifest (splits is of the wrong kind, "),
        (
            {"splits": {"train": [{"id": "one"}]}},
            "(splits.train.0.seed is missing, add it; splits.train.0.path is missing, add it; ",
        ),
        ({"files": [{"path": "/etc/passwd", "sha256": EMPTY, "bytes": 0}]}, "(files.0.path is '/etc/passwd', "),
        ({"content_digest": "abc"}, "(content_digest is 'abc', "),
        ({"files": [{}] * 5}, "; and 3 more)"),
        ({"schema_version": 2}, "(schema_version is 2, "),
        ({"emulator_params": "../params.json"}, "'../params.json', which lies outside of the dataset"),
    ],
)
def test_what_is_no_manifest_is_one_sentence(root, changes, message):
    state(root, **changes)
    with pytest.raises(ScenarioError) as caught:
        read_dataset(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "\x00"])
def test_any_other_file_is_no_manifest(root, text):
    (root / "manifest.json").write_text(text)
    with pytest.raises(ScenarioError, match=r"manifest\.json: "):
        read_dataset(root)


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(ScenarioError, match=r"no such file; give the root of a dataset made by `roadsense generate`"):
        read_dataset(tmp_path)


ONE = {"id": "one", "seed": 1, "path": "train/one", "peer_count": 1}


@pytest.mark.parametrize(
    ("splits", "problems"),
    [
        ({}, ["it names no scenario", "'train/one' stands in 0 places"]),
        ({"train": [], "eval": [ONE]}, ["split 'eval' names 'train/one', which is no scenario below eval/"]),
        ({"train": [ONE], "eval": [ONE]}, ["split 'eval' names 'train/one'", "'train/one' stands in 2 places"]),
        ({"train": [ONE, {**ONE, "path": "train/two"}]}, ["split 'train' names 'train/two', which is no scenario"]),
        ({"train": [{**ONE, "digest": EMPTY}]}, ["the digest of 'train/one' does not fit its files"]),
    ],
)
def test_splits_that_do_not_fit_the_files_are_named(root, splits, problems):
    state(root, splits=splits)
    dataset = read_dataset(root)
    found = dataset.problems()
    assert len(found) == len(problems)
    for said, expected in zip(found, problems, strict=True):
        assert said.startswith(f"{root / 'manifest.json'}: {expected}")
    with pytest.raises(InputMismatchError):
        dataset.verify()
