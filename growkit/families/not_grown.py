"""Families that people have and growkit does not grow, by model_type, each with the reason. Data only."""

_STATE_SPACE = "its layers keep a state between tokens, whose widths are no axes that growkit knows"
_LINEAR = "layers of linear attention keep a state between tokens, whose widths are no axes that growkit knows"
_CONVOLVED = "its short convolutions over tokens gate one another, which copies of channels do not keep"
_TWO_TOWERS = (
    "its two towers have sizes of their own and meet in one space, which growing one of them alone would change; save the"
    " tower that you want by itself, by transformers' class of it, and grow that"
)

NOT_GROWN = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma"), _STATE_SPACE),
    **dict.fromkeys(("jamba", "bamba", "zamba", "zamba2", "falcon_h1", "nemotron_h", "granitemoehybrid"), _STATE_SPACE),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), _LINEAR),
    **dict.fromkeys(
        ("kimi_linear", "olmo_hybrid", "minimax", "bailing_hybrid", "glm5_next", "glm5_next_text"), _LINEAR
    ),
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm2_vl", "lfm3", "lfm3_vl"), _CONVOLVED),
    **dict.fromkeys(("siglip2", "clipseg", "altclip", "blip"), _TWO_TOWERS),
    "reformer": "its reversible layers share one stream in two halves",
    "xlnet": "its relative positions are weights that growkit has no axis for",
    "paligemma": "its text model sees a text's end from its beginning unless token types say where an answer begins, which"
    " growkit does not tell it",
    "longcat_flash": "its experts that do nothing have no tensors, so that a router's rows are no number of experts",
}
