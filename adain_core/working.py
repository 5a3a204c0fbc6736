"""Pictures worked on at a smaller size, then enlarged again with the content's detail: strokes that fit the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .affine import coverage, shown
from .color import luma
from .crossing import to_device
from .errors import AdainError
from .images import check_pictures, check_size, resize_to, size_for
from .progress import tell
from .style import Style

AUTOMATIC = 1024  # pixels; larger pictures are worked on at this smallest side unless a person says otherwise


def check_detail(detail: float) -> None:
    """Raise AdainError for a share that is not in [0, 1]."""
    if not 0 <= detail <= 1:
        raise AdainError(f"detail is {detail}; it must be from 0 (none) to 1 (all of the content's).")


def reduced_size(size: Sequence[int], working_size: int) -> Sequence[int]:
    """The size (H, W) at which pictures of `size` are worked on."""
    return size_for(size, working_size) if 0 < working_size < min(size) else size


def reduced(content: Tensor, working_size: int) -> Tensor:
    """`content` `(B, C, H, W)` in [0, 1], its smallest side reduced to `working_size` pixels; 0, or a larger size, keeps it.

    Raises AdainError for a negative size, and for what are not pictures.
    """
    check_size(working_size)
    return shrunk(check_pictures(content, "content"), working_size)


def shrunk(content: Tensor, working_size: int) -> Tensor:
    """`reduced`, without its errors."""
    size = reduced_size(content.shape[2:], working_size)
    return content if tuple(size) == content.shape[2:] else resize_to(content, size)


def enlarged(
    stylized: Tensor, content: Tensor, small: Tensor, style: Style, alpha: float, detail: float, residual: bool = True
) -> Tensor:
    """`stylized` `(N, 3 or 4, h, w)`, the result for the `small` content, at the size of `content` `(N or 1, 3 or 4, H, W)`.

    Where `small` is the content itself, it is the result as it is. The content's transparency is taken; without `residual`,
    nothing of the content but its detail.
    """
    if small is content:
        return stylized
    size, count = content.shape[2:], len(stylized)
    covered = alpha * coverage(style.components, size) if residual else torch.ones(1, 1, 1, 1)
    result = stylized.new_empty(count, content.shape[1], *size).contiguous(memory_format=torch.channels_last)
    contents, smalls, coverages = (x.expand(count, -1, -1, -1) for x in (content, small, covered))
    tell(0, count)
    for index in range(count):  # one by one, to save memory
        one = slice(index, index + 1)
        picture, rgb = resize_to(stylized[one, :3], size), contents[one, :3].to(stylized)
        result[one, :3] = add_detail(picture, rgb, resize_to(smalls[one, :3].to(stylized), size), coverages[one], detail)
        result[one, 3:] = contents[one, 3:].to(stylized)
        tell(index + 1, count)
    return result


def add_detail(picture: Tensor, content: Tensor, blurred: Tensor, coverage: Tensor, detail: float) -> Tensor:
    """A stylised `picture` that was enlarged, with the `detail` that `content` has beyond its own enlarged copy, `blurred`.

    All are `(1, 3, H, W)`; `picture` and `blurred` are overwritten. Stylised pixels get that share of the detail's brightness.
    Where the `coverage` is less than 1, the content returns as it does in `decode`; where it is 0, it is the content itself.
    """
    beyond = blurred.neg_().add_(content)
    if (coverage == 1).all():  # asked where it is: a GPU would have to be waited for
        return picture.add_(luma(beyond), alpha=detail).clamp_(0, 1)
    coverage = to_device(coverage, picture.device)
    picture.addcmul_(coverage, luma(beyond), value=detail).addcmul_(1 - coverage, beyond)
    return shown(content, picture, coverage).clamp_(0, 1)
