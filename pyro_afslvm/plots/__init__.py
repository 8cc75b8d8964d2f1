"""Pictures of flows, rollouts and training: arrays in, matplotlib figures or GIF bytes out.

Figures are drawn on ``matplotlib.figure.Figure`` objects, without pyplot and its state, at
the width they have on a page (96 pixels an inch), so that text has one size everywhere.
"""

from pyro_afslvm.plots.animation import animation as animation
from pyro_afslvm.plots.bands import anomaly_lines as anomaly_lines
from pyro_afslvm.plots.bands import forecast_bands as forecast_bands
from pyro_afslvm.plots.checks import blank_after as blank_after
from pyro_afslvm.plots.curves import Curves as Curves
from pyro_afslvm.plots.curves import motivating_example as motivating_example
from pyro_afslvm.plots.curves import training_curves as training_curves
from pyro_afslvm.plots.film import FlowLevel as FlowLevel
from pyro_afslvm.plots.film import FlowStep as FlowStep
from pyro_afslvm.plots.film import MomentStep as MomentStep
from pyro_afslvm.plots.film import flow_figure as flow_figure
from pyro_afslvm.plots.film import frame_strip as frame_strip
from pyro_afslvm.plots.images import image_grid as image_grid
from pyro_afslvm.plots.lines import flow_lines as flow_lines
from pyro_afslvm.plots.lines import forecast_lines as forecast_lines
from pyro_afslvm.plots.scores import score_curves as score_curves
from pyro_afslvm.plots.style import to_png as to_png

__all__ = [
    "Curves",
    "FlowLevel",
    "FlowStep",
    "MomentStep",
    "animation",
    "anomaly_lines",
    "blank_after",
    "flow_figure",
    "flow_lines",
    "forecast_bands",
    "forecast_lines",
    "frame_strip",
    "image_grid",
    "motivating_example",
    "score_curves",
    "to_png",
    "training_curves",
]
