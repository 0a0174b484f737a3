import copy
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch

from gmmcli.core.classifier import Classifier
from gmmcli.core.compute import Compute, bf16_speedup, has_fast_bf16
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Classifier:
    return Model(WideResNet(depth=10, width=1, init="kaiming")).build(4, 3, seed=0).eval()


@pytest.fixture
def restored_backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch.set_float32_matmul_precision(precision)


def has_gpu(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, False)
    assert Compute().select() == CPU


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, False)
    with pytest.raises(ValueError, match="device cuda was asked for"):
        Compute(device="cuda").select()


@pytest.mark.usefixtures("restored_backends")
def test_cpu_is_obeyed_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, True)
    assert Compute(device="cpu").select() == CPU
    assert not torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("restored_backends")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_is_taken_and_set_up_for_tf32(device: Literal["auto", "cuda"], monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, True)
    assert Compute(device=device).select() == torch.device("cuda")
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.benchmark


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_placing_sets_precision_and_layout_but_not_the_weights(
    precision: Literal["fp32", "bf16"], channels_last: bool, model: Classifier
) -> None:
    before = copy.deepcopy(model.state_dict())
    placed = Compute(precision=precision, channels_last=channels_last).place(model, CPU)
    assert placed is model and model.bf16 == (precision == "bf16")
    weight = model.backbone.get_parameter("blocks.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert all(torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())


def test_layout_does_not_change_the_logits(model: Classifier, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 8, 8, generator=generator)
    contiguous = Compute(channels_last=False).place(model, CPU)(images)
    torch.testing.assert_close(Compute(channels_last=True).place(model, CPU)(images), contiguous, rtol=1e-4, atol=1e-3)


COMPILED = """
import torch
from gmmcli.core.classifier import frozen
from gmmcli.core.compute import Compute
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet

model, answers = Model(WideResNet(depth=10, width=1, init="kaiming")).build(4, 3, seed=0), []
for compiled in (False, True):
    Compute(precision="fp32", compile=compiled).place(model, torch.device("cpu"))
    with frozen(model):
        x = torch.linspace(-1, 1, 384).view(2, 3, 8, 8).requires_grad_()
        logits = model(x)
        answers.append((logits.detach(), *torch.autograd.grad(logits.sum(), x)))
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-3)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_backbone_gives_the_same_logits_and_gradients() -> None:
    """In a process of its own: the compiler cannot see through the checks of shapes that tests add to every function."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")  # of the compiler's own imports
@pytest.mark.parametrize("asked", [True, False])
def test_the_backbone_is_compiled_where_that_is_asked_for(asked: bool, model: Classifier) -> None:
    Compute(compile=asked).place(model, CPU)
    assert (model.backbone._compiled_call_impl is not None) == asked
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("speedup", [0.1, 1.19, 1.2, 4.0])
def test_bf16_pays_where_the_cpu_has_instructions_for_it_and_they_are_clearly_faster(
    capabilities: dict[str, bool], native: bool, speedup: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr("gmmcli.core.compute.bf16_speedup", lambda: speedup)
    assert has_fast_bf16(CPU) is (native and speedup >= 1.2)


@pytest.mark.parametrize("native", [True, False])
def test_on_a_gpu_bf16_pays_where_it_is_native_however_busy_the_gpu_is(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr("gmmcli.core.compute.bf16_speedup", pytest.fail)
    assert has_fast_bf16(torch.device("cuda")) is native


def test_emulated_bf16_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr("gmmcli.core.compute.bf16_speedup", pytest.fail)
    assert not has_fast_bf16(CPU)


def test_the_speedup_is_measured_once_from_the_shortest_turn_of_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, took = [0.0], {torch.float32: iter([9.0, 6.0, 8.0, 7.0, 6.5, 9.0]), torch.bfloat16: iter([50.0, 4.0, 5.0, 3.0, 70.0, 8.0])}
    convolution = torch.conv2d

    def slow(images: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        clock[0] += next(took[images.dtype])
        return convolution(images, *rest, **more)

    monkeypatch.setattr(torch, "conv2d", slow)
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    bf16_speedup.cache_clear()
    assert [bf16_speedup(), bf16_speedup()] == [2.0, 2.0]
    monkeypatch.undo()
    bf16_speedup.cache_clear()
    assert bf16_speedup() > 0


KEEPS = """
import resource, torch
from gmmcli.core.compute import Compute

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**21) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = [faults_of_a_step() for _ in range(4)][-1]
Compute(device="cpu").select()
kept = [faults_of_a_step() for _ in range(4)][-1]
print(without, kept)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """16 tensors of 8 MiB are 32,768 pages, which the kernel clears at every step that gave them back."""
    answer = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, text=True, check=True)
    without, kept = map(int, answer.stdout.split())
    if without == 0:
        pytest.skip("this kernel does not count page faults (gVisor, for one)")
    assert kept < 100 < without


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_another_c_library_is_left_alone(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: object) -> None:
        raise error

    monkeypatch.setattr("ctypes.CDLL", none)
    assert Compute(device="cpu").select() == CPU


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_where_it_is_native(native: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.core.compute.has_fast_bf16", lambda device: native)
    assert Compute(precision="auto").resolved(CPU) == Compute(precision=precision)  # type: ignore[arg-type]
    assert Compute(precision="fp32").resolved(CPU).precision == "fp32"
    assert Compute(precision="bf16").resolved(CPU).precision == "bf16"


def test_the_probe_runs_in_one_thread_and_puts_the_number_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("gmmcli.core.compute._speedup", lambda: seen.append(torch.get_num_threads()) or 2.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert bf16_speedup.__wrapped__() == 2.0
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
