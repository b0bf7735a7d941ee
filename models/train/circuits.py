"""Initial weights that already know how to copy.

A model this small, trained this briefly, is slow to discover that it may copy a name, a topic or
a number from the prompt. So one attention head of layer 0 starts by looking at the previous token,
and one head of layer 1 looks for the place where the current token stood before and copies what
followed (an induction head: Elhage et al. 2021, Olsson et al. 2022). The first head of every later
layer starts with the copying output and learns where to look. Everything else is random or zero,
and everything is trained. Rotary pairs p and p + D/2 turn with frequency theta^(-2p/D).
"""

import torch

CONSTANT = 0
EMBED_STD, CONSTANT_VALUE = 0.04, 0.16
PREVIOUS_WRITE, COPY_WRITE = 0.05, 0.05


def basis(rows, columns):
    """Random orthonormal rows that ignore the constant coordinate."""
    q, _ = torch.linalg.qr(torch.randn(columns - 1, rows))
    return torch.cat([torch.zeros(rows, 1), q.T], dim=1)


def previous_token_head(attn, theta, read, write):
    """Head 0 attends one position back, and writes `read` of that token into `write`."""
    d = attn.dim
    for p in range(4):
        frequency = torch.tensor(theta ** (-2 * p / d))
        size = (8 * d**0.5 / 8) ** 0.5 * 2 / 4 * 2**0.5
        attn.k_proj.weight[[p, p + d // 2]] = 0
        attn.q_proj.weight[[p, p + d // 2]] = 0
        attn.k_proj.weight[p, CONSTANT] = size
        attn.q_proj.weight[p, CONSTANT] = size * frequency.cos()
        attn.q_proj.weight[p + d // 2, CONSTANT] = -size * frequency.sin()
    keep = [i for i in range(d) if i % (d // 2) >= 4]
    attn.q_proj.weight[keep] *= 0.1
    attn.v_proj.weight[:d] = read
    attn.o_proj.weight[:, :d] = PREVIOUS_WRITE * write.T


def induction_head(attn, read, write, sharpness):
    """Head 0 attends to positions whose previous token is the current one."""
    d = attn.dim
    slow = [i for i in range(d) if i % (d // 2) >= d // 4]
    attn.q_proj.weight[:d] *= 0.1
    attn.k_proj.weight[:d] *= 0.1
    attn.q_proj.weight[slow] = sharpness * read[: len(slow)]
    attn.k_proj.weight[slow] = sharpness * write[: len(slow)]


def copy_output(attn, hidden, strength):
    """The first key/value head carries tokens, and head 0 writes them back as they are."""
    d = attn.dim
    carry = basis(d, hidden)
    attn.v_proj.weight[:d] = carry
    attn.o_proj.weight[:, :d] = strength * carry.T


@torch.no_grad()
def initialise(model, sharpness=2.0):
    """Sets the starting weights of a `Llama` from torch's seeded generator."""
    c = model.config
    hidden, d = c["hidden_size"], c["head_dim"]
    for name, p in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            p.zero_()
        elif p.dim() == 2:
            p.normal_(std=EMBED_STD if "embed" in name else hidden**-0.5)
    model.model.embed_tokens.weight[:, CONSTANT] = CONSTANT_VALUE
    layers = [layer.self_attn for layer in model.model.layers]
    read, write = basis(d, hidden), basis(d, hidden)
    previous_token_head(layers[0], c["rope_theta"], read, write)
    for attn in layers[1:]:
        copy_output(attn, hidden, COPY_WRITE)
    induction_head(layers[1], read, write, sharpness)
