"""
# TLDR

Two agents summarise the same post without seeing each other's text: one in a sentence or a few, one in
detail. The team is rewarded when the two summaries fit each other: the second longer and richer than the
first by the right factor, well connected, and about the same thing.

| Creation           | `make("parallel", "textmarl/TLDR-v0")`                            |
|--------------------|-------------------------------------------------------------------|
| Agents             | `agents = ["concise", "detailed"]`                                |
| Actions            | `UnicodeText()`: any `str`                                        |
| Observations       | `UnicodeText()`: the instruction and the post                     |
| Turns              | 1                                                                 |
| Score              | 0 to 2.98, reported as a percentage of 3                          |
| Individual rewards | yes                                                               |
| Source             | MAGRPO (arXiv 2508.04652), data `trl-lib/tldr`                    |
| Version            | the published reward, to compare with papers; else take `-v1`     |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/TLDR-v0", split="train", source="bundled", reward="team")
```

`split`: which tasks: `"train"`, `"test"`, or a slice such as `"train[:1000]"`. The paper trains on
`train[:1000]` and evaluates on `test[:1000]` of the published data.

`source`: `"bundled"` (posts written for this project; offline), `"hub"` (`trl-lib/tldr`, needs
`pip install datasets` and a network), or the path of a JSONL file, a JSON array or a folder of
`<split>.jsonl` whose rows have the column `prompt` (the post with its subreddit and title; further columns
are ignored).

`reward`: `"team"` pays every agent the score; `"individual"` pays each agent what its text is worth alone.

`reward_fn`: replaces the reward by your own `reward_fn(responses, task) -> float`; `task.data["prompt"]` is
the post.

`reward_shift`: a constant added to the rewards of the learner; `infos` and reports are unshifted. Default 0.

`max_score`: what counts as 100 % with a `reward_fn`. Default 3, with a `reward_fn` 1.

`max_turns`: 1, the only number of turns this task has (`max_cycles` of `make` means the same).

`render_mode`: `"ansi"` or `None`.

### Observations

| Agent      | Text                                                                                       |
|------------|--------------------------------------------------------------------------------------------|
| `concise`  | the post, then the request for a concise summary in one or two sentences                   |
| `detailed` | the post, then the request for a detailed summary with varied words and transition words   |

The post is given with subreddit and title, without the "TL;DR:" that ends it in the data. Neither agent is
told the bands of the reward, and neither sees the other's text. After the step the observations are empty.

### Actions

One text per agent. Any `str` is scored: empty text, megabytes, NULs and lone surrogates are worth little but
never raise. Texts reach the reward as they are; white space counts.

### Rewards

With c1 the concise and c2 the detailed text; a level outside its band ends the scoring with the sum so far.

| Term          | Quantity                            | Value                                                |
|---------------|-------------------------------------|------------------------------------------------------|
| `structure`   | tokens of c1 and of c2              | 0.5 if both are in 8..256; else stop                 |
| `length`      | len(c2) / len(c1), in characters    | 1 on [1.6, 3.2], to 0 at 1.1 and 5.0; else stop      |
| `vocabulary`  | distinct words of c2 / those of c1  | 0.5 from 2.0 on, to 0 at 1.3; else stop              |
| `transitions` | k of 12 transition categories in c2 | 0.4 T; T = 0 for k = 0, else 0.4 + 0.05 (k - 1)      |
| `overlap`     | Jaccard index of the content words  | 0.6 min(jac, 0.03) / 0.03                            |

`textmarl.envs.writing.rewards` has the formula line by line, and what it is blind to. The individual reward
of an agent is 0.5 if its own text has 8 to 256 tokens, plus 0.4 T of its own text; `infos` have it with every
`reward`, as `individual_reward`.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/TLDR-v0", split="test")
    >>> observations, infos = env.reset(seed=0)
    >>> env.agents
    ['concise', 'detailed']
    >>> concise = "A neighbour keeps parking in the writer's space and will not stop."
    >>> detailed = (
    ...     "For weeks a neighbour has left his van in the space that the writer rents. However, asking him "
    ...     "kindly changed nothing, so now they wonder whether to involve the landlord."
    ... )
    >>> _, rewards, terminations, _, infos = env.step({"concise": concise, "detailed": detailed})
    >>> round(rewards["concise"], 2), all(terminations.values())
    (2.82, True)
    >>> {name: round(value, 2) for name, value in infos["concise"]["reward_terms"].items()}
    {'structure': 0.5, 'length': 1.0, 'vocabulary': 0.5, 'transitions': 0.22, 'overlap': 0.6}

### Version History

* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

import os
from importlib import resources
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.tasks import load_tasks
from textmarl.envs.writing import rewards
from textmarl.envs.writing.core import WritingEnv

BANDS = rewards.Bands(
    min_tokens=8,
    max_tokens=256,
    length=rewards.Ramp(start=1.1, low=1.6, high=3.2, end=5.0),
    vocabulary=rewards.Ramp(start=1.3, low=2.0),
    overlap_cap=0.03,
    transitions_in_both=False,
)

# The post comes first: a small model told to summarise before a long post goes on writing the post.
INSTRUCTIONS = {
    "concise": "Here is a post.\n\n{source}\n\nWrite a concise summary of this post in one or two sentences.",
    "detailed": (
        "Here is a post.\n\n{source}\n\nWrite a detailed summary of this post. Use varied words, and connect your "
        "sentences with some transition words."
    ),
}


class TLDR(WritingEnv):
    """The TLDR environment; the module's description is its page.

    Args:
        split: which tasks, such as "train", "test" or "train[:1000]".
        source: "bundled", "hub" or a path (see `textmarl.envs.load_tasks`).
        **options: `reward`, `reward_fn`, `reward_shift`, `max_score`, `max_turns`, `max_cycles` and
            `render_mode` of `TextEnv`.

    Raises:
        ValueError: if more than one turn is asked for, or data or options make no sense.
        LookupError: if there is no such split. ImportError, ConnectionError: if the Hub cannot be reached.
    """

    metadata = {"name": "TLDR-v0", "render_modes": ["ansi"], "is_parallelizable": True}
    possible_agents = ["concise", "detailed"]
    instructions = INSTRUCTIONS
    bands = BANDS

    def __init__(
        self, split: str = "train", source: str | os.PathLike[str] = "bundled", **options: Any
    ) -> None:
        tasks = load_tasks(
            source,
            split,
            columns={"prompt": str},
            bundled=resources.files("textmarl.envs.writing").joinpath("data", "tldr"),
            hub="trl-lib/tldr",
        )
        super().__init__(tasks, **options)

    def source(self) -> str:
        """The post."""
        return post_of(self.task.data["prompt"])


def post_of(prompt: str) -> str:
    """The post as a reader should see it: a data-set prompt without the "TL;DR:" that ends it."""
    return prompt.rstrip().removesuffix("TL;DR:").strip()


parallel_env = TLDR
raw_env = env = aec_wrapper_fn(TLDR)
