"""Metrics for Hugging Face's `evaluate`, loaded by path, so without a network.

    import evaluate
    from textmarl.benchmarks.metrics import path_of

    rouge = evaluate.load(path_of("rouge"))
    rouge.compute(predictions=["a short text"], references=["a shorter text"])

| name              | measures                                                                                       |
|-------------------|------------------------------------------------------------------------------------------------|
| `writing_rewards` | the rewards of TLDR and ArXiv, versions 0 and 1, by a step of the environment itself           |
| `test_pass_rate`  | the share of tests that programs pass in the sandbox, and pass@k                               |
| `cooperation`     | whether a main function works with a helper, by a step of a coding environment                 |
| `rouge`           | ROUGE-1, ROUGE-2 and ROUGE-L against reference texts                                           |

They need `evaluate` (`pip install evaluate`, or the extra `eval` of a checkout) and no torch. Texts pass through Arrow, which holds no lone surrogates.
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("cooperation", "rouge", "test_pass_rate", "writing_rewards")


def path_of(name: str) -> str:
    """The folder of a metric, as `evaluate.load` takes it.

    Raises:
        LookupError: there is no such metric.

    >>> path_of("rouge").endswith("rouge")
    True
    """
    if name not in NAMES:
        raise LookupError(f"no metric {name!r}; there are {', '.join(NAMES)}")
    return str(Path(__file__).parent / name)
