"""How an algorithm is found: by its name, or in a file of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textmarl.algos import IPPO, MAGRPO, Algorithm, resolve

OWN = '''
from dataclasses import dataclass
from textmarl.algos import MAGRPO

@dataclass
class Positive(MAGRPO):
    """Learns from the better half only."""

    def advantages(self, credits):
        return super().advantages(credits).clip(min=0)
'''


def test_an_algorithm_is_found_by_its_name() -> None:
    assert resolve("magrpo") is MAGRPO


def test_an_algorithm_is_found_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    for name in (str(file), f"{file}:Positive"):
        found = resolve(name)
        assert issubclass(found, Algorithm) and found.__name__ == "Positive"
    made = resolve(str(file))(group_size=3)  # type: ignore[call-arg]
    assert isinstance(made, MAGRPO)
    assert made.advantages(np.array([0.0, 1.0])).min() == 0


@pytest.mark.parametrize(
    "name", ["mappo", "trainer", "algorithm", "", "os", "magrpo:MAGRPO", "../algos/magrpo"]
)
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"unknown algorithm .*there are: .*magrpo, .*and path/to/file\.py:ClassName"
    ):
        resolve(name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.py' does not exist"):
        resolve(f"{tmp_path / 'absent.py'}:Own")


def test_a_class_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(OWN + "\n\n@dataclass\nclass Other(Positive):\n    pass\n")
    assert resolve(f"{file}:Other").__name__ == "Other"
    with pytest.raises(ValueError, match="the Algorithm 'Third'; it defines: Positive, Other"):
        resolve(f"{file}:Third")
    with pytest.raises(ValueError, match=r"one Algorithm in .*two\.py'; it defines: Positive, Other"):
        resolve(str(file))


def test_a_file_without_an_algorithm_says_what_one_is(tmp_path: Path) -> None:
    file = tmp_path / "none.py"
    file.write_text("from textmarl.algos import MAGRPO\n")
    with pytest.raises(ValueError, match=r"it defines: none \(a subclass of textmarl\.algos\.Algorithm\)"):
        resolve(str(file))


@pytest.mark.parametrize(
    ("algorithm", "field"),
    [
        (algorithm, field)
        for algorithm, names in (
            (MAGRPO, ("discount", "clip", "kl_coef")),
            (
                IPPO,
                (
                    "discount",
                    "clip",
                    "value_clip",
                    "gae_lambda",
                    "critic_learning_rate",
                    "critic_max_grad_norm",
                ),
            ),
        )
        for field in names
    ],
)
def test_a_setting_that_is_no_number_is_refused_by_name(algorithm: type[Algorithm], field: str) -> None:
    with pytest.raises(ValueError, match=rf"algo\.{field} .*got .*nan"):
        algorithm(**{field: float("nan")}).validate(["first", "second"])
