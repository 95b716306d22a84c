"""Every family grows in width and depth; those of the suite's covering sample, which has every feature that any family
has, have the tables of their stock models. All tables and growths are check-family's.
"""

import covering
import pytest

from growkit.errors import CheckpointError, RequestError
from growkit.families import FAMILIES
from growkit.families.text_part import flattened
from growkit.family_check.checked_family import DIFFERS, EXACT
from growkit.family_check.growths import growths_to_try
from growkit.family_check.in_float64 import float32_parts_in_double
from growkit.family_check.one_growth import NO_MORE_THAN, grown_small
from growkit.family_check.small_models import small_model, stock_classes
from growkit.family_check.table_lines import table_faults
from growkit.growth.width.sizes import read_sizes

WIDTH, DEPTH = ("hidden x2", "hidden, heads kept", "ffn"), ("layers",)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_in_width_and_depth(name):
    """Both at once; where that is refused, each alone, of which only depth may be: of a layer that is passed many
    times, or where something reads each layer's attention.
    """
    family = FAMILIES[name]
    if name in covering.SAMPLE:
        assert table_faults(family) == []
    language_model = stock_classes(family)[0]  # whose code is loaded before what it computes in float32 is replaced
    with float32_parts_in_double():
        model = small_model(family, language_model, tie_word_embeddings=False)
        tries = growths_to_try(read_sizes(family, flattened(model.config.to_dict())), "ffn" in family.sizes)

        def grows(growth: str) -> bool:
            try:
                done = grown_small(family, model, tries[growth])
            except (RequestError, CheckpointError):
                return False
            exact = done.exactness == EXACT
            assert done.difference <= NO_MORE_THAN if exact else done.difference > DIFFERS, (growth, done.exactness)
            return True

        if not grows("all"):
            assert any([grows(growth) for growth in WIDTH if growth in tries])
            no_depth = bool(family.passes) or any("layer" in axes for _, axes, _ in family.forbids.values())
            assert any([grows(growth) for growth in DEPTH]) != no_depth


def test_the_sample_has_every_feature():
    """Of facts, sizes and notation; and it is no larger than it must be by much."""
    has = frozenset.union(*(covering.features(name) for name in covering.SAMPLE))
    assert {name for name in FAMILIES if not covering.features(name) <= has} == set()
    assert {"word hidden", "gain before the head", "axes in one dimension", "rotary.pairs True", "causal False"} < has
    assert len(covering.SAMPLE) < len(FAMILIES) / 2


def test_a_new_feature_is_a_new_family_of_the_sample():
    features = {"a": {1, 2}, "b": {2, 3, 4}, "c": {4}, "d": {5}}
    assert covering.cover("abc", features.__getitem__) == ("b", "a")
    assert covering.cover("abcd", features.__getitem__) == ("b", "a", "d")
