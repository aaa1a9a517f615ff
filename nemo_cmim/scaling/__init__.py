"""Plans a training run: floating-point operations, parameters, step time, memory and communication, from sizes alone. No torch."""

from .flops import Workload, forward_flops, training_flops
from .machines import MACHINES, Machine, machine_named
from .network_file import read_network
from .parameters import parameters
from .plan import Plan, Prediction, predict
from .table import describe, table

__all__ = [
    "MACHINES",
    "Machine",
    "Plan",
    "Prediction",
    "Workload",
    "describe",
    "forward_flops",
    "machine_named",
    "parameters",
    "predict",
    "read_network",
    "table",
    "training_flops",
]
