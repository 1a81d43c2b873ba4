"""AdamW for a head of many voxels, one tile after another while its gradient is at hand: the head's gradient is never stored.

The update is that of ``torch.optim.AdamW``: decoupled weight decay, both moments corrected for their start at 0. It needs the
final gradient. So it goes together with a clip of the backbone's norm alone, not with a clip of the joint norm, a loss scaler, or
gradients that are summed over micro-batches or processes: every call of ``voxel_loss`` with a step is one update of the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from fastencode.errors import InputError

__all__ = ["HeadStep"]


class HeadStep:
    """What ``torch.optim.AdamW`` keeps of ``[weight, bias]``, for ``voxel_loss(..., step=this)``.

    Parameters
    ----------
    parameters : [(v, d) tensor] or [(v, d) tensor, (v,) tensor]
        The weight, and the bias if it is trained: the very tensors that ``voxel_loss`` gets. No other optimiser may have them.
    lr : float
        Rate of learning. The attribute may be set before each update, as may ``betas``, ``eps`` and ``weight_decay``.
    betas : (float, float)
        Shares of the old moments that are kept: of the gradient, of its square.
    eps : float
        Added to the square root of the second moment.
    weight_decay : float
        Each update first multiplies the parameters by 1 − lr · weight_decay.

    Raises
    ------
    InputError
        If a number is out of range, or the parameters have no voxels in common.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        shapes = [tuple(one.shape) for one in parameters]
        if len(shapes) not in (1, 2) or len(shapes[0]) != 2 or shapes[1:] not in ([], [shapes[0][:1]]):
            raise InputError(f"parameters of shapes {shapes}: give the weight (v, d), and the bias (v,) if it is trained")
        for name, value, top in (("lr", lr, math.inf), ("eps", eps, math.inf), ("weight_decay", weight_decay, math.inf)):
            if not 0.0 <= value < top:
                raise InputError(f"{name}={value}: give a finite number, 0 or more")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise InputError(f"betas={betas}: give two numbers from 0 to below 1")
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.moments = [[torch.zeros_like(one, requires_grad=False) for one in parameters] for _ in range(2)]
        self.updates = torch.zeros((), dtype=torch.float32, device=parameters[0].device)

    def check(self, weight: Tensor, bias: Tensor | None) -> None:
        """Raise ``InputError`` unless a loss of these can be stepped."""
        trained = [one for one in (weight, bias) if one is not None and one.requires_grad]
        if [id(one) for one in trained] != [id(one) for one in self.parameters]:
            shapes = [tuple(one.shape) for one in trained]
            raise InputError(
                f"the step holds other tensors than the {len(trained)} of shapes {shapes} that need a gradient: make "
                "HeadStep([weight, bias]) of the very tensors that voxel_loss gets, without a bias that needs no gradient"
            )
        if not torch.is_grad_enabled():
            raise InputError(
                "a step where gradients are off (torch.no_grad) would train on what is only evaluated: give step=None"
            )

    def advance(self) -> None:
        """Count one more update. Once before the tiles."""
        self.updates += 1.0

    def apply(self, here: slice, gradients: Sequence[Tensor]) -> None:
        """Update the voxels ``here`` by their gradients: (w, d), and (w,) if there is a bias. Under ``torch.no_grad``."""
        parts = [[one.detach()[here] for one in tensors] for tensors in (self.parameters, *self.moments)]
        before = [self.updates - 1.0 for _ in gradients]
        adamw(
            parts[0], list(gradients), parts[1], parts[2], [], before,
            fused=True, amsgrad=False, maximize=False, lr=self.lr, beta1=self.betas[0], beta2=self.betas[1],
            eps=self.eps, weight_decay=self.weight_decay,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """The number of updates and both moments: tensors, not copies. The settings (``lr`` and so on) are not among them."""
        names = ("weight", "bias")
        state = {"updates": self.updates}
        for moment, tensors in zip(("exp_avg", "exp_avg_sq"), self.moments, strict=True):
            state |= {f"{moment}.{name}": one for name, one in zip(names, tensors, strict=False)}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave, for parameters of the same shapes.

        Raises
        ------
        InputError
            If names or shapes differ.
        """
        own = self.state_dict()
        given, wanted = ({name: tuple(one.shape) for name, one in tensors.items()} for tensors in (state, own))
        if given != wanted:
            raise InputError(f"the state has {given}, this step has {wanted}: load the state of a head with as many voxels")
        with torch.no_grad():
            for name, one in own.items():
                one.copy_(state[name])
