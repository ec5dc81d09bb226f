"""Runs to report, and report.html read back as a browser would read it."""

import math
import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser

from shardsgd.coordinator.records import GradientNoise, StepRecord, Summary, ValidationRecord, VariancePoint
from shardsgd.spec import JobSpec

SVG = "{http://www.w3.org/2000/svg}"
NO_NOISE = GradientNoise(None, None, None, ())
VARIANCE = tuple(VariancePoint(rows, 0.9 / rows**1.05, 0.9 / rows) for rows in (32.0, 64.0, 128.0))
NOISE = GradientNoise(0.9, 0.0029, 314.2, VARIANCE, 240.0, 420.0, 0.85, 0.95, 0.0021, 0.0037)
SHA256 = "0123456789abcdef" * 4
TIMES = {
    "step_seconds": 0.01,
    "gather_seconds": 0.0001,
    "leaf_seconds": 0.0083,
    "reduce_seconds": 0.0003,
    "exchange_seconds": 0.0009,
    "update_seconds": 0.0004,
    "idle_seconds": 0.0012,
}
UNTIMED = dict.fromkeys(TIMES) | {"step_seconds": 0.02}  # as an older version wrote it


def job(**changes):
    return JobSpec(**{"name": "digits-mlp", "data": {"source": "digits"}, "stop": {"epochs": 30}} | changes)


def run(count, steps_per_epoch=6):
    """Steps and validations of a training whose loss falls by half every tenth of it."""
    steps = [
        StepRecord(
            step=step,
            epoch=step // steps_per_epoch,
            loss=2.5 * 0.5 ** (10 * step / count) + 0.01 * (step % 3),
            learning_rate=0.1 / math.sqrt(step + 1),
            gradient_norm=2.0 * 0.5 ** (8 * step / count),
            noise_trace=1.0,
            noise_scale=30.0 + step if step else None,
            **TIMES,
            noise_norm_squared=0.03,
            noise_scale_low=20.0 + step if step > 5 else None,
            noise_scale_high=40.0 + step if step > 10 else None,
            layer_norms={
                "layer0.weight": 1.0 * 0.5 ** (8 * step / count),
                "layer0.bias": 0.1 * 0.5 ** (8 * step / count),
                "layer1.weight": 1.7 * 0.5 ** (8 * step / count),
                "layer1.bias": 0.2 * 0.5 ** (8 * step / count),
            },
        )
        for step in range(count)
    ]
    validations = [
        ValidationRecord(
            step=step,
            epoch=step // steps_per_epoch,
            loss=2.6 * 0.5 ** (9 * step / count),
            accuracy=1 - 0.9 * 0.5 ** (5 * step / count),
        )
        for step in range(steps_per_epoch, count + 1, steps_per_epoch)
    ]
    return steps, validations


def summary(**changes):
    fields = {
        "name": "digits-mlp",
        "state": "SUCCEEDED",
        "reason": "30 epochs are done",
        "steps": 180,
        "epochs": 30.0,
        "train_loss": 0.02341,
        "validation": {"loss": 0.1042, "accuracy": 0.97361},
        "parameters_sha256": SHA256,
        "seconds": 83.4,
        "samples_per_second": 4211.3,
        "workers": 3,
        "recoveries": 17,
        "gradient_noise": NOISE,
    }
    return Summary(**fields | changes)


class Page(HTMLParser):
    """A page as elements, attributes and the text that is seen."""

    VOID = frozenset({"meta", "link", "img"})
    INLINE = frozenset({"span", "code"})

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.attributes = []
        self.open = []
        self.seen = []
        self.tags = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append("" if tag in self.INLINE else " ")
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.seen.append(data)

    @property
    def text(self):
        return " ".join("".join(self.seen).split())

    @property
    def pictures(self):
        """The inlined SVGs by title; parsing fails unless they are well-formed."""
        svgs = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", self.source, flags=re.DOTALL)]
        return {svg.get("aria-label"): svg for svg in svgs}

    @property
    def captions(self):
        return [unescape(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", self.source)]


def texts_of(svg):
    return ["".join(element.itertext()) for element in svg.iter(f"{SVG}text")]
