"""The package against Faster R-CNN written in PyTorch; skipped without PyTorch."""

import pytest

pytest.importorskip("torch", reason="needs PyTorch: pip install 'frcnn_jax[parity]'")
