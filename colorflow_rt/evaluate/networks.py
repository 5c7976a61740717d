"""Networks that some metrics need and that we may not ship: ONNX files that the user names.

A network takes one tensor f32[B,3,S,S], RGB in [0, 1] (it normalises itself), and its first output holds a row for each
picture: features for FID (Inception's pool3, as the usual FID networks give), one number for the aesthetic score.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from colorflow_rt.errors import EngineError, OptionError
from colorflow_rt.files import file_sha256
from colorflow_rt.pixels import U8, resize

Features = NDArray[np.float64]


class Network:
    """A picture u8[H,W,3] to a row f32[D]. side: of the square it is given where the file leaves that open.

    OptionError where the file is not there, EngineError where it cannot be used.
    """

    def __init__(self, path: Path, side: int) -> None:
        if not path.is_file():
            raise OptionError(f"no network at {path}: give the path of an ONNX file")
        self.sha256 = file_sha256(path)
        try:
            self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common base but Exception
            raise EngineError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._path, inputs = path, self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            raise EngineError(f"{path} does not take one picture: expected one input, float32 [B,3,S,S]")
        self._input = inputs[0].name
        height, width = inputs[0].shape[2:]
        self._size = (width if isinstance(width, int) else side, height if isinstance(height, int) else side)

    def __call__(self, rgb: U8) -> NDArray[np.float32]:
        picture = resize(rgb, self._size).astype(np.float32).transpose(2, 0, 1)[None] / 255
        try:
            found = self._session.run(None, {self._input: picture})[0]
        except Exception as error:
            raise EngineError(f"{self._path} failed: {' '.join(str(error).split())[:300]}") from error
        row: NDArray[np.float32] = np.asarray(found, np.float32).reshape(-1)
        return row


def frechet_distance(one: Features, two: Features) -> float:
    """FID of two sets of features f64[n,D] and f64[m,D] (Heusel et al. 2017): that of two normal distributions.

    The trace of the root of the product of both covariances is the sum of the singular values of A B^T, where A^T A and
    B^T B are the covariances: exact, and quick where pictures are fewer than features.
    """
    apart = one.mean(axis=0) - two.mean(axis=0)
    a, b = ((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (one, two))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(apart @ apart + (a * a).sum() + (b * b).sum() - 2 * root)
