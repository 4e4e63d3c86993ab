"""One contract for the places where a corpus can lie: a folder and a prefix of an object store."""

import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
import zarr

from aunn_data.errors import RequestError, StoreError
from aunn_data.store import TEMPORARY, Bucket, Folder, store_at


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    """An empty store of each kind, opened as users name it."""
    if request.param == "folder":
        return store_at(tmp_path / "deep" / "corpus")
    return store_at(request.getfixturevalue("bucket") + "/deep/corpus")


def keys(store, prefix=""):
    return sorted(item.key for item in store.items(prefix))


def test_what_is_put_can_be_got(store):
    """Bytes come back equal, the empty file and one of some MiB too, below folders that nobody made."""
    for key, data in (("a", b""), ("b/c/d", b"words"), ("big", os.urandom(3 << 20))):
        assert store.put(key, data)
        assert store.get(key) == data
        assert store.exists(key)


def test_what_is_not_there_is_not_found(store):
    """A key that was never put does not exist; to get it is FileNotFoundError; there is nothing below it."""
    store.put("a/b", b"words")
    assert not store.exists("a/c")
    with pytest.raises(FileNotFoundError):
        store.get("a/c")
    assert keys(store, "nowhere") == []


def test_a_second_put_takes_the_place_of_the_first(store):
    """The file holds what was put last, whole."""
    store.put("a", b"the first, longer one")
    store.put("a", b"second")
    assert store.get("a") == b"second"


def test_a_new_file_takes_nobodys_place(store):
    """put(new=True) says False where there is a file already, which stays as it is."""
    assert store.put("a", b"first", new=True)
    assert not store.put("a", b"second", new=True)
    assert store.get("a") == b"first"


def test_one_of_many_that_race_for_a_new_file_wins(store):
    """Eight put(new=True) of one key at once: one True, and the file is that one's."""
    won = []
    threads = [
        threading.Thread(target=lambda n=n: store.put("a", b"%d" % n, new=True) and won.append(n)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.get("a")] == [b"%d" % n for n in won]


def test_items_tell_key_size_and_time(store):
    """Everything below a prefix with its size and the time of its writing; names that only begin like it are others."""
    for key, data in (("a/one", b"1"), ("a/b/two", b"22"), ("ab/three", b"333")):
        store.put(key, data)
    assert keys(store) == ["a/b/two", "a/one", "ab/three"]
    assert keys(store, "a") == ["a/b/two", "a/one"]
    found = {item.key: item for item in store.items("")}
    assert [found[key].size for key in ("a/one", "a/b/two", "ab/three")] == [1, 2, 3]
    assert all(abs(item.modified - datetime.now(UTC)) < timedelta(minutes=1) for item in found.values())


def test_deleted_files_are_gone(store):
    """The files named go, the others stay; to delete what is gone already is no error."""
    for key in ("a", "b/c", "b/d"):
        store.put(key, b"words")
    store.delete(["a", "b/c"])
    store.delete(["a", "nowhere/at/all"])
    assert keys(store) == ["b/d"]


def test_a_moved_table_is_whole_in_its_new_place(store):
    """All files below a prefix are below the other one; to move what is not there is no error."""
    there = ("old/t/_delta_log/0.json", "old/t/a.parquet", "old/u/b")
    for key in (*there, "older/c"):
        store.put(key, key.encode())
    store.move("old", "new")
    store.move("old", "newest")
    assert keys(store) == sorted([*(key.replace("old", "new", 1) for key in there), "older/c"])
    assert all(store.get(key.replace("old", "new", 1)) == key.encode() for key in there)


def test_what_another_library_wrote_can_be_settled(store):
    """settle takes the keys of files that are there, whoever wrote them."""
    store.put("a/b/c", b"words")
    store.settle(["a/b/c"])
    assert store.get("a/b/c") == b"words"


def test_nothing_unfinished_is_left_behind(store):
    """After puts of every outcome there is no temporary file."""
    store.put("a", b"1")
    store.put("a", b"2")
    store.put("a", b"3", new=True)
    assert not [key for key in keys(store) if TEMPORARY in key]


def test_zarr_finds_the_same_files(store):
    """The Zarr store of a place reads what was put there, and writes nothing."""
    store.put("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {"said": 1}}')
    group = zarr.open_group(store.zarr(), mode="r")
    assert dict(group.attrs) == {"said": 1}
    assert store.zarr().read_only


def test_its_name_opens_it_again(store):
    """store_at(store.name) is the same place."""
    store.put("a", b"words")
    assert store_at(store.name).get("a") == b"words"


@pytest.mark.parametrize(
    "refuse",
    [
        lambda store: store.put("a/b", b"words"),
        lambda store: store.put("a/b", b"words", new=True),
        lambda store: store.get("a/b"),
        lambda store: store.delete(["a/b"]),
        lambda store: store.settle(["a/b"]),
    ],
    ids=["put", "put new", "get", "delete", "settle"],
)
def test_what_a_disk_refuses_is_a_store_error(tmp_path, refuse):
    """A file where a folder must be: one StoreError that says where, what was expected and found, what to do."""
    (tmp_path / "a").write_bytes(b"in the way")
    with pytest.raises(StoreError) as raised:
        refuse(Folder(tmp_path))
    assert_says_all(raised.value, str(tmp_path))


@pytest.mark.parametrize(
    "refuse",
    [
        lambda store: store.put("a", b"words"),
        lambda store: store.put("a", b"words", new=True),
        lambda store: list(store.items("")),
        lambda store: store.move("a", "b"),
    ],
    ids=["put", "put new", "items", "move"],
)
def test_what_an_object_store_refuses_is_a_store_error(bucket, refuse):
    """A bucket that does not exist: one StoreError of the same kind, in one line without the client's innards."""
    where = bucket + "-of-nobody/corpus"
    with pytest.raises(StoreError) as raised:
        refuse(Bucket(where))
    assert_says_all(raised.value, where)
    assert "NoSuchBucket" in str(raised.value)


def assert_says_all(error, where):
    assert error.exit_code == 4
    assert error.where.startswith(where)
    assert all((error.expected, error.found, error.remedy))
    assert "\n" not in str(error)
    assert "RetryError" not in str(error)


@pytest.mark.parametrize("url", ["ftp://host/corpus", "http://host/corpus", "memory://x"])
def test_urls_of_another_kind_are_refused(url):
    """RequestError that names the kinds there are."""
    with pytest.raises(RequestError, match="s3"):
        store_at(url)


def test_a_file_url_is_a_folder(tmp_path):
    """file:// and a plain path are one place."""
    store_at(tmp_path).put("a", b"words")
    assert store_at(f"file://{tmp_path}").get("a") == b"words"
