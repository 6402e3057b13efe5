"""The side file of ids: neighbours of hashed tokens without being told among whom to look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lma.errors import FormatError
from lma.signatures import (
    ContextCodeBuilder,
    MinHashBuilder,
    SignatureConfig,
    SignatureTable,
    SimHashBuilder,
    token_file,
)

TABLES = {"ad": None, "user": 30}


def log(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ads = rng.integers(-(1 << 62), 1 << 62, 40)
    return np.stack([rng.choice(ads, 2000), rng.integers(0, 30, 2000)], 1), ads


def fitted(kind: str, keep_ids: bool, seed: int = 0) -> tuple[SignatureTable, np.ndarray]:
    ids, ads = log(seed)
    if kind == "random":
        builder = MinHashBuilder(TABLES, SignatureConfig("context", num_codes=8))
        builder.update(ids)
        return builder.finish(keep_ids=keep_ids), ads
    config = SignatureConfig("context", kind="learned", num_codes=2, code_bits=4)
    learned = ContextCodeBuilder(TABLES, config)
    for _ in range(learned.num_passes):
        learned.update(ids)
        learned.next_pass()
    return learned.finish(keep_ids=keep_ids), ads


@pytest.mark.parametrize("kind", ["random", "learned"])
def test_neighbours_are_those_among_all_tokens(kind, tmp_path):
    table, ads = fitted(kind, keep_ids=True)
    table.save(tmp_path)
    kept = SignatureTable.load(tmp_path)
    assert sorted(kept.ids["ad"].tolist()) == sorted(ads.tolist())
    assert list(kept.ids) == ["ad"]  # ids of a dictionary are 0, 1, ... anyway
    everyone = kept.ids["ad"]
    for ad in ads[:5].tolist():
        found = kept.neighbours("ad", ad, 7)
        assert found == table.neighbours("ad", ad, 7, among=everyone)
        assert ad not in [token for token, _ in found]
    assert kept.index_bytes == fitted(kind, keep_ids=False)[0].index_bytes


def test_simhash_keeps_them_too():
    builder = SimHashBuilder(["ad"], 4, num_codes=4)
    builder.update("ad", [-7, 900], np.eye(4)[:2])
    assert sorted(builder.finish(keep_ids=True).ids["ad"].tolist()) == [-7, 900]


def test_without_them_it_is_said_what_to_do(tmp_path):
    table, ads = fitted("random", keep_ids=False)
    table.save(tmp_path)
    assert not (tmp_path / token_file.FILE_NAME).exists()
    with pytest.raises(ValueError, match="keep_ids=True"):
        SignatureTable.load(tmp_path).neighbours("ad", int(ads[0]))


def test_they_follow_the_tables_they_belong_to():
    table, _ = fitted("random", keep_ids=True)
    ad = table.truncate({"ad": 40})
    assert torch.equal(ad.ids["ad"], table.ids["ad"])
    assert table.truncate({"user": 5}).ids == {}
    assert torch.equal(SignatureTable.join([ad]).ids["ad"], table.ids["ad"])
    assert torch.equal(table.permuted(1).ids["ad"], table.ids["ad"])


def test_other_signatures_in_the_same_folder_take_the_file_away(tmp_path):
    fitted("random", keep_ids=True)[0].save(tmp_path)
    fitted("random", keep_ids=False, seed=1)[0].save(tmp_path)
    assert SignatureTable.load(tmp_path).ids == {}


def test_damaged_or_foreign_tokens_are_refused(tmp_path):
    fitted("random", keep_ids=True)[0].save(tmp_path / "a")
    fitted("random", keep_ids=True, seed=1)[0].save(tmp_path / "b")
    path = tmp_path / "a" / token_file.FILE_NAME
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(FormatError):
            SignatureTable.load(tmp_path / "a")
    path.write_bytes((tmp_path / "b" / token_file.FILE_NAME).read_bytes())
    with pytest.raises(FormatError, match="other signatures"):
        SignatureTable.load(tmp_path / "a")


def test_permuted_codes_stay_among_the_tokens():
    """Lanes of the index that hold no token deal none of their zeros out."""
    table, ads = fitted("random", keep_ids=False)
    ids = torch.from_numpy(ads)
    before, after = (t.codes_of("ad", ids) for t in (table, table.permuted(3)))
    assert sorted(after.tolist()) == sorted(before.tolist())
    assert not torch.equal(after, before)
