"""Results stay the same byte for byte, on any machine: what commands make of small models has the digests on record."""

import json

import pytest
from digests import DIGESTS, WHAT, digests


@pytest.mark.parametrize("what", WHAT)
def test_bytes_are_those_on_record(what, tmp_path):
    held = json.loads(DIGESTS.read_text())
    assert digests(what, tmp_path / "sources") == held[what], "meant to differ? python tests/same_bytes.py --renew"
