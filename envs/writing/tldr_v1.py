"""
# TLDR, version 1

Two agents summarise the same post without seeing each other's text: one in a sentence or a few, one in
detail. The team is rewarded when the two summaries fit each other *and are about the post, in own words*. Task
and observations are those of version 0; the reward cannot be earned without reading.

| Creation           | `make("parallel", "textmarl/TLDR-v1")`                            |
|--------------------|-------------------------------------------------------------------|
| Agents             | `agents = ["concise", "detailed"]`                                |
| Actions            | `UnicodeText()`: any `str`                                        |
| Observations       | `UnicodeText()`: the post and the instruction                     |
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

pettingzoo.make("parallel", "textmarl/TLDR-v1", split="train", source="bundled", reward="team")
```

All arguments are those of `textmarl/TLDR-v0`: `split`, `source`, `reward`, `reward_fn`, `reward_shift`,
`max_score`, `max_turns` and `render_mode`.

### Observations

| Agent      | Text                                                                                       |
|------------|--------------------------------------------------------------------------------------------|
| `concise`  | the post, then the request for a concise summary in one or two sentences                   |
| `detailed` | the post, then the request for a detailed summary with varied words and transition words   |

### Actions

One text per agent. Any `str` is scored and none raises. White space and punctuation are worth nothing.

### Rewards

    score = form * faithfulness * originality * fluency * repetition * distinctness

The *form* keeps the levels, weights and gates of version 0: a level outside its band ends it.

| Term          | Quantity                                 | Value                                               |
|---------------|------------------------------------------|-----------------------------------------------------|
| `structure`   | words of c1 and of c2                    | 0.5 if both are in 8..256; else the score is 0      |
| `length`      | letters and digits of c2 / those of c1   | 1 on [1.6, 3.2], to 0 at 1.1 and 5.0; else stop     |
| `vocabulary`  | distinct words of c2 / those of c1       | 0.5 from 2.0 on, to 0 at 1.3; else stop             |
| `transitions` | k categories of transitions that connect | 0.4 min(1, k / 4), in c2                            |
| `overlap`     | Jaccard index of the content words       | 0.6 on [0.03, 0.5], to 0 at 0 and 0.8               |

The five *factors* are among the terms as what they cost, 0 or negative; all ten terms add up to the score.

| Term           | Full score asks for                                                                      |
|----------------|------------------------------------------------------------------------------------------|
| `faithfulness` | 38 % of the specific words from the post, 4 of them in c1 and 10 in c2; words that are used together stood near each other in the post |
| `originality`  | at most 25 % of the words in copied passages, also thinned or edited ones, and 20 % of the three-word runs; copies behind fillers, in another order or set into frames count from 30 to 60 % on |
| `fluency`      | words in an order that English has, in sentences, with function words, not stuffed with transitions |
| `repetition`   | at most 10 % of the three-word runs repeated, no content word above 30 %                 |
| `distinctness` | at most 40 % of one text taken from the other                                            |

Short posts ask for less. The data's labels (`SUBREDDIT: r/`, `TITLE:`, `POST:`) are no part of the post here.
`textmarl.envs.writing.hardened` has every formula and constant with its reason.

The individual reward of an agent is at most 0.9: (0.5 + 0.4 min(1, k / 4)) times the first four factors of
its own text alone; `infos` have it with every `reward`, as `individual_reward`. With several turns version
1 pays score_t - score_(t-1), with score_0 = 0; this task has one turn, so the difference is the score.

`infos[agent]["metrics"]["v0_score"]` is the score of version 0 for the same texts, for comparison with the
literature. It is logged, never paid.

What still gets through: facts that are wrong but made of the post's words ("the neighbour sued the city"), and
a fluent paraphrase of a passage that does not matter. Nothing here understands the text; a judge that does
would need a model. See `docs/rewards_writing.md` for what each kind of junk and each honest pair scores.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/TLDR-v1", split="test")
    >>> observations, infos = env.reset(options={"task": "test/15"})
    >>> concise = (
    ...     "A museum guard in Ghent invented scandalous stories about the still lifes for me. He makes it all "
    ...     "up, but I enjoyed his tour so much that I've booked again."
    ... )
    >>> detailed = (
    ...     "I was looking at a brown painting when a guard came over and whispered that its lemon was really "
    ...     "the artist's boss. For twenty minutes he took me through room 8: the lobster stood for a debt, for "
    ...     "example, and the skull for a mother-in-law. Afterwards I praised him at the desk. The lady sighed, "
    ...     "because there have been complaints; nevertheless, some visitors return four times, and so do I."
    ... )
    >>> _, rewards, _, _, infos = env.step({"concise": concise, "detailed": detailed})
    >>> rewards["concise"] > 2.7
    True
    >>> sorted(infos["concise"]["metrics"])
    ['v0_score']

Words about nothing, as version 0 likes them:

    >>> observations, infos = env.reset(options={"task": "test/15"})
    >>> concise = "amber basket cellar dolphin engine falcon gravel harbor island jacket"
    >>> detailed = (
    ...     "amber kettle, however, lantern because magnet, for example, needle, finally, orchid although pebble "
    ...     "quartz, indeed, ribbon if saddle, similarly, tunnel, in short, umbrella therefore velvet when walnut"
    ... )
    >>> _, rewards, _, _, infos = env.step({"concise": concise, "detailed": detailed})
    >>> round(rewards["concise"], 2), infos["concise"]["metrics"]["v0_score"] > 2.5
    (0.0, True)

### Version History

* v1: reads the post; junk, copies and repetitions are worth nothing; the v0 score is reported (0.1.0)
* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

import re

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.writing import hardened, tldr
from textmarl.envs.writing.core import HardenedWritingEnv

_LABEL = re.compile(r"^(SUBREDDIT: (r/)?|TITLE: |POST: )", re.MULTILINE)


class TLDR(HardenedWritingEnv, tldr.TLDR):
    """The TLDR environment with the hardened reward; the module's description is its page.

    Arguments and errors are those of version 0.
    """

    metadata = {"name": "TLDR-v1", "render_modes": ["ansi"], "is_parallelizable": True}
    criteria = hardened.TLDR

    def judged_source(self) -> str:
        """Subreddit, title and post without their labels, which every post has and no summary should."""
        return _LABEL.sub("", self.source())


parallel_env = TLDR
raw_env = env = aec_wrapper_fn(TLDR)
