"""Whisper: an encoder of sounds behind two convolutions over their frames, and a decoder of texts. Data only."""

from growkit.families.bart import SIZES, STACKS, layers
from growkit.families.modules import linear, norm
from growkit.families.schema import LAYER, Family, Norms

FAMILIES = (
    Family(
        model_type="whisper",
        sizes={**SIZES, "position": "max_target_positions"},
        tensors={
            "encoder.conv1.weight": "pooled /channel /kernel",
            "encoder.conv1.bias": "pooled",
            "encoder.conv2.weight": "normed /pooled /kernel",  # and an activation behind it writes the stream
            "encoder.conv2.bias": "normed",
            "encoder.embed_positions.weight": "space hidden",
            "decoder.embed_tokens.weight": "vocab hidden",
            "decoder.embed_positions.weight": "position hidden",
            **layers(key_bias=False),
            **norm("encoder.layer_norm"),
            **norm("decoder.layer_norm", before_head=True),
            "proj_out.weight": "vocab /hidden",
            **linear("projector", "label", "hidden"),
            **linear("classifier", "label", "label"),
        },
        norms=Norms(kind=LAYER),
        causal=False,
        packs=False,
        tied=True,
        frames=("num_mel_bins", "max_source_positions"),
        embedding="decoder.embed_tokens.weight",
        heads=("proj_out.weight",),
        stacks=STACKS,
        prefixes=("model.",),
        small={
            "decoder_layers": 3,
            "num_mel_bins": 5,
            "max_source_positions": 7,
            "decoder_start_token_id": 1,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "begin_suppress_tokens": None,
        },
        variants=({"decoder_layers": 2},),
        architectures=(
            ("projector.weight", "WhisperForAudioClassification"),
            ("*", "WhisperForConditionalGeneration"),
        ),
    ),
)
