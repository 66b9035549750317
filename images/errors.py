"""The error of this package."""


class BuildError(Exception):
    """Something could not be built; the message is one sentence for the user."""
