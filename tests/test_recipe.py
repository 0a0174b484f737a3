import dataclasses
import json
import re
import typing
from math import inf
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.core.chains import Chains
from gmmcli.core.heads import HEADS, MaxMahalanobis
from gmmcli.core.model import Model
from gmmcli.core.objectives import OBJECTIVES, CenterRegression, ContrastiveDivergence
from gmmcli.core.optim import SGD, Adam
from gmmcli.core.samplers import SGLD, FixedLength
from gmmcli.core.starts import ClassGaussian, Gaussian, Uniform
from gmmcli.core.targets import TARGETS, StagedLatent
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.errors import RecipeError
from gmmcli.overrides import flatten
from gmmcli.recipe import LONGEST_NAME, Log, Recipe, Stage, shipped
from gmmcli.registry import Registry
from gmmcli.schema import key_of, registry_of
from gmmcli.types import NUMBERS

MINIMAL = """
name = "minimal"
[[stages]]
epochs = 2
objective = { kind = "contrastive-divergence", margin = 2.0 }
"""


def tables(hint: Any, **special: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Plain TOML values of a recipe's type: every key of every table drawn, every kind among those drawn from."""
    if found := registry_of(hint):
        return kinds(found[0])
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return st.fixed_dictionaries(
            {key_of(f): special[f.name] if f.name in special else tables(hints[f.name]) for f in dataclasses.fields(hint)}
        )
    if typing.get_origin(hint) is tuple and Ellipsis not in typing.get_args(hint):
        return st.tuples(*map(tables, typing.get_args(hint))).map(list)
    if typing.get_origin(hint) is tuple:
        return st.lists(tables(typing.get_args(hint)[0]), max_size=4)
    if typing.get_origin(hint) is typing.Annotated:
        kind, *bounds = typing.get_args(hint)
        limits = {name: limit for bound in bounds for name, limit in dataclasses.asdict(bound).items()}
        return _integers(**limits) if kind is int else _floats(1.0, **limits) | _floats(NUMBERS.le, **limits)
    return st.from_type(hint)


def kinds(registry: Registry[Any], *names: str) -> st.SearchStrategy[Any]:
    """A table of one of these kinds; of any that comes with gmmcli by default."""
    return st.one_of(*(tables(registry[name]) for name in names or registry.builtin))


def _integers(*, ge: int = 0, gt: int = -1, le: int = 2**63 - 1, lt: int = 2**63) -> st.SearchStrategy[int]:
    return st.integers(max(ge, gt + 1), min(le, lt - 1))


def _floats(top: float, *, ge: float = 0.0, gt: float = -1.0, le: float = inf, lt: float = inf) -> st.SearchStrategy[float]:
    """Numbers up to ``top`` within the bounds, which nothing has to be tried and dropped for."""
    return st.floats(max(ge, gt), min(le, lt, top), exclude_min=gt >= ge, exclude_max=lt <= min(le, top))


BACKBONES = tables(WideResNet, depth=st.integers(1, 99).map(lambda n: 6 * n + 4), width=st.integers(2, 99))  # a hundred classes fit
BUFFER_SIZES = st.integers(1, 10**9).map(lambda n: 100 * n)
UNBOUNDED = tables(ContrastiveDivergence, margin=st.just(0.0), floor=st.just(0.0))
BOUNDED = tables(ContrastiveDivergence, margin=st.floats(0.1, 100.0))
REGRESSIONS = kinds(OBJECTIVES, "cross-entropy", "center-regression")
OPTIMS = tables(Adam) | tables(SGD, momentum=st.floats(0.1, 0.9))
NAMES = st.from_regex(r"[\w.-]+", fullmatch=True).filter(lambda name: len(name.encode()) <= LONGEST_NAME)


def documents(
    head: st.SearchStrategy[Any], objective: st.SearchStrategy[Any], target: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Complete recipes as plain tables, of parts that go together."""
    ramps = st.tuples(st.integers(1, 10**6), st.integers(0, 10**6), objective, st.booleans())
    plain = ramps.map(lambda drawn: {"epochs": drawn[0], "objective": drawn[2], "ramp_epochs": min(drawn[:2]), "freeze_norm": drawn[3]})
    stage = plain | st.tuples(plain, OPTIMS).map(lambda drawn: drawn[0] | {"optim": drawn[1]})
    return tables(
        Recipe,
        name=NAMES,
        stages=st.lists(stage, min_size=1, max_size=3),
        model=tables(Model, backbone=BACKBONES, head=head),
        optim=OPTIMS,
        chains=tables(Chains, buffer_size=BUFFER_SIZES, target=target),
        log=tables(Log, best=st.just("accuracy")),  # the others need stages with chains
    )


@settings(max_examples=40, derandomize=True)
@given(
    documents(kinds(HEADS, "max-mahalanobis", "lda"), REGRESSIONS | BOUNDED | UNBOUNDED, kinds(TARGETS))
    | documents(kinds(HEADS, "linear"), kinds(OBJECTIVES, "cross-entropy") | UNBOUNDED, kinds(TARGETS, "conditional"))
)
def test_a_recipe_of_any_tables_and_kinds_survives_toml(document: dict[str, Any]) -> None:
    recipe = Recipe.loads(tomli_w.dumps(document))
    assert json.loads(json.dumps(recipe.document())) == document  # nothing changed on the way in, tuples apart
    assert Recipe.loads(recipe.dumps()) == recipe


@pytest.mark.parametrize("best", ["accuracy", "samples", "both"])
def test_a_criterion_with_what_it_needs_survives_toml(best: str) -> None:
    recipe = Recipe.loads(MINIMAL, overrides=[f"log.best={best}", "log.validate_samples=50"])
    assert (recipe.log.best, recipe.validates_samples) == (best, True)
    assert Recipe.loads(recipe.dumps()) == recipe


@pytest.mark.parametrize("override", ["log.validate_samples=0", "log.validate_every=0", "stages.0.objective.kind=center-regression"])
def test_without_samples_validation_or_chains_no_samples_are_validated(override: str) -> None:
    assert not Recipe.loads(MINIMAL, overrides=["log.validate_samples=50", override]).validates_samples


def test_a_table_that_does_not_say_its_kind_is_of_the_usual_one() -> None:
    recipe = Recipe.loads(MINIMAL, overrides=["chains.target.std=0.1", "model.head.radius=5"])
    assert recipe.chains.target == StagedLatent(std=0.1) and recipe.model.head == MaxMahalanobis(radius=5.0)


def test_samplers_and_starts_are_chosen_by_their_kind() -> None:
    plain = Recipe.loads(MINIMAL).chains
    assert (plain.start, plain.sampler) == (Uniform(), SGLD())
    chosen = Recipe.loads(
        MINIMAL, overrides=["chains.start.kind=class-gaussian", "chains.start.rank=40", "chains.sampler.kind=fixed-length"]
    )
    assert (chosen.chains.start, chosen.chains.sampler) == (ClassGaussian(rank=40), FixedLength(step_size=0.5))
    assert Recipe.loads(MINIMAL, overrides=["chains.start.kind=gaussian"]).chains.start == Gaussian(rank=256)


def test_a_minimal_recipe_writes_out_every_default() -> None:
    text = Recipe.loads(MINIMAL).dumps()
    for key in ("seed = 1", "buffer_size = 100000", 'kind = "max-mahalanobis"', "max_loss = 10000.0", "[log]", "channels_last = true"):
        assert key in text


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_loads_and_is_named_like_its_file(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8")
    assert Recipe.load(name).name == name
    assert text.startswith("# ")  # `gmmc recipes ls` shows the first line
    assert Recipe.loads(Recipe.load(name).dumps()) == Recipe.load(name)


@pytest.mark.parametrize("name", shipped())
def test_the_overrides_that_a_shipped_recipe_suggests_are_valid(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8")
    for together in re.findall(r"\(((?:--set [\w.]+=[\w.]+ ?)+)\)", text):
        assert Recipe.load(name, re.findall(r"--set (\S+)", together)) != Recipe.load(name)


def test_the_discriminative_recipes_are_the_first_stages_of_the_joint_ones() -> None:
    for dis, joint in (("folder_dis", "folder_joint"), ("cifar10_small_dis", "cifar10_small_joint")):
        alone, first = Recipe.load(dis), Recipe.load(joint)
        assert (alone.stages, alone.model, alone.data, alone.guard) == (first.stages[:1], first.model, first.data, first.guard)


def test_imagenet_has_features_and_slots_for_its_classes() -> None:
    recipe = Recipe.load("imagenet64_joint")
    recipe.check(1000)
    recipe.model.check_head(1000)
    assert recipe.chains.slots(1000) == 100 and recipe.chains.dtype == "uint8"
    with pytest.raises(ValueError, match="1000 class means need at least 999 features"):
        Recipe.load("imagenet64_joint", ["model.backbone.width=15"]).check(1000)


def test_the_demo_is_shipped() -> None:
    assert "digits_gen" in shipped()


LINEAR = "model.head.kind=linear"
BAD: dict[str, tuple[list[str], str, str]] = {
    "unknown top-level key": (["sead=3"], "unknown key `sead`", "did you mean `seed`?"),
    "unknown key": (["chains.sampler.step_sise=0.1"], "unknown key `chains.sampler.step_sise`", "did you mean `step_size`?"),
    "unknown key of a kind": (["data.source.kind=npz", "data.source.pth=x"], "unknown key `data.source.pth`", "did you mean `path`?"),
    "unknown key like no other": (["log.zzz=1"], "unknown key `log.zzz`", "valid here: every, preview_every"),
    "kind where there are none": (["data.kind=digits"], "unknown key `data.kind`", "did you mean `data.source.kind`?"),
    "wrong kind": (["data.source.kind=mnits"], "unknown kind 'mnits' for `data.source`", "did you mean 'mnist'?"),
    "wrong only kind": (["chains.sampler.kind=sgdl"], "unknown kind 'sgdl' for `chains.sampler`", "did you mean 'sgld'?"),
    "kind like no other": (["model.head.kind=42"], "unknown kind 42 for `model.head`", "one of: max-mahalanobis, lda, linear"),
    "kind that is a list": (["model.head.kind=[]"], "unknown kind [] for `model.head`", "one of: max-mahalanobis, lda, linear"),
    "nesterov alone": (
        ["optim.kind=sgd", "optim.momentum=0", "optim.nesterov=true"],
        "`optim`: nesterov looks ahead along the momentum; set momentum, 0.9 say",
        "",
    ),
    "a key of the other optimiser": (["optim.kind=sgd", "optim.betas=[0.9, 0.99]"], "unknown key `optim.betas`", "valid here: kind,"),
    "three betas": (["optim.betas=[0.9, 0.9, 0.9]"], "`optim.betas", ""),
    "a stage's optimiser without kind": (["stages.0.optim.learning_rate=0.1"], "`stages.0.optim` needs a kind", "one of: adam, sgd"),
    "no kind": (
        ["stages.0.objective={ beta = 0.1 }"],
        "`stages.0.objective` needs a kind",
        "one of: cross-entropy, center-regression, contrastive-divergence",
    ),
    "string for integer": (["data.batch_size=many"], "`data.batch_size` must be an integer, got 'many'", ""),
    "float for integer": (["data.batch_size=64.0"], "`data.batch_size` must be an integer, got 64.0", ""),
    "boolean for integer": (["seed=true"], "`seed` must be an integer, got True", ""),
    "integer for boolean": (["data.flip=1"], "`data.flip` must be a boolean, got 1", ""),
    "string for number": (["optim.learning_rate='fast'"], "`optim.learning_rate` must be a number, got 'fast'", ""),
    "wrong choice": (["compute.precision=fp16"], "`compute.precision` must be 'fp32', 'bf16' or 'auto', got 'fp16'", ""),
    "bad list item": (["optim.milestones=[1, 2.5]"], "`optim.milestones.1` must be an integer, got 2.5", ""),
    "value for table": (["data.source=digits"], "`data.source` must be a table, got 'digits'", ""),
    "value for list of tables": (["stages=3"], "`stages` must be a list of tables, got 3", "write [[stages]]"),
    "value for list's table": (["stages.0=3"], "`stages.0` must be a table, got 3", ""),
    "NaN": (["optim.learning_rate=nan"], "`optim.learning_rate` must be", ""),
    "infinite": (["guard.max_loss=inf"], "`guard.max_loss` must be", ""),
    "negative": (["stages.0.epochs=0"], "`stages.0.epochs` must be greater than or equal to 1, got 0", ""),
    "more than int64": (["stages.0.epochs=" + "1" + "0" * 40], "`stages.0.epochs` must be less than 9223372036854775808, got 1000", ""),
    "one more than int64": (
        ["chains.sampler.n_steps=9223372036854775808"],
        "`chains.sampler.n_steps` must be less than 9223372036854775808",
        "",
    ),
    "more than float32": (["stages.0.objective.floor=1e39"], "`stages.0.objective.floor` must be less than or equal to 34028", ""),
    "a factor that is none": (["guard.lr_factor=1e200"], "`guard.lr_factor` must be less than or equal to 1, got 1e+200", ""),
    "a name longer than a file's": (["name=" + "n" * 201], "only, 200 bytes at most", ""),
    "radius 0": (["model.head={kind='max-mahalanobis', radius=0.0}"], "`model.head.radius` must be greater than 0, got 0.0", ""),
    "radius < 0": (["model.head={kind='lda', radius=-1.0}"], "`model.head.radius` must be greater than 0, got -1.0", ""),
    "probability > 1": (["chains.reinit_prob=1.5"], "`chains.reinit_prob` must be less than or equal to 1, got 1.5", ""),
    "a key of an earlier version": (
        ["chains.sampler.adapt=0.8"],
        "`chains.sampler.adapt` was removed",
        "delete it; give chains.sampler.step_size a fixed value",
    ),
    "another": (["chains.fresh_step_scale=2.0"], "`chains.fresh_step_scale` was removed", "delete it; set the step size of fresh chains"),
    "a key of another sampler": (["chains.sampler={kind='fixed-length', clip=1.0}"], "unknown key `chains.sampler.clip`", "valid here: "),
    "rank 0": (["chains.start={kind='gaussian', rank=0}"], "`chains.start.rank` must be greater than or equal to 1, got 0", ""),
    "another start": (["chains.start.kind=normal"], "unknown kind 'normal' for `chains.start`", "did you mean 'uniform'?"),
    "depth": (["model.backbone={kind='wide-resnet', depth=12}"], "`model.backbone`: depth must be 6 n + 4 with n >= 1, got 12", ""),
    "no stages": (["stages=[]"], "a recipe needs at least one [[stages]] table", ""),
    "blank name": (["name=my recipe"], "name 'my recipe' becomes part of a folder's name", ""),
    "empty name": (["name="], "name '' becomes part of a folder's name", ""),
    "ramp longer than stage": (["stages.0.ramp_epochs=3"], "`stages.0`: ramp_epochs 3 is longer than the stage's 2 epochs", ""),
    "more classes than a simplex": (
        ["data.source.kind=cifar100", "model.backbone={kind='wide-resnet', width=1}"],
        "100 class means need at least 99 features, and a backbone of width 1 has 64; set model.backbone.width to 2 or more",
        "",
    ),
    "buffer not divisible": (
        ["chains.buffer_size=1234"],
        "chains.buffer_size 1234 does not divide by 10 classes; the nearest that does is 1230",
        "",
    ),
    "best by no samples": (["log.best=samples"], '`log`: best = "samples" needs samples at every validation; set validate_samples', ""),
    "best by no validation": (
        ["log.best=both", "log.validate_samples=50", "log.validate_every=0"],
        '`log`: best = "both" is found by validation, which never happens; set validate_every, 500 say',
        "",
    ),
    "best by samples without chains": (
        ["log.best=samples", "log.validate_samples=50", "stages.0.objective.kind=center-regression"],
        'log.best = "samples" needs samples, and no stage trains on chains; set log.best = "accuracy", or add a stage',
        "",
    ),
    "best by something else": (["log.best=fid"], "`log.best` must be 'accuracy', 'samples' or 'both', got 'fid'", ""),
    "linear head, latent target": (
        [LINEAR, "stages.0.objective.margin=0.0"],
        "chains.target staged-latent needs class means, which a linear head does not have; use conditional",
        "",
    ),
    "floor without a margin": (["stages.0.objective.margin=0.0", "stages.0.objective.floor=3.0"], "without a margin", ""),
    "linear head, margin": ([LINEAR, "chains.target.kind=conditional"], "with a linear head they may be: set margin = 0", ""),
    "linear head, center regression": (
        [LINEAR, "stages.0.objective.kind=center-regression"],
        "objective center-regression needs class means, which a linear head does not have; use cross-entropy",
        "",
    ),
}


@pytest.mark.parametrize(("overrides", "message", "hint"), BAD.values(), ids=BAD.keys())
def test_a_bad_recipe_is_told_key_and_remedy(overrides: list[str], message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.loads(MINIMAL, "my.toml", overrides)
    assert message in error.value.message
    assert error.value.message.endswith("(my.toml)")
    assert error.value.hint.startswith(hint) if hint else not error.value.hint
    assert error.value.exit_code == 2


def test_the_recipe_of_a_run_may_have_keys_of_earlier_versions_and_no_others() -> None:
    old = MINIMAL + '[chains]\nfresh_step_scale = 1.0\nsampler = { kind = "sgld", n_steps = 3, adapt = 0.8 }\n'
    assert Recipe.loads(old, of_run=True) == Recipe.loads(MINIMAL, overrides=["chains.sampler.n_steps=3"])
    with pytest.raises(RecipeError, match=r"unknown key `chains\.sampler\.adopt`"):
        Recipe.loads(old.replace("adapt", "adopt"), of_run=True)
    with pytest.raises(RecipeError, match=r"unknown key `chains\.sampler\.adapt`"):  # one key, whose name has dots
        Recipe.loads('"chains.sampler.adapt" = 0.8\n' + MINIMAL, of_run=True)


@pytest.mark.parametrize(("lost", "missing"), [('name = "minimal"', "name"), ("epochs = 2", "stages.0.epochs"), ("[[stages]]", "stages")])
def test_a_missing_key_is_named(lost: str, missing: str) -> None:
    text = MINIMAL.replace(lost, "")
    text = text if missing != "stages" else 'name = "minimal"'
    with pytest.raises(RecipeError, match=rf"^`{missing}` is missing \(recipe\)$"):
        Recipe.loads(text)


def test_a_toml_syntax_error_says_which_file_and_which_line() -> None:
    with pytest.raises(RecipeError, match=r"^my\.toml is not valid TOML: .*line 2"):
        Recipe.loads('name = "x"\nseed = \n', "my.toml")


def test_the_simplex_just_fits_at_one_feature_less_than_classes() -> None:
    recipe = Recipe.loads(MINIMAL, overrides=["model.backbone={kind='wide-resnet', width=1}"])
    recipe.check(65 if not recipe.needs_chains else 50)
    discriminative = Recipe.loads(
        MINIMAL, overrides=["model.backbone={kind='wide-resnet', width=1}", "stages.0.objective.kind=cross-entropy"]
    )
    discriminative.check(65)
    with pytest.raises(ValueError, match="66 class means need at least 65 features"):
        discriminative.check(66)


def test_a_recipe_without_chains_does_not_mind_its_buffer() -> None:
    overrides = ["chains.buffer_size=1234", "stages.0.objective.kind=center-regression"]
    assert not Recipe.loads(MINIMAL, overrides=overrides).needs_chains


def test_an_optimiser_is_of_either_kind_and_a_stage_may_have_its_own() -> None:
    recipe = Recipe.loads(MINIMAL, overrides=["optim.kind=sgd", "optim.nesterov=true", "stages.0.optim={kind='adam', betas=[0, 0.9]}"])
    assert recipe.optim == SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    assert recipe.stages[0].optim == Adam(betas=(0.0, 0.9))
    assert Recipe.loads(recipe.dumps()) == recipe


def test_what_has_no_value_is_not_written() -> None:
    recipe = Recipe.loads(MINIMAL)
    assert recipe.stages[0].optim is None
    assert "optim" not in recipe.document()["stages"][0]
    assert not any(value is None for value in flatten(recipe.document()).values())


def test_stage_at_walks_the_stages_and_their_ramps() -> None:
    first, second = Stage(2, CenterRegression()), Stage(5, ContrastiveDivergence(), ramp_epochs=4)
    recipe = Recipe("joint", (first, second), chains=Chains(buffer_size=100))
    assert recipe.epochs == 7
    expected = {0.0: (first, 1.0), 1.99: (first, 1.0), 2.0: (second, 0.0), 3.0: (second, 0.25), 4.5: (second, 0.625)}
    expected |= {6.0: (second, 1.0), 6.99: (second, 1.0)}
    assert {epoch: recipe.stage_at(epoch) for epoch in expected} == expected


def test_a_file_that_is_not_text_is_a_recipe_error(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"x\.toml cannot be read"):
        Recipe.load(tmp_path / "x.toml")
