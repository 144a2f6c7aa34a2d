"""What the feedback `"level"` says of the work together in version 1: the verdict of the hardened reward, in words.

Version 0 reads off the code whether `aux` is called. Version 1 says what it pays for: why a program is no attempt,
whether it passes more than a guess, and of each helper the first of these that holds.

| Found by                   | The agents read                                                                               |
|----------------------------|-----------------------------------------------------------------------------------------------|
| syntax                     | that the helper is constant, returns its argument, is not called or does not reach the result |
| the calls during the tests | that it was not called, returned nothing, one value only, or the same one of its arguments    |
| shuffles of its values     | that the main function does not need it, or that this does not show                           |
| syntax                     | that the main function only hands on what it returns                                          |
| tests of it alone          | that it passes as much alone as the whole program, or nearly; else that both do their part    |

Where nothing passes but what a guess passes, no experiment can tell whether a helper is needed; then that is said. Each
sentence is about all tests together, the hidden ones among them, as the count of passed tests is: none says which test
decided, what was in it, or what came of it. All agents read the same sentences; none has a partner's code in it.
"""

from __future__ import annotations

from textmarl.envs.coding import hardened
from textmarl.envs.coding.assembly import Part
from textmarl.envs.coding.hardened import Contribution, Evidence, Refusal
from textmarl.envs.coding.rewards import pass_rate

# `unwritten` and `unloaded` have their lines in every version's feedback.
_NO_ATTEMPT: dict[Refusal, str] = {
    "constant": "No attempt: nothing of its arguments reaches what `{main}` returns.",
    "one_answer": "No attempt: `{main}` gives the same answer in all tests.",
    "echo": "No attempt: `{main}` returns one of its arguments as it is.",
    "table": "No attempt: the program looks its answers up and computes nothing.",
    "unanswered": "No attempt: `{main}` answers no test with plain data.",
}
_GUESSED = "What passes is no more than guessing passes."
_PARTLY_GUESSED = "A part of what passes guessing passes, too."
_CONTRIBUTIONS: dict[Contribution, str] = {
    "constant": "Nothing of its arguments reaches what `{helper}` returns.",
    "echo": "`{helper}` returns one of its arguments as it is.",
    "unmentioned": "`{main}` does not call `{helper}`.",
    "unused": "The value of `{helper}` does not reach what `{main}` returns.",
    "uncalled": "`{helper}` is called in none of the tests.",
    "raised": "Every call of `{helper}` in the tests raises an exception.",
    "one_value": "`{helper}` returns the same value whenever it is called in the tests.",
    "echoed": "`{helper}` hands back what it was given whenever it is called in the tests.",
    "untold": "Too little passes to tell whether `{main}` needs `{helper}`.",
    "unneeded": "`{main}` does not need `{helper}`: with the values that it returns exchanged, no fewer tests pass.",
    "entangled": "`{main}` does not live on what `{helper}` returns: it fails when a stand-in returns the same values.",
    "handed_on": "`{main}` only hands on what `{helper}` returns.",
}
_SHARED = "`{main}` needs `{helper}`, and both do a part of the work."
_MOSTLY_ALONE = "`{helper}` alone passes nearly as much as the whole program."
_ALONE = "`{helper}` alone passes as much as the whole program."


def remarks(evidence: Evidence) -> list[str]:
    """What the hardened reward found in a program, a sentence each; the helpers in their order.

    Of helpers there is nothing where the program did not run.
    """
    main, lines = evidence.main.role_name, []
    refusal = hardened.refusal(evidence)
    if refusal in _NO_ATTEMPT:
        lines.append(_NO_ATTEMPT[refusal].format(main=main))
    elif refusal is None and evidence.report is not None:
        skill, rate = hardened.skill(evidence), pass_rate(evidence.report)
        if skill < rate:
            lines.append(_PARTLY_GUESSED if skill else _GUESSED)
    if evidence.report is not None:
        sentences = [(helper.role_name, _sentence(evidence, helper)) for helper in evidence.helpers]
        lines += [text.format(main=main, helper=name) for name, text in sentences if text]
    return lines


def _sentence(evidence: Evidence, helper: Part) -> str:
    found = hardened.contribution(evidence, helper)
    if found != "needed":
        return _CONTRIBUTIONS.get(found, "")
    share = hardened.both_did_their_part(evidence, helper)
    if share == 1.0:
        return _SHARED
    return _MOSTLY_ALONE if share else _ALONE
