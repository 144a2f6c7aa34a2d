"""
# ArXiv, version 1

Two agents write the introduction of a paper from its abstract without seeing each other's text: one its
background and motivation, one its method and implications. The team is rewarded when the two parts fit
together *and are about the paper, in own words*. Task and observations are those of version 0.

| Creation           | `make("parallel", "textmarl/ArXiv-v1")`                           |
|--------------------|-------------------------------------------------------------------|
| Agents             | `agents = ["background", "method"]`                               |
| Actions            | `UnicodeText()`: any `str`                                        |
| Observations       | `UnicodeText()`: the abstract and the instruction                 |
| Turns              | 1                                                                 |
| Score              | 0 to 3, reported as a percentage of 3                             |
| Individual rewards | yes                                                               |
| Metrics            | `v0_score`: what version 0 would have paid, 0 to 2.98             |
| Source             | task: MAGRPO (arXiv 2508.04652); reward: this project             |
| Version            | a reward that junk cannot earn; `-v0` has the published one       |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/ArXiv-v1", split="train", source="bundled", bands="current")
```

All arguments are those of `textmarl/ArXiv-v0`. `bands` changes nothing but the metric `v0_score`.

### Observations

| Agent        | Text                                                                                     |
|--------------|------------------------------------------------------------------------------------------|
| `background` | the abstract, then the request for the introduction's background and motivation          |
| `method`     | the abstract, then the request for the introduction's method and implications            |

### Actions

One text per agent. Any `str` is scored and none raises. White space and punctuation are worth nothing. As in
version 0, a text of fewer than 128 words earns nothing, which takes about 170 tokens of a language model.

### Rewards

    score = form * faithfulness * originality * fluency * repetition * distinctness

The *form* keeps the levels, weights and gates of version 0: a level outside its band ends it.

| Term          | Quantity                                 | Value                                               |
|---------------|------------------------------------------|-----------------------------------------------------|
| `structure`   | words of c1 and of c2                    | 0.5 if both are in 128..256; else the score is 0    |
| `length`      | letters and digits of c2 / those of c1   | 1 on [1.3, 1.6], to 0 at 0.8 and 2.0; else stop     |
| `vocabulary`  | distinct words of c2 / those of c1       | 0.5 on [0.7, 1.3], to 0 at 0.5 and 1.7; else stop   |
| `transitions` | k categories of transitions that connect | 0.4 min(1, k / 5), in both texts                    |
| `overlap`     | Jaccard index of the content words       | 0.6 on [0.05, 0.5], to 0 at 0 and 0.8               |

The five *factors* are among the terms as what they cost, 0 or negative; all ten terms add up to the score.

| Term           | Full score asks for                                                                      |
|----------------|------------------------------------------------------------------------------------------|
| `faithfulness` | specific words from the abstract: 18 % and 6 of them in c1, which brings in knowledge of its own, 40 % and 12 in c2; words that are used together stood near each other in the abstract |
| `originality`  | at most 25 % of the words in copied passages, also thinned or edited ones, and 20 % of the three-word runs; copies behind fillers, in another order or set into frames count from 30 to 60 % on |
| `fluency`      | words in an order that English has, in sentences, with function words, not stuffed with transitions |
| `repetition`   | at most 10 % of the three-word runs repeated, no content word above 30 %                 |
| `distinctness` | at most 40 % of one text taken from the other                                            |

`textmarl.envs.writing.hardened` has every formula and constant with its reason. The overlap is full from 0.05 on
instead of version 0's 0.23: a background and a method that are not copies of each other share 5 to 20 % of
their words.

The individual reward of an agent is at most 0.9: (0.5 + 0.4 min(1, k / 5)) times the first four factors of
its own text alone; `infos` have it with every `reward`, as `individual_reward`. With several turns version
1 pays score_t - score_(t-1), with score_0 = 0; this task has one turn, so the difference is the score.

`infos[agent]["metrics"]["v0_score"]` is the score of version 0 for the same texts. It is logged, never paid.

What still gets through: claims that are wrong but made of the abstract's words, and invented background in
fluent English as long as a fifth of it is about the paper. See `docs/rewards_writing.md`.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/ArXiv-v1", split="test")
    >>> observations, infos = env.reset(seed=0)
    >>> abstract = env.task.data["abstract_text"]
    >>> _, rewards, _, _, infos = env.step({"background": abstract, "method": abstract})
    >>> round(rewards["method"], 2)  # the abstract itself, from both
    0.0

### Version History

* v1: reads the abstract; junk, copies and repetitions are worth nothing; the v0 score is reported (0.1.0)
* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.writing import arxiv, hardened
from textmarl.envs.writing.core import HardenedWritingEnv


class ArXiv(HardenedWritingEnv, arxiv.ArXiv):
    """The ArXiv environment with the hardened reward; the module's description is its page.

    Arguments and errors are those of version 0.
    """

    metadata = {"name": "ArXiv-v1", "render_modes": ["ansi"], "is_parallelizable": True}
    criteria = hardened.ARXIV


parallel_env = ArXiv
raw_env = env = aec_wrapper_fn(ArXiv)
