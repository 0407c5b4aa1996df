"""Embeds photographs with an exported student: numpy, Pillow and ONNX Runtime, no PyTorch and no sparseformers.

sparseformers export runs/first first.onnx --format onnx --with-preprocessing --data photos
python examples/run_onnx.py first.onnx photos/cat.jpg photos/dog.jpg
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for name in sys.argv[2:]:
    pixels = np.asarray(Image.open(name).convert("RGB"))[None]  # 1 x height x width x 3 bytes, of any size
    (answer,) = session.run(None, {"images": pixels})[0]  # an embedding, or with --output dense a map D x rows x columns
    print(name, *np.round(answer.ravel(), 4))
