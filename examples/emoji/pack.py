"""Pack a trained base and enlargement, with their text encoder, into the package's built-in cascade.

python examples/emoji/pack.py --base runs/base_64/unet --sr runs/sr_256/unet --card MODEL_CARD.md --out FOLDER

The text encoder comes from the built-in cascade that is there already (`--encoder builtin`), bit for bit, or from a
folder with `model.q4.safetensors`, `config.json` and `tokenizer.json`.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import diffusers_imagen
from diffusers_imagen import EfficientUNet2DConditionModel, ImagenCascadePipeline, ImagenUNet2DConditionModel
from diffusers_imagen.builtin.library import MANIFEST, write_packed
from diffusers_imagen.builtin.packing import pack_q8, unpack_tensors

NAME = "imagen-emoji"
PACKED = Path(diffusers_imagen.__file__).parent / "builtin" / NAME
ENCODER_WEIGHTS = "text_encoder/model.safetensors"
UNET_WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "sr_unet_1": "sr_unet_1/diffusion_pytorch_model.safetensors",
}
STAGES = {
    "base": {"num_inference_steps": 12, "guidance_scale": 2.0, "thresholding": "static"},
    "sr_1": {
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "noise_level": 0.05,
        "thresholding": "static",
        "keep_color": True,
    },
}
TEXT = {"layers": [7, 12], "prefix": "query: ", "max_length": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of the trained base U-Net")
    parser.add_argument("--sr", type=Path, help="folder of the trained enlargement; none for a base alone")
    parser.add_argument("--encoder", default="builtin", help="'builtin' or a folder")
    parser.add_argument("--card", type=Path, required=True, help="the model card, a Markdown file")
    parser.add_argument("--out", type=Path, default=PACKED, help="folder to write; replaced whole")
    arguments = parser.parse_args()

    encoder = builtin_encoder() if arguments.encoder == "builtin" else encoder_of(Path(arguments.encoder))
    with tempfile.TemporaryDirectory() as folder:
        pipe = assemble(arguments.base, arguments.sr, *encoder)
        pipe.save_pretrained(folder)
        shutil.copyfile(arguments.card, Path(folder) / "README.md")
        weights = {ENCODER_WEIGHTS: encoder[2]}
        for component, path in UNET_WEIGHTS.items():
            if getattr(pipe, component) is not None:
                weights[path] = pack_q8(load_file(Path(folder) / path))
        small = [p for p in Path(folder).rglob("*") if p.is_file() and p.suffix != ".safetensors"]
        files = {str(path.relative_to(folder)): path for path in small}
        compact_json(Path(folder) / "tokenizer" / "tokenizer.json")
        replace_folder(arguments.out, files, weights)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


def assemble(
    base: Path, sr: Path | None, tokenizer: PreTrainedTokenizerFast, text_encoder: BertModel, _: dict[str, Tensor]
) -> ImagenCascadePipeline:
    """Join the parts into a cascade with the settings that it is shipped with."""
    stages = dict(STAGES)
    sr_unet = None
    if sr is None:
        del stages["sr_1"]
    else:
        sr_unet = EfficientUNet2DConditionModel.from_pretrained(sr)
    return ImagenCascadePipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=ImagenUNet2DConditionModel.from_pretrained(base),
        scheduler=scheduler(),
        sr_unet_1=sr_unet,
        sr_scheduler_1=None if sr is None else scheduler(),
        sr_unet_2=None,
        sr_scheduler_2=None,
        stages=stages,
        text=TEXT,
    )


def scheduler() -> DDPMScheduler:
    """The default of both stages, by `benchmarks/default_scheduler.py`; it is told x_0 as it is."""
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", prediction_type="sample", clip_sample=False
    )


def builtin_encoder() -> tuple[PreTrainedTokenizerFast, BertModel, dict[str, Tensor]]:
    """Return the shipped tokenizer and encoder, and the encoder's packed tensors as they are."""
    manifest = json.loads((PACKED / MANIFEST).read_text(encoding="utf-8"))
    packed: dict[str, Tensor] = {}
    for name in manifest["weights"][ENCODER_WEIGHTS]:
        packed |= load_file(PACKED / name)
    files = PACKED / "files"
    return load_encoder(files / "text_encoder" / "config.json", files / "tokenizer" / "tokenizer.json", packed)


def encoder_of(folder: Path) -> tuple[PreTrainedTokenizerFast, BertModel, dict[str, Tensor]]:
    """Return tokenizer, encoder and packed tensors of a folder with a 4-bit encoder."""
    packed = load_file(folder / "model.q4.safetensors")
    # BertModel has a pooler that nothing here uses; without weights it would start at random with a warning.
    packed["pooler.dense.weight"] = torch.zeros(384, 384, dtype=torch.float16)
    packed["pooler.dense.bias"] = torch.zeros(384, dtype=torch.float16)
    return load_encoder(folder / "config.json", folder / "tokenizer.json", packed)


def load_encoder(
    config: Path, tokenizer: Path, packed: dict[str, Tensor]
) -> tuple[PreTrainedTokenizerFast, BertModel, dict[str, Tensor]]:
    settings = BertConfig.from_json_file(config)
    settings.dtype = None
    text_encoder = BertModel(settings).eval()
    text_encoder.load_state_dict(unpack_tensors(packed), strict=True)
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=128,
    )
    return made, text_encoder, packed


def compact_json(path: Path) -> None:
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, separators=(",", ":"))
    )


def replace_folder(out: Path, files: dict[str, Path], weights: dict[str, dict[str, Tensor]]) -> None:
    """Write beside the old folder, then swap."""
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    write_packed(new, files, weights, {"name": NAME})
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)


if __name__ == "__main__":
    main()
