"""Min-hash of the same sets by lma, datasketch (NumPy, bulk) and rensa (Rust), in turns.

    pip install datasketch rensa
    python benchmarks/signatures/against_others.py

2,000 sets of 100 elements, 128 hash functions. datasketch and rensa have one thread; lma is timed
on one and on two, which is what it takes by itself where there are two cores. It reads the sets as
a log: one row per element, its bag the sets that hold the element ("rows"), and as contexts: one
row per pair (set, element) ("context", of the sets' table alone). rensa hashes strings, as its
users call it, one object per set or all sets at once; and, its fastest call, takes 64-bit hashes
made beforehand, which are not timed. Only lma counts supports, checks ids and hashes the winners
into codes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from datasketch import MinHash
from rensa import RMinHash
from timing import in_turns, line

from lma.signatures import MinHashBuilder, SignatureConfig

SETS, ELEMENTS, HASHES, UNIVERSE = 2000, 100, 128, 50_000


def main() -> None:
    rng = np.random.default_rng(0)
    sets = np.stack([rng.choice(UNIVERSE, ELEMENTS, replace=False) for _ in range(SETS)])
    texts = [[str(e) for e in row] for row in sets]
    encoded = [[t.encode() for t in row] for row in texts]
    order = np.argsort(sets.ravel(), kind="stable")
    holders = np.repeat(np.arange(SETS), ELEMENTS)[order]
    offsets = np.append(0, np.cumsum(np.bincount(sets.ravel(), minlength=UNIVERSE)))
    pairs = np.stack([np.repeat(np.arange(SETS), ELEMENTS), sets.ravel()], 1)
    config = SignatureConfig("rows", num_codes=HASHES, min_support=1)

    def ours(threads: int) -> None:
        torch.set_num_threads(threads)
        builder = MinHashBuilder({"set": SETS}, config)
        builder.update(holders, offsets)
        builder.finish()

    def ours_context(threads: int) -> None:
        torch.set_num_threads(threads)
        sizes = {"set": SETS, "element": UNIVERSE}
        context = SignatureConfig("context", num_codes=HASHES, min_support=1)
        builder = MinHashBuilder(sizes, context, {"element": 0})
        builder.update(pairs)
        builder.finish({"set": SETS, "element": 0})

    def datasketch_bulk() -> None:
        MinHash.bulk(encoded, num_perm=HASHES, seed=1)

    def rensa_rust() -> None:
        for row in texts:
            RMinHash(num_perm=HASHES, seed=1).update(row)

    hashes = np.array(RMinHash.hash_token_sets(texts), np.uint64).ravel()
    begins = np.arange(0, SETS * ELEMENTS + 1, ELEMENTS).astype(np.uint64)

    def rensa_matrix() -> None:
        RMinHash.digest_matrix_from_token_sets(texts, HASHES, 1)

    def rensa_hashes() -> None:
        RMinHash.digest_matrix_from_flat_token_hashes(hashes, begins, HASHES, 1)

    steps: dict[tuple[str, int], Callable[[], None]] = {
        ("lma rows", 1): lambda: ours(1),
        ("lma rows", 2): lambda: ours(2),
        ("lma context", 1): lambda: ours_context(1),
        ("lma context", 2): lambda: ours_context(2),
        ("datasketch bulk", 1): datasketch_bulk,
        ("rensa RMinHash, an object per set", 1): rensa_rust,
        ("rensa RMinHash, all sets", 1): rensa_matrix,
        ("rensa RMinHash, all sets, hashed beforehand", 1): rensa_hashes,
    }
    for (name, threads), seconds in in_turns(steps, 11).items():
        torch.set_num_threads(threads)
        line(name, seconds, SETS * ELEMENTS, unit="set elements", hashes=HASHES)


if __name__ == "__main__":
    main()
