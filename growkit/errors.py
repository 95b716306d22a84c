"""What can go wrong because of the person or the data, in three kinds. Knows nothing of tensors, files or models.

Programming mistakes stay AssertionError or whatever Python raises; everything a user can cause is a GrowkitError with one
sentence that names the thing, what was expected, what was found and what to do next. Only the command line turns these
into exit codes.
"""


class GrowkitError(Exception):
    """A request or an input that growkit refuses, in one sentence for people (exit code 2)."""


class FailedError(GrowkitError):
    """Work that was begun, and that the data or the machine did not let come to its end (exit code 1)."""


class RequestError(GrowkitError):
    """An option, size or combination of them that cannot be done."""


class CheckpointError(GrowkitError):
    """A checkpoint, tensor or file that is missing, damaged, unknown or contradictory."""
