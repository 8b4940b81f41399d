"""The policy as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from roadsense.export.graph import policy_graph, sign
from roadsense.files import write_bytes
from roadsense.policies.signature import ONNX_NAME, read_signature
from roadsense.policies.weights import read_weights


def export_onnx(run_dir: str | Path) -> Path:
    """Writes ``model.onnx`` beside the weights of a run folder and returns its path.

    The graph takes ``ego`` [batch, 4] and ``peers`` [batch, row, 8], raw values in the units of the features, and
    ``peer_mask`` [batch, row], any batch and any number of rows (also none). It divides by the scales, clips, and gives
    ``action`` [batch, 1], clipped. A network with a memory takes and gives its state as well. The signature travels in
    the file's metadata. The same weights give the same bytes, and all of them are in the one file. Rows that are not
    used hold zeros; where one holds NaN or infinity, the action is NaN or at a bound, so a reader refuses such input,
    as :class:`roadsense.policies.runtime.Policy` does.

    Raises:
        RoadsenseError: the weights cannot be read or the file cannot be written.
    """
    run_dir = Path(run_dir)
    signature = read_signature(run_dir)
    content = sign(policy_graph(signature, read_weights(run_dir, signature)), signature)
    write_bytes(run_dir / ONNX_NAME, content)
    return run_dir / ONNX_NAME
