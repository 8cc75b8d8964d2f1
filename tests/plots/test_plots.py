"""Figures and animations: sizes, labels, limits and bad input."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image, ImageSequence

from pyro_afslvm import plots
from pyro_afslvm.plots.style import GIVEN, PREDICTED
from tests.support.processes import run_python


def video(length=6, channels=1, size=32, phase=0.0):
    """A bright blob that circles: (T, C, H, W) in [0, 1]."""
    time = np.arange(length)[:, None, None, None] / 4 + phase
    y, x = np.mgrid[:size, :size][:, None, None]
    across, down = size * (0.5 + 0.3 * np.cos(time)), size * (0.5 + 0.3 * np.sin(time))
    blob = np.exp(-((x - across) ** 2 + (y - down) ** 2) / (size / 2))
    return blob * np.linspace(1, 0.5, channels)[:, None, None]


def step(frames):
    scale = 0.05 + 0.1 * frames
    shift = np.roll(frames, 1, axis=0)
    return plots.FlowStep(shift, scale, (frames - shift) / scale)


def decoded(png):
    image = Image.open(BytesIO(png))
    image.load()
    return image


def words(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_flow_figure_has_a_labelled_row_per_variable(channels, depth):
    frames = video(channels=channels)
    figure = plots.flow_figure(frames, [step(frames)] * depth)
    labels = [word for axes in figure.axes for word in words(axes)]
    assert [label.split()[0] for label in labels] == [
        "frame",
        *["shift", "scale", "noise"] * depth,
        "time",
    ]
    rows, bars = figure.axes[::2], figure.axes[1::2]
    assert len(rows) == len(bars) == 1 + 3 * depth
    lefts = {round(axes.get_position().x0, 9) for axes in rows}
    assert len(lefts) == 1
    assert [tick.get_text() for tick in rows[-1].get_xticklabels()] == list("123456")


def test_flow_figure_shows_a_shift_on_the_range_of_what_it_predicts():
    frames = video()
    first = step(frames)
    second = step(first.noise)
    figure = plots.flow_figure(frames, [first, second])
    ranges = [[tick.get_text() for tick in bar.get_yticklabels()] for bar in figure.axes[1::2]]
    assert ranges[0] == ranges[1] == ["0", "1"]
    assert ranges[3] == ranges[4] == [f"−{ranges[3][1]}", ranges[3][1]]


def test_flow_figure_pixels_are_the_frames():
    frames = np.stack([np.zeros((1, 8, 8)), np.ones((1, 8, 8))])
    drawn = plots.flow_figure(frames, []).axes[0].images[0].get_array()
    assert drawn.shape == (8, 17, 3)  # a gap of one pixel between two frames
    assert (drawn[:, :8] == 0).all()
    assert (drawn[:, 9:] == 1).all()


def test_flow_figure_survives_values_that_are_constant_or_not_finite():
    frames = np.full((3, 1, 8, 8), 0.5)
    noise = np.zeros_like(frames)
    noise[0, 0, 0] = np.inf
    broken = plots.FlowStep(frames, np.full_like(frames, np.nan), noise)
    assert decoded(plots.to_png(plots.flow_figure(frames, [broken])))


def test_png_is_as_wide_as_it_says():
    figure = plots.frame_strip({"truth": video(20), "sample": video(20)}, context=5)
    width, height = figure.get_size_inches()
    assert width == pytest.approx(9.6)
    assert decoded(plots.to_png(figure, dpi=100)).size == (960, int(height * 100))


def test_no_text_of_a_film_is_clipped():
    frames = video(10)
    small = plots.FlowStep(frames, frames * 1.234e-4, -2345.0 * frames)
    for figure in (
        plots.flow_figure(frames, [step(frames), small]),
        plots.frame_strip({"mean of 16": frames}, context=9),
    ):
        figure.canvas.draw()
        page = figure.bbox
        texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
        texts += [tick for axes in figure.axes for tick in axes.get_yticklabels()]
        assert texts
        for box in (text.get_window_extent() for text in texts if text.get_text()):
            assert box.x0 >= 0, box
            assert box.x1 <= page.x1, box
            assert box.y0 >= 0, box
            assert box.y1 <= page.y1, box


def test_frame_strip_marks_where_the_context_ends():
    rows = {"truth": video(8), "sample": video(8, phase=1.0)}
    marked, plain = plots.frame_strip(rows, context=3), plots.frame_strip(rows)
    assert [text.get_text() for text in marked.texts] == ["given", "predicted"]
    assert plain.texts == []
    given, predicted, edge = marked.artists
    assert given.get_xdata()[1] < edge.get_xdata()[0] < predicted.get_xdata()[0]
    page = marked.get_size_inches()[0]
    row = marked.axes[0].get_position()
    fraction = (edge.get_xdata()[0] / page - row.x0) / row.width
    assert fraction == pytest.approx(3 / 8, abs=0.005)


def test_frame_strip_labels_the_times_it_is_given():
    figure = plots.frame_strip({"truth": video(3)}, times=[1, 5, 9])
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["1", "5", "9"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "expected at least one row"),
        (
            {"truth": np.zeros((4, 32, 32))},
            r"truth: expected frames \(T, C, H, W\), got \(4, 32, 32\)",
        ),
        ({"truth": np.zeros((4, 0, 8, 8))}, r"got \(4, 0, 8, 8\)"),
        ({"truth": video(4), "sample": video(5)}, "sample: expected 4 frames, got 5"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        plots.frame_strip(rows)


def test_animation_has_a_slide_per_frame_and_loops():
    gif = Image.open(BytesIO(plots.animation({"truth": video(7), "sample 1": video(7)}, fps=5)))
    assert gif.n_frames == 7
    assert gif.info["loop"] == 0
    durations = [slide.info["duration"] for slide in ImageSequence.Iterator(gif)]
    assert durations == [200] * 6 + [1200]


@pytest.mark.parametrize(("size", "side"), [(16, 128), (32, 128), (48, 144), (64, 128), (200, 200)])
def test_animation_enlarges_frames_by_a_whole_factor(size, side):
    one = Image.open(BytesIO(plots.animation({"a": video(2, size=size)}))).size
    two = Image.open(BytesIO(plots.animation({"a": video(2, size=size), "b": video(2, size=size)})))
    three = np.stack([video(2, size=size)] * 3)
    tall = Image.open(BytesIO(plots.animation({"a": three})))
    assert two.size[0] - one[0] == side + 8 + 8  # borders and a gap
    assert tall.size[1] - one[1] == 2 * (side + 8 + 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_animation_borders_tell_given_from_predicted(channels):
    gif = Image.open(BytesIO(plots.animation({"truth": video(5, channels)}, context=2)))
    for number, slide in enumerate(ImageSequence.Iterator(gif)):
        image = np.asarray(slide.convert("RGB"))
        assert (image[0, 0] == 255).all()
        expected = np.array(to_rgb(GIVEN if number < 2 else PREDICTED)) * 255
        assert np.abs(image[26, 20] - expected).max() <= 4  # in the border above the frame


def test_animation_shows_the_values_of_the_frames():
    frames = video(4)
    gif = Image.open(BytesIO(plots.animation({"truth": frames})))
    gif.seek(3)
    shown = np.asarray(gif.convert("L"), dtype=float)[28 + 2 : 28 + 128 : 4, 12 + 2 : 12 + 128 : 4]
    assert shown.shape == (32, 32)
    assert np.abs(shown / 255 - frames[3, 0]).max() < 0.03


def test_animation_refuses_panels_of_different_shapes():
    with pytest.raises(ValueError, match="expected panels of one shape, but truth, sample differ"):
        plots.animation({"truth": video(4), "sample": video(5)})
    with pytest.raises(ValueError, match="at least one"):
        plots.animation({})


def learning(best, early=-1e4):
    steps = np.arange(0.0, 1000.0, 20.0)
    nats = best - np.exp(-steps / 100)
    nats[0] = early
    return steps, nats


def test_training_curves_are_not_flattened_by_early_values():
    figure = plots.training_curves({"steps": {"1-AF": learning(-3.0), "SLVM": learning(-4.5)}})
    low, high = figure.axes[0].get_ylim()
    assert -6 < low < -4.6
    assert -3 < high < -2.5


def test_training_curves_keep_one_good_curve_readable_beside_a_lost_one():
    steps, _ = learning(-3.0)
    curves = {"good": learning(-3.0), "lost": (steps, np.full_like(steps, -1e6))}
    figure = plots.training_curves({"steps": curves})
    assert figure.axes[0].get_ylim()[0] > -12
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["good", "lost (−1000000.00, off scale)"]


def test_training_curves_draw_baselines_and_a_near_ceiling():
    near = plots.training_curves(
        {"seconds": {"SLVM": learning(-1.6)}, "steps": {"SLVM": learning(-1.6)}},
        baselines={"copy-last-frame": -1.9, "far": -40.0},
    )
    labels = [text.get_text() for text in near.legends[0].get_texts()]
    assert labels == ["SLVM", "copy-last-frame", "far (−40.00, off scale)"]
    low, high = near.axes[0].get_ylim()
    assert low < -1.9 < high
    assert [axes.get_xlabel() for axes in near.axes] == ["seconds", "steps"]
    close = plots.training_curves({"steps": {"SLVM": learning(-1.43)}})
    assert [text.get_text() for text in close.legends[0].get_texts()] == ["SLVM", "noise ceiling"]


def test_training_curves_leave_out_empty_cells():
    seconds = np.array([0.0, 1.0, np.nan, 3.0])
    nats = np.array([-5.0, np.nan, -4.0, -3.5])
    figure = plots.training_curves({"s": {"a": (seconds, nats)}}, faint={"s": {"b": ([], [])}})
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [0.0, 3.0]
    with pytest.raises(ValueError, match="no curve has a finite value"):
        plots.training_curves({"s": {"a": (seconds[2:3], nats[2:3])}})


@pytest.mark.parametrize("shape", [(50, 1), (50, 2), (4, 50, 2)])
def test_motivating_example_titles_carry_the_correlations(shape):
    w = np.random.default_rng(0).normal(size=shape)
    u = w.cumsum(-2)
    figure = plots.motivating_example(u.cumsum(-2), u, w, correlations=(0.99, 0.9, -0.01))
    titles = [axes.get_title().split("\n")[1] for axes in figure.axes[:3]]
    assert titles == [f"temporal correlation {value}" for value in ("0.99", "0.90", "−0.01")]
    assert len(figure.axes) == (3 if shape[-1] == 1 else 6)
    last = figure.axes[-1].lines[0].get_ydata()
    assert np.array_equal(last, w.reshape(-1, *shape[-2:])[0, :, 0])


def test_pyplot_and_its_state_stay_out():
    program = "import sys, pyro_afslvm.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    run_python("-c", program)


def test_the_package_itself_loads_no_matplotlib():
    program = "import sys, pyro_afslvm, pyro_afslvm.report; sys.exit('matplotlib' in sys.modules)"
    run_python("-c", program)


def test_keywords_of_the_release_before() -> None:
    frames = np.zeros((3, 2))
    steps = [plots.FlowStep(frames, frames + 1, frames)]
    with pytest.warns(FutureWarning, match=r"flow_lines\(levels=\) is now steps=") as said:
        plots.flow_lines(frames, levels=steps)
    assert said[0].filename == __file__
    picture = np.zeros((3, 1, 8, 8))
    with pytest.warns(FutureWarning, match=r"flow_figure\(levels=\) is now steps="):
        plots.flow_figure(picture, levels=[plots.FlowStep(picture, picture + 1, picture)])
    with pytest.warns(FutureWarning, match=r"score_curves\(levels=\) is now calibrated="):
        plots.score_curves({"error": {"a": [1.0, 2.0]}}, ahead=[1, 2], levels={"error": 1.0})
