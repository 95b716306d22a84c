"""What a step minimises: the language-model loss, mixed with what a teacher says. Knows live models and logits; ignorant of
optimizers and of data.

Knowledge inheritance (Qin et al., arXiv 2105.13880): L = (1 - alpha) CE + alpha tau^2 KL(teacher || student), with alpha
falling from 1 to 0.
"""

from dataclasses import dataclass
from typing import Any

import torch

from growkit.running import is_causal
from growkit.training.batches import IGNORED

ALPHAS = ("linear", "constant", "heaviside")


@dataclass(frozen=True)
class Teaching:
    """How a teacher's word counts. steps: for how many steps it teaches. temperature: tau. schedule: one of ALPHAS."""

    steps: int
    temperature: float = 2.0
    schedule: str = "linear"

    def alpha(self, step: int) -> float:
        """The teacher's weight at a step, counted from 0: linear max(1 - t/N, 0), constant 1/2, heaviside 1 until N."""
        if step >= self.steps:
            return 0.0
        return {"linear": 1.0 - step / self.steps, "constant": 0.5, "heaviside": 1.0}[self.schedule]


def is_masked(config: Any) -> bool:
    """Whether a model learns by filling in masked tokens rather than by predicting the next one."""
    return not is_causal({"model_type": config.model_type, "architectures": config.architectures})


def predictions(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits (n, vocabulary), labels (n,)) of the n positions that are predicted, of inputs and labels (rows, length).

    For masked models hidden states are gathered before the head, which then runs on 15 % of the positions.
    """
    if not is_masked(model.config):
        # no attention mask: without one the causal flash kernel is used
        return model(input_ids=inputs, use_cache=False).logits.flatten(0, 1), labels.flatten()
    chosen = (labels.flatten() != IGNORED).nonzero().squeeze(1)

    def gather(_: Any, __: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"].flatten(0, 1)[chosen][None]
        return output

    hook = model.base_model.register_forward_hook(gather)
    try:
        logits = model(input_ids=inputs).logits
    finally:
        hook.remove()
    return logits[0], labels.flatten()[chosen]


def losses(
    logits: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor | None = None, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(cross-entropy, tau^2 KL(teacher || student)), each summed over n positions, in nats and float32.

    logits, taught: (n, vocabulary) of the student and of the teacher (None: no second loss). labels: (n,).
    """
    logits = logits.float()
    own = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    if taught is None:
        return own, None
    student = torch.log_softmax(logits / temperature, dim=-1)
    teacher = torch.log_softmax(taught.float() / temperature, dim=-1)
    divergence = torch.nn.functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return own, temperature**2 * divergence
