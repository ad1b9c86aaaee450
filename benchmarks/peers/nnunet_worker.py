"""The part of the nnU-Net benchmark that runs in the peers' environment, by nnunet.py.

    python nnunet_worker.py JOB.json

Plans, preprocesses, trains and predicts with nnU-Net's own code; writes RESULT.json beside the
job. It differs from nnU-Net's commands in three points: the end of the training, the learning rate
set at each step, and prediction in one process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks.peers.budget import Budget, poly_rate

NUMBER = 1
# nnU-Net's own unit of training.
STEPS_PER_EPOCH = 250
# On a GPU it compiles the network in the first steps; they are trained but not timed.
COMPILING_STEPS = 3


def say(text: str) -> None:
    """Prints a line that nnunet.py passes on to the console (all others go only to the log)."""
    print(f"[peer] {text}", flush=True)


class BudgetTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer, with its steps, data, loss and optimizer, that stops after a budget.

    The learning rate is nnU-Net's "poly" schedule over the budget. It is set at each step instead
    of each epoch, because the budget may be shorter than an epoch. There is no validation during
    training, which nnU-Net uses for its display and for a checkpoint that is not used here.
    """

    budget: Budget
    seconds = waited = wall = 0.0
    pixels = steps = 0

    def run_training(self) -> None:
        self.on_train_start()
        self.network.train()
        self.curve: list[dict[str, float]] = []
        compiles = self._do_i_compile()
        losses: list[float] = []
        begun = shown = time.perf_counter()
        while (share := self.budget.share(self.seconds, self.pixels)) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = poly_rate(self.initial_lr, share)
            started = time.perf_counter()
            batch = next(self.dataloader_train)
            waited = time.perf_counter() - started
            # Ends with the loss on the CPU, so a GPU is done when it returns.
            losses.append(float(self.train_step(batch)["loss"]))
            self.steps += 1
            if not compiles or self.steps > COMPILING_STEPS:
                self.seconds += time.perf_counter() - started
                self.waited += waited
            self.pixels += len(batch["data"]) * int(np.prod(batch["data"].shape[2:]))
            if time.perf_counter() - shown > 15:
                shown = time.perf_counter()
                self._show(losses, share)
                losses = []
        self.wall = time.perf_counter() - begun
        if losses:
            self._show(losses, 1.0)
        self.on_train_end()

    def _show(self, losses: list[float], share: float) -> None:
        loss = float(np.mean(losses))
        self.curve.append({"minutes": self.seconds / 60, "steps": self.steps, "loss": loss})
        say(f"step {self.steps}  {100 * share:.0f} %  loss {loss:.3f}  {self.seconds / 60:.1f} min")


def prepare(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fingerprint, plan and preprocessing by nnU-Net; its plans and dataset.json."""
    extract_fingerprints([NUMBER], num_processes=job["threads"], show_progress_bar=False)
    name = plan_experiments([NUMBER], gpu_memory_target_in_gb=job["memory_gb"])
    preprocess([NUMBER], name, ["2d"], [job["threads"]], show_progress_bar=False)
    folder = Path(job["preprocessed"])
    (folder / "splits_final.json").write_text(json.dumps(job["splits"]))
    plans = json.loads((folder / f"{name}.json").read_text())
    return plans, json.loads((folder / "dataset.json").read_text())


def train(job: dict[str, Any], plans: dict[str, Any], about: dict[str, Any]) -> BudgetTrainer:
    # Of the first weights. Its augmentation processes take seeds of their own.
    torch.manual_seed(job["seed"])
    trainer = BudgetTrainer(
        plans={**plans, "continue_training": False},
        configuration="2d",
        fold=0,
        dataset_json=about,
        device=torch.device(job["device"]),
    )
    trainer.budget = Budget(**job["budget"])
    trainer.initialize()
    found = trainer.configuration_manager
    say(f"patch {found.patch_size}, batch {found.batch_size}, {parameters(trainer) / 1e6:.1f} M")
    trainer.run_training()
    return trainer


def parameters(trainer: BudgetTrainer) -> int:
    return sum(p.numel() for p in trainer.network.parameters())


def predict(job: dict[str, Any], trainer: BudgetTrainer) -> float:
    """Class probabilities of the listed images as .npz files; the seconds that took."""
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(
        use_mirroring=job["mirroring"], device=trainer.device, allow_tqdm=False
    )
    network: Any = getattr(trainer.network, "_orig_mod", trainer.network)
    predictor.manual_initialization(
        network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    say(f"predicting {len(job['predict'])} images")
    started = time.perf_counter()
    predictor.predict_from_files_sequential(
        [files for files, _ in job["predict"]],
        [target for _, target in job["predict"]],
        save_probabilities=True,
    )
    return time.perf_counter() - started


def main() -> int:
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    started = time.perf_counter()
    plans, about = prepare(job)
    planned = time.perf_counter() - started
    trainer = train(job, plans, about)
    seconds = predict(job, trainer)
    plan = plans["configurations"]["2d"]
    result = {
        "plan": {
            "patch": [int(n) for n in plan["patch_size"]],
            "batch": int(plan["batch_size"]),
            "features": plan["architecture"]["arch_kwargs"]["features_per_stage"],
            "normalization": plan["normalization_schemes"],
            "parameters": parameters(trainer),
        },
        "training": {
            "minutes": trainer.seconds / 60,
            "wall_minutes": trainer.wall / 60,
            "data_share": trainer.waited / max(trainer.seconds, 1e-9),
            "megapixels": trainer.pixels / 1e6,
            "steps": trainer.steps,
            "epochs": trainer.steps / STEPS_PER_EPOCH,
            "curve": trainer.curve,
        },
        "seconds": {"planning and preprocessing": planned, "prediction": seconds},
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "torch_threads": torch.get_num_threads(),
    }
    path.with_name("result.json").write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
