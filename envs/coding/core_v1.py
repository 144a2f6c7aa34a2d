"""What version 1 of the coding environments shares: helpers and a main agent, scored by the hardened reward."""

from __future__ import annotations

import math

from textmarl.envs.coding import feedback_v1, hardened, rewards
from textmarl.envs.coding.assembly import assemble
from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.core import Outcome


class HardenedCodingEnv(CodingEnv):
    """A coding environment scored by the hardened reward, `textmarl.envs.coding.hardened`.

    A step pays what the program is worth more than that of the turn before. With one helper the score of version 0 is
    among the metrics. The feedback "level" tells what this reward found (`textmarl.envs.coding.feedback_v1`).
    """

    term_names = hardened.TERMS
    max_score = hardened.MAX_SCORE
    main_only_max_score = hardened.SINGLE_MAX_SCORE
    metric_names: tuple[str, ...] = ("pass_rate", "all_passed", "timeouts", "v0_score")
    progress_rewards = True

    def judge(self, responses: dict[str, str]) -> Outcome:
        """The hardened reward of the program; with individual rewards that of each text alone, too."""
        attempt = self.attempt(responses)
        helpers, main = list(attempt.helpers.values()), attempt.main
        evidence = hardened.examine(helpers, main, attempt.program, self.problem, self._sandbox.get)
        individual: dict[str, float] | None = None
        if self.individual_rewards:
            individual = {agent: rewards.helper_reward(part) for agent, part in attempt.helpers.items()}
            alone = assemble(self.problem.prelude, [main])
            report = self.run(main, alone).get(alone)
            individual[self.possible_agents[-1]] = rewards.main_reward(main, alone, report)
        metrics = {}
        if "v0_score" in self.metric_names:
            helper = helpers[0] if helpers else None
            published = rewards.score_terms(helper, main, attempt.program, evidence.report)
            metrics["v0_score"] = math.fsum(published.values())
        terms = hardened.score_terms(evidence)
        remarks = feedback_v1.remarks(evidence) if self.turn + 1 < self.max_turns else []
        return self.outcome(responses, attempt, evidence.report, terms, individual, metrics, remarks)
