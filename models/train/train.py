"""Trains one model from its recipe and writes its safetensors file.

Usage: train.py RECIPE_JSON DATA_DIR MODEL_DIR WORK_DIR [--export]

Each step reads whole documents of similar length, one in a row; every `long_every` steps it reads
rows of the full context instead, so that every position is trained; in the beginning, some steps
are copying drills. The learning rate warms up, stays constant and decays to zero at the end (WSD).
Matrices inside the layers are trained by Muon (momentum orthogonalised by Newton-Schulz
iterations, Jordan et al. 2024), the rest by AdamW. The work is split over `ranks` processes of one
thread. An interrupted run goes on from WORK_DIR/state.pt; `--export` only writes its weights.
"""

import json
import os
import socket
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

import circuits
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
    """Draws batches from the corpus in order; each token is seen at most once in an epoch.

    A document is everything from one beginning-of-text token (id 0) to the next.
    """

    WINDOW = 64

    def __init__(self, folder, recipe):
        self.r = recipe
        self.folder, self.short = folder, False
        self.open("")
        self.queue_step = 0

    def open(self, suffix):
        """Starts at the beginning of a corpus: "" is the main one, "-short" the second."""
        folder = self.folder + suffix
        self.ids = np.load(os.path.join(folder, "ids.npy"), mmap_mode="r")
        self.weights = np.load(os.path.join(folder, "weights.npy"), mmap_mode="r")
        self.at, self.queue_start, self.queue = 0, 0, []

    def switch(self, step):
        """Changes to the corpus of short answers when its time has come."""
        if step >= self.r["short_from"] and not self.short:
            self.short = True
            self.open("-short")

    def documents(self, step):
        """Whole documents of similar length, one in each row."""
        if not self.queue:
            self.fill(step)
        starts = self.queue.pop()
        length = -(-max(end - start for start, end in starts) // 16) * 16
        ids = np.zeros((len(starts), length + 1), np.int64)
        weights = np.zeros((len(starts), length + 1), np.float32)
        for row, (start, end) in enumerate(starts):
            ids[row, : end - start] = self.ids[start:end]
            weights[row, : end - start] = self.weights[start:end]
        ids, weights = torch.from_numpy(ids), torch.from_numpy(weights) / 100
        return ids[:, :-1], ids[:, 1:], weights[:, 1:]

    def fill(self, step):
        """Sorts the next documents by length into batches, and shuffles the batches.

        From step `thin_from` on, most long documents are left out, in favour of short answers.
        """
        tokens, longest = self.r["tokens_per_step"], self.r["long_length"]
        take = self.WINDOW * tokens
        self.queue_step = step
        if self.at + take > len(self.ids):
            self.at = 0
        self.queue_start = self.at
        starts = self.at + np.flatnonzero(self.ids[self.at : self.at + take] == 0)
        self.at = int(starts[-1])
        pairs = [(a, min(b, a + longest)) for a, b in zip(starts[:-1], starts[1:])]
        if step >= self.r["thin_from"] and not self.short:
            above, keep = self.r["thin_above"], int(self.r["thin_keep"] * 2**32)
            pairs = [p for p in pairs if p[1] - p[0] <= above or p[0] * 2654435761 % 2**32 < keep]
        pairs.sort(key=lambda p: p[1] - p[0])
        batch = []
        for pair in pairs:
            length = -(-(pair[1] - pair[0]) // 16) * 16
            if batch and (len(batch) + 1) * length > tokens:
                self.queue.append(batch)
                batch = []
            batch.append(pair)
        self.queue.append(batch)
        np.random.default_rng(self.queue_start).shuffle(self.queue)

    def conversations(self, rows, length):
        """Rows of the full context: many documents under one beginning-of-text token."""
        taken, count = self.ids[self.at : self.at + 2 * rows * length], rows * length + 1
        keep = np.flatnonzero(taken != 0)[:count]
        ids = torch.from_numpy(taken[keep].astype(np.int64))
        weights = self.weights[self.at : self.at + len(taken)][keep].astype(np.float32) / 100
        self.at += int(keep[-1])
        inputs = ids[:-1].view(rows, length).clone()
        inputs[:, 0] = 0
        return inputs, ids[1:].view(rows, length), torch.from_numpy(weights[1:]).view(rows, length)


def drill(step, vocab, rows=80, length=48):
    """Rows of random tokens that repeat with a period; only the repeats count.

    Small models find it hard to learn to copy (a name, a topic, a number) from prose alone; these
    drills teach the attention pattern for it, as induction heads, in a few hundred steps.
    """
    rng = np.random.default_rng(step)
    ids = np.zeros((rows, length + 1), np.int64)
    weights = np.zeros((rows, length + 1), np.float32)
    for row in range(rows):
        period = rng.integers(4, 24)
        ids[row, 1:] = np.resize(rng.integers(5, vocab - 4, period), length)
        weights[row, period + 1 :] = 1.0
    ids, weights = torch.from_numpy(ids), torch.from_numpy(weights)
    return ids[:, :-1], ids[:, 1:], weights[:, 1:]


def schedule(step, r):
    """The learning rate's factor at `step`."""
    if step < r["warmup_steps"]:
        return (step + 1) / r["warmup_steps"]
    return min(1.0, (r["steps"] - step) / r["decay_steps"])


def save(model, folder):
    """Writes the weights in bfloat16 under Hugging Face's names; tied weights once."""
    tensors = {k: v.detach().bfloat16().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


class Trainer:
    """Model, optimisers and data of one run."""

    def __init__(self, recipe, data, config, work, rank=0, ranks=1):
        self.r, self.work, self.rank, self.ranks = recipe, work, rank, ranks
        torch.manual_seed(recipe["seed"])
        self.model, self.data = Llama(config), Data(data, recipe)
        circuits.initialise(self.model)
        matrices = [
            p for n, p in self.model.named_parameters() if p.dim() == 2 and "embed" not in n
        ]
        others = [p for n, p in self.model.named_parameters() if p.dim() == 1 or "embed" in n]
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(
            others, lr=recipe["lr_adam"], betas=(0.9, 0.98), weight_decay=0.0
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
        self.data.switch(state["step"] - 1)
        self.start, self.data.at = state["step"], state["at"]
        if state.get("queued"):
            self.data.at = state["queue_start"]
            self.data.fill(state.get("queue_step", 0))
            self.data.queue = self.data.queue[: state["queued"]]
            self.data.at = state["at"]

    def checkpoint(self, step):
        """Saves everything that `load` needs."""
        data = self.data
        state = {
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "muon": [(list(k), v) for k, v in self.muon.buffers.items()],
            "step": step,
            "at": data.at,
            "queue_start": data.queue_start,
            "queue_step": data.queue_step,
            "queued": len(data.queue),
        }
        torch.save(state, self.state_file + ".new")
        os.replace(self.state_file + ".new", self.state_file)

    def drills(self, step):
        """Whether this step is a copying drill."""
        r = self.r
        return r["drill_from"] <= step < r["drill_to"] and step % r["drill_every"] == 0

    def batch(self, step):
        """The inputs, targets and weights of a step: a drill, conversations or documents."""
        r = self.r
        self.data.switch(step)
        if self.drills(step):
            return drill(step, self.model.config["vocab_size"])
        if step % r["long_every"] == 0:
            return self.data.conversations(r["long_rows"], r["long_length"])
        return self.data.documents(step)

    def step(self, step):
        """One optimiser step; returns its loss. Each rank takes its share of the rows."""
        r = self.r
        whole = self.batch(step)
        ids, targets, weights = (x[self.rank :: self.ranks] for x in whole)
        share = float(weights.sum() / whole[2].sum())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.model.loss(ids, targets, weights) * share
        loss.backward()
        if self.ranks > 1:
            loss = self.all_reduce(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = schedule(step, r)
        for group in self.adam.param_groups:
            group["lr"] = r["lr_adam"] * factor
        self.adam.step()
        self.muon.step(r["lr_muon"] * factor, r["weight_decay"])
        self.model.zero_grad(set_to_none=True)
        return loss.item()

    def all_reduce(self, loss):
        """Sums gradients and losses over the ranks, so that all take the same step."""
        grads = [p.grad for p in self.model.parameters()]
        flat = torch.cat([g.flatten() for g in grads] + [loss.view(1)])
        dist.all_reduce(flat)
        at = 0
        for grad in grads:
            grad.copy_(flat[at : at + grad.numel()].view_as(grad))
            at += grad.numel()
        return flat[-1]

    def run(self):
        """Trains to the end of the recipe."""
        began, mean, parent = time.time(), None, os.getppid()
        for step in range(self.start, self.r["steps"]):
            if os.getppid() != parent:
                sys.exit("the process that started this rank is gone")
            loss = self.step(step)
            drilled = self.drills(step)
            if not drilled:
                mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            done = step + 1 - self.start
            if drilled and self.rank == 0 and step % 40 == 0:
                print(f"step {step} drill loss {loss:.4f}", flush=True)
            if (step + 1) % 20 == 0 and self.rank == 0:
                rate = done * self.r["tokens_per_step"] / (time.time() - began)
                print(
                    f"{time.strftime('%H:%M:%S')} step {step + 1}/{self.r['steps']} loss"
                    f" {loss:.4f} mean {mean:.4f} {rate:.0f} tokens/s",
                    flush=True,
                )
            if (step + 1) % 50 == 0 and self.rank == 0:
                self.checkpoint(step + 1)


def work_on(rank, recipe, data, folder, work, port):
    """One rank of a run: a process with one thread and its share of each batch."""
    ranks = recipe["ranks"]
    torch.set_num_threads(1)
    if ranks > 1:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    trainer = Trainer(recipe, data, config, work, rank, ranks)
    trainer.run()
    if rank == 0:
        trainer.checkpoint(recipe["steps"])
        save(trainer.model, folder)
        print("saved", folder, flush=True)


def export(recipe, data, folder, work):
    """Writes the weights of the last saved state."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        trainer = Trainer(recipe, data, json.load(f), work)
    save(trainer.model, folder)


def main():
    """Reads the recipe and trains."""
    with open(sys.argv[1], encoding="utf-8") as f:
        recipe = json.load(f)
    data, folder, work = sys.argv[2:5]
    os.makedirs(work, exist_ok=True)
    if sys.argv[5:] == ["--export"]:
        return export(recipe, data, folder, work)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work_on, (recipe, data, folder, work, port), nprocs=recipe["ranks"])


if __name__ == "__main__":
    main()
