# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Put a run on one picture: loss, speed, loss by level of noise, previews. Called by the command line.

Everything is read from the run's folder, so that a run that is still going or was killed has a report too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from diffusers_imagen.training.charts import INK, PAPER, Line, draw_chart
from diffusers_imagen.training.progress import loss_text
from diffusers_imagen.training.run_folder import HELD_OUT, LOG, PREVIEWS, read_lines, read_run_config

REPORT = "report.png"
_WIDTH, _CHART_HEIGHT, _MARGIN = 1200, 340, 16
_SHEETS, _SHEET_HEIGHT = 4, 520
_CURVES = 4


def write_report(run: Path, output: Path | None = None) -> Path:
    """Draw a run's report.

    Args:
        run: The run's folder.
        output: The PNG file; None for `report.png` in the run's folder.

    Returns:
        The file.

    Raises:
        ValueError: If the folder has no `log.jsonl` with at least one line.
    """
    lines = read_lines(run / LOG)
    if not lines:
        raise ValueError(f"`run` is {str(run)!r}, which has no {LOG}; give the `output_dir` of a run that made steps.")
    held_out = read_lines(run / HELD_OUT)
    half = (_WIDTH - _MARGIN) // 2
    parts = [
        _heading(run, lines),
        draw_chart("Loss", "step", _loss_lines(lines, held_out), _WIDTH, _CHART_HEIGHT, log_y=True),
        _side_by_side(
            draw_chart("Samples per second", "step", [_line(lines, "samples_per_s")], half, _CHART_HEIGHT),
            draw_chart("Share of time waiting for data", "step", [_line(lines, "data_wait")], half, _CHART_HEIGHT),
        ),
        _side_by_side(
            draw_chart(
                "Held-out loss by level of noise", "log-SNR", _level_lines(held_out), half, _CHART_HEIGHT, True
            ),
            draw_chart("Norm of the gradient", "step", [_line(lines, "grad_norm")], half, _CHART_HEIGHT, log_y=True),
        ),
        *_previews(run),
    ]
    path = run / REPORT if output is None else output
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    _stacked(parts).save(temporary, format="PNG")
    temporary.replace(path)
    return path


def smoothed(points: Sequence[tuple[float, float]], count: int = 25) -> list[tuple[float, float]]:
    """Give the running means of `count` neighbouring points each, fewer at the ends."""
    means = []
    for place in range(len(points)):
        part = points[max(0, place - count // 2) : place + count // 2 + 1]
        means.append((points[place][0], sum(value for _, value in part) / len(part)))
    return means


def _loss_lines(lines: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]) -> list[Line]:
    raw = _line(lines, "loss").points
    drawn = [Line("training", raw, faint=len(raw) > 50)]
    if len(raw) > 50:
        drawn.append(Line("training, mean of 25", smoothed(raw)))
    if held_out:
        drawn.append(Line("held out (average weights)", [(line["step"], line["loss"]) for line in held_out]))
    return drawn


def _level_lines(held_out: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Give the curves of a few measurements, the last one among them."""
    count = min(_CURVES, len(held_out))
    chosen = [held_out[(len(held_out) - 1) * place // max(1, count - 1)] for place in range(count)]
    return [
        Line(f"step {line['step']}", [(level["log_snr"], level["loss"]) for level in line["levels"]])
        for line in reversed(chosen)
    ]


def _line(lines: Sequence[Mapping[str, Any]], name: str) -> Line:
    return Line(name, [(line["step"], line[name]) for line in lines if name in line])


def _heading(run: Path, lines: Sequence[Mapping[str, Any]]) -> Image.Image:
    config = read_run_config(run)
    last = lines[-1]
    texts = [f"{run}: step {last['step']}, loss {loss_text(last)}, {last['skipped']:.0f} steps skipped"]
    if config is not None:
        texts = [f"{run}: step {last['step']} of {config['max_steps']}, loss {loss_text(last)}"]
        data, optimizer = config["data"], config["optimizer"]
        texts.append(
            f"{config['model']['model_class']}, {data['size']} px from {data['folder']}; batch {config['batch_size']} x "
            f"{config['gradient_accumulation_steps']}, {optimizer['name']} at {optimizer['lr']:g}, "
            f"precision {config['precision']}, {config['objective']['weighting']} weighting, seed {config['seed']}; "
            f"{last['skipped']:.0f} steps skipped"
        )
    image = Image.new("RGB", (_WIDTH, 20 + 30 * len(texts)), PAPER)
    draw = ImageDraw.Draw(image)
    for number, text in enumerate(texts):
        draw.text((_MARGIN, 12 + 30 * number), text, INK, ImageFont.load_default(20 if number == 0 else 14))
    return image


def _previews(run: Path) -> list[Image.Image]:
    """Give some of the preview sheets, the first and the last among them, each under its step."""
    paths = sorted((run / PREVIEWS).glob("step-*.png"))
    count = min(_SHEETS, len(paths))
    parts = []
    for path in (paths[(len(paths) - 1) * place // max(1, count - 1)] for place in range(count)):
        with Image.open(path) as opened:
            sheet = opened.convert("RGB")
        factor = min((_WIDTH - 2 * _MARGIN) / sheet.width, _SHEET_HEIGHT / sheet.height)
        kind = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
        sheet = sheet.resize((max(1, round(sheet.width * factor)), max(1, round(sheet.height * factor))), kind)
        part = Image.new("RGB", (_WIDTH, sheet.height + 32), PAPER)
        name = f"previews at step {int(path.stem.removeprefix('step-'))}"
        ImageDraw.Draw(part).text((_MARGIN, 6), name, INK, ImageFont.load_default(15))
        part.paste(sheet, (_MARGIN, 28))
        parts.append(part)
    return parts


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (_WIDTH, left.height), PAPER)
    both.paste(left, (0, 0))
    both.paste(right, (_WIDTH - right.width, 0))
    return both


def _stacked(parts: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _MARGIN), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet
