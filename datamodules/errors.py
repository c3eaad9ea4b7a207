"""The one exception of this package: what a user's data gets wrong, said in a sentence."""


class DataError(ValueError):
    """A bad input. The message names the file, the key, the value and the way out."""


class MissingSplitError(DataError):
    """A split that is not there at all."""
