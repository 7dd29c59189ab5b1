"""Which sample is drawn for which condition, and with which seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.conditions import assign, class_conditions, text_conditions
from bench.errors import DataError
from bench.worlds.digits import Digits
from bench.worlds.shapes_source import Shapes

ATTRIBUTES = {"shape": ("circle", "star"), "color": ("red", "green", "blue")}


def test_classes_are_the_product_of_the_heads_values():
    conditions = class_conditions(ATTRIBUTES, ("shape", "color"))
    assert len({c.id for c in conditions}) == 6
    assert conditions[1].labels == {"shape": "circle", "color": "green"}
    assert conditions[1].text == "green circle"
    assert conditions[1].id == "class:shape=circle,color=green"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**40))
def test_raising_the_count_keeps_the_first_samples(few, more, seed):
    distinct = class_conditions(ATTRIBUTES, ("shape", "color"))
    short, long = assign(distinct, few, seed), assign(distinct, few + more, seed)
    assert long.seeds[:few] == short.seeds
    assert long.conditions[:few] == short.conditions
    assert len(set(long.seeds)) == few + more


def test_conditions_are_used_evenly_and_replicates_counted():
    distinct = class_conditions(ATTRIBUTES, ("shape", "color"))
    assignment = assign(distinct, 15, seed=3)
    counts = np.unique([c.id for c in assignment.conditions], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    assert assignment.replicates == (0,) * 6 + (1,) * 6 + (2,) * 3
    assert assign(distinct, 15, seed=4).seeds != assignment.seeds


def test_a_limit_spreads_over_all_conditions():
    distinct = class_conditions(ATTRIBUTES, ("shape", "color"))
    few = assign(distinct, 4, seed=0, limit=2)
    assert [c.labels["shape"] for c in few.conditions] == ["circle", "star"] * 2


def test_a_seed_depends_on_the_condition_and_not_on_its_place():
    distinct = class_conditions(ATTRIBUTES, ("shape", "color"))
    there = dict(zip([c.id for c in distinct], assign(distinct, 6, 9).seeds))
    back = assign(distinct[::-1], 6, 9)
    assert {c.id: s for c, s in zip(back.conditions, back.seeds)} == there


def test_text_conditions_take_the_first_caption_with_attributes(tmp_path):
    images = Shapes(num_val=5).load("val", tmp_path)
    conditions = text_conditions(images, 3)
    assert [c.text for c in conditions] == [five[0] for five in images.captions[:3]]
    assert conditions[0].labels.keys() == {"shape", "color", "size", "position", "background"}


def test_images_without_captions_are_left_out_and_none_at_all_is_refused(tmp_path):
    images = Digits().load("val", tmp_path)
    gap = replace(images, captions=(images.captions[0], (), *images.captions[2:]))
    assert [c.id for c in text_conditions(gap, 3)] == [f"text:{images.ids[i]}" for i in (0, 2, 3)]
    with pytest.raises(DataError, match="no captions"):
        text_conditions(replace(images, captions=((),) * len(images)), 3)
