"""A mistake keeps its code, its values and its two languages, wherever it goes."""

import copy
import pickle

import pytest

from fusionviz.errors import FusionvizError, ParameterError


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_mistake_can_be_copied_and_sent(travel: object) -> None:
    mistake = ParameterError("selection.value", name="seed", received=-1, allowed="0 … 9")
    again = travel(mistake)
    assert type(again) is ParameterError
    assert (again.code, again.values, str(again)) == (mistake.code, mistake.values, str(mistake))
    assert again.text("zh") == mistake.text("zh") != str(mistake)


def test_what_a_person_wrote_is_no_template() -> None:
    assert "{name}" in str(FusionvizError("device.missing", name="{name}", known="cpu"))
