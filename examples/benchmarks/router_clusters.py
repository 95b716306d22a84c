"""Does a router find the clusters in its data? Setting 1 of arXiv 2208.02813, on one thread in under a minute.

    python examples/benchmarks/router_clusters.py [--seeds 3] [--samples 2000]

An input has four patches of 50 numbers, in random order: a signal +-v_k that carries the label, the centre c_k of its
cluster, the signal of another cluster with a random sign, and noise; v and c are orthonormal, there are four clusters.
Eight experts of eight filters (cubic, or linear) and a linear router that takes the likeliest one, with noise from 0 to 1
on its logits while it learns; beside them one network of as many filters. Experts take normalised gradient steps of 0.001
from weights of 0.001, the router plain ones of 0.1 from 0; inputs are ten times as large. On fresh data: accuracy, and
dispatch entropy H = sum_m n_m / n * -sum_c p_m(c) ln p_m(c), of the clusters that an expert gets: 0 where each sees one,
ln 4 = 1.39 where routing ignores them.
"""

import argparse
import math
import time
from statistics import median

import torch

CLUSTERS, SIZE, PATCHES, STEPS = 4, 50, 4, 501
EXPERT_RATE, ROUTER_RATE, START, SCALE = 1e-3, 0.1, 1e-3, 10.0
# name -> (experts, filters of each, whether they are cubic)
NETWORKS = {"nonlinear experts": (8, 8, True), "linear experts": (8, 8, False), "a single network": (1, 64, True)}


def draw(samples: int, basis: torch.Tensor, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(inputs (samples, patches, size), labels +-1, clusters). basis: (size, size) orthonormal rows."""
    cluster = torch.randint(CLUSTERS, (samples,), generator=draws)
    other = (cluster + torch.randint(1, CLUSTERS, (samples,), generator=draws)) % CLUSTERS
    label, sign = torch.randint(2, (2, samples), generator=draws) * 2 - 1
    first, second, third = torch.rand(3, samples, generator=draws)
    signals, centres = basis[:CLUSTERS], basis[CLUSTERS : 2 * CLUSTERS]
    patches = torch.randn(samples, PATCHES, SIZE, generator=draws) / math.sqrt(SIZE)
    patches[:, 0] = ((0.5 + 1.5 * first) * label)[:, None] * signals[cluster]
    patches[:, 1] = (1.0 + second)[:, None] * centres[cluster]
    patches[:, 2] = ((0.5 + 2.5 * third) * sign)[:, None] * signals[other]
    order = torch.rand(samples, PATCHES, generator=draws).argsort(1)
    shuffled = patches.gather(1, order[:, :, None].expand(-1, -1, SIZE))
    return SCALE * shuffled, label.float(), cluster


def answer(
    inputs: torch.Tensor, filters: torch.Tensor, router: torch.Tensor, cubic: bool, noise: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(output, expert taken) of each sample. filters: (experts, filters, size). router: (size, experts)."""
    logits = inputs.sum(1) @ router
    taken = (logits + noise).argmax(1)
    seen = torch.einsum("npd,mjd->nmpj", inputs, filters)
    said = (seen**3 if cubic else seen).sum((2, 3))
    share = torch.softmax(logits, 1)
    return (share * said).gather(1, taken[:, None])[:, 0], taken


def measure(seed: int, samples: int, experts: int, filters: int, cubic: bool) -> tuple[float, float]:
    """(accuracy, dispatch entropy in nats) on fresh data of a network that was trained on as much."""
    draws = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=draws))[0]
    (inputs, labels, _), (fresh, truth, clusters) = (draw(samples, basis, draws) for _ in range(2))
    weights = (START * torch.randn(experts, filters, SIZE, generator=draws)).requires_grad_()
    router = torch.zeros(SIZE, experts, requires_grad=True)
    for _ in range(STEPS):
        noise = torch.rand(samples, experts, generator=draws)
        output, _ = answer(inputs, weights, router, cubic, noise)
        loss = torch.nn.functional.softplus(-labels * output).mean()
        of_weights, of_router = torch.autograd.grad(loss, [weights, router])
        with torch.no_grad():
            norms = of_weights.flatten(1).norm(dim=1).clamp(min=1e-30)
            weights -= EXPERT_RATE * of_weights / norms[:, None, None]
            router -= ROUTER_RATE * of_router
    with torch.no_grad():
        output, taken = answer(fresh, weights, router, cubic, 0.0)
    counts = torch.zeros(CLUSTERS, experts).index_put_((clusters, taken), torch.ones(samples), accumulate=True)
    shares = counts / counts.sum(0).clamp(min=1)
    entropies = -(shares * shares.clamp(min=1e-12).log()).sum(0)
    return (output * truth > 0).float().mean().item(), (counts.sum(0) / samples * entropies).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    print(
        "| | accuracy, median | lowest to highest | dispatch entropy, median | lowest to highest |\n|---|---|---|---|---|"
    )
    for name, shape in NETWORKS.items():
        results = [measure(seed, asked.samples, *shape) for seed in range(asked.seeds)]
        right, spread = ([result[which] for result in results] for which in (0, 1))
        figures = f"{median(right):.3f} | {min(right):.3f} to {max(right):.3f}"
        print(f"| {name} | {figures} | {median(spread):.2f} | {min(spread):.2f} to {max(spread):.2f} |", flush=True)
    print(f"\n{asked.seeds} seeds, {asked.samples} samples, {time.monotonic() - begun:.0f} seconds")


if __name__ == "__main__":
    main()
