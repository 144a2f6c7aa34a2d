"""What the coding environments share: a team writes one Python program, function by function, and tests judge it.

An environment of your own needs problems only:

    >>> from textmarl.envs import TaskSet
    >>> from textmarl.envs.coding.checks import humaneval_suite
    >>> from textmarl.envs.coding.problem import Problem
    >>> prompt = 'def double(x):\\n    \\"\\"\\"Twice x.\\"\\"\\"\\n'
    >>> tests = "def check(candidate):\\n    assert candidate(2) == 4\\n    assert candidate(-1) == -2\\n"
    >>> problem = Problem(prompt, humaneval_suite(prompt, tests, "double"))
    >>> env = CodingEnv(TaskSet.of([{"id": "double", "problem": problem}]))
    >>> observations, infos = env.reset(seed=0)
    >>> helper, main = "def aux(x):\\n    return x + 1", "def double(x):\\n    return x + aux(x) - 1"
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards["main"], infos["main"]["metrics"]["all_passed"]
    (4.0, 1.0)
    >>> env.close()
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from textmarl.envs.coding import feedback as feedbacks
from textmarl.envs.coding import rewards
from textmarl.envs.coding.assembly import Part, Program, assemble, extract
from textmarl.envs.coding.problem import Problem
from textmarl.envs.core import Outcome, TextEnv
from textmarl.envs.sandbox import Record, Replay, Report, Sandbox
from textmarl.envs.tasks import TaskSet

ENOUGH = 0.95
"""An episode ends early with a turn that reaches this part of the maximum."""

# The task comes first, the request last: a small model goes on where the text ends.
_TOGETHER = "{number} programmers write this Python function together.\n\n```python\n{prompt}\n```\n\n"
HELPER_INSTRUCTION = _TOGETHER + (
    "Your part is a helper function `{name}` that does a part of the work and returns the result. Another programmer "
    "writes `{main}`, which calls `{name}(...)`. Write only `{name}`. Answer with Python code only."
)
MAIN_INSTRUCTION = _TOGETHER + (
    "Your part is `{main}`. It can call {helpers}, written by somebody else to do a part of the work. Write only `{main}`. "
    "Answer with Python code only."
)
MAIN_ONLY_INSTRUCTION = (
    "Write this Python function.\n\n```python\n{prompt}\n```\n\n"
    "Write the whole function `{main}`. Answer with Python code only."
)


@dataclass(frozen=True)
class Attempt:
    """What the agents' texts amount to, before it is run.

    Attributes:
        helpers: helper agent -> what its text contributes.
        main: what the main agent's text contributes.
        program: the program made of all of them.
    """

    helpers: Mapping[str, Part]
    main: Part
    program: Program


@dataclass(frozen=True)
class CodeOutcome(Outcome):
    """What one joint answer is worth, and what was found in it.

    Attributes:
        findings: what feedback is made of.
        proposals: agent -> the expert's proposal, in the mode "expert", unless the episode ends.
    """

    findings: feedbacks.Findings = field(default_factory=lambda: feedbacks.Findings({}))
    proposals: Mapping[str, str] = field(default_factory=dict)


class CodingEnv(TextEnv):
    """Helpers and a main agent write one program; scored by the published reward of `textmarl.envs.coding.rewards`.

    A subclass says where the problems come from. One with a reward of its own replaces `judge`, `term_names` and
    `max_score`: `attempt` makes a program of the texts, `run` tests programs, `outcome` adds what every reward reports.

    Attributes:
        helpers: helper agent -> the name of the function that it writes. The main agent writes the entry point.
        individual_rewards: of an environment that was made, True with `reward="individual"` only.

    Args:
        tasks: the tasks to draw from; the column `problem` of each holds its `Problem`.
        main_only: True leaves the helpers out: the one agent `main` writes the entry point, at most 2.1 points.
        feedback: what agents read from the second turn on: "level", "passed", "plain" or "expert"
            (`textmarl.envs.coding.feedback`).
        expert: proposes the edits of the mode "expert": `expert(review)` returns agent -> text.
        shown_tests: how many tests of a problem, from the first, feedback may name; None: as the problem says (one).
        sandbox: a `Sandbox` of yours, which stays open; or the level of one that is made when the first program runs, with
            the published limits (10 s a test, at most 3 time-outs); None: the strongest level that holds here.
            Copies of the environment share it, and its processes end with the last copy.
        reward_shift: None: 0 with one turn; with several minus the maximum (for individual rewards each agent's own), so
            that ending early is never worth less than going on. A class with `progress_rewards` needs none: 0.
        **options: `reward`, `reward_fn`, `max_score`, `max_turns`, `max_cycles` and `render_mode` of `TextEnv`.

    Raises:
        TypeError, ValueError: tasks without problems, or options that make no sense.
        textmarl.envs.sandbox.SandboxUnavailable: by the first `step` that runs a program, where the level does not hold.
    """

    possible_agents = ["helper", "main"]
    helpers: Mapping[str, str] = {"helper": "aux"}
    term_names: tuple[str, ...] = rewards.TERMS
    metric_names: tuple[str, ...] = ("pass_rate", "all_passed", "timeouts")
    success_metric = "all_passed"
    max_score = rewards.MAX_SCORE
    main_only_max_score = rewards.SINGLE_MAX_SCORE
    individual_rewards = True

    _SHARED = TextEnv._SHARED | {"helpers", "expert", "_sandbox"}

    def __init__(
        self,
        tasks: TaskSet,
        *,
        main_only: bool = False,
        feedback: feedbacks.Mode = "level",
        expert: feedbacks.Expert | None = None,
        shown_tests: int | None = None,
        sandbox: Sandbox | Literal["strict", "confined", "process"] | None = None,
        reward_shift: float | Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        for task in tasks:
            if not isinstance(task.data.get("problem"), Problem):
                raise TypeError(
                    f"Task {task.id!r} needs a column 'problem' with a Problem; it has {sorted(task.data)}."
                )
        if feedback not in feedbacks.MODES:
            raise ValueError(f"feedback must be one of {feedbacks.MODES}, not {feedback!r}.")
        if (feedback == "expert") != (expert is not None) or not (expert is None or callable(expert)):
            raise ValueError(
                'feedback="expert" and expert=, a callable `expert(review) -> {agent: text}`, go together: '
                f"got feedback={feedback!r} and expert={expert!r}."
            )
        if shown_tests is not None and (type(shown_tests) is not int or shown_tests < 0):
            raise ValueError(f"shown_tests must be a number of tests or None, not {shown_tests!r}.")
        self.feedback, self.expert, self.shown_tests = feedback, expert, shown_tests
        self._sandbox = _SharedSandbox(sandbox)
        if main_only:
            self.possible_agents, self.helpers = self.possible_agents[-1:], {}
            self.max_score = self.main_only_max_score
        self.full_score = (
            self.max_score
        )  # that of the environment's own reward, whatever `max_score` reports divide by
        self.concurrency = 1 if expert is not None else _cores()
        super().__init__(tasks, reward_shift=0.0 if reward_shift is None else reward_shift, **options)
        # The main agent's takes a second run of the tests, which is made only where it is paid.
        self.individual_rewards = self.reward == "individual"
        if reward_shift is None and self.max_turns > 1 and not self.progress_rewards:
            self.reward_shift = {agent: -self._maximum(agent) for agent in self.possible_agents}

    # ------------------------------------------------------------------------------------------------- the problem

    @property
    def problem(self) -> Problem:
        """The current task's problem."""
        return self.task.data["problem"]  # type: ignore[no-any-return]

    @property
    def shown(self) -> int:
        """How many tests of the current problem, from the first, feedback may name."""
        return self.problem.shown if self.shown_tests is None else self.shown_tests

    def function_of(self, agent: str) -> str:
        """The name of the function that an agent writes."""
        return self.helpers.get(agent, self.problem.entry_point)

    def observe(self, agent: str) -> str:
        """The agent's instruction with the prompt; from the second turn on the feedback."""
        name = self.function_of(agent)
        if self.history:
            return f"{self._feedback(agent)}\n\n{feedbacks.request(name)}"
        instruction = HELPER_INSTRUCTION
        if agent not in self.helpers:
            instruction = MAIN_INSTRUCTION if self.helpers else MAIN_ONLY_INSTRUCTION
        helpers = _listed([f"`{helper}(...)`" for helper in self.helpers.values()])
        number = {2: "Two", 3: "Three", 4: "Four"}.get(
            len(self.possible_agents), str(len(self.possible_agents))
        )
        texts = {"number": number, "name": name, "main": self.problem.entry_point, "helpers": helpers}
        for word, text in texts.items():
            instruction = instruction.replace(f"{{{word}}}", text)
        return instruction.replace("{prompt}", self.problem.prompt.strip("\n").rstrip())

    def _feedback(self, agent: str) -> str:
        outcome = self.history[-1].outcome
        assert isinstance(outcome, CodeOutcome), "judge() of a coding environment returns what outcome() made"
        match self.feedback:
            case "level":
                return feedbacks.level(outcome.findings, self.problem, self.shown, reader=agent)
            case "passed":
                return feedbacks.passed(outcome.findings, self.problem)
            case "plain":
                return feedbacks.plain(outcome.findings.functions[agent])
            case "expert":
                return feedbacks.advice(outcome.proposals, agent)

    # -------------------------------------------------------------------------------------------------- the reward

    def judge(self, responses: dict[str, str]) -> Outcome:
        """The published reward of the program; with individual rewards that of each text alone, too."""
        attempt = self.attempt(responses)
        programs = [attempt.program]
        if self.individual_rewards:
            programs.append(assemble(self.problem.prelude, [attempt.main]))
        reports = self.run(attempt.main, *dict.fromkeys(programs))
        report = reports.get(attempt.program)
        individual: dict[str, float] | None = None
        if self.individual_rewards:
            individual = {agent: rewards.helper_reward(part) for agent, part in attempt.helpers.items()}
            alone = programs[-1]
            individual[self.possible_agents[-1]] = rewards.main_reward(
                attempt.main, alone, reports.get(alone)
            )
        helper = next(iter(attempt.helpers.values()), None)
        terms = rewards.score_terms(helper, attempt.main, attempt.program, report)
        return self.outcome(responses, attempt, report, terms, individual)

    def attempt(self, responses: Mapping[str, str]) -> Attempt:
        """What the texts amount to. Any texts do."""
        entry_point, owned = self.problem.entry_point, set(self.helpers.values())
        helpers = {
            agent: extract(responses[agent], name, drop=({entry_point} | owned) - {name})
            for agent, name in self.helpers.items()
        }
        main = extract(responses[self.possible_agents[-1]], entry_point, drop=owned)
        return Attempt(helpers, main, assemble(self.problem.prelude, [*helpers.values(), main]))

    def run(
        self, main: Part, *programs: Program, helper: Record | Replay | None = None
    ) -> dict[Program, Report]:
        """What the current problem's tests say about programs that may run (`rewards.may_run`); side by side.

        Args:
            main: the main agent's part of all of them.
            programs: distinct ones.
            helper: what the sandbox should do with a helper in all of them.
        """
        runnable = [program for program in programs if rewards.may_run(main, program)]
        if not runnable:
            return {}
        pairs = [(program.source, self.problem.suite) for program in runnable]
        return dict(zip(runnable, self._sandbox.get().run_many(pairs, helper), strict=True))

    def outcome(
        self,
        responses: Mapping[str, str],
        attempt: Attempt,
        report: Report | None,
        terms: Mapping[str, float],
        individual: Mapping[str, float] | None,
        metrics: Mapping[str, float] | None = None,
        remarks: Sequence[str] | None = None,
    ) -> CodeOutcome:
        """Adds what every reward of code reports: whether the episode ends, metrics, and what feedback is made of.

        Args:
            responses: agent -> what it wrote.
            attempt: what the texts amount to.
            report: of the attempt's program; None where it did not run.
            terms: those of the team reward.
            individual: agent -> its own reward; None where `individual_rewards` is False.
            metrics: those that a subclass has beside the ones declared here.
            remarks: what the feedback "level" says of the cooperation, a sentence each; None: what version 0 pays for.
        """
        findings = self._findings(attempt, report, remarks)
        rate = rewards.pass_rate(report)
        finished = math.fsum(terms.values()) >= ENOUGH * self.full_score - 1e-9
        proposals: Mapping[str, str] = {}
        if self.expert is not None and not finished and self.turn + 1 < self.max_turns:
            proposals = self._proposals(responses, findings)
        verdicts = report.verdicts if report is not None else ()
        return CodeOutcome(
            terms=terms,
            individual=individual,
            finished=finished,
            metrics={
                "pass_rate": rate,
                "all_passed": float(rate == 1.0),
                "timeouts": float(sum(verdict.outcome == "timeout" for verdict in verdicts)),
                **(metrics or {}),
            },
            findings=findings,
            proposals=proposals,
        )

    def close(self) -> None:
        """Lets go of the sandbox; its processes end when no copy of the environment holds it. It can be used again."""
        self._sandbox = self._sandbox.another()

    # ------------------------------------------------------------------------------------------------------ inside

    def _maximum(self, agent: str) -> float:
        if self.reward != "individual":
            return self.max_score
        return rewards.HELPER_MAX_SCORE if agent in self.helpers else rewards.SINGLE_MAX_SCORE

    def _findings(
        self, attempt: Attempt, report: Report | None, remarks: Sequence[str] | None
    ) -> feedbacks.Findings:
        parts = {**attempt.helpers, self.possible_agents[-1]: attempt.main}
        if remarks is None:
            remarks = self._uses(attempt)
        return feedbacks.Findings(
            functions={
                agent: feedbacks.Function(part.role_name, part.code, part.defined, part.returns, part.error)
                for agent, part in parts.items()
            },
            error=attempt.program.error,
            report=report,
            remarks=tuple(remarks),
        )

    def _uses(self, attempt: Attempt) -> list[str]:
        """What the main function does with each helper that is written; nothing where the program cannot run."""
        main, written = attempt.main, [part for part in attempt.helpers.values() if rewards.is_written(part)]
        if not rewards.may_run(main, attempt.program):
            return []
        return [
            feedbacks.use_line(rewards.use_of(main, part.role_name), part.role_name, main.role_name)
            for part in written
        ]

    def _proposals(self, responses: Mapping[str, str], findings: feedbacks.Findings) -> Mapping[str, str]:
        assert self.expert is not None
        names = {agent: self.function_of(agent) for agent in self.possible_agents}
        text = feedbacks.level(findings, self.problem, self.shown)
        proposals = self.expert(feedbacks.Review(self.problem.prompt, names, dict(responses), text))
        if (
            not isinstance(proposals, Mapping)
            or not set(proposals) <= set(self.possible_agents)
            or not all(isinstance(proposal, str) for proposal in proposals.values())
        ):
            raise TypeError(
                f"expert must return a text for each of {self.possible_agents} that it advises, as {{agent: text}}, "
                f"not {proposals!r:.200}."
            )
        return dict(proposals)


class _SharedSandbox:
    """The sandbox of an environment and its copies: one that was given, or one made when it is first needed."""

    def __init__(self, given: Any) -> None:
        if not (given is None or isinstance(given, Sandbox) or given in ("strict", "confined", "process")):
            raise ValueError(
                f"sandbox must be a Sandbox, 'strict', 'confined', 'process' or None, not {given!r}."
            )
        self._given = given
        self._made: Sandbox | None = None
        self._lock = threading.Lock()

    def get(self) -> Sandbox:
        if isinstance(self._given, Sandbox):
            return self._given
        with self._lock:
            if self._made is None:
                self._made = Sandbox(self._given)  # the default limits are the published ones
            return self._made

    def another(self) -> _SharedSandbox:
        return _SharedSandbox(self._given)

    def __reduce__(self) -> tuple[Any, ...]:
        return _SharedSandbox, (self._given,)


def _listed(texts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def _cores() -> int:
    """Programs that a sandbox of ours runs at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
