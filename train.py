"""Train the filter: ``python train.py --preset demo --out runs/demo``. On several devices: ``accelerate launch train.py ...``.

Writes to --out: ``best.safetensors`` (the filter that validated best, ready for infer.py), ``last.pt`` (to go on from with --resume) and TensorBoard
logs. Every crop and every channel is drawn from the seed and the step alone, so a resumed run repeats an undisturbed one bit for bit.
"""

import argparse
import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from camo import CamoError
from camo.filter.checkpoint import load_filter, load_state, save_filter, save_state
from camo.filter.generator import Filter
from camo.photos.files import remove_stale
from camo.photos.images import to_float
from camo.quality import models
from camo.training import perceptual
from camo.training.channel import Channel
from camo.training.config import TrainConfig, add_arguments, from_arguments
from camo.training.crops import CentreCrops, RandomCrops, hold_out, ignore_interrupt, list_photos
from camo.training.objective import Objective
from camo.training.validation import validate


def train(config: TrainConfig, out: Path, state: dict[str, Any] | None = None, cpu: bool = False) -> None:
    """One run, from the start or from the ``state`` of last.pt to the end; see the module's text."""
    precision = fastest_precision(cpu) if config.precision == "auto" else config.precision
    if precision == "fp16" and (cpu or not torch.cuda.is_available()):  # accelerate itself does not refuse
        raise CamoError("--precision fp16: needs a GPU; choose auto, no or bf16")
    accelerator = Accelerator(mixed_precision=precision, gradient_accumulation_steps=config.accumulate, cpu=cpu)
    set_seed(config.seed)
    device, rank, main = accelerator.device, accelerator.process_index, accelerator.is_main_process
    start, best = 0, -math.inf
    photos = list_photos(map(Path, config.data))
    training, held = (photos, list_photos(map(Path, config.val))) if config.val else hold_out(photos, config.hold_out)
    size = (config.crop_height, config.crop_width)
    world = accelerator.num_processes
    crops = RandomCrops(training, size, config.steps * config.batch_size * world, config.seed)
    val_loader = DataLoader(CentreCrops(held, (384, 512)), batch_size=config.batch_size)

    model = Filter(config.width, config.depth, config.gain, config.shape == "jnd").to(device, memory_format=torch.channels_last)
    model.unet.trunk.copy_from(models.load_bundled().backbone)
    if config.init:
        trained = load_filter(Path(config.init))
        if trained.arguments != model.arguments:
            raise CamoError(f"--init {config.init}: a filter of {trained.arguments}, not {model.arguments}")
        model.load_state_dict(trained.state_dict())
    scorer = models.load(config.biqa, device)
    models.require_gradient(scorer, device)
    channel = Channel(quality=(config.quality_low, config.quality_high), real_rate=config.real_jpeg) if config.channel == "sharing" else None
    terms = perceptual.load(config.perceptual).to(device)
    objective = Objective(scorer, terms, channel, config.target, config.slack, seed=config.seed * world + rank)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=math.ceil(config.steps / config.accumulate) + 1, pct_start=0.1)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    model, optimizer = accelerator.prepare(model, optimizer)
    if state:
        try:
            accelerator.unwrap_model(model).load_state_dict(state["model"])
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            if accelerator.scaler is not None:
                accelerator.scaler.load_state_dict(state["scaler"])
            start, best, objective.weight = int(state["step"]), float(state["best"]), float(state["weight"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CamoError(f"{out / 'last.pt'}: not of a run with its settings ({' '.join(str(error).split())[:160]})") from error
    batches = crops_of_process(start, config.steps, config.batch_size, rank, world)
    loader = DataLoader(Subset(crops, batches), config.batch_size, num_workers=config.workers, worker_init_fn=ignore_interrupt)
    writer = SummaryWriter(out, purge_step=start) if main else None

    def checkpoint(step: int) -> None:
        """Save what --resume needs."""
        if main:
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            weights = accelerator.unwrap_model(model).state_dict()
            states = {"average": average.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "scaler": scaler}
            save_state(out / "last.pt", step=step, best=best, weight=objective.weight, config=config.as_json(), model=weights, **states)

    stop = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stop
        stop = True  # the steps whose gradients are added are finished, so that what is saved is whole

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    if main:
        print(f"quality model: {config.biqa}; perceptual terms: {config.perceptual}; from step {start} of {config.steps}; processes: {world}")
    progress = tqdm(loader, initial=start, total=config.steps, desc="train", disable=not main, mininterval=2)
    for step, pixels in enumerate(progress, start + 1):
        original = to_float(pixels.to(device)).contiguous(memory_format=torch.channels_last)
        with accelerator.accumulate(model), accelerator.autocast():
            filtered = model(original)
            loss, terms = objective(original, filtered, step - 1)
            if not loss.isfinite():
                raise CamoError(f"step {step}: the loss is {loss.item()}; " + ", ".join(f"{k} {v.mean().item():.4g}" for k, v in terms.items()))
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
        # Signals reach the processes at different steps: they leave together.
        excess, leave = accelerator.reduce(torch.tensor([terms["stat/excess"].item(), stop], device=device), "mean").tolist()
        objective.adapt(excess)
        if accelerator.sync_gradients:
            schedule.step()
            average.update_parameters(accelerator.unwrap_model(model))
        if main and step % 10 == 0:
            log(writer, step, loss, terms, schedule.get_last_lr()[0])
            progress.set_postfix(score=f"{terms['stat/score_each'].mean().item():.1f}", psnr=f"{terms['stat/psnr'].item():.1f}", refresh=False)
        if not accelerator.sync_gradients:
            continue  # what is due waits: no checkpoint holds the gradients added so far
        due = step % config.validate_every < config.accumulate or step == config.steps
        if due and main:
            figures, rows = validate(average.module.eval(), scorer, val_loader, device)
            progress.write(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
            for key, value in figures.items():
                writer.add_scalar(f"validation/{key}", value, step)
            writer.add_images("validation/original_filtered_residual", rows, step)
            if figures["merit"] > best:
                best = figures["merit"]
                save_filter(out / "best.safetensors", average.module, {"step": step, "validation": figures, "settings": config.as_json()})
        if due or leave:
            checkpoint(step)
            accelerator.wait_for_everyone()
        if leave:
            raise KeyboardInterrupt
    if main:
        writer.close()
        print(json.dumps({"best": str(out / "best.safetensors"), "merit": best}))


def fastest_precision(cpu: bool) -> str:
    """The mixed precision worth having: a GPU's own; none on a CPU, where bf16 gains a tenth at best and costs twenty times where it is emulated."""
    if cpu or not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def crops_of_process(start: int, stop: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Indices of the crops that process ``rank`` of ``world`` sees in the steps from ``start`` to ``stop``, a batch after the other."""
    return [(step * world + rank) * batch_size + i for step in range(start, stop) for i in range(batch_size)]


def log(writer: SummaryWriter, step: int, loss: Tensor, terms: dict[str, Tensor], rate: float) -> None:
    """Every term of the objective, the rate, and the scores as a histogram, to TensorBoard."""
    writer.add_scalar("loss", loss.item(), step)
    writer.add_scalar("rate", rate, step)
    for name, value in terms.items():
        if value.ndim:
            writer.add_histogram(name, value.cpu(), step)
        else:
            writer.add_scalar(name, value.item(), step)


def main() -> int:
    """Parse the flags and train; returns the exit status: 0 done, 1 a fault, 130 stopped and resumable."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt, with its settings")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    add_arguments(parser)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")  # odd metadata is no fault to report
    try:
        last = args.out / "last.pt"
        if last.exists() and not args.resume:
            raise CamoError(f"{args.out}: holds a run already; go on with --resume or choose another --out")
        state = load_state(last) if args.resume else None
        config = from_arguments(args, state["config"] if state else None)
        args.out.mkdir(parents=True, exist_ok=True)
        remove_stale(args.out)
        train(config, args.out, state, args.cpu)
    except (CamoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; go on with: python train.py --out {args.out} --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard's optional TensorFlow is chatty
    sys.exit(main())
