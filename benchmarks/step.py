"""Compare steps of stage 1 and 2 at ViT-B shape with the official recipe's step."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import Options, Row, faster, in_turn, matmul_ceiling, release, seconds
from benchmarks.official import OfficialStep
from benchmarks.operations import PHASES, count
from raptor.data.digits import Digits
from raptor.data.sources import Activations, Online
from raptor.models.block import BlockConfig
from raptor.models.load import load
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.models.vit import ViTSpec
from raptor.partition.phases import Phase, phases_of
from raptor.tasks.distillation.losses import TokenMSE, WeightedTokenMSE
from raptor.tasks.distillation.task import Distillation
from raptor.training.allocator import keep_freed_memory
from raptor.training.execution import execute

WEIGHTS = {"cls": 0.45, "registers": 0.10, "patches": 0.45}
PHASE = Phase(*PHASES[0])  # the longest of Table 1
BASELINE = "official step"
VIT_B, VIT_L = "vit_base_patch14_reg4_dinov2", "vit_large_patch14_reg4_dinov2"


class Fixed(Distillation):
    """Distillation at one point of the annealing."""

    weight = 0.0

    def forcing_weight(self) -> float:
        """Return the weight that was set, at every step."""
        return self.weight


class Step:
    """Training steps on given activations: what Lightning calls, without Lightning.

    Parameters
    ----------
    teacher
        Gives the shell and the layout.
    blocks
        What to train; a whole partition is trained as a surrogate (stage 2), anything else block by block.
    bf16
        Whether under bf16 autocast.
    forcing
        Weight of teacher forcing.
    whole
        Whether the blocks are one surrogate.
    compile
        Whether blocks are compiled; None: on a GPU under bf16, as ``trainer=gpu_bf16`` does.
    fused
        Whether the optimiser is one kernel; a stand-in for a device has none.
    """

    def __init__(
        self,
        teacher: Teacher,
        blocks: PhaseBlocks,
        *,
        bf16: bool = False,
        forcing: float = 0.0,
        whole: bool = True,
        compile: bool | None = None,
        fused: bool = True,
    ) -> None:
        self.device = next(blocks.parameters()).device
        self.compiled = compile if compile is not None else bf16 and self.device.type == "cuda"
        execute(blocks, compile=self.compiled)
        model = Surrogate.of_teacher(teacher, blocks) if whole else blocks
        loss: Any = WeightedTokenMSE(**WEIGHTS) if whole else TokenMSE()
        self.task = Fixed(teacher, model, loss, top1=False, name="", optimizer=_adamw, schedule=None, seed=0)
        self.task.weight = forcing
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = _adamw(self.parameters, fused=fused, foreach=None if fused else False)
        self.bf16 = bf16

    def __call__(self, acts: Mapping[int, Tensor]) -> Tensor:
        """Train one step; return the loss before it."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            loss = torch.stack([self.task.student_loss(student, acts) for student in self.task.students]).sum()
        loss.backward()
        self.task.configure_gradient_clipping(self.optimizer, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


_adamw = functools.partial(torch.optim.AdamW, lr=3e-4, weight_decay=1e-4, fused=True)


def shape(*, quick: bool) -> dict[str, Any]:
    """Return the options of ViT-B/14 with registers at 224 pixels, or of a small ViT."""
    small = {"embed_dim": 48, "depth": 12, "num_heads": 3, "img_size": 28, "patch_size": 14, "reg_tokens": 4}
    big = {"img_size": 224, "num_classes": 0}
    return small | {"num_classes": 0} if quick else big


def random_teacher(options: Options, name: str = VIT_B) -> Teacher:
    """Make a ViT of timm at 224 pixels with random weights: time depends on shapes alone."""
    spec = ViTSpec(name, shape(quick=options.quick), (0.5,) * 3, (0.5,) * 3)
    torch.manual_seed(0)
    return Teacher(spec).to(options.device).eval().requires_grad_(requires_grad=False)


def spread(teacher: Teacher) -> Teacher:
    """Enlarge the random weights of the blocks, which timm starts so small that all layers are nearly the same."""
    with torch.no_grad():
        for name, parameter in teacher.blocks.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
            elif "gamma" in name:
                parameter.fill_(0.3)
    return teacher


def new_blocks(teacher: Teacher, phases: Sequence[Phase], **changes: Any) -> PhaseBlocks:
    """Make blocks of the paper's recipe, but with a LayerScale that lets their branches matter."""
    config = BlockConfig(teacher.width, teacher.num_heads, **{"layer_scale": 0.1, **changes})
    return PhaseBlocks(config, phases, seed=0).to(next(teacher.parameters()).device)


def activations(teacher: Teacher, batch: int) -> Activations:
    """Draw layers 0..L of noise, each ``(batch, N, D)``."""
    images = torch.randn(batch, *teacher.input_shape, device=next(teacher.parameters()).device)
    return Online().activations(teacher, images, range(teacher.num_layers + 1))


def run(options: Options) -> list[Row]:
    """Measure both stages by precision and batch, single choices, and the share of the ceiling."""
    if options.device.type == "cpu":
        keep_freed_memory()  # as trainer=cpu does; the baseline has it too
    teacher = random_teacher(options)
    k3 = phases_of([7, 10], teacher.num_layers)
    batches = [2] if options.quick else [4, 16] if options.device.type == "cpu" else [16, 64]
    rows = []
    for batch in batches:
        acts = activations(teacher, batch)
        rows += _against_official(teacher, k3, acts, options, f"stage 2, k=3, batch {batch}", 0.0)
    acts = activations(teacher, batches[0])
    for forcing, name in ((0.5, "both passes"), (0.0, "rollout")):
        rows += _against_official(
            teacher, [PHASE], acts, options, f"stage 1, {PHASE}, {name}, batch {batches[0]}", forcing
        )
    rows += _choices(teacher, k3, acts, options, batches[0])
    return [*rows, _agreement(options)]


def _against_official(
    teacher: Teacher, phases: list[Phase], acts: Activations, options: Options, what: str, forcing: float
) -> list[Row]:
    whole = len(phases) > 1
    ours = {
        "bf16" if bf16 else "fp32": Step(teacher, new_blocks(teacher, phases), bf16=bf16, forcing=forcing, whole=whole)
        for bf16 in (False, True)
    }
    theirs = OfficialStep(new_blocks(teacher, phases), teacher.layout, WEIGHTS if whole else None)
    runs: dict[str, Callable[[], object]] = {name: functools.partial(step, acts) for name, step in ours.items()}
    operations = count(runs["fp32"])
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    before = {name: matmul_ceiling(options.device, dtype, quick=options.quick) for name, dtype in dtypes.items()}
    times = in_turn({**runs, BASELINE: lambda: theirs(acts, forcing)}, options)
    rows = []
    for name, dtype in dtypes.items():
        ceiling = max(before[name], matmul_ceiling(options.device, dtype, quick=options.quick))
        share = operations / statistics.median(times[name]) / ceiling
        note = f"{operations / 1e12:.2f} TFLOP, {share:.0%} of the matmul ceiling of {ceiling / 1e12:.2f} TFLOP/s"
        note += ", compiled" if ours[name].compiled else ""
        rows.append(faster(f"{what}, {name}", name, BASELINE, times, note=note))
    release(options.device)
    return rows


def _choices(teacher: Teacher, phases: list[Phase], acts: Activations, options: Options, batch: int) -> list[Row]:
    """Compare each choice by itself with the same step without it."""
    rows, what = [], f"stage 2, k=3, batch {batch}"
    step = Step(teacher, new_blocks(teacher, phases), bf16=options.device.type == "cuda", compile=False)

    def unfused() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            step(acts)

    times = in_turn({"fused": lambda: step(acts), "attention unfused": unfused}, options)
    rows.append(faster(f"{what}, fused attention", "fused", "attention unfused", times))
    compiled = Step(teacher, new_blocks(teacher, phases), bf16=options.device.type == "cuda", compile=True)
    begin = seconds(lambda: compiled(acts), options.device)
    times = in_turn({"compiled": lambda: compiled(acts), "not compiled": lambda: step(acts)}, options)
    rows.append(faster(f"{what}, compile", "compiled", "not compiled", times, note=f"first step {begin:.0f} s"))
    return rows


def agreement(teacher: Teacher, images: Tensor, steps: int = 50) -> tuple[float, float, float]:
    """Compare losses of bf16 and fp32: largest relative difference, and the last of both."""
    acts = Online().activations(teacher, images, range(teacher.num_layers + 1))
    phases = phases_of([7, 10], teacher.num_layers)
    bf16, fp32 = (Step(teacher, new_blocks(teacher, phases), bf16=b) for b in (True, False))
    losses = [(float(bf16(acts)), float(fp32(acts))) for _ in range(steps)]
    return max(abs(a / b - 1) for a, b in losses), *losses[-1]


def _agreement(options: Options) -> Row:
    """Measure :func:`agreement` on a trained teacher: a random one's loss is mostly rounding."""
    teacher = freeze(load("package:digits_vit")).to(options.device)
    data = Digits()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    images = torch.stack([data.train_images[i][0] for i in range(32)]).to(options.device)
    steps = 3 if options.quick else 50
    worst, bf16, fp32 = agreement(teacher, data.normalize(images), steps)
    note = f"at most {worst:.2%} apart in {steps} steps"
    return Row("stage 2, k=3, digits ViT, loss of bf16 at the end", "fp32", bf16, fp32, "loss", fp32 / bf16, note)
