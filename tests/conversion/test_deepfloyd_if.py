"""Original DeepFloyd IF weights in Diffusers' layout, against the original's maths written from its names."""

import math

import pytest
import torch
import torch.nn.functional as F

from diffusers_imagen.conversion.deepfloyd_if import convert, restore, unet_config

# Epsilon of all the original's norms, and the number of their groups.
EPS, GROUPS = 1e-5, 32


class Original:
    """The original U-Net's forward pass from its weights by name, as its architecture is described."""

    def __init__(self, weights, params):
        self.weights, self.params = weights, params
        self.scale = 0.7071 if params.get("scale_skip_connection") else 1.0

    def layer(self, function, name, x, **options):
        return function(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def norm(self, name, x):
        return F.group_norm(x, GROUPS, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], EPS)

    def embedding(self, name, t):
        half = self.params["model_channels"] // 2
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        hidden = self.layer(F.linear, f"{name}.0", torch.cat([angles.cos(), angles.sin()], dim=1))
        return self.layer(F.linear, f"{name}.2", F.gelu(hidden))

    def resblock(self, name, x, emb, resample=None):
        h = F.gelu(self.norm(f"{name}.in_layers.0", x))
        if resample is not None:
            h, x = resample(h), resample(x)
        h = self.layer(F.conv2d, f"{name}.in_layers.2", h, padding=1)
        emb = emb if self.params.get("efficient_activation") else F.gelu(emb)
        scale, shift = self.layer(F.linear, f"{name}.emb_layers.1", emb)[:, :, None, None].chunk(2, dim=1)
        h = F.gelu(self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift)
        h = self.layer(F.conv2d, f"{name}.out_layers.3", h, padding=1)
        if f"{name}.skip_connection.weight" in self.weights:
            x = self.layer(F.conv2d, f"{name}.skip_connection", x)
        return (x + h) * self.scale

    def attention(self, name, x, text):
        B, C, H, W = x.shape
        heads, width = C // self.params["num_head_channels"], self.params["num_head_channels"]
        stored = self.layer(F.conv1d, f"{name}.qkv", self.norm(f"{name}.norm", x).flatten(2))
        text = self.layer(F.conv1d, f"{name}.encoder_kv", self.norm(f"{name}.norm_encoder", text))
        out = torch.empty(B, heads, width, H * W)
        for head in range(heads):  # each head has its own query, key and value side by side
            own = stored.unflatten(1, (heads, -1))[:, head].split(width, dim=1)
            key, value = text.unflatten(1, (heads, -1))[:, head].split(width, dim=1)
            if len(own) == 3:
                key, value = torch.cat([key, own[1]], dim=2), torch.cat([value, own[2]], dim=2)
            weight = (own[0].transpose(1, 2) @ key / math.sqrt(width)).softmax(dim=-1)
            out[:, head] = value @ weight.transpose(1, 2)
        return x + self.layer(F.conv1d, f"{name}.proj_out", out.flatten(1, 2)).unflatten(2, (H, W))

    def pooled(self, text):
        h = self.layer(lambda x, w, b: F.layer_norm(x, w.shape, w, b), "encoder_pooling.0", text)
        first = h.mean(dim=1, keepdim=True) + self.weights["encoder_pooling.1.positional_embedding"]
        tokens, heads = torch.cat([first, h], dim=1), self.params["att_pool_heads"]
        query, key, value = (
            self.layer(F.linear, f"encoder_pooling.1.{name}_proj", x).unflatten(2, (heads, -1)).transpose(1, 2)
            for name, x in (("q", first), ("k", tokens), ("v", tokens))
        )
        weight = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        h = self.layer(F.linear, "encoder_pooling.2", (weight @ value).transpose(1, 2).flatten(1))
        return self.layer(lambda x, w, b: F.layer_norm(x, w.shape, w, b), "encoder_pooling.3", h)

    def block(self, name, x, emb, text, resample=None):
        """Run what an entry of the original's lists holds: its kinds are told by its weights."""
        for place in range(3):
            part = f"{name}.{place}"
            if f"{part}.qkv.weight" in self.weights:
                x = self.attention(part, x, text)
            elif f"{part}.in_layers.0.weight" in self.weights:
                # What changes the size comes last on the way up, and alone on the way down.
                x = self.resblock(part, x, emb, resample if place or resample is halved else None)
        return x

    def __call__(self, x, t, text, aug=None):
        emb = self.embedding("time_embed", t) + self.pooled(text)
        emb = emb if aug is None else emb + self.embedding("aug_proj", aug)
        emb = F.gelu(emb) if self.params.get("efficient_activation") else emb
        if "encoder_proj.weight" in self.weights:
            text = self.layer(F.linear, "encoder_proj", text)
        text = text.transpose(1, 2)
        depths = self.params["num_res_blocks"]
        levels = len(unet_config(self.params)["block_out_channels"])
        depths = [depths] * levels if isinstance(depths, int) else depths
        skips = [self.layer(F.conv2d, "input_blocks.0.0", x, padding=1)]
        number = 1
        for level, depth in enumerate(depths):
            for step in range(depth + (level < levels - 1)):
                way = halved if step == depth else None
                skips.append(self.block(f"input_blocks.{number}", skips[-1], emb, text, way))
                number += 1
        h = self.block("middle_block", skips[-1], emb, text)
        number = 0
        for level in reversed(range(levels)):
            for step in range(depths[level] + 1):
                way = doubled if level and step == depths[level] else None
                h = self.block(f"output_blocks.{number}", torch.cat([h, skips.pop()], dim=1), emb, text, way)
                number += 1
        return self.layer(F.conv2d, "out.2", F.gelu(self.norm("out.0", h)), padding=1)


def halved(x):
    return F.avg_pool2d(x, 2)


def doubled(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("name", ["small", "small II", "I", "II"])
def test_a_converted_u_net_computes_what_the_original_does(original, params, name):
    unet, weights = original(name)
    settings = params[name]
    converted = convert(weights, unet_config(settings))
    unet.load_state_dict(converted, strict=True)
    generator = torch.Generator().manual_seed(1)
    side = max(4, 2 ** (len(unet.config.block_out_channels) - 1))
    x = torch.randn(2, settings["in_channels"], side, side, generator=generator)
    text = torch.randn(2, 5, settings["encoder_dim"], generator=generator)
    t, aug = torch.tensor([3, 700]), torch.tensor([250, 0]) if settings["in_channels"] == 6 else None
    with torch.no_grad():
        found = unet(x, t, text, class_labels=aug).sample
        expected = Original(weights, settings)(x, t, text, aug)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["small", "II"])
def test_there_and_back_is_the_same_to_the_bit(original, params, name):
    unet, weights = original(name)
    config = unet_config(params[name])
    converted = convert(weights, config)
    assert converted.keys() == unet.state_dict().keys()
    again = restore(converted, config)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[key], weights[key]) for key in weights)


def test_weights_that_only_change_their_names_are_not_copied(original, params):
    _, weights = original("small")
    converted = convert(weights, unet_config(params["small"]))
    assert converted["conv_in.weight"] is weights["input_blocks.0.0.weight"]


def test_missing_and_left_over_weights_are_named(original, params):
    _, weights = original("small")
    config = unet_config(params["small"])
    without = {name: weight for name, weight in weights.items() if name != "out.2.bias"}
    with pytest.raises(ValueError, match=r"the checkpoint lacks 1 weights that `config.yml` asks for: out.2.bias;"):
        convert(without, config)
    with pytest.raises(ValueError, match=r"the checkpoint has 2 weights that .* does not ask for: ema.a, ema.b;"):
        convert(weights | {"ema.a": torch.zeros(1), "ema.b": torch.zeros(1)}, config)
    with pytest.raises(ValueError, match=r"the U-Net lacks 1 weights .*: conv_out.bias"):
        restore({name: weight for name, weight in convert(weights, config).items() if name != "conv_out.bias"}, config)


def test_weights_of_another_shape_are_named(original, params):
    _, weights = original("small")
    wrong = weights | {"out.2.weight": torch.zeros(6, 16, 3, 3)}
    with pytest.raises(ValueError, match=r"1 weights have another shape .* 'conv_out.weight': \(6, 16, 3, 3\) for"):
        convert(wrong, unet_config(params["small"]))
    odd = weights | {"middle_block.1.qkv.weight": torch.zeros(100, 64, 1)}
    with pytest.raises(ValueError, match=r"'middle_block.1.qkv.weight' is \(100, 64, 1\), which are no 3 parts"):
        convert(odd, unet_config(params["small"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": None}, r"lacks \['image_size'\]"),
        ({"use_flash": True}, r"has \['use_flash'\], which no U-Net of DeepFloyd IF takes"),
        ({"resblock_updown": False}, r"`resblock_updown` of config.yml is False"),
        ({"num_classes": 10}, r"`num_classes` of config.yml is 10"),
        ({"num_head_channels": -1}, r"`num_head_channels` of config.yml is -1"),
        ({"activation": "relu"}, r"`activation` of config.yml is 'relu'"),
        ({"attention_resolutions": "8,4", "disable_self_attentions": "8"}, r"`disable_self_attentions` .* is '8'"),
    ],
)
def test_settings_without_a_counterpart_are_refused_by_name(params, change, message):
    settings = {name: value for name, value in (params["small"] | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        unet_config(settings)
