"""The errors of this project."""


class AdainError(ValueError):
    """Something that was given cannot be used; the message is a sentence that says what is wrong and what to do."""


class DivergedError(AdainError, FloatingPointError):
    """A training whose losses are not finite any more."""
