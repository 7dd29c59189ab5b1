"""Which samples belong together, and the groups that they are left out in."""

from __future__ import annotations

import numpy as np
from simulations import conditions

from bench.statistics.design import Design


def test_prompts_are_drawn_anew_and_classes_stay():
    prompts = Design.of(conditions(60, 3))
    assert prompts.num_units == 20
    assert prompts.label == "20 conditions"
    assert np.array_equal(prompts.unit_N[:20], prompts.unit_N[20:40])
    classes = Design.of(conditions(60, 6, "class"))
    assert classes.num_units == 60
    assert len(set(classes.stratum_U.tolist())) == 10
    single = Design.of([*conditions(60, 6, "class"), *conditions(1, 1, "one")])
    assert single.label == "61 samples"  # nothing is known of what varies within a class of one


def test_groups_hold_whole_units_and_a_like_share_of_every_class():
    prompts = Design.of(conditions(400, 4))
    for unit in range(prompts.num_units):
        assert len(set(prompts.group_N[prompts.unit_N == unit].tolist())) == 1
    assert set(prompts.sizes_K) == {8.0, 12.0}
    classes = Design.of(conditions(400, 40, "class"))
    table = np.zeros((10, classes.num_groups))
    np.add.at(table, (classes.stratum_U, classes.group_N), 1)
    assert (table == 1).all()


def test_groups_depend_on_what_is_asked_not_on_the_order():
    asked = conditions(90, 3)
    design = Design.of(asked)
    turned = Design.of(asked[::-1])
    assert dict(zip([c.id for c in asked], design.group_N.tolist())) == dict(
        zip([c.id for c in asked[::-1]], turned.group_N.tolist())
    )
    assert design.digest == Design.of(conditions(90, 3)).digest != Design.of(conditions(90, 9)).digest


def test_taking_samples_away_leaves_groups_as_they_were():
    design = Design.of(conditions(60, 3))
    rows = np.flatnonzero(np.arange(60) % 7 != 0)
    some = design.take(rows)
    assert np.array_equal(some.group_N, design.group_N[rows])
    assert some.digest == design.digest
    assert some.sizes_K.sum() == len(rows)
    none = design.take(np.flatnonzero(design.unit_N != 4))
    assert none.num_units == 19
    assert none.unit_N.max() == 18
