"""Which state may follow which."""

import pytest

from inferd.models.lifecycle import TRANSITIONS, ModelState, require_transition

ALLOWED = {
    (ModelState.LOADING, ModelState.READY),
    (ModelState.LOADING, ModelState.FAILED),
    (ModelState.LOADING, ModelState.UNLOADING),
    (ModelState.READY, ModelState.UNLOADING),
}


@pytest.mark.parametrize("current", ModelState)
@pytest.mark.parametrize("following", ModelState)
def test_transitions(current, following):
    """Four of them, and no others."""
    if (current, following) in ALLOWED:
        require_transition(current, following)
    else:
        with pytest.raises(ValueError, match=f"is {current.value} cannot become {following.value}"):
            require_transition(current, following)


def test_the_table_has_every_state():
    """None is forgotten."""
    assert set(TRANSITIONS) == set(ModelState)
