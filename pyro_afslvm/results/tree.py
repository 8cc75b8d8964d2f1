"""Inference, and its findings as one tree of labelled arrays."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import xarray as xr

from pyro_afslvm.moved import old_names
from pyro_afslvm.results.variables import Sequences, Variable, dataset

if TYPE_CHECKING:
    from torch import Tensor

    from pyro_afslvm.data import Protocol
    from pyro_afslvm.results.particles import Draws, Evidence

FORMAT = 1
GROUPS = (
    "posterior",
    "posterior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
    "constant_data",
)


def infer(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: "Tensor",
    *,
    num_samples: int = 100,
    num_chains: int = 1,
    num_particles: int = 1,
    horizon: int = 0,
    lengths: "Tensor | None" = None,
    context: "Tensor | None" = None,
    protocol: "Protocol | None" = None,
    chunk: int = 1,
    replicate: bool = True,
) -> xr.DataTree:
    r"""Posterior, evidence and forecasts of every sequence, in the groups of ArviZ.

    ``posterior``
        ``z``, draws from the guide (chain, draw, sequence, time, latent), and other latents with
        dimensions of their own, without time where a sequence has one of them; no such group
        without a guide.
    ``posterior_predictive``
        ``x`` (chain, draw, sequence, time, ...), the scored frames drawn anew from
        p(x | z) with that draw of z, for checks against ``observed_data``; with a horizon
        ``x_future`` (chain, draw, sequence, time_future, ...), what follows that draw
        of z. Where a sequence ends earlier, its future does too.
    ``log_likelihood``
        ``x`` (chain, draw, sequence): the marginal :math:`\log p(x_n)`, latents integrated
        out, from the importance weights of the particles of all *other* draws of all chains,

        .. math:: \log \frac{1}{(S - 1) K} \sum_{s' \ne s} \sum_k
            \frac{p(x_n, z_{s'k})}{q(z_{s'k} \mid x_n)}

        and ``x_step`` (chain, draw, sequence, time): :math:`\log p(x_t \mid x_{<t}, z)` of
        each draw's latents.
    ``sample_stats``
        of each draw ``lp`` = log p(x, z), ``log_q`` = log q(z | x), ``bound``, their
        difference; and, the same in all of them, ``log_evidence`` of each sequence, the bound
        with all C S K particles, and ``log_evidence_error``, its standard error.
    ``observed_data``, ``constant_data``
        the scored frames ``x``; the frames given, ``lengths`` and the ``mask`` of those
        that count.

    What ``az.loo`` makes of it: the parameters are fixed and each sequence has latents of its
    own, so what is left out with a sequence is the sequence with its latents, and its
    predictive density is the marginal :math:`p(x_n)`. The density given draws of z would
    score each sequence by latents that were inferred from that same sequence. Every draw's
    ``x`` is in expectation a lower bound of log p(x_n), and ``elpd_loo`` sums their smoothed
    harmonic means: at most their averages, and where k is good ``log_evidence``. So models are
    compared by the evidence of ``x``, which should be test data; a poor guide counts against
    its model. ``p_loo`` is then near zero, for no parameter was inferred from ``x``. Pareto k
    is that of the importance weights: above ArviZ's threshold a few particles carry the
    estimate, and it takes more of them, or a better guide. It takes at least 25 draws.
    Without latents every draw is the exact log p(x_n).

    Args:
        model: a Pyro program with site ``x`` and the plate ``sequence``.
        guide: a Pyro program for its latents; ``None`` for a model without.
        x: ``(batch, T, *frame_shape)``.
        num_samples: S, draws of the latents in each chain.
        num_chains: C, chains. Draws from a guide are independent, so they only group them, for
            what ArviZ says of chains: that r_hat is near one, and how far parts differ.
        num_particles: K, particles behind the evidence per draw, of which one is the draw.
        horizon: frames to forecast after each sequence.
        lengths: ``(batch,)`` whole numbers: frames of each sequence that count. Beyond them
            everything stored is NaN.
        context: covariates of all frames, those to come too,
            ``(batch, T + horizon, context_features)``.
        protocol: what the numbers mean; stored as JSON text.
        chunk: draws at a time; memory of the networks grows with it.
        replicate: whether to draw ``x`` anew: as much memory as C S copies of it.

    Raises:
        ValueError: for less than one draw, particle or draw at a time, a negative horizon,
            and as the model does.

    Source: Burda, Grosse, Salakhutdinov, *Importance Weighted Autoencoders*, arXiv:1509.00519;
    Vehtari, Gelman, Gabry, *Practical Bayesian Model Evaluation Using Leave-One-Out
    Cross-Validation and WAIC*, arXiv:1507.04544; Yao, Vehtari, Simpson, Gelman, *Yes, but Did
    It Work?: Evaluating Variational Inference*, arXiv:1802.02538, for k of the weights.

    >>> import torch
    >>> from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine
    >>> model = FlowModel(TemporalAffine(MLPConditioner(2, window=3)), (2,))
    >>> tree = infer(model, None, torch.randn(5, 13, 2), num_samples=4, horizon=2)
    >>> dict(tree["posterior_predictive/x_future"].sizes)
    {'chain': 1, 'draw': 4, 'sequence': 5, 'time_future': 2, 'feature': 2}
    """
    counts = {"num_samples": num_samples, "num_chains": num_chains}
    _check_counts(**counts, num_particles=num_particles, chunk=chunk)
    if horizon < 0:
        raise ValueError(f"expected horizon >= 0, got {horizon}")
    import torch

    from pyro_afslvm.models.inputs import as_context, as_frames, as_lengths
    from pyro_afslvm.models.programs import evaluating, given_context, one_line_errors
    from pyro_afslvm.results import particles, predictive

    x, lengths = as_frames(x, model, guide, lengths=lengths), as_lengths(lengths)
    context = as_context(context, model, x, horizon)
    past = None if context is None else context[:, : x.shape[1]]
    whole = model
    options: dict[str, Any] = {"num_draws": num_chains * num_samples, "chunk": chunk}
    with evaluating(model, guide), torch.no_grad(), one_line_errors():
        model, guide = given_context(model, past), given_context(guide, past)
        draws = particles.draw(model, guide, x, lengths=lengths, **options)
        evidence = _evidence(model, guide, x, draws, num_particles, chunk, lengths)
        sequences = Sequences.of(x, draws.step.shape[-1], lengths)
        groups = _groups(draws, evidence, sequences, exact=guide is None)
        given = (model, draws, x, sequences)
        found = {}
        if horizon:
            future = predictive.followed(
                whole, *given[1:], horizon=horizon, lengths=lengths, context=context, **options
            )
            found["x_future"] = future
        if replicate and (anew := predictive.replicated(*given, lengths=lengths, **options)):
            found["x"] = anew
        if found:
            groups["posterior_predictive"] = found
    tree = {n: dataset(groups[n], sequences, chains=num_chains) for n in GROUPS if n in groups}
    attrs = {"bound": "exact" if guide is None else "IWAE", "num_particles": num_particles}
    root = xr.Dataset(attrs=_attributes(protocol) | attrs)
    return xr.DataTree.from_dict({"/": root, **tree})


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def _evidence(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: "Tensor",
    draws: "Draws",
    num_particles: int,
    chunk: int,
    lengths: "Tensor | None",
) -> "Evidence":
    from pyro_afslvm.results import particles

    own = draws.log_joint - draws.log_q
    if guide is None:
        exact = own[0]
        return particles.Evidence(exact, exact.new_zeros(exact.shape), own)
    num_draws = len(own)
    more = [
        particles.log_weights(model, guide, x, num_draws=num_draws, chunk=chunk, lengths=lengths)
        for _ in range(num_particles - 1)
    ]
    return particles.evidence(own, *more)


_PER_DRAW = ("chain", "draw", "sequence")


def _groups(
    draws: "Draws", evidence: "Evidence", sequences: Sequences, *, exact: bool
) -> dict[str, dict[str, Variable]]:
    origin = "exact" if exact else "from the particles of the other draws"
    step = sequences.hidden(draws.step.numpy(), 0)
    groups = {
        "log_likelihood": {
            "x": _per_draw(evidence.others, f"log p(x), {origin}"),
            "x_step": Variable((*_PER_DRAW, "time"), step, "log p(x_t | x_<t, z)"),
        },
        "sample_stats": _sample_stats(draws, evidence),
        **_data(sequences),
    }
    if draws.latents:
        groups["posterior"] = _posterior(draws, sequences)
    return groups


def _per_draw(values: "Tensor", name: str) -> Variable:
    return Variable(_PER_DRAW, values.numpy(), name)


def _sample_stats(draws: "Draws", evidence: "Evidence") -> dict[str, Variable]:
    bound = draws.log_joint - draws.log_q
    total, error = (value.expand_as(bound) for value in evidence[:2])
    return {
        "lp": _per_draw(draws.log_joint, "log p(x, z)"),
        "log_q": _per_draw(draws.log_q, "log q(z | x)"),
        "bound": _per_draw(bound, "log p(x, z) - log q(z | x)"),
        "log_evidence": _per_draw(total, "log p(x) from all particles"),
        "log_evidence_error": _per_draw(error, "standard error of log_evidence"),
    }


def _posterior(draws: "Draws", sequences: Sequences) -> dict[str, Variable]:
    from pyro_afslvm.utils.precision import as_array

    found = {}
    for site, values in draws.latents.items():
        array, in_time = as_array(values), site in draws.in_time
        event = array.ndim - 2 - in_time
        dims = (*_PER_DRAW, *["time"] * in_time, *_latent_dims(site, event))
        shown = sequences.hidden(array, event) if in_time else array
        found[site] = Variable(dims, shown, f"{site} ~ q({site} | x)", "1")
    return found


def _latent_dims(site: str, event: int) -> tuple[str, ...]:
    """Names of the dimensions of a latent of one frame, or of one sequence."""
    if event == 1:
        return ("latent" if site == "z" else f"latent_{site}",)
    return tuple(f"latent_{site}_{axis}" for axis in range(event))


def _data(sequences: Sequences) -> dict[str, dict[str, Variable]]:
    scored = sequences.hidden(sequences.x[:, sequences.given :], len(sequences.dims))
    constant = {
        "lengths": Variable(("sequence",), sequences.lengths, "frames that count", "frame"),
        "mask": Variable(("sequence", "time"), sequences.mask, "whether a frame counts", "1"),
    }
    if sequences.given:
        dims = ("sequence", "time_context", *sequences.dims)
        given = sequences.x[:, : sequences.given]
        constant["context"] = Variable(dims, given, "frames given, not scored", "1")
    x = Variable(("sequence", "time", *sequences.dims), scored, "scored frames", "1")
    return {"observed_data": {"x": x}, "constant_data": constant}


def _attributes(protocol: "Protocol | None") -> dict[str, Any]:
    from pyro_afslvm.data import software_versions

    return {
        "format": FORMAT,
        "protocol": "null" if protocol is None else protocol.to_json(),
        "versions": json.dumps(software_versions() | {"xarray": xr.__version__}),
    }


__getattr__ = old_names(__name__)
