"""Where every float of a token lies, written from the papers' formulas with plain integers."""

from collections.abc import Sequence

from lma.hashing import combine_int, stream_seed, token_key

MASK = 2**64 - 1


def to_range(h: int, size: int) -> int:
    return ((h >> 32) * size) >> 32


def key(table: str, token: int) -> int:
    return token_key(table, token) & MASK


def hashed(table: str, token: int, dim: int, block: int, num_blocks: int, seed: int) -> list[int]:
    """HashedNets (Chen et al. 2015), equation 3, over blocks: h(token, j) for every chunk."""
    places = []
    for j in range(dim // block):
        number = to_range(combine_int(stream_seed(seed, j), key(table, token)), num_blocks)
        places += [number * block + i for i in range(block)]
    return places


def robe(table: str, token: int, dim: int, run: int, size: int, seed: int) -> list[int]:
    """ROBE-Z (Desai et al. 2022), section 3: Z consecutive floats of a circular array."""
    places = []
    for j in range(dim // run):
        start = to_range(combine_int(stream_seed(seed, j), key(table, token)), size)
        places += [(start + i) % size for i in range(run)]
    return places


def hashing_trick(table: str, token: int, dim: int, rows: int, first: int, seed: int) -> list[int]:
    """Weinberger et al. 2009: one hashed row; `first` is where the table's rows begin."""
    row = first + to_range(combine_int(stream_seed(seed, 0), key(table, token)), rows)
    return [row * dim + i for i in range(dim)]


def own_row(token: int, dim: int, first: int) -> list[int]:
    return [(first + token) * dim + i for i in range(dim)]


def random_chunk(
    codes: Sequence[int], drawn: Sequence[int], chunk: int, salt: int, blocks: int, seed: int
) -> int:
    """SCMA (Desai et al. 2021), section 4: rehash of the concatenated codes that chunk draws."""
    state = combine_int(stream_seed(seed, chunk), salt)
    for code in drawn:
        state = combine_int(state, codes[code])
    return to_range(state, blocks)
