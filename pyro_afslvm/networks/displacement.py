"""Frames moved by whole pixels: how well each displacement explains a frame, and what it gives."""

import torch
from torch import Tensor
from torch.nn import functional


def displaced_costs(now: Tensor, before: Tensor, *, reach: int, block: int) -> Tensor:
    r"""Mean squared difference of each block of a frame from the frame before, displaced.

    .. math:: c_{b,d} = \frac{1}{|b|} \sum_{p \in b} (x_{t}(p) - x_{t-1}(p + d))^2, \qquad
        d \in \{-R, \dots, R\}^2

    Args:
        now: ``(N, C, H, W)``, height and width multiples of ``block``.
        before: the same shape.
        reach: largest displacement R, in pixels.
        block: height and width of a block.

    Returns:
        ``(N, (2R + 1)^2, H / block, W / block)``.
    """
    height, width = now.shape[-2:]
    padded = functional.pad(before, (reach,) * 4)
    places = range(2 * reach + 1)
    costs = []
    for down in places:
        for right in places:
            change = now - padded[..., down : down + height, right : right + width]
            costs.append(functional.avg_pool2d(change.square(), block).mean(1))
    return torch.stack(costs, 1)


def displaced_means(frame: Tensor, weights: Tensor, *, reach: int, block: int) -> Tensor:
    r"""Average a frame over its displacements, with the weights of each block.

    .. math:: m_k(p) = \sum_d w_{k,b(p),d}\, x(p + d)

    Args:
        frame: ``(N, C, H, W)``.
        weights: ``(N, K, (2R + 1)^2, H / block, W / block)``, of each block's displacements,
            which add to one.
        reach: largest displacement R, in pixels.
        block: height and width of a block.

    Returns:
        ``(N, K, C, H, W)``.
    """
    count, channels, height, width = frame.shape
    rows, columns = height // block, width // block
    side = block + 2 * reach
    patches = functional.unfold(functional.pad(frame, (reach,) * 4), side, stride=block)
    patches = patches.reshape(count, channels, side, side, rows * columns)
    size = 2 * reach + 1
    windows = patches.unfold(2, size, 1).unfold(3, size, 1)  # (N, C, b, b, blocks, 2R+1, 2R+1)
    windows = windows.permute(0, 4, 1, 2, 3, 5, 6).flatten(5).flatten(2, 4).flatten(0, 1)
    ways = weights.permute(0, 3, 4, 2, 1).flatten(1, 2).flatten(0, 1)
    moved = torch.bmm(windows, ways.to(windows))
    moved = moved.reshape(count, rows, columns, channels, block, block, -1)
    return moved.permute(0, 6, 3, 1, 4, 2, 5).reshape(count, -1, channels, height, width)


@torch.no_grad()
def displacement_probabilities(
    now: Tensor, before: Tensor, *, reach: int, block: int, sharpness: float = 300.0
) -> Tensor:
    r"""Probabilities of the displacements of each block, from how well they explain the frame.

    .. math:: p_{b,d} \propto \exp(-\lambda \bar c_{b,d})

    with the costs of :func:`displaced_costs`, averaged with those of the blocks around. It is a
    feature: no gradient goes through it.

    Args:
        now: ``(N, C, H, W)``, height and width multiples of ``block``.
        before: the same shape.
        reach: largest displacement R, in pixels.
        block: height and width of a block.
        sharpness: :math:`\lambda`, of squared differences in units of the frames.

    Returns:
        ``(N, (2R + 1)^2, H / block, W / block)``; they add to one over displacements.
    """
    costs = displaced_costs(now, before, reach=reach, block=block)
    smooth = functional.avg_pool2d(costs, 3, 1, 1, count_include_pad=False)
    return torch.softmax(-sharpness * smooth, 1)


def likeliest_displacements(
    frame: Tensor, log_weights: Tensor, *, count: int, reach: int, block: int
) -> tuple[Tensor, Tensor]:
    """Displace a frame in the few likeliest ways of each block.

    Args:
        frame: ``(N, C, H, W)``.
        log_weights: of each block's displacements, ``(N, (2R + 1)^2, H / block, W / block)``.
        count: how many K of them.
        reach: largest displacement R, in pixels.
        block: height and width of a block.

    Returns:
        the displaced frames ``(N, C, H, W, K)`` and the logs of their weights, made to add to
        one over K, ``(N, H, W, K)``.
    """
    height, width = frame.shape[-2:]
    size = 2 * reach + 1
    logs, ways = log_weights.topk(count, 1)
    logs = logs.log_softmax(1)
    ways, logs = (x.repeat_interleave(block, -2).repeat_interleave(block, -1) for x in (ways, logs))
    rows = torch.arange(height, device=frame.device)[:, None] + ways // size
    columns = torch.arange(width, device=frame.device) + ways % size
    padded = functional.pad(frame, (reach,) * 4)
    places = (rows * padded.shape[-1] + columns).flatten(1).unsqueeze(1)  # (N, 1, K*H*W)
    moved = padded.flatten(2).gather(2, places.expand(-1, frame.shape[1], -1))
    moved = moved.unflatten(2, (count, height, width)).movedim(2, -1)
    return moved, logs.movedim(1, -1)
