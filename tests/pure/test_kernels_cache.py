"""The cache of compiled kernels: whole entries or none, built once, refused when torn."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from twinrun.errors import UnavailableError
from twinrun.kernels import cache

ABOUT = {"kernel": "k"}


def test_a_binary_is_built_once_and_found_again(tmp_path: Path) -> None:
    """The second request reads what the first one wrote."""
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return b"binary"

    for _ in range(3):
        assert cache.load_or_build("key", ABOUT, build, tmp_path) == b"binary"
    assert built == [1]


@pytest.mark.parametrize("harm", ["cut", "changed", "no entry", "no binary", "not json"])
def test_a_torn_entry_is_refused_with_the_fix(tmp_path: Path, harm: str) -> None:
    """An entry that is not what it says is never used; the error has the command that removes it."""
    cache.load_or_build("key", ABOUT, lambda: b"binary", tmp_path)
    entry = tmp_path / "key"
    if harm == "cut":
        (entry / cache.BINARY).write_bytes(b"bin")
    elif harm == "changed":
        (entry / cache.BINARY).write_bytes(b"binarz")
    elif harm == "no entry":
        (entry / cache.ENTRY).unlink()
    elif harm == "no binary":
        (entry / cache.BINARY).unlink()
    else:
        (entry / cache.ENTRY).write_text("[]")
    with pytest.raises(UnavailableError) as caught:
        cache.load_or_build("key", ABOUT, lambda: b"binary", tmp_path)
    assert f"rm -r {entry}" in str(caught.value)


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """No entry and no half-built directory stays, and the next request builds again."""

    def fail() -> bytes:
        raise UnavailableError("no compiler")

    with pytest.raises(UnavailableError):
        cache.load_or_build("key", ABOUT, fail, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]
    assert cache.load_or_build("key", ABOUT, lambda: b"b", tmp_path) == b"b"


def test_a_write_that_fails_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the compile, not the run, and nothing half-written is ever found."""

    def full(path: Path, data: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(cache, "_write_synced", full)
    assert cache.load_or_build("key", ABOUT, lambda: b"binary", tmp_path) == b"binary"
    assert not (tmp_path / "key").exists()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def _ask(root: Path, tally: Path) -> None:
    def build() -> bytes:
        with tally.open("a") as file:
            file.write("x")
        return b"binary"

    assert cache.load_or_build("key", ABOUT, build, root) == b"binary"


def test_ranks_that_ask_at_once_build_once(tmp_path: Path) -> None:
    """Processes of one host wait for the first one's build instead of building beside it."""
    tally = tmp_path / "tally"
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_ask, args=(tmp_path / "cache", tally)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(30)
    assert [rank.exitcode for rank in ranks] == [0] * 4
    assert tally.read_text() == "x"


def test_the_key_tells_its_parts_apart() -> None:
    """Moving text from one part to the next gives another key."""
    assert cache.key_of("ab", "c") != cache.key_of("a", "bc")
