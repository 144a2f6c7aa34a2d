"""Credit diagnostics: replays with known answers, every algorithm, and the command on a finished run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from textmarl.agents import Response
from textmarl.agents.scoring import Scores
from textmarl.algos import C3, GRPO, IGRPO, MAGRPO, PMIC, Algorithm, Group, Node, resolve
from textmarl.algos.credit_diagnostics import Diagnosis, above_average, diagnose, locate, spearman
from textmarl.envs import Outcome, TaskSet, TextEnv
from textmarl.envs.protocols import Pipeline, Single

COMA = str(Path(__file__).parents[2] / "examples" / "counterfactual_baseline.py")


class Numbers(TextEnv):
    """Pays ten times the first number and once the second, less what was paid before."""

    possible_agents = ["first", "second"]
    tasks = TaskSet.of(["task"])

    def observe(self, agent: str) -> str:
        return f"{agent} {self.turn}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": 10.0 * int(responses["first"]) + int(responses["second"])})


class Regretted(Numbers):
    """Turn 1 pays the first agent's number x, turn 2 takes back half as much again: x - discount * 1.5 x."""

    def judge(self, responses: dict[str, str]) -> Outcome:
        said = self.history[0].responses if self.history else responses
        return Outcome({"score": (-1.5 if self.history else 1.0) * int(said["first"])})


class Cycle:
    """Writes the given texts in turn, a token each, and knows how likely an answer is after what it reads."""

    def __init__(self, *texts: str, likelihood: Any = lambda read, said: 1.0):
        self.texts = itertools.cycle(texts)
        self.likelihood = likelihood
        self.read: list[str] = []

    def generate(self, conversations: Any, sampling: Any, generator: Any, n: int = 1, *rest: Any) -> Any:
        return [[self.next(conversation) for _ in range(n)] for conversation in conversations]

    def next(self, conversation: Any) -> Response:
        self.read.append(conversation[-1]["content"])
        text = next(self.texts)
        return Response(text, [ord(text[0])], [-1.0], "stop", [len(conversation)])

    def encode(self, conversation: Any) -> list[int]:
        return [ord(character) for character in conversation[-1]["content"]]

    def score(self, prompts: Any, responses: Any, sampling: Any) -> Scores:
        said = ["".join(map(chr, tokens)) for tokens in responses[0]]
        logs = [[math.log(self.likelihood("".join(map(chr, prompts[0])), text))] for text in said]
        return Scores(
            torch.tensor(logs), torch.zeros(len(said), 1), torch.ones(len(said), 1, dtype=torch.bool)
        )


class Claiming(MAGRPO):
    """Credits with whatever it is told a text is worth."""

    def __init__(self, claims: dict[str, dict[str, float]], **settings: Any):
        super().__init__(**settings)
        self.claims = claims

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Any:
        for group in super().credit(roots, agents):
            for sample in group.samples:
                sample.advantage = self.claims[sample.agent][chr(sample.token_ids[0])]
            yield group


def examined(exact: Any, algorithm: Any, env: Any, policies: Any, **settings: Any) -> dict[str, Diagnosis]:
    rollout = exact.rollout(env, policies)
    return diagnose(algorithm, rollout, [(0, 0), (1, 0)], **{"contexts": 4, "replays": 4, **settings})


TRUE = {"first": {"1": -10.0, "2": 0.0, "3": 10.0}, "second": {"1": -1.0, "2": 0.0, "3": 1.0}}


@pytest.mark.parametrize(("sign", "fidelity"), [(1, 1.0), (-1, -1.0), (0, None)])
def test_advantages_that_order_responses_as_they_are_worth_have_fidelity_1(
    exact: Any, sign: int, fidelity: float | None
) -> None:
    """Each agent goes through 1, 2, 3, so every mean over a multiple of three draws of a partner is 2."""
    claims = {agent: {text: sign * value for text, value in own.items()} for agent, own in TRUE.items()}
    found = examined(
        exact, Claiming(claims, group_size=3), Numbers(), {a: Cycle(*"123") for a in TRUE}, replays=6
    )
    assert list(found) == ["first", "second", "all"]
    for name, diagnosis in found.items():
        assert diagnosis.fidelity == (pytest.approx(fidelity) if fidelity else None), name
        assert diagnosis.within == (pytest.approx(fidelity) if fidelity else None)
    assert found["first"].reliability == pytest.approx(1.0)
    assert (found["all"].contexts, found["all"].responses) == (4, 12)
    assert found["first"].variance == pytest.approx(sign**2 * 200 / 3) and found["first"].influence is None


def test_the_halves_of_the_replays_share_nothing() -> None:
    """Where no response is worth more than another, one half tells nothing of the other half, whatever n is."""
    rng = np.random.default_rng(0)
    for n in (1, 2):
        worth = np.array([above_average(rng.normal(size=8), rng.normal(size=8 * n)) for _ in range(4000)])
        between = np.corrcoef(worth[:, :4].mean(axis=1), worth[:, 4:].mean(axis=1))[0, 1]
        assert abs(between) < 0.06, n
    free = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert above_average(np.zeros(3), free).tolist() == [-1.5, -4.5, -4.5]


def test_partners_are_drawn_anew(exact: Any) -> None:
    """The first agent always says the same, so whatever it is credited with is its partner's."""
    policies = {"first": Cycle("2"), "second": Cycle(*"19")}
    found = examined(exact, MAGRPO(group_size=4), Numbers(), policies)
    assert found["second"].fidelity == pytest.approx(1.0)
    assert found["first"].fidelity is None, (
        "its texts are all alike, so replays tell none of them from the others"
    )
    assert found["first"].variance == pytest.approx(1.0), "and yet it is credited"


def test_what_follows_is_played_by_everybody_to_the_end(exact: Any) -> None:
    """Turn 2 pays what turn 1 paid again, on average: what was said first keeps its order."""
    found = examined(
        exact, MAGRPO(group_size=3), Numbers(max_turns=2), {a: Cycle(*"123") for a in TRUE}, replays=6
    )
    assert found["all"].responses == 4 * 2 * 3 and found["first"].fidelity > 0.5  # type: ignore[operator]


@pytest.mark.parametrize(
    "algorithm",
    [
        MAGRPO(group_size=3, discount=0.5),
        C3(fan_out=3, discount=0.5),
        IGRPO(group_size=6, partner="resampled", discount=0.5),
        PMIC(base="magrpo", base_kwargs={"group_size": 3, "discount": 0.5}),
        PMIC(base="c3", base_kwargs={"fan_out": 3, "discount": 0.5}),
    ],
    ids=["magrpo", "c3", "igrpo", "pmic around magrpo", "pmic around c3"],
)
def test_replays_are_worth_their_return_at_the_algorithms_own_discount(exact: Any, algorithm: Any) -> None:
    """At 0.5 a number x is worth 0.25 x, at 1 it would be worth -0.5 x: the order is the other way round."""
    algorithm.setup(SimpleNamespace(names=list(TRUE)), seed=0)
    policies = {"first": Cycle(*"123"), "second": Cycle("1")}
    found = examined(exact, algorithm, Regretted(max_turns=2), policies, replays=6)
    assert found["first"].within == pytest.approx(1.0)


def test_every_algorithm_tells_its_discount() -> None:
    for name in ("c3", "collm", "grpo", "igrpo", "ippo", "magrpo"):
        assert resolve(name)(discount=0.5).discount == 0.5  # type: ignore[call-arg]
        assert PMIC(base=name, base_kwargs={"discount": 0.25}).discount == 0.25

    class Plain(Algorithm):
        collect = credit = loss = None  # type: ignore[assignment]

    assert Plain().discount == 1, "whoever has no such field adds rewards up as they are"


def test_a_response_is_found_at_its_own_history(exact: Any, syllables: Any, counter: Any) -> None:
    for algorithm in (MAGRPO(group_size=3, branching="chain"), MAGRPO(group_size=2), C3(fan_out=3), IGRPO()):
        env = syllables(2, ends=False, max_turns=2)
        rollout = exact.rollout(env, {agent: counter() for agent in env.possible_agents})
        roots = algorithm.collect(rollout, [(0, 0)])
        groups = list(algorithm.credit(roots, env.possible_agents))
        for group, context in zip(groups, locate(groups, roots), strict=True):
            for sample, member in zip(group.samples, context.members, strict=True):
                assert member.response.token_ids == sample.token_ids
                conversation = member.node.conversations[member.place][sample.agent]
                assert (
                    sample.prompt_ids == [len(conversation)] and len(conversation) == 2 * member.node.turn + 1
                )


def test_a_copied_sample_is_found_by_what_was_read_and_written(
    exact: Any, syllables: Any, counter: Any
) -> None:
    env = syllables(2)
    algorithm = MAGRPO(group_size=3)
    rollout = exact.rollout(env, {agent: counter() for agent in env.possible_agents})
    roots = algorithm.collect(rollout, [(0, 0)])
    (group, _) = algorithm.credit(roots, env.possible_agents)
    for sample in group.samples:
        sample.token_ids = list(sample.token_ids)
    assert [m.response.text for m in locate([group], roots)[0].members] == ["1", "2", "3"]
    group.samples[0].token_ids = [999]
    with pytest.raises(ValueError, match="of 'player_0' was not sampled in this experience"):
        locate([group], roots)


# --------------------------------------------------------------------------------------------------- influence


def likelihood(read: str, said: str) -> float:
    return 0.9 if read[-1] == said else 0.1


def test_influence_is_the_mutual_information_of_a_text_and_the_next_answer(exact: Any) -> None:
    """Half of the candidates are 1, half 2; each is answered alike, as is likely: log 0.9 - log (0.9 + 0.1) / 2."""
    policies = {"first": Cycle(*"12"), "second": Cycle(*"12", likelihood=likelihood)}
    found = examined(exact, MAGRPO(group_size=2), Pipeline(Numbers()), policies)
    assert found["first"].influence == pytest.approx(math.log(0.9 / 0.5), rel=1e-6)
    assert found["second"].influence is None, "nobody acts after the last"


def test_a_text_that_nobody_reads_has_no_influence(exact: Any) -> None:
    policies = {"first": Cycle(*"12"), "second": Cycle(*"12", likelihood=likelihood)}
    found = examined(exact, MAGRPO(group_size=2, branching="chain"), Numbers(max_turns=2), policies)
    assert found["first"].influence == found["second"].influence == 0.0


# -------------------------------------------------------------------------------------------------- all of them

ALGORITHMS: dict[str, Any] = {
    "magrpo": lambda: MAGRPO(group_size=3),
    "magrpo, chain": lambda: MAGRPO(group_size=3, branching="chain"),
    "igrpo": lambda: IGRPO(group_size=4),
    "igrpo, frozen": lambda: IGRPO(group_size=4, partner="frozen"),
    "c3": lambda: C3(fan_out=3),
    "grpo": lambda: GRPO(group_size=3),
    "a file of one's own": lambda: resolve(COMA)(group_size=2),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_can_be_diagnosed(exact: Any, syllables: Any, name: str) -> None:
    env = syllables(2, max_turns=2)
    env = Single(env, delimiter="a") if name == "grpo" else env
    team = exact.team(env.possible_agents, "tiny", "float32")
    found = examined(exact, ALGORITHMS[name](), env, team.policies, contexts=2, replays=2)
    assert list(found) == [*env.possible_agents, "all"]
    for diagnosis in found.values():
        assert diagnosis.contexts > 0 and math.isfinite(diagnosis.variance)
        assert diagnosis.fidelity is None or -1 <= diagnosis.fidelity <= 1
        assert diagnosis.influence is None or diagnosis.influence <= math.log(2) + 1e-6


def test_spearman_shares_ranks_among_equals() -> None:
    """Ranks 0, 1.5, 1.5, 3 against 3, 1, 2, 0 less their means: -(4.5) / sqrt(4.5 * 5)."""
    assert spearman(np.array([1.0, 2, 2, 9]), np.array([8.0, 5, 6, 0])) == pytest.approx(
        -4.5 / math.sqrt(22.5)
    )
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 99])) == pytest.approx(1.0)
    assert spearman(np.ones(3), np.array([1.0, 2, 3])) is None


@pytest.mark.parametrize("settings", [{"contexts": 0}, {"replays": 1}])
def test_numbers_that_tell_nothing_are_refused(exact: Any, settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more contexts and 2 or more replays"):
        examined(exact, MAGRPO(), Numbers(), {}, **settings)


def test_an_algorithm_that_credits_nobody_has_no_diagnosis(exact: Any, syllables: Any, counter: Any) -> None:
    class Silent(MAGRPO):
        def credit(self, roots: list[Node], agents: Sequence[str]) -> list[Group]:
            return []

    env = syllables(2)
    assert examined(exact, Silent(), env, {agent: counter() for agent in env.possible_agents}) == {}
