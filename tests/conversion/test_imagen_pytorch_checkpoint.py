"""Finding U-Nets in what imagen-pytorch's trainers and modules save."""

import pytest
import torch

from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets


def trainer_checkpoint(version="2.1.0", steps=5, **more):
    online = {"a.weight": torch.zeros(2), "b": torch.zeros(1)}
    ema = {"0.initted": torch.tensor(True), "0.step": torch.tensor(steps)}
    ema |= {f"0.online_model.{name}": value for name, value in online.items()}
    ema |= {f"0.ema_model.{name}": value + 1 for name, value in online.items()}
    return {
        "model": {f"unets.0.{name}": value for name, value in online.items()},
        "version": version,
        "steps": torch.tensor([steps]),
        "optim0": {"state": {}},
        "scaler0": {},
        "ema": ema,
    } | more


def test_averages_are_preferred_and_last_weights_to_be_had():
    data = trainer_checkpoint(epoch=3)
    found = find_unets(data)
    assert found.source == {0: "ema"}
    assert found.unets[0].keys() == {"a.weight", "b"}
    assert bool((found.unets[0]["a.weight"] == 1).all())
    assert found.version == "2.1.0"
    assert found.left_out == ("epoch", "optim0", "scaler0")
    online = find_unets(data, "online")
    assert online.source == {0: "online"}
    assert not online.unets[0]["a.weight"].any()


def test_averages_that_never_began_are_passed_over():
    found = find_unets(trainer_checkpoint(steps=0))
    assert found.source == {0: "online"}
    assert find_unets(trainer_checkpoint(steps=0), "ema").source == {0: "ema"}


def test_missing_averages_are_refused_where_they_are_asked_for():
    data = trainer_checkpoint()
    del data["ema"]
    assert find_unets(data).source == {0: "online"}
    with pytest.raises(ValueError, match='holds no averages; take "online"'):
        find_unets(data, "ema")
    with pytest.raises(ValueError, match="only a trainer's checkpoint holds averages"):
        find_unets(data["model"], "ema")


def test_averages_that_lack_a_weight_are_refused_by_name():
    data = trainer_checkpoint()
    del data["ema"]["0.ema_model.b"]
    with pytest.raises(ValueError, match=r"averages of U-Net 0 lack 1 of its weights or hold others, such as 'b'"):
        find_unets(data)
    with pytest.raises(ValueError, match=r"`ema` of the checkpoint holds '0.other'"):
        find_unets(trainer_checkpoint(ema={"0.other": torch.zeros(1)}))


@pytest.mark.parametrize("version", ["0.25.11", "2.2.0", "3.0", "new", 2.1, "", "2.1\n; rm -rf /", "2.1" * 99])
def test_a_release_that_is_not_known_is_refused(version):
    with pytest.raises(ValueError, match=r"is of imagen-pytorch .*; 1.0 to 2.1 are known"):
        find_unets(trainer_checkpoint(version=version))


@pytest.mark.parametrize("version", ["1.0.0", "1.26.3", "2.0.0", "2.1.0"])
def test_known_releases_are_taken(version):
    assert find_unets(trainer_checkpoint(version=version)).version == version


def test_tensors_beside_the_trainers_are_refused_by_name():
    with pytest.raises(ValueError, match="tensors that no trainer saves, under extra"):
        find_unets(trainer_checkpoint(extra={"deep": [torch.zeros(1)]}))


def test_wrappers_and_single_u_nets_are_looked_through():
    plain = {"unets.0.a": torch.ones(1), "unets.1.b": torch.ones(1)}
    for wrap in ("module.{}", "_orig_mod.{}"):
        assert find_unets({wrap.format(name): value for name, value in plain.items()}).unets.keys() == {0, 1}
    assert find_unets({"unets.0.module.a": torch.ones(1)}).unets[0].keys() == {"a"}
    assert find_unets({"a": torch.ones(1)}).unets[0].keys() == {"a"}
    persisted = find_unets({"config": {"attn_heads": 4, "dim": 8}, "state_dict": {"a": torch.ones(1)}})
    assert persisted.options.unets[0].attn_heads == 4
    assert persisted.options.unets[0].scale_skip_connection is True


def test_a_placeholder_is_no_u_net():
    found = find_unets({"unets.0.a": torch.ones(1), "unets.1.dummy_parameter": torch.zeros(1)})
    assert found.unets.keys() == {0}


def test_a_stored_configuration_is_read():
    parameters = {"image_sizes": [8, 16], "timesteps": 100, "unets": [{"dim": 8}, {"dim": 8, "attn_heads": 2}]}
    found = find_unets(trainer_checkpoint(imagen_type="elucidated", imagen_params=parameters))
    assert found.options.elucidated is True
    assert found.options.image_sizes == [8, 16]
    assert [unet.attn_heads for unet in found.options.unets] == [8, 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "holds a list"),
        ({1: 2}, "holds a dict"),
        ({}, "no state dict"),
        ({"a": 1}, "'a', a int and no tensor"),
        ({"unets.0.a": torch.ones(1), "other": torch.ones(1)}, "'other', which is no U-Net's"),
    ],
)
def test_data_of_another_kind_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        find_unets(data)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model": {"unets.0.a.weight": torch.zeros(2), "module.unets.0.a.weight": torch.ones(2)}},
            "'unets.0.a.weight' twice",
        ),
        ({"model": {"unets.00.a.weight": torch.zeros(2)}}, "'unets.00.a.weight', which is no U-Net's"),
        (
            {"ema": {"0.ema_model.b": torch.ones(1), "0.ema_model.module.b": torch.zeros(1)}},
            "'b' twice, once as '0.ema",
        ),
        ({"ema": {"7.ema_model.foo": torch.ones(1)}}, "holds '7.ema_model.foo', which no trainer saves"),
        ({"ema": {"00.ema_model.b": torch.ones(1)}}, "holds '00.ema_model.b', which no trainer saves"),
        ({"ema": {"0.step": "abc"}}, "`step` in `ema` of the checkpoint is no number"),
        ({"ema": {"0.step": torch.tensor([1, 2])}}, "`step` in `ema` of the checkpoint is no number"),
        ({"ema": {1: torch.zeros(1)}}, "`ema` of the checkpoint is no state dict"),
        ({"model": {1: torch.zeros(1)}}, "no state dict"),
    ],
)
def test_two_claims_to_one_place_and_strange_keys_are_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        find_unets(trainer_checkpoint(**changed))


def test_averages_of_a_placeholder_are_passed_over():
    data = trainer_checkpoint()
    data["ema"] |= {"1.ema_model.dummy_parameter": torch.zeros(1), "1.step": torch.tensor(0)}
    assert find_unets(data).source == {0: "ema"}


def test_last_weights_are_to_be_had_where_the_averages_are_not_whole():
    data = trainer_checkpoint()
    del data["ema"]["0.ema_model.b"]
    assert find_unets(data, "online").source == {0: "online"}


@pytest.mark.parametrize("tensors", [True, False])
def test_what_is_nested_without_end_is_looked_through(tensors):
    endless = {}
    endless["again"] = [endless]
    deep = [torch.zeros(1)] if tensors else []
    for _ in range(5000):
        deep = [deep]
    data = trainer_checkpoint(extra=[endless, deep])
    if tensors:
        with pytest.raises(ValueError, match="tensors that no trainer saves, under extra"):
            find_unets(data)
    else:
        assert "extra" in find_unets(data).left_out
