"""The compiled parser against the readable one."""

from __future__ import annotations

import fuzzing
import numpy as np
import pytest
from log_files import criteo_line, write_lines

from lma.data import prepare
from lma.data.bad_rows import BadRows
from lma.data.column_hash import hash_rows
from lma.data.criteo import SCHEMA, CriteoReader
from lma.data.criteo_parser import parse_block, texts_of_hashes
from lma.errors import DataError
from lma.hashing import hash_strings

GOOD = criteo_line("1", range(13), ["0123abcd"] * 26)


@pytest.mark.parametrize("ids", ["dictionary", "hashed"])
def test_it_makes_the_same_dataset(synthetic_log, tmp_path, ids):
    a, b = (
        prepare("criteo", synthetic_log, tmp_path / str(c), ids=ids, compiled=c)
        for c in (False, True)
    )
    assert a.meta["splits"] == b.meta["splits"]
    assert a.meta["encoder"] == b.meta["encoder"]


@pytest.mark.parametrize(
    "integers",
    [
        ["", "0", "-0", "-1", "-9", "65534", "65535", "65536", "123456789", "7", "", "", "007"],
        ["9" * 18, "9" * 19, "-" + "9" * 19, *["1"] * 10],
        [str(2**63 - 1), str(-(2**63)), *["1"] * 11],
    ],
)
def test_integers_of_any_size(tmp_path, integers):
    path = write_lines(tmp_path / "log", [criteo_line("0", integers)] * 20)
    if "9" * 19 in integers:
        with pytest.raises(DataError, match="does not fit in 64 bits"):
            prepare("criteo", path, tmp_path / "d", compiled=True)
        return
    a, b = (prepare("criteo", path, tmp_path / str(c), compiled=c) for c in (False, True))
    assert a.meta["splits"] == b.meta["splits"]


@pytest.mark.parametrize(
    "line",
    [
        GOOD + "\t",
        GOOD + "0",
        GOOD[:-1],
        GOOD.rsplit("\t", 1)[0],
        GOOD.replace("\t5\t", "\t-\t"),
        GOOD.replace("\t5\t", "\t5x\t"),
        GOOD.replace("\t5\t", "\t 5\t"),
        GOOD.replace("0123abcd", "0123abcg", 1),
        GOOD.replace("0123abcd", "0123abc", 1),
        "2" + GOOD[1:],
        "",
        "1",
        "1\t" * 39,
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_any_fault_is_left_to_the_readable_parser(line, at):
    lines = [GOOD] * 3
    lines[at] = line
    data = "".join(text + "\n" for text in lines).encode()
    assert parse_block(data, 3) is None
    assert parse_block((GOOD + "\n").encode() * 3, 3) is not None
    assert parse_block((GOOD + "\n").encode() * 3, 2) is None
    assert parse_block((GOOD + "\n").encode() * 3, 4) is None


def test_no_lines():
    rows = parse_block(b"", 0)
    assert rows is not None
    assert len(rows) == 0


def test_random_damage_gives_the_same_rows(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "log"
    accepted = 0
    for _ in range(300):
        data = fuzzing.mutate(rng, fuzzing.BASES["criteo"])
        if b"\r" in data or not data.endswith(b"\n"):
            continue
        found = parse_block(data, data.count(b"\n"))
        path.write_bytes(data)
        bad = BadRows("skip", 10**9)
        if found is None:
            continue
        accepted += 1
        (chunk,) = CriteoReader([path], compiled=False).chunks(bad)
        wanted = hash_rows(chunk.table, SCHEMA)
        assert not bad.count
        assert (found.matrix == wanted.matrix).all()
        assert (found.dense == wanted.dense).all()
        assert (found.labels == wanted.labels).all()
    assert accepted > 20


def test_hashes_turn_back_into_texts():
    texts = ["0123abcd", "", "DEADBEEF", "ffffffff", "00000000"]
    keys = hash_strings(texts).view(np.uint64)
    assert texts_of_hashes(keys).to_pylist() == texts
    assert texts_of_hashes(keys[:0]).to_pylist() == []
