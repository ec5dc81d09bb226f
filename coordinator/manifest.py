"""A checkpoint's manifest: what its data file must be, and all of its state that is not arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

# 1 was a data file alone, with the state in its metadata.
FORMAT = 2
_CHECKSUM = "manifest_sha256"


@dataclass(frozen=True)
class Manifest:
    """One checkpoint, without its arrays.

    Attributes:
        file: name of the data file, beside the manifest.
        nbytes: size of the data file.
        sha256: of the data file.
        step: t of the θ_t in it.
        state: the numbers of the state.
        origin: what its bits depend on beside the spec.
        spec: of the job, resolved.
    """

    file: str
    nbytes: int
    sha256: str
    step: int
    state: dict[str, Any]
    origin: dict[str, Any]
    spec: dict[str, Any]

    def render(self) -> bytes:
        """The manifest's file."""
        return _render({"format": FORMAT} | asdict(self))

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Reads a manifest's file.

        Raises:
            ValueError: it is of another format, or not byte for byte what was written.
        """
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise ValueError(f"its manifest is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError("its manifest is not a JSON object")
        if fields.get("format") != FORMAT:
            raise ValueError(f"its format is {fields.get('format')}, this version reads {FORMAT}")
        if fields.pop(_CHECKSUM, None) is None or _render(fields) != content:
            raise ValueError("its manifest has been altered")
        del fields["format"]
        return cls(**fields)


def _render(fields: dict[str, Any]) -> bytes:
    """JSON that ends in a checksum of the rest. Equal fields make equal bytes, so that not even a blank can change unseen."""
    checksum = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    return (json.dumps(fields | {_CHECKSUM: checksum}, indent=1) + "\n").encode()
