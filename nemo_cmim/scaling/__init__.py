"""Floating-point operations of the network, and the planner of training runs (`nemo-cmim plan`). Imports no torch.

Training imports only `flops`, to log FLOP/s. All other modules are the planner: it predicts step time, memory and communication from
sizes. The planner is part of the package, so that it can be used in a container where only the wheel is installed.
"""

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
