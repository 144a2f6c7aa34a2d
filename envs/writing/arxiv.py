"""
# ArXiv

Two agents write the introduction of a paper from its abstract without seeing each other's text: one its
background and motivation, one its method and implications. The team is rewarded when the two parts fit
together: of about the same vocabulary, the second somewhat longer, well connected, about the same thing.

| Creation           | `make("parallel", "textmarl/ArXiv-v0")`                           |
|--------------------|-------------------------------------------------------------------|
| Agents             | `agents = ["background", "method"]`                               |
| Actions            | `UnicodeText()`: any `str`                                        |
| Observations       | `UnicodeText()`: the abstract and the instruction                 |
| Turns              | 1                                                                 |
| Score              | 0 to 2.98, reported as a percentage of 3                          |
| Individual rewards | yes                                                               |
| Source             | MAGRPO (arXiv 2508.04652), data `OpenMLRL/arXiv_abstract`         |
| Version            | the published reward, to compare with papers; else take `-v1`     |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/ArXiv-v0", split="train", source="bundled", bands="current")
```

`split`: which tasks: `"train"`, `"test"`, or a slice such as `"train[:1000]"`. The paper trains on
`train[:1000]` and evaluates on `val[:1000]` of the published data; `"test[:1000]"` means the same.

`source`: `"bundled"` (abstracts of papers that do not exist, written for this project; offline), `"hub"`
(`OpenMLRL/arXiv_abstract`, needs `pip install datasets` and a network), or the path of a JSONL file, a
JSON array or a folder of `<split>.jsonl`. Rows have the column `abstract_text` (a text, or a list of sentences)
and may have `token_count`; further columns, such as the data set's `article_id`, are kept in `task.data`.
Abstracts of fewer than 100 or more than 300 tokens are left out, after the slice is taken. The number is
`token_count`, or where a row has none, that of the tokens between white space.

`bands`: the constants of the reward. `"current"`, or `"2025-08"`: those of the paper's first version, whose
ramp over the lengths was another (see below).

`reward`: `"team"` pays every agent the score; `"individual"` pays each agent what its text is worth alone.

`reward_fn`: replaces the reward by your own `reward_fn(responses, task) -> float`;
`task.data["abstract_text"]` is the abstract, always a `str`.

`reward_shift`: a constant added to the rewards of the learner; `infos` and reports are unshifted. Default 0.

`max_score`: what counts as 100 % with a `reward_fn`. Default 3, with a `reward_fn` 1.

`max_turns`: 1, the only number of turns this task has (`max_cycles` of `make` means the same).

`render_mode`: `"ansi"` or `None`.

### Observations

| Agent        | Text                                                                                     |
|--------------|------------------------------------------------------------------------------------------|
| `background` | the abstract, then the request for the introduction's background and motivation          |
| `method`     | the abstract, then the request for the introduction's method and implications            |

Each is told that a colleague writes the other part, which it is to leave out. Neither is told the bands of the
reward, and neither sees the other's text. After the step the observations are empty.

### Actions

One text per agent. Any `str` is scored: empty text, megabytes, NULs and lone surrogates are worth little but
never raise. Texts reach the reward as they are; white space counts.

A text of fewer than 128 tokens earns nothing for the team, and in English 128 words take about 170 tokens of a
language model: with a limit of 64 or 128 new tokens every score is 0. The paper allows 256.

### Rewards

With c1 the background and c2 the method; a level outside its band ends the scoring with the sum so far.

| Term          | Quantity                              | Value                                                  |
|---------------|---------------------------------------|--------------------------------------------------------|
| `structure`   | tokens of c1 and of c2                | 0.5 if both are in 128..256; else stop                 |
| `length`      | len(c2) / len(c1), in characters      | 1 on [1.3, 1.6], to 0 at 0.8 and 2.0; else stop        |
| `vocabulary`  | distinct words of c2 / those of c1    | 0.5 on [0.7, 1.3], to 0 at 0.5 and 1.7; else stop      |
| `transitions` | k of 12 transition categories in both | 0.4 T; T = 0 for k = 0, else 0.4 + 0.05 (k - 1)        |
| `overlap`     | Jaccard index of the content words    | 0.6 min(jac, 0.23) / 0.23                              |

With `bands="2025-08"` `length` is 1 on [1.0, 1.3], to 0 at 0.8 and 1.5. The rest is the same.

`textmarl.envs.writing.rewards` has the formula line by line, and what it is blind to: the abstract is never
read, and two identical paragraphs of junk that hold all kinds of transitions score 2.38 (2.98 with the first
bands). The individual reward of an agent is 0.5 if its own text has 128 to 256 tokens, plus 0.4 T of its own
text; `infos` have it with every `reward`, as `individual_reward`.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/ArXiv-v0", split="test")
    >>> observations, infos = env.reset(options={"task": "test/0"})
    >>> env.agents
    ['background', 'method']
    >>> words = env.task.data["abstract_text"].split()
    >>> background, method = " ".join(words[:130]), " ".join(words[-180:])
    >>> _, rewards, terminations, _, infos = env.step({"background": background, "method": method})
    >>> round(rewards["method"], 2), all(terminations.values())
    (2.86, True)
    >>> {name: round(value, 2) for name, value in infos["method"]["reward_terms"].items()}
    {'structure': 0.5, 'length': 1.0, 'vocabulary': 0.5, 'transitions': 0.26, 'overlap': 0.6}

These two texts are copied out of the abstract and share a part of it: version 0 does not mind.

### Version History

* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from importlib import resources
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.tasks import Task, TaskSet, load_tasks
from textmarl.envs.writing import rewards
from textmarl.envs.writing.core import WritingEnv

_CURRENT = rewards.Bands(
    min_tokens=128,
    max_tokens=256,
    length=rewards.Ramp(start=0.8, low=1.3, high=1.6, end=2.0),
    vocabulary=rewards.Ramp(start=0.5, low=0.7, high=1.3, end=1.7),
    overlap_cap=0.23,
    transitions_in_both=True,
)
BANDS = {
    "current": _CURRENT,
    "2025-08": replace(_CURRENT, length=rewards.Ramp(start=0.8, low=1.0, high=1.3, end=1.5)),
}

# The abstract comes first: a small model told to write before a long abstract goes on writing the abstract.
INSTRUCTIONS = {
    "background": (
        "Here is the abstract of a paper.\n\n{source}\n\nWrite the part of the paper's introduction that gives "
        "the background and the motivation. A colleague writes about the method and the implications: leave "
        "these to them."
    ),
    "method": (
        "Here is the abstract of a paper.\n\n{source}\n\nWrite the part of the paper's introduction that "
        "presents the method and the implications. A colleague writes about the background and the "
        "motivation: leave these to them."
    ),
}

MIN_ABSTRACT_TOKENS, MAX_ABSTRACT_TOKENS = 100, 300  # the data set's own selection

_SENTENCE_MARK = re.compile(r"(?:\s*</?S>\s*)+")  # how the corpus behind the data set marks off sentences


class ArXiv(WritingEnv):
    """The ArXiv environment; the module's description is its page.

    Args:
        split: which tasks, such as "train", "test" or "train[:1000]".
        source: "bundled", "hub" or a path (see `textmarl.envs.load_tasks`).
        bands: "current" or "2025-08", the names in `BANDS`.
        **options: `reward`, `reward_fn`, `reward_shift`, `max_score`, `max_turns`, `max_cycles` and
            `render_mode` of `TextEnv`.

    Raises:
        ValueError: if more than one turn is asked for, bands are unknown, or data or options make no sense.
        LookupError: if there is no such split. ImportError, ConnectionError: if the Hub cannot be reached.
    """

    metadata = {"name": "ArXiv-v0", "render_modes": ["ansi"], "is_parallelizable": True}
    possible_agents = ["background", "method"]
    instructions = INSTRUCTIONS

    def __init__(
        self,
        split: str = "train",
        source: str | os.PathLike[str] = "bundled",
        bands: str = "current",
        **options: Any,
    ) -> None:
        if bands not in BANDS:
            raise ValueError(f"There are no bands {bands!r}; choose one of {sorted(BANDS)}.")
        self.bands = BANDS[bands]
        super().__init__(load_abstracts(source, split), **options)

    def source(self) -> str:
        """The abstract."""
        return self.task.data["abstract_text"]


def load_abstracts(source: str | os.PathLike[str], split: str) -> TaskSet:
    """The abstracts of 100 to 300 tokens in one split of the published, the bundled or your own data.

    Args:
        source: "bundled", "hub" or a path.
        split: "train", "test" or a slice of them, by rows of the source. Where the source calls its held-out
            rows "val", as the Hub does, "test" means these.

    Returns:
        Tasks named by their rows, whose `abstract_text` is a `str`; other columns as they were.

    Raises:
        ValueError: a malformed row, or no abstract of that length. Others: see `textmarl.envs.load_tasks`.
    """
    rows = load_tasks(
        source,
        split,
        columns={"abstract_text": str | list},
        bundled=resources.files("textmarl.envs.writing").joinpath("data", "arxiv"),
        hub="OpenMLRL/arXiv_abstract",
        hub_splits={"test": "val"},
    )
    tasks = []
    for row in rows:
        abstract = _abstract_of(row, rows.name)
        tokens = _token_count_of(row, abstract, rows.name)
        if abstract and MIN_ABSTRACT_TOKENS <= tokens <= MAX_ABSTRACT_TOKENS:
            tasks.append(Task(row.id, {**row.data, "abstract_text": abstract}))
    if not tasks:
        raise ValueError(
            f"{rows.name}: none of the {len(rows)} abstracts of the split {split!r} has {MIN_ABSTRACT_TOKENS} to "
            f"{MAX_ABSTRACT_TOKENS} tokens (`token_count` where given, else counted between white space): "
            "ask for another split or give longer or shorter abstracts."
        )
    return TaskSet(tasks, name=rows.name, split=split)


def _abstract_of(row: Task, source: str) -> str:
    text = row.data["abstract_text"]
    if not isinstance(text, str):
        if not all(isinstance(sentence, str) for sentence in text):
            raise ValueError(
                f"{source}, {row.id}: column 'abstract_text' is a list that holds more than texts; expected "
                "one text, or a list of sentences."
            )
        text = " ".join(text)
    return _SENTENCE_MARK.sub(" ", text).strip()


def _token_count_of(row: Task, abstract: str, source: str) -> int:
    count = row.data.get("token_count", len(abstract.split()))
    if isinstance(count, bool) or not isinstance(count, int):
        raise ValueError(
            f"{source}, {row.id}: column 'token_count' must be an integer, not {count!r}; without the column "
            "the tokens are counted here."
        )
    return count


parallel_env = ArXiv
raw_env = env = aec_wrapper_fn(ArXiv)
