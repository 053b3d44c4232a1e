from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from diffusers_imagen.cli.preview import StagePreview
from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.models.stage_protocol import Prediction
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.encoding import encode_text
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.text.online import OnlineTextEncoder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.dry_run import dry_run
from diffusers_imagen.training.fine_tune_config import LoraConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.objective import diffusion_loss
from diffusers_imagen.training.state import make_unet
from diffusers_imagen.training.tasks import DeepFloydTask, training_task
from diffusers_imagen.training.variance import LearnedVariance

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def saved(deepfloyd: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of IF's first two pipelines, of 8 and 16 pixels, whose pictures are no noise of huge values."""
    folder = tmp_path_factory.mktemp("if")
    for number, pipe in enumerate(deepfloyd(2), start=1):
        pipe.save_pretrained(folder / f"stage_{number}")
    return folder


@pytest.fixture
def make_if_config(make_config: MakeConfig, saved: Path) -> MakeConfig:
    """Give a function that describes a run that fine-tunes one of the two."""

    def make(enlarges: bool = False, **changes: Any) -> TrainConfig:
        lora = changes.pop("lora", None)
        data = {"size": 16 if enlarges else 8, "crop": None, "low_res_factor": 2}
        if enlarges:
            data["low_res_resize"] = "bilinear_align_corners"
        model = {"config": {}, "pretrained": str(saved / f"stage_{2 if enlarges else 1}")}
        values = {
            "text": {"folder": str(saved / "stage_1"), "max_length": 77, "form": "deepfloyd_if"},
            "optimizer": {"warmup_steps": 0, "lr": 1e-3},
            "batch_size": 2,
            "max_steps": 2,
        } | changes
        config = make_config(
            enlarges=enlarges,
            data=data | values.pop("data", {}),
            model=model | values.pop("model", {}),
            text={**values.pop("text")},
            **values,
        )
        return replace(config, lora=lora)

    return make


def batches_of(config: TrainConfig) -> BatchMaker:
    source = ImageFolder.open(config.data.folder, config.data.size)
    cache = TextEmbeddingCache.build(source.captions, *load_text_encoder(config.text.folder), config.text.settings)
    return BatchMaker(config, source, cache)


class Recorder(nn.Module):
    """Keep what a U-Net is asked and answer with zeros."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, **rest: Any) -> tuple[Tensor]:
        self.asked = {"sample": sample, "timestep": timestep, "text": text, **rest}
        return (torch.zeros_like(sample[:, :3]).repeat(1, 2, 1, 1),)


def test_enlargement_is_told_the_noised_smaller_picture_and_its_timestep(make_if_config: MakeConfig) -> None:
    config = make_if_config(enlarges=True, batch_size=3)
    batch = batches_of(config).batch(0)
    recorder = Recorder()
    loss = diffusion_loss(
        recorder, training_task(make_unet(config.model), config), batch, config.data, config.objective
    )

    ddpm = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x_0 = batch.pictures.double() / 127.5 - 1
    timestep = (batch.t.double() * 1000).floor().long()
    small = nn.functional.interpolate(x_0, (8, 8), mode="bicubic", antialias=True).clamp(-1, 1)
    low_res = nn.functional.interpolate(small, (16, 16), mode="bilinear", align_corners=True)
    level = (batch.noise_level.double() * 1000).round().long().clamp(0, 999)
    asked = recorder.asked
    assert asked["timestep"].tolist() == timestep.tolist()
    assert asked["class_labels"].tolist() == level.tolist()
    assert asked["encoder_attention_mask"] is None
    assert asked["text"].shape[1] == 77
    expected = (
        ddpm.add_noise(x_0, batch.eps.double(), timestep),
        ddpm.add_noise(low_res, batch.low_res_eps.double(), level),
    )
    torch.testing.assert_close(asked["sample"].double(), torch.cat(expected, dim=1), rtol=0, atol=1e-5)
    log_snr = 2 * (ddpm.alphas_cumprod[timestep].double().logit() / 2)
    torch.testing.assert_close(loss.log_snr.double(), log_snr, rtol=1e-4, atol=1e-4)


def test_variance_loss_is_the_variational_bound_of_the_scheduler_that_draws(make_if_config: MakeConfig) -> None:
    ddpm = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=False)
    config = make_if_config()
    task = training_task(make_unet(config.model), config)
    assert isinstance(task, DeepFloydTask)
    generator = torch.Generator().manual_seed(0)
    x_0, eps, answer, place = torch.randn(4, 4, 3, 8, 8, generator=generator)
    timestep = torch.tensor([1, 30, 500, 999])
    x_t = ddpm.add_noise(x_0, eps, timestep)
    found = task.variance_loss(Prediction(answer, place), x_0, x_t, (timestep + 0.5) / 1000)

    for row, t in enumerate(timestep.tolist()):
        alpha_bar, before = (ddpm.alphas_cumprod[i].double() for i in (t, t - 1))
        beta = 1 - alpha_bar / before

        def mean(
            clean: Tensor, row: int = row, a: Tensor = alpha_bar, b: Tensor = before, beta: Tensor = beta
        ) -> Tensor:
            return (b.sqrt() * beta * clean + (1 - beta).sqrt() * (1 - b) * x_t[row].double()) / (1 - a)

        clean = x_0[row].double()
        seen = (x_t[row].double() - (1 - alpha_bar).sqrt() * answer[row].double()) / alpha_bar.sqrt()
        log_variance = ddpm._get_variance(t, predicted_variance=place[row].double())
        posterior = torch.distributions.Normal(mean(clean), (beta * (1 - before) / (1 - alpha_bar)).sqrt())
        own = torch.distributions.Normal(mean(seen), (0.5 * log_variance).exp())
        expected = torch.distributions.kl_divergence(posterior, own).mean() / torch.tensor(2.0).double().log()
        torch.testing.assert_close(found[row].double(), expected, rtol=2e-3, atol=1e-6)


def test_bound_of_the_last_step_is_the_surprise_of_eight_bit_values() -> None:
    ddpm = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    from diffusers_imagen.diffusion.noise_table import NoiseTable

    values = torch.tensor([-1.0, 0.0, 1.0, 128 / 127.5 - 1])[:, None, None, None]
    place = torch.full_like(values, 0.3)
    timestep = torch.zeros(4, dtype=torch.long)
    variance = LearnedVariance(NoiseTable(ddpm.alphas_cumprod))
    # A prediction that is right: the mean is then x_0 itself.
    eps = torch.zeros_like(values)
    x_t = values * ddpm.alphas_cumprod[0].sqrt()
    found = variance.loss(Prediction(eps, place), "epsilon", values, x_t, timestep)

    a = ddpm.alphas_cumprod.double()
    betas = 1 - a / torch.cat([a.new_ones(1), a[:-1]])
    log_variance = 0.65 * betas[0].log() + 0.35 * (betas[1] * (1 - a[0]) / (1 - a[1])).log()
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), (0.5 * log_variance).exp())
    inner = normal.cdf(torch.tensor(1 / 255).double()) - normal.cdf(torch.tensor(-1 / 255).double())
    edge = normal.cdf(torch.tensor(1 / 255).double())
    expected = -torch.stack([edge, inner, edge, inner]).log2()
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("learned_variance", ["learn", "drop"])
def test_variance_teaches_itself_only_and_only_if_it_shall(make_if_config: MakeConfig, learned_variance: str) -> None:
    config = make_if_config(objective={"learned_variance": learned_variance})
    unet = make_unet(config.model)
    loss = diffusion_loss(
        unet, training_task(unet, config), batches_of(config).batch(0), config.data, config.objective
    )
    loss.mean.backward()
    value, variance = unet.conv_out.weight.grad.chunk(2)
    unet.zero_grad()
    dropped = replace(config, objective=replace(config.objective, learned_variance="drop"))
    batch = batches_of(config).batch(0)
    diffusion_loss(unet, training_task(unet, dropped), batch, config.data, config.objective).mean.backward()

    assert bool(variance.abs().max() > 0) == (learned_variance == "learn")
    torch.testing.assert_close(value, unet.conv_out.weight.grad.chunk(2)[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("enlarges", [False, True])
def test_one_batch_is_learned_by_heart(make_if_config: MakeConfig, enlarges: bool) -> None:
    config = make_if_config(enlarges=enlarges, batch_size=2)
    batch, unet = batches_of(config).batch(0), make_unet(config.model)
    task = training_task(unet, config)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = diffusion_loss(unet, task, batch, config.data, config.objective).mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("enlarges", [False, True])
def test_fine_tuned_stage_takes_its_place_in_the_cascade_and_draws(
    make_if_config: MakeConfig, saved: Path, tmp_path: Path, enlarges: bool
) -> None:
    config = make_if_config(enlarges=enlarges, ema={"decay": 0.5})
    averages: list[dict[str, Tensor]] = []
    train(config, preview=lambda unet, step: averages.append(unet.state_dict()))
    name = "sr_unet_1" if enlarges else "unet"
    tuned = DeepFloydUNet2DConditionModel.from_pretrained(Path(config.output_dir) / "unet")
    cascade = ImagenCascadePipeline.from_deepfloyd_if(saved / "stage_1", saved / "stage_2")
    before = getattr(cascade, name).state_dict()
    cascade.register_modules(**{name: tuned})
    cascade.save_as_deepfloyd_if(tmp_path / "out")

    again = ImagenCascadePipeline.from_deepfloyd_if(tmp_path / "out" / "stage_1", tmp_path / "out" / "stage_2")
    weights = getattr(again, name).state_dict()
    assert all(torch.equal(weight, averages[-1][key]) for key, weight in weights.items())
    assert any(not torch.equal(weight, before[key]) for key, weight in weights.items())
    again.set_progress_bar_config(disable=True)
    picture = again("a red cat", num_inference_steps={"base": 2, "sr_1": 2}, output_type="pt").images
    assert picture.shape == (1, 3, 16, 16)
    assert torch.isfinite(picture).all()


@pytest.mark.parametrize("enlarges", [False, True])
def test_lora_of_a_stage_is_as_strong_in_a_fresh_unet(make_if_config: MakeConfig, saved: Path, enlarges: bool) -> None:
    config = make_if_config(enlarges=enlarges, lora=LoraConfig(rank=2, alpha=6.0), optimizer={"lr": 1e-2})
    batch = batches_of(config).batch(0)
    task = training_task(make_unet(config.model), config)

    def predict(unet: nn.Module) -> Tensor:
        recorded = Recorder()
        diffusion_loss(recorded, task, batch, config.data, config.objective)
        asked = recorded.asked
        with torch.no_grad():
            return unet.eval()(asked.pop("sample"), asked.pop("timestep"), asked.pop("text"), **asked)[0]

    averages: list[Tensor] = []
    train(config, preview=lambda unet, step: averages.append(predict(unet)))
    fresh = make_unet(config.model)
    before = predict(fresh)
    fresh.load_lora_adapter(
        Path(config.output_dir) / "lora", weight_name="pytorch_lora_weights.safetensors", prefix=None
    )
    torch.testing.assert_close(predict(fresh), averages[-1], rtol=0, atol=1e-5)
    assert (averages[-1] - before).abs().max() > 1e-4


def test_dropped_caption_is_the_empty_text(make_if_config: MakeConfig) -> None:
    config = make_if_config()
    encoder, settings = load_text_encoder(config.text.folder), config.text.settings
    expected = encode_text(["", "a cat"], *encoder, settings).hidden_states.bfloat16()
    for text in (TextEmbeddingCache.build(["a cat"], *encoder, settings), OnlineTextEncoder(*encoder, settings)):
        found = text.batch([None, "a cat"])
        assert found.mask.all()
        torch.testing.assert_close(found.hidden_states, expected, rtol=1e-2, atol=1e-2)


def test_dry_run_and_previews_know_the_stages(make_if_config: MakeConfig) -> None:
    for enlarges in (False, True):
        config = make_if_config(enlarges=enlarges, preview={"num_inference_steps": 2, "num_images": 2})
        assert dry_run(config).memory.activations > 0
        StagePreview(config)(make_unet(config.model).eval(), 7)
        assert (Path(config.output_dir) / "previews" / "step-00000007.png").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {"form": "masked"}}, r"`text\.form` is 'masked', but the U-Net is a DeepFloyd"),
        (
            {"text": {"max_length": 20}},
            r"`text\.max_length` is 20, but DeepFloyd IF's pictures depend on padding to 77",
        ),
        ({"data": {"low_res_resize": "bicubic"}}, r"`data\.low_res_resize` is 'bicubic', but DeepFloyd IF"),
        ({"model": {"noise": {"beta_schedule": "nope"}}}, "makes no noise schedule"),
        ({"model": {"model_class": "base"}}, "is one of an enlargement, but `model.model_class` is 'base'"),
    ],
)
def test_what_if_cannot_do_is_refused(
    make_if_config: MakeConfig, saved: Path, changes: dict[str, Any], message: str
) -> None:
    text = {"folder": str(saved / "stage_1"), "max_length": 77, "form": "deepfloyd_if"} | changes.pop("text", {})
    with pytest.raises(ValueError, match=message):
        train(make_if_config(enlarges=True, text=text, **changes))


def test_own_unets_take_no_noise_settings(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"`model\.noise` is .*says itself what it was trained on"):
        train(make_config(model={"noise": {"beta_schedule": "linear"}}))
