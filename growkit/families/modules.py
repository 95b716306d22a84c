"""Axes of the tensors that PyTorch modules store, and the classes of decoders, for families' tables. Knows the
notation; ignorant of families.
"""

_CLASSES = {  # what a tensor says that a decoder has; "" and "*" as in TensorNames.architecture
    "score.bias": "ForTokenClassification",
    "score.weight": "ForSequenceClassification",
    "classifier.weight": "ForTokenClassification",
    "qa_outputs.weight": "ForQuestionAnswering",
    "embed_out.weight": "ForCausalLM",
    "lm_head.weight": "ForCausalLM",
    "": "Model",
    "*": "ForCausalLM",
}


def linear(name: str, out: str, into: str) -> dict[str, str]:
    """An nn.Linear: weight stored (out, in), and its bias."""
    return {f"{name}.weight": f"{out} /{into}", f"{name}.bias": out}


def conv1d(name: str, out: str, into: str) -> dict[str, str]:
    """GPT-2's Conv1D: weight stored (in, out), and its bias."""
    return {f"{name}.weight": f"/{into} {out}", f"{name}.bias": out}


def norm(name: str, axis: str = "hidden", before_head: bool = False) -> dict[str, str]:
    """A norm's gain and bias over an axis."""
    axis = f"/{axis}" if before_head else axis
    return {f"{name}.weight": f"~{axis}", f"{name}.bias": f"+{axis}"}


def task_heads() -> dict[str, str]:
    """The heads that transformers puts on any decoder: sequence and token classification, question answering."""
    return {
        **linear("score", "label", "hidden"),
        **linear("classifier", "label", "hidden"),
        **linear("qa_outputs", "label", "hidden"),
    }


def decoder_classes(stem: str, *tensors: str) -> tuple[tuple[str, str], ...]:
    """The classes transformers has for a decoder, by the tensors that give them away, in the order given."""
    return tuple((tensor, stem + _CLASSES[tensor]) for tensor in tensors)
