"""The errors of this project."""


class AdainError(ValueError):
    """An unusable input. The message is one sentence: what is wrong, and what to do."""


class DivergedError(AdainError, FloatingPointError):
    """A training whose losses are not finite any more."""
