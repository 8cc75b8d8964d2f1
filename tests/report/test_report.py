"""Reports: what the page holds, which runs share a table, and bad run folders."""

import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pyro_afslvm.report import table_text, write_report

PROTOCOL = {
    "data": "moving digits, 16 x 16",
    "split": "test",
    "context_frames": 3,
    "scored_frames": 5,
    "noise": "normal, standard deviation 1/256",
    "num_samples": 1,
    "bound": "ELBO",
    "seed": 0,
    "versions": {"torch": "2.13.0"},
}
BITS = PROTOCOL | {"noise": "uniform over one grey level"}


def video(count, length, size=16):
    """Blobs that circle: (N, T, 1, H, W) in [0, 1]."""
    time = np.arange(length)[:, None, None] / 4 + np.arange(count)[:, None, None, None]
    y, x = np.mgrid[:size, :size]
    across, down = size * (0.5 + 0.3 * np.cos(time)), size * (0.5 + 0.3 * np.sin(time))
    return np.exp(-((x - across) ** 2 + (y - down) ** 2) / size)[:, :, None].astype(np.float32)


@pytest.fixture
def make(tmp_path):
    """Write a run folder: ``make("af1", "1-AF", -3.3, levels=1)``."""

    def write(folder, name, nats, *, levels=0, rollout=True, metrics=True, protocol=(), **results):
        path = tmp_path / folder
        path.mkdir(parents=True)
        values = {
            "name": name,
            "recipe": f"{folder}.py",
            "nats_per_dim": nats,
            "nats_per_dim_error": 0.02,
            "nats_per_dim_unit": nats + np.log(256),
            "bits_per_dim": -nats,
            "bits_per_dim_error": 0.03,
            "correlation_x": 0.75,
            "correlation_y": -0.2 if levels else None,
            "parameters": 335042,
            "train_seconds": 45.4,
            "train_steps": 1200,
            "protocol": PROTOCOL | dict(protocol),
            "protocol_bits": BITS,
        }
        (path / "results.json").write_text(json.dumps(values | results))
        (path / "settings.json").write_text(json.dumps({"learning_rate": 1e-3, "note": "<i>"}))
        if metrics:
            rows = [f"{s},{s / 20},{nats - 9 / (s + 1)}," for s in range(0, 100, 5)]
            rows[10] += f"{nats - 0.1}"
            header = "step,seconds,train_nats_per_dim,validation_nats_per_dim"
            (path / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
        pictures = {}
        if levels:
            pictures["frames"] = video(2, 6)
        for number in range(1, levels + 1):
            pictures |= {f"{part}_{number}": video(2, 6) for part in ("shift", "scale", "noise")}
        if rollout:
            samples = np.stack([video(2, 8)] * 2)
            pictures |= {"rollout_context": 3, "rollout_truth": video(2, 8)}
            pictures |= {"rollout_samples": samples}
        if pictures:
            np.savez(path / "pictures.npz", **pictures)
        return path

    return write


@pytest.fixture
def runs(make):
    return [
        make("copy", "copy-last-frame", -4.3, rollout=False, metrics=False),
        make("af1", "1-AF", -3.3, levels=1, protocol={"bound": "exact"}),
        make("slvm", "SLVM", -4.8),
        make("slvm_af2", "SLVM w/ 2-AF", -3.1, levels=2),
    ]


class Page(HTMLParser):
    """Tables as lists of rows of cell texts, images, and tags that were left open."""

    VOID = ("img", "meta", "link", "br", "input")

    def __init__(self, html):
        super().__init__()
        self.tables, self.images, self.bold, self.open, self.tags = [], [], [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if "b" in self.open and "td" in self.open:
            self.bold.append(data)


def written(runs, tmp_path, **options):
    out = tmp_path / "report.html"
    write_report(runs, out, **options)
    html = out.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    return html, page


def test_one_table_with_a_row_per_run(runs, tmp_path):
    _, page = written(runs, tmp_path)
    (table,) = page.tables
    assert table[0] == [
        "model",
        "nats/dim ↑",
        "bits/dim ↓",
        "corr x → y",
        "parameters",
        "training s",
    ]
    assert [row[0] for row in table[1:]] == ["copy-last-frame", "1-AF", "SLVM", "SLVM w/ 2-AF"]
    expected = ["1-AF", "−3.300 ± 0.020", "3.300 ± 0.030", "0.75 → −0.20", "335,042", "45"]
    assert table[2] == expected
    assert table[3][3] == "0.75"
    assert page.bold == ["−3.100 ± 0.020", "3.100 ± 0.030"]


def test_the_page_needs_nothing_else(runs, tmp_path):
    html, page = written(runs, tmp_path)
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert str(tmp_path) not in html


def test_every_image_decodes_and_says_what_it_is(runs, tmp_path):
    _, page = written(runs, tmp_path)
    frames = {}
    for image in page.images:
        kind, data = re.fullmatch(r"data:image/(png|gif);base64,(.*)", image["src"]).groups()
        picture = Image.open(BytesIO(b64decode(data, validate=True)))
        picture.load()
        assert picture.format.lower() == kind
        assert picture.width >= int(image["width"]) - 1
        frames[image["alt"]] = getattr(picture, "n_frames", 1)
    assert frames == {
        "Training curves of 1-AF, SLVM, SLVM w/ 2-AF": 1,
        "1-AF: frames, shift, scale and noise over time": 1,
        "SLVM w/ 2-AF: frames, shift, scale and noise over time": 1,
        **{
            f"{name}: truth and samples after 3 given frames{more}": count
            for name in ("1-AF", "SLVM", "SLVM w/ 2-AF")
            for more, count in (("", 8), (", as stills", 1))
        },
    }


def test_the_protocol_is_told_in_words(runs, tmp_path):
    html, _ = written(runs, tmp_path)
    for words in (
        "Protocol of nats/dim: data: moving digits, 16 x 16 · split: test · frames given: 3",
        "frames scored: 5 · dequantization: normal, standard deviation 1/256",
        "likelihood: ELBO (1-AF: exact)",
        "Protocol of bits/dim: as above, but",
        "dequantization: uniform over one grey level",
    ):
        assert words in html


@pytest.mark.parametrize(
    "other",
    [
        {"data": "another data set"},
        {"data": {"name": "moving digits", "size": 16}},
        {"split": "validation"},
        {"scored_frames": 10},
        {"noise": "normal, standard deviation 1/128"},
    ],
)
def test_protocols_that_cannot_be_compared_share_no_table(make, tmp_path, other):
    runs = [make("a", "A", -3.0), make("b", "B", -2.0, protocol=other), make("c", "C", -4.0)]
    html, page = written(runs, tmp_path)
    assert [[row[0] for row in table[1:]] for table in page.tables] == [["A", "C"], ["B"]]
    assert page.bold == ["−3.000 ± 0.020", "3.000 ± 0.030"]  # a lone run is no best
    assert "cannot be compared" in html
    first, second = table_text(runs).split("\n\n")
    assert "A " in first
    assert "C " in first
    assert "B " in second


def test_context_samples_bound_and_seed_may_differ_within_a_table(make, tmp_path):
    other = {"context_frames": 6, "num_samples": 100, "bound": "IWAE", "seed": 1, "versions": {}}
    html, page = written([make("a", "A", -3.0), make("b", "B", -2.0, protocol=other)], tmp_path)
    assert len(page.tables) == 1
    assert "frames given: 3 (B: 6)" in html


def test_a_protocol_of_names_and_objects_reads_as_words(make):
    data = {"name": "moving_digits", "size": 16, "background": None, "num_digits": 1}
    text = table_text([make("a", "A", -3, protocol={"data": data, "noise": "gaussian"})])
    flat = re.sub(r"\s+", " ", text)
    assert flat.startswith("moving digits, size 16, background none, num digits 1, test ─")
    assert "dequantization: gaussian, x = v/255 + N(0, (1/256)²) ·" in flat


def test_how_many_sequences_were_scored_is_told(make):
    runs = [make("a", "A", -3.0, num_sequences=100), make("b", "B", -3.1, num_sequences=100)]
    assert "sequences: 100" in re.sub(r"\s+", " ", table_text(runs))
    few = make("c", "C", -3.2, num_sequences=5)
    assert "sequences: 100 (C: 5)" in re.sub(r"\s+", " ", table_text([*runs, few]))


def test_bits_of_different_protocols_share_no_column(make):
    other = BITS | {"noise": "none"}
    text = table_text([make("a", "A", -3.0), make("b", "B", -2.0, protocol_bits=other)])
    assert "bits/dim (1) ↓" in text
    assert "bits/dim (2) ↓" in text
    a, b = (next(line for line in text.splitlines() if line.startswith(name)) for name in "AB")
    assert re.search(r"3.000 ± 0.030\s+–\s", a)
    assert re.search(r"–\s+2.000 ± 0.030\s", b)


def test_a_run_without_bits_has_a_dash(make):
    lone = make("a", "A", -3.0, bits_per_dim=None, protocol_bits=None)
    assert "bits/dim" not in table_text([lone])
    (row,) = [x for x in table_text([lone, make("b", "B", -2)]).splitlines() if x[:2] == "A "]
    assert re.search(r"-3.000 ± 0.020 +– +0.75", row)


def test_terminal_table_lines_up(runs):
    caption, rule, head, _, *rest = table_text(runs).splitlines()
    rows = rest[:4]
    assert caption == "moving digits, 16 x 16, test"
    assert rows[3].startswith("SLVM w/ 2-AF")
    assert rows[3].count("*") == 2
    assert sum(row.count("*") for row in rows) == 2
    assert {row.index("±") for row in rows} == {rows[0].index("±")}
    assert {len(line) for line in (rule, head, *rows)} == {len(rule)}


def test_names_titles_and_settings_are_escaped(make, tmp_path):
    run = make("a", "<b>bold</b> & co", -3.0, levels=1)
    html, page = written([run], tmp_path, title="<script>alert(1)</script>")
    assert page.tables[0][1][0] == "<b>bold</b> & co"
    assert page.bold == []
    assert "script" not in page.tags
    assert "&lt;i&gt;" in html


def test_runs_of_one_name_are_told_apart(make, tmp_path):
    runs = [make("seed0", "SLVM", -3.0), make("seed1", "SLVM", -3.1)]
    _, page = written(runs, tmp_path)
    assert [row[0] for row in page.tables[0][1:]] == ["SLVM (seed0)", "SLVM (seed1)"]


def test_a_run_with_results_alone_is_enough(make, tmp_path):
    run = make("copy", "copy-last-frame", -4.3, rollout=False, metrics=False)
    (run / "settings.json").unlink()
    html, page = written([run], tmp_path)
    assert page.images == []
    assert "Training</h2>" not in html


def test_what_cannot_be_drawn_of_a_run_is_noted_and_the_rest_is_shown(make, tmp_path):
    bad, good = make("a", "A", -3.0, levels=1), make("b", "B", -3.1, levels=1)
    parts = {f"{part}_1": video(2, 4) for part in ("shift", "scale", "noise")}
    np.savez(bad / "pictures.npz", frames=video(2, 5), **parts)
    (bad / "metrics.csv").write_text("step\n1\n")
    out = tmp_path / "report.html"
    assert write_report([bad, good], out) == [
        f"{bad / 'metrics.csv'}: expected numbers in columns step, seconds, train_nats_per_dim, "
        "validation_nats_per_dim",
        f"{bad / 'pictures.npz'}: shift: expected 5 frames, got 4",
    ]
    html = out.read_text(encoding="utf-8")
    assert "Not shown: A, pictures.npz: shift: expected 5 frames, got 4" in html
    assert str(tmp_path) not in html
    assert [row[0] for row in Page(html).tables[0][1:]] == ["A", "B"]
    assert len(Page(html).images) == 4  # curves, flow and rollout of B


def test_an_older_report_stays_where_a_file_is_bad(make, tmp_path):
    run = make("a", "A", -3.0, levels=1)
    out = tmp_path / "report.html"
    out.write_text("an older report")
    (run / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json: not valid JSON"):
        write_report([run], out)
    assert out.read_text() == "an older report"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_report_goes_into_a_new_folder_and_replaces_the_old_one(make, tmp_path):
    run = make("a", "A", -3.0, rollout=False)
    out = tmp_path / "new" / "report.html"
    write_report([run], out)
    out.write_text("old")
    write_report([run], out, title="A new title")
    assert "<h1>A new title</h1>" in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_curves_of_another_dequantization_share_no_axis(make):
    from pyro_afslvm.report.labels import load_runs
    from pyro_afslvm.report.pictures import curves

    folders = [make("af1", "1-AF", -3.3), make("discrete", "1-AF, discrete", -3.5)]
    (folders[1] / "settings.json").write_text(json.dumps({"training": {"noise": "uniform"}}))
    assert curves(load_runs(folders)).text == "Training curves of 1-AF"


# ---- what numbers say ----


def flat(runs):
    return re.sub(r"\s+", " ", table_text(runs))


def scores(values, units=None):
    units = [*range(len(values))] if units is None else units
    return {"nats_per_dim": [*values], "unit": units}


def test_differences_to_the_best_are_paired(make):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=20)
    first, second = -3 + shared, -3.2 + shared + 0.01 * rng.normal(size=20)
    runs = [
        make("a", "A", float(first.mean()), per_sequence=scores(first)),
        make("b", "B", float(second.mean()), per_sequence=scores(second)),
        make("c", "C", -4.0),
    ]
    a, b, c = (
        next(line for line in table_text(runs).splitlines() if line.startswith(name))
        for name in ("A ", "B ", "C ")
    )
    apart = second - first
    error = apart.std(ddof=1) / np.sqrt(20)
    assert f"{apart.mean():.3f} ± {error:.3f}" in b
    assert error < 0.01 < first.std() / np.sqrt(20)
    assert re.search(r"\* +0 ", a)
    assert re.search(r"-4.000 ± 0.020 +–", c)
    assert "Δ to best: less the value of A, paired by sequence" in flat(runs)


def test_differences_of_few_units_have_no_error(make):
    units = [0, 0, 1, 1, 2, 2]
    runs = [
        make("a", "A", -3.5, per_sequence=scores(np.arange(6.0) - 6, units), unit="video"),
        make("b", "B", -4.5, per_sequence=scores(np.arange(6.0) - 7, units), unit="video"),
    ]
    line = next(line for line in table_text(runs).splitlines() if line.startswith("B "))
    assert re.search(r"-4.500 ± 0.020 +-1.000 +4.500", line)


def test_a_conditional_figure_is_named_and_the_bound_stands_beside(make, tmp_path):
    whole = {
        "whole_nats_per_dim": -4.7,
        "whole_nats_per_dim_error": 0.04,
        "whole_bits_per_dim": 6.9,
        "whole_frames": 8,
    }
    bound = {"bound": "last 5 of 8 terms of an ELBO"}
    runs = [make("slvm", "SLVM", -4.8, protocol=bound, **whole), make("af", "1-AF", -3.0)]
    html, page = written(runs, tmp_path)
    head, slvm, flow = page.tables[0]
    assert head[1:3] == ["nats/dim ↑", "nats/dim of all frames ↑"]
    assert slvm[1:3] == ["−4.800 ± 0.020 ‡", "−4.700 ± 0.040 (8)"]
    assert flow[1:3] == ["−3.000 ± 0.020", "–"]
    assert slvm[head.index("bits/dim of all frames ↓")] == "6.900 (8)"
    assert "no lower bound on the likelihood of the scored frames" in html
    assert "last 5 of 8 terms of an ELBO" in flat(runs)
    assert "‡" not in table_text(runs[1:])


def test_bits_of_models_of_gaussian_noise_have_a_floor(make):
    real = {"protocol": {"noise": "gaussian"}, "protocol_bits": BITS | {"noise": "uniform"}}
    runs = [make(name, name, -3.0, bits_per_dim_floor=1.53, **real) for name in ("old", "new")]
    for run, trained in zip(runs, ("gaussian", "uniform"), strict=True):
        settings = {"training": {"dequantization": trained}}
        (run / "settings.json").write_text(json.dumps(settings))
    lines = {line[:3]: line for line in table_text(runs).splitlines()}
    assert re.search(r"-3.000 ± 0.020\*? +3.000 ± 0.030 †", lines["old"])
    assert re.search(r"-3.000 ± 0.020 †\*? +3.000 ± 0.030[* ]+0.75", lines["new"])
    words = flat(runs)
    assert "Gaussian noise have a floor of 1.53 bits/dim" in words
    assert "not comparable with those of the literature" in words
    assert "nats/dim of models trained on uniform noise are under Gaussian noise" in words
    assert "†" not in table_text([make("unknown", "unknown", -3.0, **real)])


def test_the_floor_is_about_where_it_was_not_measured(make):
    run = make("a", "A", -3.0, protocol={"noise": "gaussian"})
    (run / "settings.json").write_text(json.dumps({"training": {"noise": "gaussian"}}))
    assert "a floor of about 1.45 to 1.57 bits/dim" in flat([run])


def test_frames_of_two_transforms_stand_in_the_caption(make, tmp_path):
    runs = [make("a", "1-AF", -3.0), make("b", "2-AF", -2.9, protocol={"context_frames": 6})]
    caption = table_text(runs).splitlines()[0]
    assert caption.endswith("test, scored frames 4–8 (2-AF: 7–11)")
    html, _ = written(runs, tmp_path)
    assert f"<h3>{caption}</h3>" in html


def test_units_of_error_bars_are_told(make):
    runs = [make("a", "A", -3.0, num_sequences=40, num_units=9, unit="person")]
    assert "sequences: 40 · standard errors over: 9 persons" in flat(runs)
    few = make("b", "B", -3.0, nats_per_dim_error=None, num_units=1, unit="trajectory")
    assert "standard errors over: none of fewer than 5 units, here 1 trajectory" in flat([few])
    assert " ± " not in table_text([few]).splitlines()[4].split("3.000")[0]


def test_windows_are_part_of_the_protocol(make):
    one, every = ({"windows": name} for name in ("one", "all"))
    runs = [make("a", "A", -3.0, protocol=one), make("b", "B", -3.0, protocol=every)]
    assert len(table_text(runs).split("\n\n")) == 2
    assert "crops of a sequence: one" in flat(runs)
    assert "crops of a sequence: all that do not overlap" in flat(runs)
    old = make("c", "C", -3.0)  # of a release that did not say
    together = table_text([runs[0], old])
    assert len(together.split("\n\n")) == 1
    assert "crops of a sequence: one (C: as the data have it)" in re.sub(r"\s+", " ", together)


def test_correlations_have_a_table_of_their_own(make, tmp_path):
    more = {
        "train_correlation_x": 0.7,
        "train_correlation_y": -0.1,
        "absolute_correlation_x": 0.8,
        "absolute_correlation_y": 0.3,
        "moving_correlation_x": 0.5,
        "moving_correlation_y": 0.4,
        "absolute_correlation_of_noise": 0.05,
    }
    runs = [make("a", "1-AF", -3.0, levels=1, **more), make("b", "B", -4.0)]
    html, page = written(runs, tmp_path)
    assert page.tables[1] == [
        [
            "temporal correlation",
            "corr x → y, Eq. 31",
            "the same, training",
            "mean |corr|",
            "corr of moving entries",
        ],
        ["1-AF", "0.75 → −0.20", "0.70 → −0.10", "0.80 → 0.30", "0.50 → 0.40"],
        ["B", "0.75", "–", "–", "–"],
    ]
    assert "white noise has 0.05" in html
    assert "0.75 → -0.20   0.70 → -0.10" in re.sub(r" {4,}", "   ", table_text(runs))


def test_a_training_without_validation_has_a_curve_and_copying_a_sentence(make, tmp_path):
    run = make("af1", "1-AF", -3.3, baselines={"copy of the last frame": -3.0})
    rows = ["1,0.5,-4.0,nan", "2,1.0,-3.5,nan"]
    header = "step,seconds,train_nats_per_dim,validation_nats_per_dim"
    (run / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    out = tmp_path / "report.html"
    assert write_report([run], out) == []
    html = out.read_text(encoding="utf-8")
    assert "Training curves of 1-AF" in html
    assert "1-AF does not beat a copy of the last frame" in html
    assert "1-AF does not beat a copy of the last frame (-3.300 against -3.000" in table_text([run])


def test_headings_name_the_file_not_its_digits(make):
    data = {"name": "arrays", "content": "d964bee355df72c5", "frames": 20}
    run = make("a", "1-AF", -3.3, protocol={"data": data})
    source = {"class": "Arrays", "arguments": {"path": "/home/someone/wind.npy"}}
    (run / "settings.json").write_text(json.dumps({"source": source, "data": data}))
    heading = table_text([run]).splitlines()[0]
    assert heading == "wind.npy: arrays, frames 20, test"
    other = {"content": "0000000000000000"}  # scored on data that it was not trained on
    (run / "settings.json").write_text(json.dumps({"source": source, "data": data | other}))
    assert table_text([run]).splitlines()[0] == "arrays, frames 20, test"
