"""Students inside other libraries: timm, OpenCLIP, and Hugging Face's hub and multimodal language models."""
