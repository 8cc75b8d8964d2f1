"""Small real video files, whole and damaged."""

import wave
from pathlib import Path
from typing import Any

import av
import numpy as np

PIXELS = {"mjpeg": "yuvj420p", "ffv1": "gray"}


def write_video(path: Path, frames: np.ndarray, *, codec: str = "mpeg4", fps: int = 25) -> Path:
    """A small real file from frames (T, H, W) or (T, H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = PIXELS.get(codec, "yuv420p"), 4_000_000
        layout = "gray" if frames.ndim == 3 else "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=layout)))
        container.mux(stream.encode())
    return path


def scene(count: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A bright disc that moves over a soft background."""
    y, x = np.mgrid[:height, :width]
    centres = 20 + np.arange(count)[:, None, None] * 2 % (width - 40)
    disc = (x - centres) ** 2 + (y - height // 2) ** 2 < 15**2
    return np.where(disc, 230, 40 + x // 2).astype(np.uint8)


def write_clock(path: Path, count: int) -> Path:
    """A film without loss whose flat frames tell their time, whatever is cropped."""
    levels = (10 + np.arange(count)).astype(np.uint8)
    return write_video(path, np.repeat(levels, 48 * 64).reshape(count, 48, 64), codec="ffv1")


def times(frames: Any) -> list[int]:
    """The times of frames of :func:`write_clock`."""
    frames = np.asarray(frames)
    assert (frames == frames[:, :1, :1, :1]).all()
    return (frames[:, 0, 0, 0].astype(int) - 10).tolist()


def changing_size(path: Path) -> Path:
    """An AVI whose pictures change size half way."""
    write_video(path, scene(10), codec="mjpeg")
    small = write_video(path.with_suffix(".small.avi"), scene(10, 60, 80), codec="mjpeg")
    with av.open(str(path)) as a, av.open(str(small)) as b:
        out = path.with_suffix(".mixed.avi")
        with av.open(str(out), "w") as container:
            stream = container.add_stream_from_template(a.streams.video[0])
            packets = [p for c in (a, b) for p in c.demux(video=0) if p.size]
            for i, packet in enumerate(packets):
                packet.stream, packet.pts, packet.dts = stream, i, i
                container.mux(packet)
    return out


def bad_file(kind: str, folder: Path) -> Path:
    """A file of one kind of damage."""
    path = folder / f"{kind}.avi"
    if kind == "text":
        path.write_text("not a film\n" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zero":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
            container.start_encoding()
    elif kind == "sound":
        path = folder / "sound.wav"
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(b"\0" * 8000)
    elif kind == "sizes":
        path = changing_size(path)
    elif kind == "mp4":
        path = write_video(folder / "a.mp4", scene(60))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "small":
        write_video(path, scene(10, 16, 24))
    else:
        content = bytearray(write_video(path, scene(60)).read_bytes())
        half = len(content) // 2
        if kind == "flipped":
            content[half : half + 200] = bytes(b ^ 0x5A for b in content[half : half + 200])
        path.write_bytes(content[:half] if kind == "truncated" else content)
    return path
