"""DRAM: the coarse picture starts the memory that aims, and no other; what answers rests on glimpses alone."""

import torch

from fusionviz import systems
from fusionviz.trace import NullTrace


def picture(seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


def dram(**params: object):
    return systems.build("dram", (), **params)


def test_the_coarse_picture_chooses_the_first_place_and_without_it_all_pictures_begin_alike() -> None:
    on, off = dram(), dram(context=False)
    off.load_state_dict(on.state_dict())
    first = [on.walk(picture(s), count=1).places for s in (0, 1)]
    assert not torch.equal(*first)
    blind = [off.walk(picture(s), count=1).places for s in (0, 1)]
    assert torch.equal(*blind)
    torch.testing.assert_close(blind[0][0, 0], torch.tanh(on.next.bias))  # a state of zeros


def test_the_coarse_picture_reaches_the_answer_only_through_places() -> None:
    """At the same places another context gives the same answers, and other aims."""
    module, x = dram(), picture()
    with torch.no_grad():
        before = module.walk(x, count=4, look="random")
        for parameter in module.coarse.parameters():
            parameter.add_(0.5)
        after = module.walk(x, count=4, look="random")
    assert torch.equal(before.scores, after.scores)
    assert not torch.equal(before.states, after.states)
    first = module.walk(x, count=4).places
    with torch.no_grad():
        module.coarse[-2].weight.mul_(-1)
    assert not torch.equal(module.walk(x, count=4).places, first)


def test_the_trace_shows_no_way_from_the_coarse_picture_to_the_first_answer_but_the_place() -> None:
    steps = {s.key: s for s in dram()(picture()).trace}
    waiting, led = ["answer"], set()
    while waiting:
        key = waiting.pop()
        led.add(key)
        waiting += [] if key == "place" else steps[key].inputs
    assert "coarse" not in led
    assert {"window_1", "what", "where", "lower_lstm"} <= led
    assert steps["place"].inputs == ("aim_1",)
    assert steps["aim_1"].inputs == ("upper_0",)


def test_the_memories_are_two_lstms_one_above_the_other() -> None:
    module, x = dram(), picture()
    walk = module.walk(x, count=2)
    r = c = d = torch.zeros(1, 64)
    s = module.begin(x, NullTrace())[-1]
    for t in range(2):
        torch.testing.assert_close(walk.states[:, t], s)
        torch.testing.assert_close(walk.means[:, t], torch.tanh(module.next(s)))
        g, _ = module.glimpse(x, walk.places[:, t], NullTrace())
        r, c = module.lower(g, (r, c))
        s, d = module.upper(r, (s, d))
        torch.testing.assert_close(walk.scores[:, t], module.answer(r))


def test_a_context_left_out_is_no_context() -> None:
    on, off = dram(), dram(context=False)
    off.load_state_dict(on.state_dict())
    x = picture(batch=2)
    kept = on.walk(x, keep=torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(kept.scores[0], on.walk(x).scores[0])
    torch.testing.assert_close(kept.scores[1], off.walk(x).scores[1])


def test_all_places_are_its_own() -> None:
    assert dram(glimpses=3).walk(picture()).decided == (True, True, True)
    assert dram(glimpses=3, look="random").walk(picture()).decided == (False, False, False)
