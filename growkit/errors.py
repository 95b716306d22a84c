"""What can go wrong because of the person or the data, in three kinds. Knows nothing of tensors, files or models.

Programming mistakes stay AssertionError or whatever Python raises; everything a user can cause is a GrowkitError with
one sentence that names the thing, what was expected, what was found and what to do next. Only the command line turns
these into exit codes.
"""

from typing import Any

LONGEST = 1500  # characters of a sentence: names and values in files may have any length


class GrowkitError(Exception):
    """A request or an input that growkit refuses, in one sentence for people (exit code 2); cut where that is long."""

    def __init__(self, sentence: str = ""):
        cut = len(sentence) - LONGEST
        super().__init__(sentence if cut <= 0 else f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}")


class FailedError(GrowkitError):
    """Work that was begun, and that the data or the machine did not let come to its end (exit code 1)."""


class RequestError(GrowkitError):
    """An option, size or combination of them that cannot be done."""


class CheckpointError(GrowkitError):
    """A checkpoint, tensor or file that is missing, damaged, unknown or contradictory."""


def reason_of(error: Exception) -> str:
    """The first line of what another library's error says, and the next where that one ends in a colon; its kind where
    it says nothing."""
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:  # transformers says how to run it; growkit has no way to
        return "it needs code of its own (auto_map), which growkit never runs"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def ran_out(error: Exception) -> bool:
    """Whether an error says that there was not enough memory: Python's own, or PyTorch's of the CPU or of a GPU."""
    torchs = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and torchs)


class ProofInterrupted(KeyboardInterrupt):
    """Ctrl-C while a result was being proved, which is there all the same.

    grown: the growkit.growth.carry_out.Grown that the call would have handed back.
    """

    def __init__(self, grown: Any):
        super().__init__("interrupted while proving a result that is there")
        self.grown = grown
