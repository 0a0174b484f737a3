"""Which optimiser takes which step, and at which rate."""

from gmmcli.core.chains import Chains
from gmmcli.core.objectives import CenterRegression
from gmmcli.core.optim import SGD, Adam
from gmmcli.core.protocols import Optim
from gmmcli.recipe import Recipe, Stage
from gmmcli.train.phases import Phase, phases

SHARED = Adam(learning_rate=1.0, schedule="cosine", final_share=0.0)
OWN, OTHER = SGD(learning_rate=2.0, warmup_steps=2, milestones=(1,), decay=0.5), SGD(learning_rate=3.0)


def recipe(*optims: Optim | None) -> Recipe:
    """Stages of one, two, three ... epochs, each with its optimiser."""
    stages = tuple(Stage(epochs, CenterRegression(), optim=optim) for epochs, optim in enumerate(optims, start=1))
    return Recipe("phased", stages, chains=Chains(buffer_size=100), optim=SHARED)


def test_without_optimisers_of_their_own_stages_are_one_phase() -> None:
    assert phases(recipe(None, None, None), 5) == [Phase(SHARED, 0, 0, 30, 5)]


def test_a_stage_with_its_own_is_a_phase_and_what_follows_another() -> None:
    expected = [Phase(SHARED, 0, 0, 75, 5), Phase(OWN, 15, 15, 15, 5), Phase(SHARED, 30, 0, 75, 5)]
    assert phases(recipe(None, None, OWN, None, None), 5) == expected


def test_every_stage_with_its_own_starts_afresh_an_equal_one_too() -> None:
    assert phases(recipe(OWN, OTHER, OTHER), 5) == [Phase(OWN, 0, 0, 5, 5), Phase(OTHER, 5, 5, 10, 5), Phase(OTHER, 15, 15, 15, 5)]


def test_a_stages_own_schedule_runs_over_its_steps_and_the_recipes_over_all() -> None:
    _, own, last = phases(recipe(None, OWN, None), 5)
    assert [own.rate(step) for step in range(5, 15)] == [1.0] + [2.0] * 4 + [1.0] * 5  # warm-up, then its first epoch's end
    assert [last.rate(step) for step in (15, 29)] == [SHARED.rate(15, 5, 30), SHARED.rate(29, 5, 30)]
