"""Memory does not grow with what a file holds, nor with what it says it holds."""

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

import images
from deepres.data import listing, parquet
from deepres.data.listing import Picture, each
from deepres.data.parquet import parquet_files, parquet_folder


def table(contents, labels=None):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": content, "path": None} for content in contents], kind)
    return pa.table({"image": rows, "label": pa.array(labels or [0] * len(contents))})


def pictures_of(root):
    return parquet_folder(root, parquet_files(root)).scan()[1]


@pytest.mark.parametrize("equal", [False, True])
def test_parquet_is_read_by_bytes(tmp_path, monkeypatch, equal):
    """40 pictures of 256 KiB in a row group, each in a page of its own; equal ones are one in the file."""
    contents = [bytes([0 if equal else number]) * 2**18 for number in range(40)]
    how = {"use_dictionary": equal, "compression": "none", "write_batch_size": 1, "data_page_size": 2**18}
    pq.write_table(table(contents), tmp_path / "train.parquet", **how)
    monkeypatch.setattr(parquet, "HELD", 2**20)
    before, most = pa.total_allocated_bytes(), 0
    for number, picture in enumerate(pictures_of(tmp_path)):
        assert picture.content == contents[number]
        most = max(most, pa.total_allocated_bytes() - before)
    assert number == 39
    assert most < 4 * 2**20


def test_pictures_are_held_by_bytes(monkeypatch):
    """So many that their bytes are above the limit, and no more; files are read by who works on them."""
    monkeypatch.setattr(listing, "CHUNK_BYTES", 1000)
    taken = 0

    def pictures():
        nonlocal taken
        for number in range(50):
            taken += 1
            yield Picture(str(number), 0, "train", bytes(300))

    found = each(pictures(), lambda picture: picture.name, print, "", "seen")
    assert next(found)[1] == "0"
    assert taken == 4
    assert [name for _, name in found] == [str(number) for number in range(1, 50)]


def test_a_row_group_that_unpacks_to_too_much_is_refused_before_it_is_read(refused, deepres, tmp_path, monkeypatch):
    """Pictures are packed already: what shrinks to a tenth and less is none of them."""
    png = images.png(images.picture(0)) + bytes(200_000)
    pq.write_table(table([png] * 40, [0, 1] * 20), tmp_path / "train.parquet", compression="zstd", use_dictionary=False)
    monkeypatch.setenv("DEEPRES_MAX_UNPACKED", "1000000")
    message = refused("data", "info", tmp_path)
    assert "train.parquet: row group 0 unpacks from" in message
    assert "the limit is 1,000,000 (DEEPRES_MAX_UNPACKED)" in message
    monkeypatch.setenv("DEEPRES_MAX_UNPACKED", "much")
    assert "DEEPRES_MAX_UNPACKED is 'much'; give a whole number" in refused("data", "info", tmp_path)
    monkeypatch.delenv("DEEPRES_MAX_UNPACKED")
    assert deepres("data", "info", tmp_path).returncode == 0


def test_a_file_of_more_rows_than_bytes_is_refused(refused, tmp_path):
    """Rows that are empty take no room, and each would be looked at."""
    kind = pa.struct([("bytes", pa.binary())])
    rows = pa.table({"image": pa.nulls(2_000_000, kind), "label": pa.array([0] * 2_000_000)})
    pq.write_table(rows, tmp_path / "train.parquet", compression="zstd", row_group_size=2_000_000)
    assert "declares 2,000,000 rows in fewer bytes" in refused("data", "info", tmp_path)
