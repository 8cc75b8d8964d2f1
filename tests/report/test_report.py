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


def test_an_older_report_stays_where_a_file_is_bad(make, tmp_path):
    run = make("a", "A", -3.0, levels=1)
    out = tmp_path / "report.html"
    out.write_text("an older report")
    parts = {f"{part}_1": video(2, 4) for part in ("shift", "scale", "noise")}
    np.savez(run / "pictures.npz", frames=video(2, 5), **parts)
    with pytest.raises(ValueError, match=r"pictures\.npz: shift: expected 5 frames, got 4"):
        write_report([run], out)
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
