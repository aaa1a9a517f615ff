"""Peak memory and time of log p_k1 (Eq. 4), forward and backward, in blocks and with the full B x B matrix.

    python -m benchmarks.contrastive [--record]

Each measurement runs in a separate process. Memory is in addition to imports and latents.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.report import record

SIZES = (1024, 4096, 16_384)
MEASURE = """
import resource, sys, time
import torch
import torch.nn.functional as F
from nemo_cmim.losses import log_p_k1

def full_matrix(z_BKD, tau):
    unit_BH = F.normalize(z_BKD.flatten(1), dim=1)
    s_BB = unit_BH @ unit_BH.T / tau
    negatives_BB = s_BB.masked_fill(torch.eye(len(s_BB), dtype=torch.bool), -torch.inf)
    s_bar_B = torch.logsumexp(negatives_BB, 1) - torch.log(torch.tensor(len(s_BB) - 1.0))
    return -F.softplus(s_bar_B - s_BB.diagonal())

function = {"blocks": log_p_k1, "full": full_matrix}[sys.argv[1]]
torch.manual_seed(0)
z = torch.randn(int(sys.argv[2]), 1, 512, requires_grad=True)
function(z[:64], 1.0).sum().backward()
z.grad = torch.zeros_like(z)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
loss = -function(z, 1.0).mean()
loss.backward()
seconds = time.perf_counter() - start
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10, seconds, loss.item(), z.grad.norm().item())
"""


def measure(function: str, molecules: int) -> list[float]:
    """Additional memory in MB, seconds, loss, and norm of the gradient."""
    done = subprocess.run([sys.executable, "-c", MEASURE, function, str(molecules)], check=True, stdout=subprocess.PIPE, text=True)
    return [float(value) for value in done.stdout.split()]


def main() -> None:
    """Measures all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    lines = ["| B | blocks, MB | full matrix, MB | ratio | blocks, s | full matrix, s |", "|---|---|---|---|---|---|"]
    for molecules in SIZES:
        (mb, seconds, loss, norm), (full_mb, full_seconds, full_loss, full_norm) = (
            measure(f, molecules) for f in ("blocks", "full")
        )
        assert abs(loss - full_loss) < 1e-4 and abs(norm - full_norm) < 1e-3 * full_norm, "losses or gradients differ"
        lines.append(f"| {molecules:,} | {mb:.0f} | {full_mb:.0f} | {full_mb / mb:.1f} | {seconds:.2f} | {full_seconds:.2f} |")
    lines += [
        "",
        "Latents of 1 x 512, blocks of 1,024 rows, one forward and one backward pass; losses and gradients of both agree.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Contrastive term", "python -m benchmarks.contrastive --record", lines, seed=0)


if __name__ == "__main__":
    main()
