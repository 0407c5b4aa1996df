"""sparseformers: bootstrap a SparseFormer from a vision foundation model, and use it in the model's place.

The library mirrors the commands, with the same words as their options. What it offers is in ``__init__.pyi``, and each name is
imported when it is first asked for::

    teacher = sparseformers.load_teacher("timm:vit_base_patch16_224.augreg_in21k_ft_in1k")
    student, report, provenance = sparseformers.inherit(teacher)
    summary = sparseformers.bootstrap(teacher="bundled", data=["photos"], out="runs/first", minutes=60)
    student = sparseformers.load("runs/first")
    output = student(images)  # B x 3 x H x W in [0, 1] -> a SparseFormerOutput
    summary = sparseformers.embed(model="runs/first", data=["photos"], out="photos.parquet")
    report = sparseformers.evaluate("runs/first", "photos/validation")  # how near it is to its teacher
    page = sparseformers.view("runs/first", ["photos"])  # where it looks, in a page on this machine
    summary = sparseformers.export("runs/first", "first.onnx", format="onnx")
    fast = sparseformers.pack_weights(sparseformers.fold_embedding(student))  # images -> embeddings, sooner on a CPU
    student = sparseformers.create_model("sf_base_augreg", pretrained=True)  # as the authors released it
    student = timm.create_model("sf_base_augreg", pretrained=True, num_classes=10)  # and wherever timm's models are used
"""

import lazy_loader

from sparseformers import import_hooks

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0"

import_hooks.install()
