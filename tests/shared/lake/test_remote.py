"""A lake in an object store: what one machine seals another reads; what the store refuses is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from shared.errors import LakeError, SettingsError, TableCorrupt
from shared.lake import layout, read, write
from shared.lake.remote import Remote, remote_of
from shared.settings import ROOT, Settings
from shared.types import NS
from tests.shared.lake import receipts as r
from tests.shared.lake.conftest import stand_for
from tests.shared.lake.test_wal import START_NS
from tests.shared.lake.test_write import record, seconds_frame


@pytest.fixture
def uri(s3: str) -> str:
    """Return the address of an empty lake."""
    return f"{s3}/{uuid.uuid4()}/lake"


def objects(uri: str) -> S3Store:
    return S3Store.from_url(uri, client_options={"allow_http": True})


def test_what_one_machine_seals_another_reads(tmp_path: Path, uri: str) -> None:
    """Every table is read from the store: sources, hours, rows, and the hash of what a model is trained on."""
    here, there, alone = (tmp_path / name for name in ("here", "there", "alone"))
    for root in (stand_for(here, uri), stand_for(there, uri), alone):
        if root is not there:
            record(root, "a", START_NS, START_NS + 5 * NS)
            write.seal(root, r.SOURCE, r.HOUR)
            write.write_table(root, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR), {})

    assert read.sources(there) == [r.SOURCE]
    for table in (*layout.RAW, "seconds"):
        assert read.hours(there, table, r.SOURCE) == [r.HOUR]
        assert read.scan(there, table, r.SOURCE).collect().equals(read.scan(alone, table, r.SOURCE).collect())
    assert read.content_hash(there, "seconds", r.SOURCE, [r.HOUR]) == read.content_hash(
        alone, "seconds", r.SOURCE, [r.HOUR]
    )


def test_copy_is_fetched_again_exactly_when_the_object_has_changed(tmp_path: Path, uri: str) -> None:
    """A reader keeps its copy while the object stays the same, and sees the new one as soon as there is one."""
    here, there = stand_for(tmp_path / "here", uri), stand_for(tmp_path / "there", uri)
    path = write.write_table(here, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, value=1.0), {}).path
    copy = there / path.relative_to(here)
    read.scan(there, "seconds", r.SOURCE)
    first = copy.stat()

    read.scan(there, "seconds", r.SOURCE)
    assert copy.stat().st_ino == first.st_ino

    write.write_table(here, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, value=2.0), {})
    rows = read.scan(there, "seconds", r.SOURCE).collect()
    assert rows.equals(read.scan(here, "seconds", r.SOURCE).collect())
    assert copy.stat().st_ino != first.st_ino


def test_removed_object_is_gone_for_readers(tmp_path: Path, uri: str) -> None:
    """A copy of what the store no longer has is not read."""
    here, there = stand_for(tmp_path / "here", uri), stand_for(tmp_path / "there", uri)
    path = write.write_table(here, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR), {}).path
    read.scan(there, "seconds", r.SOURCE)
    remote = remote_of(here)
    assert remote is not None

    remote.remove(path)

    assert read.hours(there, "seconds", r.SOURCE) == []
    assert read.sealed_file(there, "seconds", r.SOURCE, r.HOUR) is None
    assert not (there / path.relative_to(here)).exists()


def test_two_machines_do_not_lose_each_others_rows(tmp_path: Path, uri: str) -> None:
    """Whoever seals an hour that was sealed elsewhere merges it; a change between reading and writing is refused."""
    here, there = stand_for(tmp_path / "here", uri), stand_for(tmp_path / "there", uri)
    record(here, "a", START_NS, START_NS + 5 * NS)
    record(there, "b", START_NS + 5 * NS, START_NS + 10 * NS)
    write.seal(here, r.SOURCE, r.HOUR)
    write.seal(there, r.SOURCE, r.HOUR)
    n_trades = read.scan(here, "raw/trade", r.SOURCE).collect().height

    both = tmp_path / "both"
    record(both, "a", START_NS, START_NS + 5 * NS)
    record(both, "b", START_NS + 5 * NS, START_NS + 10 * NS)
    write.seal(both, r.SOURCE, r.HOUR)
    assert n_trades == read.scan(both, "raw/trade", r.SOURCE).collect().height

    remote = remote_of(there)
    assert remote is not None
    path = layout.partition_path(there, "raw/trade", r.SOURCE, r.HOUR)
    key = path.relative_to(there).as_posix()
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes() + b"another machine's")
    obstore.put(objects(uri), key, copy.read_bytes())
    mine = tmp_path / "mine"
    mine.write_bytes(path.read_bytes() + b"mine")
    with pytest.raises(LakeError, match="changed by another writer"):
        remote.publish(mine, path, is_merged=True)
    assert bytes(obstore.get(objects(uri), key).bytes()).endswith(b"another machine's")


def test_put_that_meets_itself_is_written(tmp_path: Path, uri: str) -> None:
    """An upload whose answer was lost is repeated by the client and refused by the store: it is there all the same."""
    root = stand_for(tmp_path, uri)
    remote = remote_of(root)
    assert remote is not None
    (root / "file").write_bytes(b"rows")
    obstore.put(objects(uri), "raw/x.parquet", b"rows")
    (root / "raw").mkdir()

    remote.publish(root / "file", root / "raw" / "x.parquet", is_merged=True)

    assert (root / "raw" / "x.parquet").read_bytes() == b"rows"
    assert remote.fetch(root / "raw" / "x.parquet")


def test_flipped_bits_in_the_store_are_noticed(tmp_path: Path, uri: str) -> None:
    """A copy is checked against the content hash like any file: what the store has spoiled reaches no reader."""
    here, there = stand_for(tmp_path / "here", uri), stand_for(tmp_path / "there", uri)
    path = write.write_table(here, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR), {}).path
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 10, len(content) // 2, 101):  # one alone may hit what nobody reads
        content[at] ^= 1
    obstore.put(objects(uri), path.relative_to(here).as_posix(), bytes(content))

    with pytest.raises(TableCorrupt):
        read.collect(read.scan(there, "seconds", r.SOURCE))


def test_store_that_is_away_is_one_sentence(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sealed and no log is removed while the store does not answer; afterwards sealing goes on."""
    root = stand_for(tmp_path, uri)
    record(root, "a", START_NS, START_NS + 5 * NS)
    monkeypatch.setattr("shared.lake.remote.RETRIES", 0)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        (root / ".remote").write_text(f"{uri}\n")
        with pytest.raises(LakeError, match="must answer"):
            write.seal(root, r.SOURCE, r.HOUR)
        assert write.unsealed(root, r.SOURCE) == [r.HOUR]

    (root / ".remote").write_text(uri)
    assert write.seal(root, r.SOURCE, r.HOUR).rows > 0
    assert read.hours(root, "raw/book", r.SOURCE) == [r.HOUR]


def test_bucket_that_does_not_exist_is_one_sentence(tmp_path: Path, s3: str) -> None:
    """A misspelt bucket is named."""
    with pytest.raises(LakeError, match=r"s3://nobucket/lake must answer"):
        read.hours(stand_for(tmp_path, "s3://nobucket/lake"), "seconds", r.SOURCE)


@pytest.mark.parametrize("address", ["ftp://bucket/lake", "s3://", "s3:///", "s3://bucket/../other"])
def test_strange_address_is_refused(address: str, tmp_path: Path) -> None:
    """What is no bucket is refused by the settings, before a folder is made for it."""
    with pytest.raises(SettingsError, match="LAKE_URI must be a folder or s3://bucket/prefix"):
        _ = Settings(_env_file=None, lake_uri=address, lake_cache=str(tmp_path / "cache")).lake
    assert not (tmp_path / "cache").exists()


def test_settings_name_a_folder_that_stands_for_the_store(tmp_path: Path) -> None:
    """The same address is the same folder, with the store's address in it."""
    settings = Settings(_env_file=None, lake_uri="s3://bucket/a/b/", lake_cache=str(tmp_path))

    assert settings.lake == settings.lake == tmp_path / "bucket" / "a" / "b"
    remote = remote_of(settings.lake)
    assert isinstance(remote, Remote)
    assert remote.uri == "s3://bucket/a/b"


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_every_test_of_the_lake_holds_in_a_store() -> None:
    """The lake's own tests, with every temporary folder standing for a bucket's prefix."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/shared/lake", "-p", "no:cacheprovider", "-x"],
        cwd=ROOT, env=os.environ | {"CROSSCUT_TEST_LAKE": "s3"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout[-5000:]


def test_folder_that_may_not_be_looked_into_is_one_sentence(tmp_path: Path) -> None:
    """A lake whose folder is closed to us is named, with what to do."""
    lake = tmp_path / "closed" / "lake"
    lake.mkdir(parents=True)
    script = (
        "import os, sys; from pathlib import Path; from shared.errors import LakeError; from shared.lake import read\n"
        "os.geteuid() or os.seteuid(65534)\n"  # root may look into everything
        "try: read.hours(Path(sys.argv[1]), 'seconds', 'simulator-g1-4')\n"
        "except LakeError as error: print(error)"
    )
    lake.parent.chmod(0)
    try:
        said = subprocess.run(
            [sys.executable, "-c", script, str(lake)], capture_output=True, text=True, check=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout  # fmt: skip
    finally:
        lake.parent.chmod(0o700)

    assert "must be readable" in said
    assert "restore the permission" in said
