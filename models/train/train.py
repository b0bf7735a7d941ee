"""Trains one model from its recipe and writes its safetensors file.

Usage: train.py RECIPE_JSON DATA_DIR MODEL_DIR WORK_DIR [--export]

The learning rate warms up, stays constant and decays to zero at the end (WSD); the last steps use
sequences of the full context, so that every position is trained. Matrices inside the layers
are trained by Muon (momentum orthogonalised by Newton-Schulz iterations, Jordan et al. 2024), the
rest by AdamW. A run that is interrupted goes on from WORK_DIR/state.pt; `--export` only writes the
weights of that state.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from safetensors.torch import save_file

from model import Llama


def orthogonalise(g):
    """Newton-Schulz iterations on a batch of matrices [N, R, C], in bfloat16."""
    x = g.bfloat16()
    wide = x.shape[-2] > x.shape[-1]
    if wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ]:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if wide else x).float()


class Muon:
    """Muon over matrices, grouped by shape so that each group is one batched product."""

    def __init__(self, params, momentum=0.95):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum = momentum
        self.buffers = {s: torch.zeros(len(ps), *s) for s, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, lr, decay):
        """One update with learning rate `lr` and decoupled weight decay."""
        for shape, params in self.groups.items():
            grad = torch.stack([p.grad for p in params])
            buffer = self.buffers[shape]
            buffer.lerp_(grad, 1 - self.momentum)
            update = orthogonalise(grad.lerp(buffer, self.momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for p, u in zip(params, update):
                p.mul_(1 - lr * decay).add_(u, alpha=-lr * scale)


class Data:
    """Draws packed sequences in a seeded order; each token is seen once in an epoch."""

    def __init__(self, folder):
        self.ids = np.load(os.path.join(folder, "ids.npy"), mmap_mode="r")
        self.weights = np.load(os.path.join(folder, "weights.npy"), mmap_mode="r")
        self.at = 0

    def batch(self, rows, length):
        """Inputs, targets and target weights of the next `rows` sequences."""
        need = rows * length
        if self.at + need + 1 > len(self.ids):
            self.at = 0
        ids = torch.from_numpy(self.ids[self.at : self.at + need + 1].astype(np.int64))
        weights = torch.from_numpy(
            self.weights[self.at + 1 : self.at + need + 1].astype(np.float32)
        )
        self.at += need
        return (
            ids[:-1].view(rows, length),
            ids[1:].view(rows, length),
            weights.view(rows, length) / 100,
        )


def schedule(step, r):
    """The learning rate's factor at `step`."""
    if step < r["warmup_steps"]:
        return (step + 1) / r["warmup_steps"]
    left = r["steps"] - step
    return min(1.0, left / r["decay_steps"])


def save(model, folder):
    """Writes the weights in bfloat16 under Hugging Face's names; tied weights once."""
    tensors = {k: v.detach().bfloat16().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


class Trainer:
    """Model, optimisers and data of one run."""

    def __init__(self, recipe, data, config, work):
        self.r, self.work = recipe, work
        torch.manual_seed(recipe["seed"])
        self.model, self.data = Llama(config), Data(data)
        matrices = [
            p for n, p in self.model.named_parameters() if p.dim() == 2 and "embed" not in n
        ]
        others = [p for n, p in self.model.named_parameters() if p.dim() == 1 or "embed" in n]
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(
            others, lr=recipe["lr_adam"], betas=(0.9, 0.98), weight_decay=0.0
        )
        self.loss = (
            torch.compile(self.model.loss, dynamic=False) if recipe["compile"] else self.model.loss
        )
        self.start = 0
        self.state_file = os.path.join(work, "state.pt")
        if os.path.exists(self.state_file):
            self.load()

    def load(self):
        """Goes on from the last saved state."""
        state = torch.load(self.state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        for key, value in state["muon"]:
            self.muon.buffers[tuple(key)] = value
        self.start, self.data.at = state["step"], state["at"]

    def checkpoint(self, step):
        """Saves everything that `load` needs."""
        state = {
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "step": step,
            "at": self.data.at,
            "muon": [(list(k), v) for k, v in self.muon.buffers.items()],
        }
        torch.save(state, self.state_file + ".new")
        os.replace(self.state_file + ".new", self.state_file)

    def step(self, step):
        """One optimiser step; returns the mean loss of its micro-batches."""
        r, total = self.r, 0.0
        length = r["long_length"] if step >= r["steps"] - r["long_steps"] else r["length"]
        rows = r["tokens_per_step"] // r["micro_batches"] // length
        for _ in range(r["micro_batches"]):
            ids, targets, weights = self.data.batch(rows, length)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = self.loss(ids, targets, weights) / r["micro_batches"]
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = schedule(step, r)
        for group in self.adam.param_groups:
            group["lr"] = r["lr_adam"] * factor
        self.adam.step()
        self.muon.step(r["lr_muon"] * factor, r["weight_decay"])
        self.model.zero_grad(set_to_none=True)
        return total

    def run(self):
        """Trains to the end of the recipe."""
        began, mean = time.time(), None
        for step in range(self.start, self.r["steps"]):
            loss = self.step(step)
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            done = step + 1 - self.start
            if (step + 1) % 20 == 0:
                rate = done * self.r["tokens_per_step"] / (time.time() - began)
                print(
                    f"{time.strftime('%H:%M:%S')} step {step + 1}/{self.r['steps']} loss"
                    f" {loss:.4f} mean {mean:.4f} {rate:.0f} tokens/s",
                    flush=True,
                )
            if (step + 1) % 200 == 0:
                self.checkpoint(step + 1)
        self.checkpoint(self.r["steps"])


def main():
    """Reads the recipe and trains."""
    with open(sys.argv[1], encoding="utf-8") as f:
        recipe = json.load(f)
    data, folder, work = sys.argv[2:5]
    export = sys.argv[5:] == ["--export"]
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    os.makedirs(work, exist_ok=True)
    torch.set_num_threads(recipe["threads"])
    trainer = Trainer(recipe, data, config, work)
    if not export:
        trainer.run()
    save(trainer.model, folder)
    print("saved", folder, flush=True)


if __name__ == "__main__":
    main()
