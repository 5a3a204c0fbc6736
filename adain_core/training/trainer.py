"""The training loop."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..devices import exact_float32, rank_and_size, resolve_device
from ..errors import AdainError, DivergedError
from ..files import check_folder, check_not_sources, locked, make_folder, remove_leftovers
from ..images import save_image, write_picture
from ..networks import Decoder, Encoder
from ..networks.base import check_weights, fingerprint
from ..progress import tell
from .augmentation import augment_style
from .checkpoints import ELSEWHERE, load_checkpoint, save_checkpoint
from .config import INVERSE, TrainingConfig
from .data import PictureFolder, RandomCrops, pictures_of, stream
from .distributed import mean_over_processes, processes, same_in_processes
from .interrupts import is_dead_worker, uninterrupted
from .muon import Muon
from .networks import frozen, network_sources, new_networks, on_cpu, trained_file, training_dtype, write_networks
from .objective import Batch, Objective
from .pictures import loss_curve, sample_sheet
from .teaching import EncoderObjective, Lesson

log = logging.getLogger(__name__)
LOG_SECONDS = 5  # between lines with losses

MAX_SKIPPED = 20  # steps in a row without a finite loss, after which the training ends
SAMPLE_PAIRS, PREVIEW_PAIRS = 8, 4  # pairs in the sample sheet, and in a preview
POOL = 16  # batches from which each step draws its own, where pictures serve several steps
INVERSE_PIXELS = 48 * 128**2  # of the contents, and of the styles, that a decoder is fitted to in closed form
OPTIMIZERS = {"adam": torch.optim.Adam, "muon": Muon}


@dataclass(frozen=True)
class TrainingResult:
    """Files of the networks (None for one that is not trained), mean losses up to each of the logged `steps`, and the
    numbers of steps skipped, of files that could not be read, and of all steps that are done, `step`.

    A mean is None where no step since the last logged one had that loss.
    """

    encoder: Path | None
    decoder: Path | None
    steps: list[int]
    losses: dict[str, list[float | None]]
    skipped_steps: int
    broken_files: int
    step: int


def train(config: TrainingConfig, preview_every: int = 0) -> TrainingResult:
    """Train by `config`, or go on from the checkpoint in its output folder.

    It tells how many steps are done, at the start and after each, and logs the losses. At the start and every `preview_every`
    steps, 0 for never, it shows a sample sheet `(1, 3, H, W)` of some fixed pairs. An exception from what is shown, a
    KeyboardInterrupt, and the death of a process that reads pictures, end the training after its checkpoint and networks are
    written. While it runs, the networks, `samples.png` and `losses.png` are renewed there. Raises AdainError for folders
    without pictures, a checkpoint of another recipe, a folder that another training writes to or that lies among the pictures,
    and previews where an encoder is taught, FileNotFoundError for a folder that does not exist, and FloatingPointError for
    losses that stay non-finite.
    """
    device = resolve_device(config.device)
    # a host may call in inference mode, which has no gradients
    with torch.inference_mode(False), torch.enable_grad(), processes(device), exact_float32():
        trainer = Trainer(config, device)
        with trainer.exclusive():
            trainer.run(preview_every)
            return trainer.result()


class Trainer:
    """A training's state. Everything random is a function of the seed and the step, so a checkpoint keeps no generator.

    Of several processes each trains on its share of every batch; only the first writes files. For experiments, `vary` turns
    the usual decoder into another one, and `objective` takes the place of what is minimised.
    """

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        vary: Callable[[Decoder], Decoder] = lambda decoder: decoder,
        objective: type[Objective] | None = None,
    ):
        self.config, self.output, self.device = config, Path(config.output), device
        self.rank, self.processes = rank_and_size()
        if config.batch_size % (self.processes * config.accumulate):
            raise AdainError(
                f"a batch of {config.batch_size} for {self.processes} processes with {config.accumulate} parts each cannot be"
                " shared out evenly; give another batch size."
            )
        for source in (config.contents, config.styles):
            if not isinstance(source, Tensor) and self.output.resolve().is_relative_to(Path(source).resolve()):
                raise AdainError(
                    f"{self.output} is inside of {source}, whose pictures are trained on, and its samples would be too; name a"
                    " folder outside of it."
                )
        check_folder(self.output)
        # an encoder is taught in the folder in which its decoder is trained then
        self.checkpoint = self.output / ("encoder-checkpoint.pt" if config.stage == "encoder" else "checkpoint.pt")
        self._check_sources(network_sources(config))
        augment = augment_style if config.augment else None
        self.folders = (
            pictures_of(config.contents, config.crop_size, config.resize_content, seed=config.seed),
            pictures_of(config.styles, config.crop_size, config.resize_style, augment, seed=(config.seed + 1) % 2**64),
        )
        dtype = training_dtype(config.precision, device)
        loss_network = frozen(config.loss_encoder, Encoder, device, dtype)
        teacher = frozen(config.teacher, Decoder, device, dtype) if config.teacher else None
        encoder, decoder = new_networks(config, loss_network, device)
        decoder = decoder and vary(decoder).to(device)
        self.encoder, self.decoder = encoder, decoder
        self.recipe = config.recipe() | {
            "loss_network": loss_network.fingerprint,
            "teacher_network": fingerprint(on_cpu(teacher), teacher.layer_names()) if teacher else "",
            "encoder": "" if "encoder" in config.trained_roles else encoder.fingerprint,
            "contents": self.folders[0].digest(),
            "styles": self.folders[1].digest(),
        }
        if not self.checkpoint.exists():  # else the pictures beside it may be the training's own
            self._check_sources(path for folder in self.folders if isinstance(folder, PictureFolder) for path in folder.files)
        if decoder and config.start_from == INVERSE and not self.checkpoint.exists():
            count = math.ceil(INVERSE_PIXELS / config.crop_size**2)
            decoder.fit_inverse(encoder, torch.cat([self._first_crops(folder, count) for folder in self.folders]))
        if decoder:
            self.objective = (objective or Objective)(config, loss_network, encoder, decoder, dtype, teacher)
        else:
            self.objective = EncoderObjective(loss_network, encoder, dtype)
        self.trained = [network for network in (encoder, decoder) if network and network.role in config.trained_roles]
        for network in self.trained:
            network.constrain()
        self.parameters = [p.requires_grad_(True) for network in self.trained for p in network.parameters()]
        self.model = self.objective if self.processes == 1 else DistributedDataParallel(self.objective)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.average = [p.detach().clone() for p in self.parameters] if config.ema else self.parameters
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters, config.learning_rate)
        self.step, self.skipped = 0, 0
        self.steps: list[int] = []  # those that were logged
        self.losses: dict[str, list[float | None]] = {}  # means up to each of them
        self.recent: list[dict[str, float]] = []  # the losses of each step since
        self.logged = -math.inf  # when the log had the last of them

    def _check_sources(self, sources: Iterable[str | Path]) -> None:
        check_not_sources(self._written(), sources)

    def _written(self) -> list[Path]:
        """The files that the training writes."""
        networks = [trained_file(self.config, role) for role in self.config.trained_roles]
        return [self.checkpoint, *networks, self.output / "samples.png", self.output / "losses.png"]

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Reserve the output folder for this training, and go on from the checkpoint in it, if there is one."""
        make_folder(self.output)
        with contextlib.ExitStack() as stack:
            if self.rank == 0:
                try:
                    stack.enter_context(locked(self.output / ".lock"))
                except BlockingIOError:
                    raise AdainError(f"another training writes to {self.output} now; wait, or give {ELSEWHERE}.") from None
                for file in self._written():
                    remove_leftovers(file)
            if self.checkpoint.exists():
                self._load_checkpoint()
            if not same_in_processes(self.step, self.device):
                raise AdainError(
                    f"not all processes find the same {self.checkpoint}; put the output on a disk that all machines share, or"
                    " give each a copy of that file."
                )
            yield

    def run(self, preview_every: int = 0) -> None:
        """Train up to the last step; what is told, and errors, are those of `train`."""
        with self._saving_on(KeyboardInterrupt, DivergedError):
            self._tell(preview_every > 0)
            saved = written = time.monotonic()
            in_a_row = 0
            batches = self._batches()
            while self.step < self.config.steps:
                gradients = self._gradients(next(batches))  # until its update, a step has changed nothing
                with uninterrupted():
                    in_a_row = 0 if self._update(*gradients) else in_a_row + 1
                    if self.step % self.config.log_every == 0 and in_a_row < MAX_SKIPPED:
                        self._log_losses()
                if in_a_row == MAX_SKIPPED:
                    raise DivergedError(
                        f"the losses of {MAX_SKIPPED} steps in a row were not finite, up to step {self.step}; the networks"
                        f" before them are in {self.output}: start_from them in {ELSEWHERE}, at a lower learning rate or in"
                        " float32."
                    )
                self._tell(preview_every > 0 and self.step % preview_every == 0)
                if self.rank == 0 and time.monotonic() - saved > 60 * self.config.save_minutes:
                    self._renew(self._save_checkpoint)
                    saved = time.monotonic()
                if self.rank == 0 and time.monotonic() - written > 60 * self.config.results_minutes:
                    self._renew(self._write_results)
                    written = time.monotonic()
            self._log_losses()  # of the steps since the last of `log_every`
            self._save_all()

    def _renew(self, write: Callable[[], None]) -> None:
        """Write what is renewed while the training runs; a disk that is full for a while does not end it."""
        try:
            write()
        except OSError as error:
            log.warning("%s It is tried again later.", error)

    def train_step(self, parts: Sequence[Batch | Lesson]) -> dict[str, float]:
        """One step on a batch in parts; its losses, which are empty if they were not finite and the step was skipped."""
        return self._update(*self._gradients(parts))

    def _gradients(self, parts: Sequence[Batch | Lesson]) -> tuple[dict[str, float], bool]:
        """Compute the gradients of a batch in parts. Its losses, and whether these and the gradients are finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimizer.zero_grad()
        model, sums = self.model, []
        for index, part in enumerate(parts, 1):
            # processes exchange their gradients once a step, at its last part
            last = index == len(parts)
            with contextlib.nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync():
                total, losses = model(part, self.step)
                self.scaler.scale(total / len(parts)).backward()
            sums.append(torch.stack([total, *losses.values()]).detach() / len(parts))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf)
        # read together: a GPU has to be waited for each time
        norm, total, *values = mean_over_processes(torch.cat([norm[None], functools.reduce(torch.add, sums)])).cpu().tolist()
        return dict(zip(losses, values, strict=True)), math.isfinite(total + norm)

    def _update(self, losses: dict[str, float], finite: bool) -> dict[str, float]:
        """Move the weights, or skip the step if it is not finite; its losses, which are empty for a skipped one."""
        if finite:  # known already: the scaler's own step would wait for a GPU once more
            self.optimizer.step()
            for network in self.trained:
                network.constrain()
        self.scaler.update()
        self.step += 1
        if not finite:
            self.skipped += 1
            log.warning("step %d is skipped: its loss or gradient is not finite", self.step)
            return {}
        if self.config.ema:
            decay = min(self.config.ema, self.step / (self.step + 10))  # a young average forgets its beginning
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.recent.append(losses)
        return losses

    def result(self) -> TrainingResult:
        """The result of the steps so far."""
        files = {role: trained_file(self.config, role) for role in self.config.trained_roles}
        broken = sum(len(folder.broken) for folder in self.folders)
        written = files.get("encoder"), files.get("decoder")
        return TrainingResult(*written, self.steps, self.losses, self.skipped, broken, self.step)

    def _batches(self) -> Iterator[Sequence[Batch | Lesson]]:
        """This process's share of each step's batch, in parts, from the current step on."""
        config = self.config
        first, turn = divmod(self.step, config.pairings)
        share, start = config.batch_size // self.processes, first * config.batch_size
        pinned = self.device.type == "cuda"
        pictures = stream(self.folders, share, start, self.rank, self.processes, config.workers, pinned)
        pool: deque[Batch | Lesson] = deque(maxlen=POOL * share)
        for crops in pictures:
            chunks = (self._to_device(x).chunk(config.accumulate) for x in crops)
            parts = [self.objective.prepare(*pair) for pair in zip(*chunks, strict=True)]
            if config.pairings == 1:
                yield parts
                continue
            pool.extend(pair for part in parts for pair in part.pairs())
            if len(pool) == pool.maxlen:
                for _ in range(turn, config.pairings):
                    yield self._draw(pool, share)
                turn = 0

    def _draw(self, pool: Sequence[Batch | Lesson], count: int) -> list[Batch | Lesson]:
        """A step's batch in parts, its contents and its styles drawn from a pool independently."""
        rng = np.random.default_rng((self.config.seed, 2, self.step, self.rank))
        contents, styles = ([pool[index] for index in rng.permutation(len(pool))[:count]] for _ in range(2))
        size = count // self.config.accumulate
        combined = type(pool[0]).combined
        return [combined(contents[at : at + size], styles[at : at + size]) for at in range(0, count, size)]

    def _first_crops(self, folder: RandomCrops, count: int) -> Tensor:
        """The first `count` crops of a folder, `(count, 3, S, S)`."""
        return self._to_device(torch.stack([folder[index] for index in range(count)]))

    def _to_device(self, pictures: Tensor) -> Tensor:
        # the threads that read have pinned them for CUDA, which need not be waited for then
        pictures = pictures.to(self.device, non_blocking=self.device.type == "cuda")
        return pictures.contiguous(memory_format=torch.channels_last).float() / 255

    def _tell(self, preview: bool) -> None:
        """Say how many steps are done, with a sample sheet where it is due."""
        # what is shown may stop the training by any exception; `run` itself waits for this one
        with self._saving_on(BaseException, but=(KeyboardInterrupt,)):
            tell(self.step, self.config.steps, self.sample_sheet(PREVIEW_PAIRS)[None] if preview else None)

    def _log_losses(self) -> None:
        if not self.recent:
            return
        names = sorted({name for values in self.recent for name in values})
        means = {name: fmean([values[name] for values in self.recent if name in values]) for name in names}
        for name in self.losses.keys() | means.keys():
            self.losses.setdefault(name, [None] * len(self.steps)).append(means.get(name))
        self.steps.append(self.step)
        self.recent = []
        if time.monotonic() - self.logged >= LOG_SECONDS or self.step == self.config.steps:
            self.logged = time.monotonic()
            log.info("step %d: %s", self.step, ", ".join(f"{name} {mean:.4g}" for name, mean in means.items()))

    @contextlib.contextmanager
    def _saving_on(self, *exceptions: type[BaseException], but: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
        """Write the checkpoint and the results before one of the `exceptions`, which is no `but`, passes on, or the death of a
        process that reads pictures, which raises an AdainError.
        """
        try:
            yield
        except BaseException as error:
            dead = is_dead_worker(error)
            if not dead and (not isinstance(error, exceptions) or isinstance(error, but)):
                raise
            self._save_all()
            log.info("stopped at step %d; the networks and the checkpoint so far are in %s", self.step, self.output)
            if dead:
                raise AdainError(
                    f"a process that reads pictures was killed, as systems do where memory runs out; what was learned up to"
                    f" step {self.step} is kept: train again to go on, with fewer workers if it happens again."
                ) from None
            raise

    def _save_all(self) -> None:
        """Write the checkpoint and the results, where no more pictures are read: that their readers end is no matter."""
        if self.rank == 0:
            try:
                with uninterrupted():
                    self._save_checkpoint()
                    self._write_results()
            except RuntimeError as error:  # what stops the training may have stopped them too
                if not is_dead_worker(error):
                    raise

    def _save_checkpoint(self) -> None:
        state = {"step": self.step, "skipped": self.skipped, "optimizer": self.optimizer.state_dict()}
        state["scaler"] = self.scaler.state_dict()
        state |= {"parameters": [p.detach() for p in self.parameters], "average": [p.detach() for p in self.average]}
        state |= {"steps": self.steps, "losses": self.losses, "recent": self.recent}
        if maps := self.objective.maps:
            state["running"] = maps.running
        save_checkpoint(self.checkpoint, self.recipe, state)

    def _load_checkpoint(self) -> None:
        state = load_checkpoint(self.checkpoint, self.recipe)
        try:
            self._restore(state)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
            why = str(error).splitlines()[0].rstrip(".") if isinstance(error, AdainError) else "its parts do not fit"
            raise AdainError(f"{self.checkpoint} is damaged ({why}); remove it to begin anew.") from None
        log.info("going on from step %d of %s", self.step, self.checkpoint)

    def _restore(self, state: dict) -> None:
        """Take over the state of a checkpoint. Raises errors of many types for a damaged one."""
        wanted = {str(index): tuple(parameter.shape) for index, parameter in enumerate(self.parameters)}
        for name, tensors in (("parameters", self.parameters), ("average", self.average)):
            check_weights({str(index): tensor for index, tensor in enumerate(state[name])}, wanted)
            _copy(tensors, state[name])
        kept = state["optimizer"]["state"]
        if kept and _shapes(kept) != _shapes(self._optimizer_after_a_step()):
            raise AdainError("the state of its optimizer is of other weights")
        # the settings are those of the configuration
        self.optimizer.load_state_dict({"state": kept, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.scaler.load_state_dict(state["scaler"])
        for name in ("step", "skipped", "steps", "losses", "recent"):
            setattr(self, name, state[name])
        lengths = {len(self.steps), *map(len, self.losses.values())}
        counts = [self.step - self.skipped, self.skipped, *self.steps]
        if len(lengths) > 1 or not all(type(count) is int and 0 <= count <= self.step for count in counts):
            raise AdainError("its counts of steps do not fit")
        losses = [*self.losses.values(), *(values.values() for values in self.recent)]
        running = [[x.to(self.device) for x in moments] for moments in state["running"]] if self.objective.maps else []
        if self.objective.maps:
            self.objective.maps.running = running
        tensors = [x for part in kept.values() for x in part.values()] + [x for moments in running for x in moments]
        numbers = [value for values in losses for value in values if value is not None] + list(state["scaler"].values())
        if not all(map(math.isfinite, numbers)) or any(torch.as_tensor(x).isnan().any() for x in tensors):
            raise AdainError("it holds values that are not finite")

    def _optimizer_after_a_step(self) -> dict:
        """What the optimizer keeps of each weight once it has stepped."""
        twins = [torch.zeros_like(parameter, requires_grad=True) for parameter in self.parameters]
        for twin in twins:
            twin.grad = torch.zeros_like(twin)
        optimizer = OPTIMIZERS[self.config.optimizer](twins, self.config.learning_rate)
        optimizer.step()
        return optimizer.state_dict()["state"]

    def _write_results(self) -> None:
        """Write the averaged networks, the sample sheet and the loss curve."""
        with uninterrupted(), self._averaged_weights():  # inside, the weights are others
            recipe = self.recipe | {"steps": self.step, "skipped_steps": self.skipped}
            write_networks(self.config, self.encoder, self.decoder, recipe)
        if isinstance(self.objective, Objective):
            save_image(self.sample_sheet(SAMPLE_PAIRS), self.output / "samples.png")
        write_picture(loss_curve(self.steps, self.losses), self.output / "losses.png", "PNG")

    def sample_sheet(self, count: int) -> Tensor:
        """The first `count` pairs with the averaged networks' results, as one picture `(3, H, W)`.

        Raises AdainError where an encoder is taught.
        """
        if not isinstance(self.objective, Objective):
            raise AdainError("an encoder that is taught draws no pictures; leave out the preview.")
        contents, styles = (self._first_crops(folder, count) for folder in self.folders)
        with self._averaged_weights(), torch.no_grad():
            results = self.objective.stylize(contents, styles)
        return sample_sheet(contents, styles, results.float())

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Inside, the networks have the averaged weights."""
        if not self.config.ema:
            yield
            return
        current = [p.detach().clone() for p in self.parameters]
        _copy(self.parameters, self.average)
        try:
            yield
        finally:
            _copy(self.parameters, current)


def _shapes(state: dict) -> dict:
    """The shapes of an optimizer's state by weight and name; a plain number has that of a tensor of one."""
    return {index: {name: torch.as_tensor(x).shape for name, x in part.items()} for index, part in state.items()}


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Write the values of `sources` into `targets`."""
    torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage]
