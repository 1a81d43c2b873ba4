"""The convolutions of wav2vec2, HuBERT and WavLM as matrix products, a stretch of sound after the other.

For a CPU: a convolution of a whole window reads and writes memory that no cache holds and that is new each time (the first makes
105 MB of 16 s), while what a stretch needs stays near. Frames lie row by row, so that the rows under a kernel, as far as its
stride, are one long row of a matrix that need not be made::

    y_fd = sum_j x[j : j + s f].reshape(f, s c)[:, : t c] @ W_j        stride s, taps j to j + t <= j + s of the kernel

Axis letters: b clip, n sample, f frame, c channel in, d channel out, k tap, j first tap of several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["frames_of", "under_a_frame"]

Layer = Callable[["torch.Tensor"], "torch.Tensor"]

STRETCH = 100  # frames made at a time: 2 s
_ROWS = 2**14  # frames of the first convolution whose moments are added up at a time


def frames_of(modules: Any, clips_bn: torch.Tensor) -> torch.Tensor:
    """What a feature extractor of these convolutions makes of clips.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        ``conv_layers`` of transformers' extractor: each a convolution, a norm or none, and an activation.
    clips_bn : tensor, shape (b, n)
        In the dtype of the modules, at least as long as one frame is wide; of any strides.

    Returns
    -------
    tensor, shape (b, f, d)
        As the extractor's, transposed; equal to rounding.
    """

    field, step = under_a_frame(*([getattr(module.conv, name)[0] for module in modules] for name in ("kernel_size", "stride")))
    count = (clips_bn.shape[1] - field) // step + 1
    clips_bn, rest = clips_bn.contiguous(), [_convolution(module) for module in modules[1:]]
    out_bfd = clips_bn.new_empty((len(clips_bn), count, modules[-1].conv.out_channels))
    for clip_n, out_fd in zip(clips_bn, out_bfd, strict=True):
        layers = [_normalized(modules[0], clip_n) if _has_group_norm(modules[0]) else _convolution(modules[0]), *rest]
        for start in range(0, count, STRETCH):
            stop = min(start + STRETCH, count)
            x = clip_n[start * step : (stop - 1) * step + field, None]
            for layer in layers:
                x = layer(x)
            out_fd[start:stop] = x
    return out_bfd


def under_a_frame(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Samples that a frame hears, and samples from one frame to the next."""
    field, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field, step = field + (kernel - 1) * step, step * stride
    return field, step


def _has_group_norm(module: Any) -> bool:
    import torch

    return isinstance(getattr(module, "layer_norm", None), torch.nn.GroupNorm)


def _convolution(module: Any) -> Layer:
    """A convolution with what follows it frame by frame, (n, c) → (f, d)."""
    import torch

    conv = module.conv
    (kernel,), (stride,), width = conv.kernel_size, conv.stride, conv.in_channels
    weight_kcd = conv.weight.permute(2, 1, 0)
    weights = [(j, weight_kcd[j : j + stride].reshape(-1, conv.out_channels)) for j in range(0, kernel, stride)]

    def run(x_nc: torch.Tensor) -> torch.Tensor:
        count, y_fd = (len(x_nc) - kernel) // stride + 1, conv.bias
        for j, weight in weights:
            under = x_nc[j:].as_strided((count, len(weight)), (stride * width, 1))
            y_fd = under @ weight if y_fd is None else torch.addmm(y_fd, under, weight)
        if hasattr(module, "layer_norm"):
            y_fd = module.layer_norm(y_fd)
        return module.activation(y_fd)

    return run


def _normalized(module: Any, clip_n: torch.Tensor) -> Layer:
    """The first convolution of a clip with the norm of each channel over the whole of it, (n, 1) → (f, d).

    A channel's mean and variance follow from those of the samples under the kernel, which are as many as it has taps; with them
    the norm is another weight and bias for this clip.
    """
    import torch

    conv, norm = module.conv, module.layer_norm
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    under_fk, weight_dk = clip_n.unfold(0, kernel, stride), conv.weight[:, 0].double()
    mean_k, covariance_kk = torch.zeros_like(weight_dk[0]), weight_dk.new_zeros(kernel, kernel)
    for some_fk in under_fk.split(_ROWS):
        mean_k += some_fk.double().sum(dim=0) / len(under_fk)
    for some_fk in under_fk.split(_ROWS):
        centered_fk = some_fk.double() - mean_k
        covariance_kk += centered_fk.T @ centered_fk / len(under_fk)
    variance_d = ((weight_dk @ covariance_kk) * weight_dk).sum(dim=1)
    scale_d = norm.weight.double() * (variance_d + norm.eps).rsqrt()
    bias_d = (norm.bias.double() - weight_dk @ mean_k * scale_d).float()
    scaled_kd = (weight_dk * scale_d[:, None]).T.float()

    def run(x_nc: torch.Tensor) -> torch.Tensor:
        y_fd = torch.addmm(bias_d, x_nc[:, 0].float().unfold(0, kernel, stride), scaled_kd)
        return module.activation(y_fd).to(x_nc.dtype)

    return run
