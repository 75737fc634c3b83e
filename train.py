"""Train the filter: ``python train.py --preset demo --out runs/demo``. On several devices: ``accelerate launch train.py ...``.

Writes to --out: ``best.safetensors`` (the filter that validated best, ready for infer.py), ``last.pt`` (the state from which --resume continues) and
TensorBoard logs. Every crop and every channel is drawn from the seed and the step alone. So a resumed run repeats an undisturbed one bit for bit on a
CPU, with the same number of processes; on a GPU, whose sums depend on the order of threads, it sees the same crops and channels but is not bit-equal.
"""

import argparse
import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from camo import CamoError
from camo.filter.checkpoint import save_filter
from camo.filter.generator import Filter
from camo.photos.files import remove_stale
from camo.photos.images import to_float
from camo.quality import models
from camo.training import perceptual
from camo.training.channel import sharing_channel
from camo.training.config import TrainConfig, add_arguments, from_arguments
from camo.training.crops import RandomCrops, crops_of_process, hold_out, list_photos
from camo.training.initial import initial_filter
from camo.training.objective import Objective
from camo.training.precision import InBf16, autocast_unet, choose_precision
from camo.training.state import load_state, restore, save_state
from camo.training.validation import Validation
from camo.training.workers import ignore_signals, supervise_workers


def train(config: TrainConfig, out: Path, state: dict[str, Any] | None = None, cpu: bool = False) -> None:
    """One run to its end, from the start or from the ``state`` that last.pt holds; see the module's text.

    Raises CamoError for anything that the run cannot start or go on with, and KeyboardInterrupt after SIGINT or SIGTERM, once its state is saved.
    """
    precision = choose_precision(config.precision, cpu)
    handlers = [AutocastKwargs(enabled=False)]  # it would cover the whole filter; see autocast_unet
    accelerator = Accelerator(mixed_precision=precision, gradient_accumulation_steps=config.accumulate, cpu=cpu, kwargs_handlers=handlers)
    device, rank, world, main = accelerator.device, accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    if state and state["processes"] != world:
        raise CamoError(f"{out / 'last.pt'}: the run has {state['processes']} processes, not {world}; resume it with the same number")
    set_seed(config.seed)

    # The filter and what it is trained against
    scorers = {spec: models.load(spec, device) for spec in config.biqa}
    for spec, scorer in scorers.items():
        models.require_gradient(scorer, spec, device)
    bundled: Any = scorers["bundled"].model if "bundled" in scorers else models.load_bundled()
    model = initial_filter(config, bundled.backbone, device)
    channel = sharing_channel(config, scorers.values()) if config.channel == "sharing" else None
    terms_of_change = perceptual.load(config.perceptual, bundled).to(device)

    # Photos
    photos = list_photos(map(Path, config.data))
    training, held_out = (photos, list_photos(map(Path, config.val))) if config.val else hold_out(photos, config.hold_out)
    # In every process, so that all refuse together
    validation = Validation(held_out, scorers, config.per_model(config.threshold), config.batch_size, device)
    crops = RandomCrops(training, (config.crop_height, config.crop_width), config.steps * config.batch_size * world, config.seed, config.enlarged)

    # The objective
    models_in_training: dict[str, nn.Module] = dict(scorers)
    if config.biqa_precision == "bf16":
        first = to_float(torch.stack([crops[number] for number in range(config.batch_size)]).to(device))
        models_in_training = {spec: InBf16(scorer, spec, first) for spec, scorer in scorers.items()}
    targets, in_turn = config.per_model(config.target), config.models_per_step == "one"
    objective = Objective(models_in_training, terms_of_change, channel, targets, config.slack, seed=config.seed * world + rank, in_turn=in_turn)

    # Optimisation
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    autocast_unet(model, device, precision)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    updates = config.steps // config.accumulate
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=updates + 1, pct_start=0.1, cycle_momentum=False)
    model, optimizer = accelerator.prepare(model, optimizer)
    parts = {"model": accelerator.unwrap_model(model), "average": average, "optimizer": optimizer, "schedule": schedule, "scaler": accelerator.scaler}
    start, best = 0, -math.inf
    if state:
        start, best, objective.weights = restore(out / "last.pt", state, parts)
        objective.step = start
    batches = Subset(crops, crops_of_process(start, config.steps, config.batch_size, rank, world))
    loader = DataLoader(batches, config.batch_size, num_workers=config.workers, worker_init_fn=ignore_signals)
    writer = SummaryWriter(out, purge_step=start) if main else None

    stop = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stop
        stop = True  # at the next update of the weights, so that what is saved is complete

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    if main:
        print(f"quality models: {', '.join(scorers)}; perceptual terms: {config.perceptual}; from step {start} of {config.steps}; processes: {world}")
    progress = tqdm(loader, initial=start, total=config.steps, desc="train", disable=not main, mininterval=2)
    excesses: list[Tensor] = []  # one per step since the last update of the weights
    for step, pixels in enumerate(progress, start + 1):
        original = to_float(pixels.to(device)).contiguous(memory_format=torch.channels_last)
        with accelerator.accumulate(model):
            filtered = model(original)
            loss, terms = objective(original, filtered)
            if not loss.isfinite():
                raise CamoError(f"step {step}: the loss is {loss.item()}; " + ", ".join(f"{k} {v.mean().item():.4g}" for k, v in terms.items()))
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
        excesses.append(terms["stat/excess"])
        if writer and step % 10 == 0:
            log(writer, step, loss, terms, float(schedule.get_last_lr()[0]))
            score = torch.cat([value for name, value in terms.items() if name.startswith("stat/score ")]).mean().item()
            progress.set_postfix(score=f"{score:.1f}", psnr=f"{terms['stat/psnr'].item():.1f}", refresh=False)
        if not accelerator.sync_gradients:
            continue  # gradients that are still being added are in no checkpoint, so whatever is due waits
        # Signals reach the processes at different steps; they leave together.
        mean = torch.stack(excesses).nanmean(0)  # NaN for a model that has not scored, in every process alike
        *means, leave = accelerator.reduce(torch.cat([mean, mean.new_tensor([stop])]), "mean").tolist()
        excesses.clear()
        objective.adapt(means)
        schedule.step()
        average.update_parameters(accelerator.unwrap_model(model))
        due = step % config.validate_every < config.accumulate or step == config.steps
        if due and writer:
            figures, pictures = validation(average.module.eval())
            progress.write(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
            for key, value in figures.items():
                writer.add_scalar(f"validation/{key}", value, step)
            writer.add_images("validation/original_filtered_residual", pictures, step)
            if figures["merit"] > best:
                best = figures["merit"]
                provenance = {"step": step, "validation": figures, "settings": config.as_json()}
                save_filter(out / "best.safetensors", cast(Filter, average.module), provenance)
        if due or leave:
            if main:
                save_state(out / "last.pt", parts, step=step, best=best, weights=objective.weights, config=config.as_json(), processes=world)
            accelerator.wait_for_everyone()
        if leave:
            raise KeyboardInterrupt
    if writer:
        writer.close()
        print(json.dumps({"best": str(out / "best.safetensors"), "merit": best}))


def log(writer: SummaryWriter, step: int, loss: Tensor, terms: dict[str, Tensor], rate: float) -> None:
    """Write every term of the objective, the learning rate, and a histogram of the scores to TensorBoard."""
    writer.add_scalar("loss", loss.item(), step)
    writer.add_scalar("rate", rate, step)
    for name, value in terms.items():
        if value.ndim:
            writer.add_histogram(name, value[value.isfinite()].cpu(), step)
        else:
            writer.add_scalar(name, value.item(), step)


def main() -> int:
    """Parse the flags and train. Returns the exit status: 0 done, 1 error, 130 stopped and resumable."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last.pt, with its settings and as many processes")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    add_arguments(parser)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")  # odd metadata is no fault to report
    try:
        last = args.out / "last.pt"
        if last.exists() and not args.resume:
            raise CamoError(f"{args.out}: already holds a run; continue it with --resume or choose another --out")
        state = load_state(last) if args.resume else None
        config = from_arguments(args, state["config"] if state else None)
        args.out.mkdir(parents=True, exist_ok=True)
        remove_stale(args.out)
        with supervise_workers():
            train(config, args.out, state, args.cpu)
    except (CamoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; continue with: python train.py --out {args.out} --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard's optional TensorFlow is chatty
    sys.exit(main())
