"""`growkit generate`: what a model goes on to say."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from growkit import limits
from growkit.api import words as w
from growkit.api.option import Argument, Callback, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.models.generate import Generated

PROMPT, WORDS = "The prompt", "The answer"


def _quiet(_text: str) -> None:
    return None


@public
def generate(
    checkpoint: w.Checkpoint,
    prompt: Annotated[str, Argument("What to go on from, or to answer.", "PROMPT")],
    *,
    system: Annotated[str | None, Option(help="What the system says first.", panel=PROMPT, metavar="TEXT")] = None,
    raw: Annotated[bool, Option(help="Go on from the prompt as it is, without a chat template.", panel=PROMPT)] = False,
    adapter: w.Adapter = None,
    max_tokens: Annotated[
        int, Option(help="Say so many tokens at most.", panel=WORDS, metavar="N", within=(1, limits.AXIS))
    ] = 256,
    temperature: Annotated[
        float, Option(help="0: the likeliest token; else draw.", panel=WORDS, metavar="T", within=(0, 100))
    ] = 0.0,
    top_p: Annotated[
        float,
        Option(help="Draw among the likeliest tokens of this share.", panel=WORDS, metavar="P", within=(0.001, 1)),
    ] = 1.0,
    seed: Annotated[int, Option(help="For what is drawn.", panel=WORDS, metavar="S", within=limits.SEEDS)] = 0,
    device: Annotated[w.Device, Option(help="Where to compute.", panel=WORDS)] = "auto",
    say: Annotated[Callable[[str], None], Callback("Called with each stretch of the answer as it comes.")] = _quiet,
) -> "Generated":
    """Try a language model: it answers a prompt, or goes on from it, word by word.

    checkpoint: a stock causal model, in float32 on a CPU and in bfloat16 on a GPU; or a bundle of skills. prompt: said
    by the user through the tokenizer's chat template where it has one. The same seed draws the same answer.

    Returns a Generated: .text, .ended ("stop" or "length"), .tokens, and of a bundle .opened. Raises CheckpointError
    for what cannot speak and RequestError for what cannot be asked of it.
    """
    from growkit.models.generate import generate as speak
    from growkit.skills.gates.bundle_use import base_and_adapter

    model, on_it = base_and_adapter(checkpoint, adapter)
    return speak(
        model, prompt, system=system, adapter=on_it, max_tokens=max_tokens, temperature=temperature,
        top_p=top_p, seed=seed, raw=raw, device=device, say=say,
    )  # fmt: skip
