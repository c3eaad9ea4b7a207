"""Norms folded into the convolutions before them, for inference.

In evaluation a norm is a fixed factor and shift per channel, which a convolution can carry in its
weights. What feeds which norm is watched on one forward pass, so this works for any network here:
also for the head, whose convolutions are shared over levels while the norms are not. There each
norm gets a copy of the convolution. A convolution that somebody else reads as well, as FPN's P6,
keeps its norm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of `model`, in evaluation mode, without the norms that a convolution can carry.

    `images` (B, 3, H, W), as the model takes them, of any size: the pass that is watched. The copy
    gives the model's outputs up to rounding, and cannot be trained.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    watch = _Watch(twin)
    with torch.no_grad(), watch:
        watch.also_read(tree_leaves(twin(images)))
    feeds = {norm: conv for norm, conv in watch.feeds.items() if conv not in watch.read_elsewhere}
    fused = {norm: _fused(twin, conv, norm) for norm, conv in feeds.items()}
    for norm, convolution in fused.items():
        twin.set_submodule(norm, convolution)
    for conv in set(feeds.values()):
        twin.set_submodule(conv, nn.Identity())
    return twin


def _fused(model: nn.Module, conv_name: str, norm_name: str) -> nn.Conv2d:
    conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, _BatchNorm)
    return fuse_conv_bn_eval(conv, norm)


class _Watch(TorchFunctionMode):
    """Sees every operation: `feeds` is norm → the convolution that it reads, by name, and
    `read_elsewhere` the convolutions whose output goes to something else.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        modules = dict(model.named_modules())
        convs = {n: m.weight for n, m in modules.items() if isinstance(m, nn.Conv2d)}
        norms = {n: m.running_mean for n, m in modules.items() if isinstance(m, _BatchNorm)}
        self.names = {id(tensor): name for name, tensor in (convs | norms).items()}
        self.made: dict[int, tuple[str, Tensor]] = {}  # output → its convolution; kept alive
        self.feeds: dict[str, str] = {}
        self.read_elsewhere: set[str] = set()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        read = self._made_by(tree_leaves(args))
        if function is F.batch_norm and read:
            self.feeds[self.names[id(args[1])]] = read[0]
        elif any(isinstance(x, Tensor) for x in tree_leaves(result)):  # no question about the shape
            self.read_elsewhere.update(read)
        if function is torch.conv2d and id(args[1]) in self.names:
            self.made[id(result)] = self.names[id(args[1])], result
        return result

    def also_read(self, values: list[Any]) -> None:
        """What the model gives back is read by somebody, too."""
        self.read_elsewhere.update(self._made_by(values))

    def _made_by(self, values: list[Any]) -> list[str]:
        return [self.made[id(x)][0] for x in values if id(x) in self.made]
