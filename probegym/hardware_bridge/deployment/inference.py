"""A verified bundle in ONNX Runtime, on one thread. Imported only where a policy runs."""

from __future__ import annotations

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment.bundle import Bundle

TOLERANCE = 1e-4  # of golden actions; processors round differently


class Inference:
    """A session that has given its golden actions. Raises ProbeGymError when it does not, or when ONNX Runtime refuses the graph."""

    def __init__(self, bundle: Bundle):
        try:
            import onnxruntime
        except ImportError as error:
            raise ProbeGymError("onnxruntime is not installed: pip install 'probegym[deploy]'") from error
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what it has to say comes as an exception
        self.bundle, self.names = bundle, list(bundle.outputs)
        try:
            self.session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
            for inputs, action in bundle.golden:
                self._check(inputs, action)
                self._check({name: array[:1] for name, array in inputs.items()}, action[:1])  # an instrument is one lane
        except ProbeGymError:
            raise
        except Exception as error:  # a graph that was let through and yet does not run: ONNX Runtime raises its own kinds
            reason = " ".join(str(error).split())
            raise ProbeGymError(f"policy {bundle.folder} is no usable policy ({reason[:200]}): export or reinstall it") from error

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, (lanes, ...) each: the action, then the memory for the next step."""
        return dict(zip(self.names, self.session.run(self.names, inputs), strict=True))

    def _check(self, inputs: dict[str, np.ndarray], action: np.ndarray) -> None:
        given = self.run(inputs)
        for name, (shape, _) in self.bundle.outputs.items():
            if given[name].shape != (len(action), *shape):
                raise ProbeGymError(f"policy {self.bundle.folder} gives {name} of shape {given[name].shape}, not {(len(action), *shape)}: export it again")
            if not np.isfinite(given[name]).all():
                raise ProbeGymError(f"policy {self.bundle.folder} gives {name} that is not finite on its recorded inputs: export it again")
        if not np.allclose(given["action"], action, rtol=0, atol=TOLERANCE):
            raise ProbeGymError(f"policy {self.bundle.folder} does not give its recorded actions on this machine: check onnxruntime")
