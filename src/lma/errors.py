"""The small family of errors that `lma` raises beside `ValueError` and `TypeError`."""


class LmaError(Exception):
    """Base of all errors of this package."""


class DataError(LmaError, ValueError):
    """A line, file or column of input that cannot be used; names file, line and text."""


class BudgetError(LmaError, ValueError):
    """A byte budget that cannot hold what was asked for."""


class UnsupportedError(LmaError, ValueError):
    """A method that cannot serve what it is given, such as a table without a vocabulary."""


class FormatError(LmaError, ValueError):
    """A file of ours that is damaged, truncated or of another version."""


class StateMismatchError(LmaError, RuntimeError):
    """A `state_dict` whose addresses were computed under other settings."""
