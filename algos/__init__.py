"""How they learn: algorithms, one file each, and the trainer that runs every one of them.

======================= =========================================================================
module                  algorithm
======================= =========================================================================
``magrpo``              MAGRPO (arXiv 2508.04652), with REINFORCE and RLOO as its baselines
``c3``                  contextual counterfactual credit (arXiv 2603.06859)
``collm``               CoLLM-CC and CoLLM-DC (arXiv 2601.21972): actor-critic, one action a turn
``grpo``                GRPO (arXiv 2402.03300): one policy writes the texts of all roles
``igrpo``               independent GRPO: partners resampled, fixed, frozen, or individual rewards
``ippo``                IPPO (arXiv 2011.09533), token-level PPO, and MAPPO (arXiv 2103.01955)
``pmic``                PMIC (arXiv 2203.08553): rewards shaped by mutual information, around any of these
======================= =========================================================================
"""

from textmarl.algos.algorithm import Algorithm, Batch, Group, Sample, resolve, returns
from textmarl.algos.c3 import C3
from textmarl.algos.collm import CoLLM
from textmarl.algos.config import TrainerConfig, validate_run
from textmarl.algos.group_relative import GroupRelative
from textmarl.algos.grpo import GRPO
from textmarl.algos.igrpo import IGRPO
from textmarl.algos.ippo import IPPO
from textmarl.algos.magrpo import MAGRPO
from textmarl.algos.observer import Observer
from textmarl.algos.pmic import PMIC
from textmarl.algos.records import RunDirectory
from textmarl.algos.rollout import Node, Rollout
from textmarl.algos.trainer import Trainer

__all__ = [
    "C3",
    "GRPO",
    "IGRPO",
    "IPPO",
    "MAGRPO",
    "PMIC",
    "Algorithm",
    "Batch",
    "CoLLM",
    "Group",
    "GroupRelative",
    "Node",
    "Observer",
    "Rollout",
    "RunDirectory",
    "Sample",
    "Trainer",
    "TrainerConfig",
    "resolve",
    "returns",
    "validate_run",
]
