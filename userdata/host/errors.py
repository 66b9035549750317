"""The one exception whose message an operator sees."""


class HostError(Exception):
    """A failure with a reason fit for the console: one sentence, what and where, never a secret."""
